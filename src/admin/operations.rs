//! What the verbs work on; built by the gateway.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;

use super::access::Roles;
use super::approvals::ApprovalPolicy;
use super::process::Process;
use crate::assertion::AssertionCache;
use crate::audit::AuditTrail;
use crate::backup::Backups;
use crate::clock::Clock;
use crate::config::InForce;
use crate::entropy::Entropy;
use crate::keys::{KeySet, Lifecycle};
use crate::privacy::Promises;
use crate::receipt::Receipts;
use crate::rotation::{Drill, Rotations};
use crate::session::Sessions;
use crate::store::{ApprovalStore, BindingStore, KeyStore, NoticeStore, PinStore};
use crate::telemetry::Metrics;

/// The stages that the verbs call, and who may call which.
#[derive(Clone)]
pub struct Operations {
    /// Accounts, codes and bindings.
    pub bindings: Arc<dyn BindingStore>,
    /// PINs.
    pub pins: Arc<dyn PinStore>,
    /// Where every verb that changes something stands before it does.
    pub audit: Arc<AuditTrail>,
    /// Live sessions.
    pub sessions: Arc<Sessions<AssertionCache>>,
    /// Whose session keys make the keyed hashes of codes.
    pub keys: Arc<KeySet>,
    /// Wrapped keys.
    pub key_store: Arc<dyn KeyStore>,
    /// Rotations of the binding keys.
    pub rotations: Arc<Rotations>,
    /// What rehearses a leak of one of those.
    pub drill: Arc<Drill>,
    /// What waits for people.
    pub approvals: Arc<dyn ApprovalStore>,
    /// What changes the keys.
    pub lifecycle: Arc<Lifecycle>,
    /// What issues receipts of rotations.
    pub receipts: Arc<Receipts>,
    /// What carries the privacy policy out.
    pub promises: Promises,
    /// What people were told.
    pub notices: Arc<dyn NoticeStore>,
    /// Takes and destroys backups; hears of what was erased.
    pub backups: Arc<Backups>,
    /// The gateway's own uid, which has every role.
    pub own_uid: u32,
    /// Source of codes.
    pub entropy: Arc<dyn Entropy>,
    /// Source of `now`.
    pub clock: Arc<dyn Clock>,
    /// Counts codes and imported bindings.
    pub metrics: Arc<Metrics>,
    /// The configuration in force: who may call which verb, who approves, carriers and limits.
    pub config: Arc<InForce>,
    /// What the verbs ask of the process.
    pub process: Arc<dyn Process>,
    /// Fires when the gateway is told to stop.
    pub shutdown: CancellationToken,
}

impl Operations {
    /// How many people it takes, and who they are.
    pub(super) fn approval_policy(&self) -> ApprovalPolicy {
        ApprovalPolicy::new(self.own_uid, &self.config.config().admin)
    }
}

impl FromRef<Operations> for Arc<Roles> {
    fn from_ref(operations: &Operations) -> Self {
        Self::new(Roles::new(operations.own_uid, operations.config.config().admin.roles.clone()))
    }
}
