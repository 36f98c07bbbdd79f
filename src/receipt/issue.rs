//! Issuing: each part once, when it is due or when somebody asks for it first.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use super::canary::{self, CanaryError, CanaryReport};
use super::document::{self, Approval, Circumstances, Facts, Part};
use super::seal::{ADDENDA, Unsealed};
use super::survey::survey;
use crate::binding::KeyId;
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::keys::KeySet;
use crate::store::{
    ApprovalRecord, ApprovalState, ApprovalStore, AuditStore, CanaryPhase, KeyState, KeyStore, ReceiptStore,
    RotationRecord, RotationState, RotationStore, StoreError,
};

/// What issues receipts, and follows the canaries that they tell of.
pub struct Receipts {
    /// Where receipts and canaries are kept.
    pub kept: Arc<dyn ReceiptStore>,
    /// The journals.
    pub rotations: Arc<dyn RotationStore>,
    /// The keys' records.
    pub key_records: Arc<dyn KeyStore>,
    /// Who agreed to what.
    pub approvals: Arc<dyn ApprovalStore>,
    /// Whose head a receipt names.
    pub audit: Arc<dyn AuditStore>,
    /// What looks canaries up, and what seals.
    pub keys: Arc<KeySet>,
    /// Source of canaries.
    pub entropy: Arc<dyn Entropy>,
    /// When this process started: what its memory still held of a key is gone with its end.
    pub process_started_at: Timestamp,
    /// Ids of the keys that were destroyed by then: this process never had them.
    pub destroyed_before: BTreeSet<String>,
}

/// Why there is no receipt.
#[derive(Debug, Error)]
pub enum IssueError {
    /// No such rotation.
    #[error("no rotation has that id")]
    NotFound,
    /// It is not done; a receipt is of one that is.
    #[error("the rotation is {}; its receipt is issued once the old key is drained", .0.as_str())]
    NotDone(RotationState),
    /// Canaries cannot be looked up for now.
    #[error(transparent)]
    Canary(#[from] CanaryError),
    /// Nothing can be signed for now.
    #[error(transparent)]
    Unsealed(#[from] Unsealed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Receipts {
    /// To be called before the step in which the new key of `rotation` becomes active: plants its canaries.
    ///
    /// # Errors
    /// [`CanaryError`]; the call may be repeated.
    pub async fn plant(&self, rotation: &RotationRecord, now: Timestamp) -> Result<(), CanaryError> {
        self.observe(rotation, &[CanaryPhase::Planted], now).await
    }

    /// To be called before a step in which the old key of `rotation` leaves the key ring or is no longer outermost, once
    /// every record is wrapped: the canaries are looked up under both keys, wrapped, and half of them sign in.
    ///
    /// # Errors
    /// [`CanaryError`]; the call may be repeated.
    pub async fn wrapped(&self, rotation: &RotationRecord, now: Timestamp) -> Result<(), CanaryError> {
        let phases = [CanaryPhase::Activated, CanaryPhase::Wrapped, CanaryPhase::Flattened];
        self.observe(rotation, &phases, now).await
    }

    /// The Merkle root over all bindings, of right before the new key becomes active, and of right before the rotation is
    /// done. What changes between this look and that step is not in it. Reads every record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn root(&self) -> Result<[u8; 32], StoreError> {
        Ok(survey(&*self.kept).await?.root())
    }

    /// Looks the canaries of `rotation` up, once a phase.
    async fn observe(
        &self,
        rotation: &RotationRecord,
        phases: &[CanaryPhase],
        now: Timestamp,
    ) -> Result<(), CanaryError> {
        // Keys of other purposes have no records, and no canaries.
        let Ok(from) = KeyId::parse(&rotation.from) else { return Ok(()) };
        for phase in phases {
            let which = (rotation.id.as_str(), from);
            canary::observe(&*self.kept, &self.keys.binding, which, *phase, &*self.entropy, now).await?;
        }
        Ok(())
    }

    /// To be called once `key` is destroyed: adds to the receipts of the rotations that took it out of use. What cannot be
    /// added now is added when somebody asks for the receipt.
    pub async fn key_destroyed(&self, key: &str, now: Timestamp) {
        let rotations = match self.rotations.rotations().await {
            Ok(rotations) => rotations,
            Err(error) => return tracing::warn!(%error, "no receipt was added to; it is when somebody asks for it"),
        };
        for rotation in
            rotations.iter().filter(|rotation| rotation.from == key && rotation.state == RotationState::Done)
        {
            if let Err(error) = self.issued(&rotation.id, now).await {
                tracing::warn!(%error, rotation = rotation.id, "nothing was added to its receipt; it is when somebody asks for it");
            }
        }
    }

    /// To be called once at start: adds to the receipts of destroyed keys that the process which had them is over. What
    /// cannot be added now is added when somebody asks for the receipt.
    pub async fn restarted(&self, now: Timestamp) {
        if self.destroyed_before.is_empty() {
            return;
        }
        if let Err(error) = self.add_restarts(now).await {
            tracing::warn!(%error, "no receipt tells of this start yet; it does when somebody asks for it");
        }
    }

    async fn add_restarts(&self, now: Timestamp) -> Result<(), IssueError> {
        for rotation in self.rotations.rotations().await? {
            let due = rotation.state == RotationState::Done && self.destroyed_before.contains(&rotation.from);
            if due && self.kept.document(&rotation.id, Part::Restarted.as_str()).await?.is_none() {
                self.issued(&rotation.id, now).await?;
            }
        }
        Ok(())
    }

    /// The receipt of `rotation` with its addenda. Issues what is due and was not issued yet; what was, stays as it is.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issued(&self, rotation: &str, now: Timestamp) -> Result<Map<String, Value>, IssueError> {
        let all = self.rotations.rotations().await?;
        let rotation = all.into_iter().find(|found| found.id == rotation).ok_or(IssueError::NotFound)?;
        if rotation.state != RotationState::Done {
            return Err(IssueError::NotDone(rotation.state));
        }
        let keys = self.key_records.keys().await?.keys;
        let key = |id: &str| {
            let missing = || StoreError::Corrupt(format!("key {id} of a rotation is not there"));
            keys.iter().find(|key| key.id == id).ok_or_else(missing)
        };
        let circumstances = self.circumstances(&rotation, now).await?;
        let facts = Facts {
            rotation: &rotation,
            from: key(&rotation.from)?,
            to: key(&rotation.to)?,
            circumstances: &circumstances,
            process_started_at: self.process_started_at,
            now,
        };
        let receipt = match self.kept.document(&rotation.id, Part::Receipt.as_str()).await? {
            Some(receipt) => receipt,
            None => self.issue(&facts).await?,
        };
        let mut document = parsed(&receipt)?;
        if facts.from.state == KeyState::Destroyed {
            let addendum = match self.kept.document(&rotation.id, Part::Destroyed.as_str()).await? {
                Some(addendum) => addendum,
                None => self.add(&facts, &receipt).await?,
            };
            let mut addenda = vec![Value::Object(parsed(&addendum)?)];
            if let Some(restarted) = self.add_restart(&facts, &receipt, &addendum).await? {
                addenda.push(Value::Object(parsed(&restarted)?));
            }
            document.insert(ADDENDA.to_owned(), Value::Array(addenda));
        }
        Ok(document)
    }

    /// Who agreed to what was done to the old key, and where the audit trail is.
    async fn circumstances(&self, rotation: &RotationRecord, now: Timestamp) -> Result<Circumstances, StoreError> {
        let approvals = given(&self.approvals.approvals(now).await?, &rotation.from);
        let audit_head = self.audit.audit_head().await?.map(|tip| (tip.seq, tip.hash.to_string()));
        Ok(Circumstances { approvals, audit_head })
    }

    async fn issue(&self, facts: &Facts<'_>) -> Result<String, IssueError> {
        let survey = survey(&*self.kept).await?;
        let canaries = self.canaries(facts, CanaryPhase::Drained).await?;
        let receipt = document::receipt(facts, &survey, &canaries, &self.keys.audit())?;
        self.keep(facts.rotation, Part::Receipt, receipt).await
    }

    async fn add(&self, facts: &Facts<'_>, receipt: &str) -> Result<String, IssueError> {
        let canaries = self.canaries(facts, CanaryPhase::Destroyed).await?;
        let addendum = document::addendum(facts, receipt, &canaries, &self.keys.audit())?;
        self.keep(facts.rotation, Part::Destroyed, addendum).await
    }

    /// What was, or is, to be said of the start after the destruction; `None` while the process that had the key may run,
    /// or where the clock says that this one started before it.
    async fn add_restart(
        &self,
        facts: &Facts<'_>,
        receipt: &str,
        destroyed: &str,
    ) -> Result<Option<String>, IssueError> {
        let kept = self.kept.document(&facts.rotation.id, Part::Restarted.as_str()).await?;
        let later = facts.from.dates.destroyed_at.is_some_and(|at| self.process_started_at > at);
        if kept.is_some() || !later || !self.destroyed_before.contains(&facts.from.id) {
            return Ok(kept);
        }
        let restarted = document::restarted(facts, receipt, destroyed, &self.keys.audit())?;
        self.keep(facts.rotation, Part::Restarted, restarted).await.map(Some)
    }

    async fn canaries(&self, facts: &Facts<'_>, phase: CanaryPhase) -> Result<CanaryReport, IssueError> {
        self.observe(facts.rotation, &[phase], facts.now).await?;
        Ok(CanaryReport::of(&self.kept.canaries(&facts.rotation.id).await?))
    }

    /// Of two callers the first is kept, and both get that one.
    async fn keep(&self, rotation: &RotationRecord, part: Part, document: String) -> Result<String, IssueError> {
        if self.kept.keep_document(&rotation.id, part.as_str(), document.clone()).await? {
            return Ok(document);
        }
        let kept = self.kept.document(&rotation.id, part.as_str()).await?;
        kept.ok_or_else(|| StoreError::Corrupt("a receipt was kept and is not there".to_owned()).into())
    }
}

/// Each yes to something that was done to `key`.
fn given(approvals: &[ApprovalRecord], key: &str) -> Vec<Approval> {
    let mut agreed = Vec::new();
    for approval in approvals.iter().filter(|approval| approval.object == key && approval.state == ApprovalState::Done)
    {
        agreed.extend(approval.given.iter().map(|given| Approval {
            by: given.by.clone(),
            verb: approval.action.as_str().to_owned(),
            at: given.at.rfc3339(),
        }));
    }
    agreed
}

fn parsed(document: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(document).map_err(|_| StoreError::Corrupt("a kept receipt is no JSON object".to_owned()))
}
