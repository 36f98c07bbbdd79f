//! The statement about a session that its upstream is sent: kept, or signed anew.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Gateway;
use super::session_check::Current;
use crate::assertion::{Assertion, Claims, UpstreamId, UpstreamIdentity};
use crate::clock::Timestamp;
use crate::config::{SubjectKind, UpstreamConfig};
use crate::entropy::random;
use crate::keys::sid;
use crate::refusal::Reason;

/// Why a statement is not at hand.
pub(super) enum NotAtHand {
    /// It has to be signed, which is waited for.
    Unsigned(Unsigned),
    /// None can be made.
    Refused(Reason),
}

/// What is to be signed.
pub(super) struct Unsigned {
    /// The index of the upstream.
    upstream: usize,
    id: UpstreamId,
    with_pin: bool,
}

impl Gateway {
    /// The statement about `current` for the upstream at this index: the session's own from before while it is in the first
    /// half of its life, a fresh one otherwise.
    pub(super) async fn assertion(
        &self,
        current: &Current,
        upstream: usize,
        now: Timestamp,
    ) -> Result<Assertion, Reason> {
        match self.assertion_at_hand(current, upstream, now) {
            Ok(assertion) => Ok(assertion),
            // Boxed: it is asked for once in half a minute.
            Err(NotAtHand::Unsigned(unsigned)) => Box::pin(self.fresh_assertion(current, unsigned, now)).await,
            Err(NotAtHand::Refused(reason)) => Err(reason),
        }
    }

    /// The same, unless it has to be waited for.
    pub(super) fn assertion_at_hand(
        &self,
        current: &Current,
        upstream: usize,
        now: Timestamp,
    ) -> Result<Assertion, NotAtHand> {
        let with_pin = current.has_pin(now, self.config.session.pin_for);
        let id = self.upstream_id(upstream).ok_or(NotAtHand::Refused(Reason::NoRoute))?;
        let signer = self.keys.signer();
        let kid = signer.kid().ok_or(NotAtHand::Refused(Reason::KeySuspended))?;
        let kept = current.state().fresh(id, kid, with_pin, now);
        kept.ok_or(NotAtHand::Unsigned(Unsigned { upstream, id, with_pin }))
    }

    pub(super) async fn fresh_assertion(
        &self,
        current: &Current,
        unsigned: Unsigned,
        now: Timestamp,
    ) -> Result<Assertion, Reason> {
        let Unsigned { upstream, id, with_pin } = unsigned;
        let upstream = self.config.upstreams.get(upstream).ok_or(Reason::NoRoute)?;
        let cache = current.state();
        let record = current.facts();
        let identity = if let Some(identity) = cache.identity(id) {
            identity
        } else {
            let subject = match upstream.subject {
                SubjectKind::Account => record.account.to_string(),
                SubjectKind::Pairwise => self.pairwise_subject(current, upstream).await?,
            };
            let sid = sid(&record.sid_seed, &upstream.audience);
            cache.remember_identity(id, UpstreamIdentity { subject, sid })
        };
        let claims = Claims {
            audience: &upstream.audience,
            subject: &identity.subject,
            sid: &identity.sid,
            auth_time: current.session().pin_at().filter(|_| with_pin).unwrap_or(record.created_at),
            with_pin,
        };
        // Asked again: it may have been replaced while the subject was read.
        let signer = self.keys.signer();
        let kid = signer.kid().ok_or(Reason::KeySuspended)?;
        let assertion = signer.sign(&self.issuer, &claims, &*self.entropy, now).map_err(|error| {
            tracing::error!(%error, "no assertion could be signed");
            Reason::Internal
        })?;
        cache.remember(id, kid, with_pin, &assertion, now);
        Ok(assertion)
    }

    async fn pairwise_subject(&self, current: &Current, upstream: &UpstreamConfig) -> Result<String, Reason> {
        let fresh = URL_SAFE_NO_PAD.encode(random::<16>(&*self.entropy));
        match self.bindings.subject(&current.facts().account, &upstream.name, fresh).await {
            Ok(Some(subject)) => Ok(subject),
            // The account was erased; its sessions are about to end.
            Ok(None) => Err(Reason::SessionExpired),
            Err(error) => {
                tracing::error!(%error, "no subject could be read");
                Err(Reason::StoreUnavailable)
            }
        }
    }
}
