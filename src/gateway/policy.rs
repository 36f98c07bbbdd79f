//! What start-up asks of the privacy policy: that everything kept has a purpose, and what carries out what persons ask for.

use std::sync::Arc;

use super::{Gateway, notice};
use crate::assertion::AssertionCache;
use crate::audit::AuditTrail;
use crate::backup::Backups;
use crate::clock::Clock;
use crate::config::{Config, Finding, InForce};
use crate::keys::KeySet;
use crate::privacy::{Promises, Retention, RetentionParts, Statistics, Subjects, without_purpose};
use crate::rotation::Rotations;
use crate::session::Sessions;
use crate::store::{EmbeddedStore, StoreError};
use crate::telemetry::{ACCESS_FIELDS, Actor, METRIC_LABELS, SECURITY_FIELDS};
use crate::trace::SPAN_FIELDS;

/// Finds what is stored, logged or counted without a purpose.
///
/// # Errors
/// A finding for each; nothing may be.
pub(super) async fn check_purposes(config: &Config, store: &EmbeddedStore) -> Result<(), Vec<Finding>> {
    let at_store = |problem| config.finding("store.path", problem);
    let mut there = store.fields().await.map_err(|error| vec![at_store(error.to_string())])?;
    for (place, fields) in [
        ("log.access", ACCESS_FIELDS),
        ("log.security", SECURITY_FIELDS),
        ("metric", METRIC_LABELS),
        ("span", SPAN_FIELDS),
    ] {
        there.extend(fields.iter().map(|field| format!("{place}.{field}")));
    }
    let findings: Vec<Finding> = without_purpose(&there).into_iter().map(at_store).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// What carries out what persons ask for, on the store's ports.
fn subjects(
    store: &Arc<EmbeddedStore>,
    sessions: &Arc<Sessions<AssertionCache>>,
    (audit, backups): (&Arc<AuditTrail>, &Arc<Backups>),
    keys: &Arc<KeySet>,
    clock: &Arc<dyn Clock>,
    config: &Arc<InForce>,
) -> Arc<Subjects> {
    Arc::new(Subjects::new(
        Arc::clone(store) as _,
        Arc::clone(store) as _,
        Arc::clone(sessions),
        Arc::clone(audit),
        Arc::clone(backups),
        Arc::clone(keys),
        Arc::clone(clock),
        Arc::clone(config),
    ))
}

/// What carries the policy out; `with` are the audit trail, the ledger of backups, the clock and the configuration. Erasures that were broken off
/// are finished then.
///
/// # Errors
/// [`StoreError`]: nobody may be served before they are.
pub(super) async fn promises(
    store: &Arc<EmbeddedStore>,
    keys: &Arc<KeySet>,
    rotations: &Arc<Rotations>,
    sessions: &Arc<Sessions<AssertionCache>>,
    with: (&Arc<AuditTrail>, &Arc<Backups>, &Arc<dyn Clock>, &Arc<InForce>),
) -> Result<Promises, StoreError> {
    let (audit, backups, clock, config) = with;
    let subjects = subjects(store, sessions, (audit, backups), keys, clock, config);
    subjects.finish().await?;
    let statistics = Arc::new(Statistics::new(Arc::clone(store) as _));
    let retention = Arc::new(Retention::new(RetentionParts {
        bindings: Arc::clone(store) as _,
        rotations: Arc::clone(rotations),
        sessions: Arc::clone(sessions),
        statistics: Arc::clone(&statistics),
        subjects: Arc::clone(&subjects),
        keys: Arc::clone(store) as _,
        backups: Arc::clone(backups),
        proofs: Arc::clone(store) as _,
        audit: Arc::clone(audit),
        clock: Arc::clone(clock),
        config: Arc::clone(config),
    }));
    let (canary, proofs) = (Arc::default(), Arc::clone(store) as _);
    Ok(Promises { subjects, statistics, retention, canary, proofs })
}

/// Keeps what people are told from this start on, before anybody is.
///
/// # Errors
/// [`StoreError`]: nobody may be served then.
pub(super) async fn tell(gateway: &Gateway) -> Result<(), StoreError> {
    let Gateway { notices, told, audit, clock, config, .. } = gateway;
    notice::put_in_force(&**notices, told, audit, &**clock, Actor::Gateway).await?;
    if let Some(doubt) = notice::doubt(config, told, &**notices).await? {
        tracing::warn!(doubt = doubt.problem, "notice.revision is doubtful");
    }
    Ok(())
}
