//! A handset that is unknown costs what one that is suspended or revoked costs: the same digests, the same calls in the
//! same order. Counted, because a clock in a test would prove nothing on a busy machine; what is inside a call is the
//! store's (`conformance.rs`), and digests are made before the store is asked anything.

use std::sync::Mutex;

use async_trait::async_trait;
use sekisho::binding::{AccountId, AccountState, BindingId};
use sekisho::carrier::CarrierName;
use sekisho::clock::{Day, Timestamp};
use sekisho::store::{
    AccountRecord, BindingRecord, BindingStore, EnrolOutcome, Enrolment, ImportOutcome, ImportedBinding, IssueOutcome,
    LookUp, NewCode, Probe, StoreError,
};

use crate::harness::handset;
use crate::{Bench, account, come_in, later, not_bound, start};

/// The real store, and what it was asked.
struct Watched {
    bench: Bench,
    asked: Mutex<Vec<String>>,
}

impl Watched {
    fn note(&self, call: impl Into<String>) -> &dyn BindingStore {
        self.asked.lock().unwrap().push(call.into());
        self.bench.bindings()
    }
}

#[async_trait]
impl BindingStore for Watched {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.note("generation").generation().await
    }
    async fn resolve(&self, carrier: &CarrierName, probes: &[Probe]) -> Result<LookUp, StoreError> {
        self.note(format!("resolve {} probes", probes.len())).resolve(carrier, probes).await
    }
    async fn used(&self, id: BindingId, day: Day, flat: Probe, generation: u64) -> Result<bool, StoreError> {
        self.note("used").used(id, day, flat, generation).await
    }
    async fn last_use(&self) -> Result<Option<Day>, StoreError> {
        self.note("last_use").last_use().await
    }
    async fn stands(&self, id: BindingId) -> Result<bool, StoreError> {
        self.note("stands").stands(id).await
    }
    async fn fallen(&self, ids: Vec<BindingId>) -> Result<Vec<BindingId>, StoreError> {
        self.note("fallen").fallen(ids).await
    }
    async fn enrol(&self, enrolment: Enrolment, now: Timestamp) -> Result<EnrolOutcome, StoreError> {
        self.note("enrol").enrol(enrolment, now).await
    }
    async fn import(
        &self,
        bindings: Vec<ImportedBinding>,
        per_account: u32,
        now: Timestamp,
    ) -> Result<Vec<ImportOutcome>, StoreError> {
        self.note("import").import(bindings, per_account, now).await
    }
    async fn issue_code(&self, code: NewCode) -> Result<IssueOutcome, StoreError> {
        self.note("issue_code").issue_code(code).await
    }
    async fn live_codes(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.note("live_codes").live_codes(now).await
    }
    async fn bindings(&self, account: Option<&AccountId>) -> Result<Vec<BindingRecord>, StoreError> {
        self.note("bindings").bindings(account).await
    }
    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        self.note("binding").binding(id).await
    }
    async fn revoke(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        self.note("revoke").revoke(id).await
    }
    async fn account(&self, account: &AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.note("account").account(account).await
    }
    async fn accounts(&self) -> Result<Vec<AccountRecord>, StoreError> {
        self.note("accounts").accounts().await
    }
    async fn set_account_state(&self, account: &AccountId, state: AccountState) -> Result<bool, StoreError> {
        self.note("set_account_state").set_account_state(account, state).await
    }
    async fn subject(&self, account: &AccountId, upstream: &str, fresh: String) -> Result<Option<String>, StoreError> {
        self.note("subject").subject(account, upstream, fresh).await
    }
    async fn purge(&self, now: Timestamp, unused_since: Day, limit: u32) -> Result<Vec<BindingId>, StoreError> {
        self.note("purge").purge(now, unused_since, limit).await
    }
}

#[tokio::test]
async fn unknown_suspended_and_revoked_handsets_cost_the_same_calls() {
    let bench = Bench::new().await;
    bench.bind(handset("alpha", "0000001"), "suspended").await;
    let revoked = bench.bind(handset("alpha", "0000002"), "revoked").await;
    bench.bindings().set_account_state(&account("suspended"), AccountState::Suspended).await.unwrap();
    bench.bindings().revoke(revoked.binding()).await.unwrap();
    // Another day than that of the binding: a use would be written.
    let now = later(std::time::Duration::from_hours(48));
    assert_ne!(now.day(), start().day());
    let watched = Watched { bench, asked: Mutex::default() };
    for who in ["0000001", "0000002", "0000003"] {
        let candidates = watched.bench.digest(handset("alpha", who)).await;
        assert!(not_bound(&come_in(&watched, &watched.bench.keys.binding, candidates, now).await), "{who}");
        let asked = std::mem::take(&mut *watched.asked.lock().unwrap());
        assert_eq!(asked, ["resolve 1 probes"], "{who}");
    }
}

#[tokio::test]
async fn a_use_is_written_once_a_day() {
    let bench = Bench::new().await;
    bench.bind(handset("alpha", "0000001"), "alice").await;
    let watched = Watched { bench, asked: Mutex::default() };
    // The day of the binding, the day after twice, and the day before: the clock was set back.
    for (hours, written) in [(0, false), (24, true), (24, false), (0, false)] {
        let candidates = watched.bench.digest(handset("alpha", "0000001")).await;
        let now = later(std::time::Duration::from_hours(hours));
        assert!(come_in(&watched, &watched.bench.keys.binding, candidates, now).await.is_ok());
        let asked = std::mem::take(&mut *watched.asked.lock().unwrap());
        assert_eq!(asked.iter().any(|call| call == "used"), written, "after {hours} h: {asked:?}");
    }
}
