//! The button's link: head -> session, one line a stage; no parsing, crypto or SQL.

use http::{Method, Response, StatusCode};
use thiserror::Error;
use zeroize::Zeroizing;

use super::Gateway;
use super::arrival::{Arrival, Held};
use super::form_token::Form;
use super::limits::{HandsetKey, TooOften};
use super::local_path::LocalPath;
use super::news::news_url;
use super::ticket::Ticket;
use super::unlock::Locked;
use super::url_session::{Delivery, KeepsNoCookies, Opened};
use super::visit::{Visit, query_value};
use crate::binding::{self, BindingError, BoundAccount, DigestError, Unproven};
use crate::body::Body;
use crate::carrier::IdentificationRefusal;
use crate::clock::Timestamp;
use crate::edge::{Client, ClientAddr, Scheme};
use crate::keys::KeySuspended;
use crate::pages::Page;
use crate::refusal::Reason;
use crate::session::{Opening, SessionSecret, TokenHash};
use crate::store::{Counted, StoreError, TokenTransport};
use crate::telemetry::{self, SecurityEvent};
use crate::trace::Stage;

/// Query parameter of the button's link that says by what to sign in, where that is not the handset alone.
const BY: &str = "by";
const BY_CODE: &str = "code";

/// Why a sign-in or an enrolment did not end in a session.
#[derive(Debug, Error)]
pub(super) enum SignInError {
    /// The button was not clicked: no form token.
    #[error("no form token")]
    NotAsked,
    /// The form token is spent, expired or another browser's.
    #[error("form token invalid")]
    FormToken,
    #[error(transparent)]
    Identification(#[from] IdentificationRefusal),
    #[error("too often")]
    TooOften(TooOften),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(transparent)]
    KeySuspended(#[from] KeySuspended),
    /// Unknown, suspended or revoked: the stages do not say which.
    #[error("not bound")]
    NotBound(HandsetKey),
    /// Bound under a key that has leaked, and the account has a PIN.
    #[error("the PIN is needed")]
    PinFirst(Box<Locked>),
    /// A code that was typed and not taken.
    #[error("code refused")]
    Code(HandsetKey, Reason),
    #[error("the key ring keeps moving")]
    Unsettled,
    /// Where the handset is, a cookie is required, and its browser keeps none.
    #[error("no cookies")]
    KeepsNoCookies,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no session for a handset that was just recognised or bound.
#[derive(Debug, Error)]
pub(super) enum NotOpened {
    /// Its binding was revoked, or its account suspended, meanwhile.
    #[error("not bound any more")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a handset that was recognised or bound comes in.
pub(super) enum Entry {
    /// By the session that was opened.
    Session(Opened),
    /// Over TLS, where a ticket opens one.
    Ticket(Ticket),
}

impl From<TooOften> for SignInError {
    fn from(too_often: TooOften) -> Self {
        Self::TooOften(too_often)
    }
}

impl From<KeepsNoCookies> for SignInError {
    fn from(_: KeepsNoCookies) -> Self {
        Self::KeepsNoCookies
    }
}

impl Gateway {
    /// `GET /_sekisho/login`: identifies the handset, because its person clicked, and opens a session.
    pub(super) async fn login(&self, visit: &Visit<'_>) -> Response<Body> {
        let to = LocalPath::parse(&query_value(visit.head, "to").unwrap_or_default());
        match self.sign_in(visit).await {
            Ok(entry) => self.enter(visit, &entry, &to),
            Err(error) => self.sign_in_refusal(visit, &to, error),
        }
    }

    async fn sign_in(&self, visit: &Visit<'_>) -> Result<Entry, SignInError> {
        self.slow_down(visit.client.address).await;
        self.rotations.sign_in_begins();
        let now = self.clock.now();
        self.spend_login_token(visit, now)?;
        let trace = &visit.arrival.trace;
        let identifier = {
            let _stage = trace.stage(Stage::Identify);
            self.config.carriers.identify(visit.head, &visit.client)?
        };
        let handset = self.limits.handset_key(&identifier);
        self.limits.sign_in(handset)?;
        let secret = SessionSecret::generate(&*self.entropy);
        let continuity = Opening::continuity_of(&secret, &identifier);
        // By value: from here on only the key ring can read the identifier.
        let candidates = {
            let _stage = trace.stage(Stage::Digest);
            self.keys.binding.digest(identifier).await?
        };
        let stage = trace.stage(Stage::Resolve);
        let resolved = binding::resolve(&*self.bindings, &self.keys.binding, candidates, now).await;
        drop(stage);
        let (bound, used) = match resolved {
            Ok(found) => found,
            Err(BindingError::NotBound) => return Err(SignInError::NotBound(handset)),
            Err(BindingError::Unproven(unproven)) => {
                return Err(self.lock(visit, *unproven, (secret, continuity), handset).await?);
            }
            Err(BindingError::Unsettled) => return Err(SignInError::Unsettled),
            Err(BindingError::Digest(error)) => return Err(error.into()),
            Err(BindingError::Store(error)) => return Err(error.into()),
        };
        self.limits.sign_in_to(bound.account())?;
        // Asked for by who has forgotten the PIN: with a code it can be set anew.
        if wants_code(visit) {
            return Err(SignInError::NotBound(handset));
        }
        // Together, so that both are in the commit that the handset waits for.
        let (noted, entered) = tokio::join!(
            used.note(&*self.bindings, &self.keys.binding),
            self.enter_with(visit, opening(bound, secret, continuity), handset)
        );
        if let Err(error) = noted {
            // It holds nobody up: the next sign-in notes it.
            tracing::warn!(%error, "the day of use was not noted, nor the record taken to the active key");
        }
        entered
    }

    /// What a form is bound to by which an identifier is read: to whom it was shown, and what they were told. Under another
    /// notice the page comes again, which tells that one.
    pub(super) fn told_to(&self, whom: &[u8]) -> Vec<u8> {
        [self.told.digest().as_slice(), whom].concat()
    }

    /// An identifier is read only after the click: a link without a token of ours, a prefetch, or a page elsewhere
    /// that makes the browser ask, signs nobody in.
    fn spend_login_token(&self, visit: &Visit<'_>, now: Timestamp) -> Result<(), SignInError> {
        if *visit.head.method() != Method::GET || !self.is_own_click(visit) {
            return Err(SignInError::NotAsked);
        }
        let token = query_value(visit.head, "t").ok_or(SignInError::NotAsked)?;
        let ours = self.forms.redeem(&token, Form::Login, &self.told_to(&visit.browser()), now);
        if ours { Ok(()) } else { Err(SignInError::FormToken) }
    }

    /// Makes a network beyond its rate wait; nobody is locked out.
    pub(super) async fn slow_down(&self, client: ClientAddr) {
        let delay = self.limits.slowdown(client);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// What a handset meets whose binding is under a leaked key: its PIN is asked for, or, where it has none or does not
    /// know it, a new enrolment code.
    async fn lock(
        &self,
        visit: &Visit<'_>,
        unproven: Unproven,
        (secret, continuity): (SessionSecret, [u8; 32]),
        handset: HandsetKey,
    ) -> Result<SignInError, StoreError> {
        if wants_code(visit) || self.pins.pin(unproven.account()).await?.is_none() {
            return Ok(SignInError::NotBound(handset));
        }
        Ok(SignInError::PinFirst(Box::new(Locked { unproven, secret, continuity, handset })))
    }

    /// Lets the handset that visits in: here, or by a ticket where this connection may carry no session.
    pub(super) async fn enter_with(
        &self,
        visit: &Visit<'_>,
        opening: Opening,
        handset: HandsetKey,
    ) -> Result<Entry, SignInError> {
        if self.hands_over(visit.client.scheme) {
            return Ok(self.hand_over(opening, handset));
        }
        self.open_here(visit, opening, handset).await.map(Entry::Session)
    }

    /// Opens the session of the handset that visits; a session that this browser had ends.
    pub(super) async fn open_here(
        &self,
        visit: &Visit<'_>,
        opening: Opening,
        handset: HandsetKey,
    ) -> Result<Opened, SignInError> {
        let delivery = self.delivery(visit.head, &visit.client, &visit.user_agent, true)?;
        let replaces = replaced_session(visit.arrival);
        let stage = visit.arrival.trace.stage(Stage::OpenSession);
        let opened = self.open_session(&visit.client, opening, delivery, replaces, self.clock.now()).await;
        drop(stage);
        match opened {
            Ok(opened) => Ok(opened),
            Err(NotOpened::Gone) => Err(SignInError::NotBound(handset)),
            Err(NotOpened::Store(error)) => Err(error.into()),
        }
    }

    /// Opens the session of a handset that was just recognised or bound; `replaces` ends with it, and so does what this
    /// handset's browser had in its URLs, since it has no cookie to be told by.
    pub(super) async fn open_session(
        &self,
        client: &Client,
        opening: Opening,
        delivery: Delivery,
        replaces: Option<TokenHash>,
        now: Timestamp,
    ) -> Result<Opened, NotOpened> {
        let binding = opening.binding;
        let transport = delivery.transport();
        let (secret, session) = self.sessions.open(opening, transport, replaces, &*self.entropy, now).await?;
        // A revocation or suspension between the look-up and this line found no session to end: look again.
        if !self.bindings.stands(binding).await? {
            self.sessions.end_one(session.facts().token_hash).await?;
            return Err(NotOpened::Gone);
        }
        let record = session.facts();
        for other in self.sessions.list(Some(&record.account), now) {
            let (theirs, in_url) = (other.facts(), other.transport() == TokenTransport::Url);
            if in_url && theirs.binding == binding && theirs.id != record.id {
                self.sessions.end_one(theirs.token_hash).await?;
            }
        }
        self.metrics.sign_in(&record.carrier);
        self.promises.statistics.count(Counted::SignIn, &record.carrier, now.day());
        let event = SecurityEvent::SignedIn { account: &record.account, carrier: &record.carrier };
        telemetry::security(&event, Some(client.address), self.config.privacy.client_address);
        let news = self.news.has_news(binding).await?;
        Ok(Opened { secret, delivery, news })
    }

    /// Every way in which signing in can fail, and what its person sees.
    pub(super) fn sign_in_refusal(&self, visit: &Visit<'_>, to: &LocalPath, error: SignInError) -> Response<Body> {
        match error {
            // A browser that loses the query of the button's link would be shown the button for ever.
            SignInError::NotAsked if visit.head.query().is_none() && !visit.user_agent.keeps_queries() => {
                self.refuse(visit, Reason::HandsetUnsupported)
            }
            SignInError::NotAsked => self.sign_in_page(visit, to, Reason::SignInRequired),
            SignInError::FormToken => self.sign_in_page(visit, to, Reason::FormTokenInvalid),
            SignInError::Identification(refusal) => self.refuse(visit, refusal.into()),
            SignInError::TooOften(TooOften { retry_after }) => self.refuse_for_now(visit, retry_after),
            SignInError::Digest(DigestError::Busy) => self.refuse_for_now(visit, std::time::Duration::from_secs(1)),
            SignInError::Digest(DigestError::KeySuspended) | SignInError::KeySuspended(KeySuspended) => {
                self.refuse(visit, Reason::KeySuspended)
            }
            SignInError::NotBound(handset) => self.enrolment_page(visit, to, handset, Reason::NotBound),
            SignInError::PinFirst(locked) => self.ask_pin(visit, to, *locked),
            SignInError::Code(handset, reason) => self.enrolment_page(visit, to, handset, reason),
            SignInError::KeepsNoCookies => self.refuse(visit, Reason::CookiesRequired),
            SignInError::Unsettled => self.refuse(visit, Reason::StoreUnavailable),
            SignInError::Store(error) => {
                tracing::error!(%error, "a sign-in could not be served");
                self.refuse(visit, Reason::StoreUnavailable)
            }
        }
    }

    /// The sign-in page for `to`, with a fresh button.
    ///
    /// In the clear a browser that could not follow its ticket over TLS gets no button. One that clicks has been there:
    /// what a User-Agent says is a claim, and the page with the button came over TLS.
    pub(super) fn sign_in_page(&self, visit: &Visit<'_>, to: &LocalPath, reason: Reason) -> Response<Body> {
        if self.hands_over(visit.client.scheme) && !visit.user_agent.speaks_tls12() {
            return self.refuse(visit, Reason::TlsUnsupported);
        }
        let login_url = self.login_url(visit, to);
        self.note_refusal(visit, reason);
        // Said beforehand; the button stays, because what a User-Agent says is a claim.
        let useless = !visit.reader.json && !visit.user_agent.keeps_queries();
        let because = if reason == Reason::SignInRequired && useless { Reason::HandsetUnsupported } else { reason };
        let page = Page::SignIn {
            login_url: &login_url,
            because: (because != Reason::SignInRequired).then_some(because),
            carrier: visit.carrier.map(|profile| profile.name().as_str()),
            retention_days: self.config.binding.retention_days,
            notice: &self.config.notice,
        };
        let mut answer = self.page(visit, reason.status(), &page);
        self.probe_cookies(visit, &mut answer);
        answer
    }

    /// The link of a button that signs in and goes on to `to`.
    fn login_url(&self, visit: &Visit<'_>, to: &LocalPath) -> String {
        let form_token = self.forms.issue(Form::Login, &self.told_to(&visit.browser()), &*self.entropy, visit.now);
        let origin = self.identifying_origin(visit);
        let url = format!("{origin}/_sekisho/login?to={}&t={form_token}", to.as_query_value());
        match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("{url}&{name}={value}"),
            None => url,
        }
    }

    /// The link for who has forgotten the PIN: to the field for an enrolment code, also of a handset that is bound.
    pub(super) fn code_url(&self, visit: &Visit<'_>, to: &LocalPath) -> String {
        format!("{}&{BY}={BY_CODE}", self.login_url(visit, to))
    }

    /// The page with the field for an enrolment code, for the handset that was just identified.
    ///
    /// Over TLS, where a binding went while its ticket was on the way, the form would post into the clear: browsers send
    /// `Origin: null` with such a post, and warn of it. There the button comes, which leads to the same form in the clear.
    fn enrolment_page(&self, visit: &Visit<'_>, to: &LocalPath, handset: HandsetKey, reason: Reason) -> Response<Body> {
        let origin = self.identifying_origin(visit);
        if !origin.is_empty() && visit.client.scheme == Scheme::Https {
            return self.sign_in_page(visit, to, reason);
        }
        let form_token = self.forms.issue(Form::Enrol, &self.told_to(handset.as_bytes()), &*self.entropy, visit.now);
        let action = match visit.carrier.and_then(|profile| profile.required_query()) {
            Some((name, value)) => format!("{origin}/_sekisho/enrol?{name}={value}"),
            None => format!("{origin}/_sekisho/enrol"),
        };
        self.note_refusal(visit, reason);
        let page = Page::Enrol {
            action: &action,
            form_token: &form_token,
            to: to.as_str(),
            because: (reason != Reason::NotBound).then_some(reason),
        };
        self.page(visit, reason.status(), &page)
    }

    /// Sends the browser to `to` with its new session, or to where its ticket opens one.
    pub(super) fn enter(&self, visit: &Visit<'_>, entry: &Entry, to: &LocalPath) -> Response<Body> {
        let opened = match entry {
            Entry::Session(opened) => opened,
            Entry::Ticket(ticket) => {
                return self.redirect_to(StatusCode::FOUND, &self.ticket_url(ticket, to), visit.client.scheme);
            }
        };
        let first = if opened.news { news_url(to) } else { to.as_str().to_owned() };
        let to = match self.links_to(opened, &visit.client, "/") {
            Some(links) => Zeroizing::new(links.local(&first)),
            None => Zeroizing::new(first),
        };
        let mut answer = self.redirect(visit, StatusCode::FOUND, &to);
        Self::give_cookie(&mut answer, opened, visit.client.scheme);
        answer
    }
}

/// A session of `bound`.
pub(super) fn opening(bound: BoundAccount, secret: SessionSecret, continuity: [u8; 32]) -> Opening {
    let by_code = bound.by_code();
    let (account, binding, carrier) = bound.into_parts();
    Opening { account, binding, carrier, secret, continuity, by_code, pin_at: None }
}

/// Whether the button was the one for who wants to type an enrolment code.
fn wants_code(visit: &Visit<'_>) -> bool {
    query_value(visit.head, BY).is_some_and(|by| by == BY_CODE)
}

/// The session that this browser has, or had.
pub(super) fn replaced_session(arrival: &Arrival) -> Option<TokenHash> {
    match arrival.held() {
        Held::Cookie(old) => Some(old.hash()),
        Held::Url(old) => Some(old.hash()),
        Held::Nothing | Held::Unusable => None,
    }
}
