//! The clauses about what auditors get, one function each; listed by [`keeps_receipts_as_the_contract_says!`].

use std::sync::{Arc, Mutex};

use sekisho::binding::{BindingDigest, Chain};
use sekisho::store::{CanaryPhase, CanaryRecord, Observation, ReceiptStore, Scanned};

use crate::conformance::{Backend, at, bind, bindings_of};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_receipts_as_the_contract_says {
    ($backend:ty) => {
        keeps_receipts_as_the_contract_says! { $backend:
            clause_40_a_survey_is_of_one_instant
            clause_41_as_issued
            clause_42_observed_once
            canaries_are_in_no_list_and_no_count
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::receipt_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_receipts_as_the_contract_says;

/// Id, chain and digest of each binding.
type Seen = Vec<(String, String, [u8; 32])>;

async fn surveyed(store: &dyn ReceiptStore) -> Seen {
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let seeing = Arc::clone(&seen);
    let visit = move |binding: &Scanned| {
        let seen = (binding.id.to_string(), binding.chain.to_string(), *binding.digest.as_bytes());
        seeing.lock().unwrap().push(seen);
    };
    store.survey(Box::new(visit)).await.unwrap();
    std::mem::take(&mut seen.lock().unwrap())
}

pub(crate) async fn clause_40_a_survey_is_of_one_instant(backend: impl Backend) {
    let (bindings, receipts) = (bindings_of(&backend).await, backend.receipts());
    assert!(surveyed(&*receipts).await.is_empty());
    for handset in [9, 1, 5] {
        bind(&*bindings, handset, "alice").await;
    }
    let seen = surveyed(&*receipts).await;
    let mut sorted = seen.clone();
    sorted.sort();
    assert_eq!(seen, sorted, "in the order of ids");
    let mut digests: Vec<_> = seen.iter().map(|(_, chain, digest)| (chain.as_str(), digest[0])).collect();
    digests.sort_unstable();
    assert_eq!(digests, [("k1", 1), ("k1", 5), ("k1", 9)]);

    // What changes once it has begun is not seen: the first binding shown waits until the last one was revoked.
    let last = bindings.bindings(None).await.unwrap().iter().map(|binding| binding.id).max().unwrap();
    let (first_is_shown, shown) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let count = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&count);
    let visit = move |_: &Scanned| {
        let mut count = counting.lock().unwrap();
        *count += 1;
        if *count == 1 {
            first_is_shown.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
    };
    let surveying = tokio::spawn({
        let receipts = Arc::clone(&receipts);
        async move { receipts.survey(Box::new(visit)).await }
    });
    tokio::task::spawn_blocking(move || shown.recv().unwrap()).await.unwrap();
    assert!(bindings.revoke(last).await.unwrap().is_some(), "a survey delays no write");
    go_on.send(()).unwrap();
    surveying.await.unwrap().unwrap();
    assert_eq!(*count.lock().unwrap(), 3);
    assert_eq!(surveyed(&*receipts).await.len(), 2);
}

pub(crate) async fn clause_41_as_issued(backend: impl Backend) {
    let receipts = backend.receipts();
    assert_eq!(receipts.document("r1", "receipt").await.unwrap(), None);
    assert!(receipts.keep_document("r1", "receipt", "first".into()).await.unwrap());
    assert!(!receipts.keep_document("r1", "receipt", "second".into()).await.unwrap());
    assert!(receipts.keep_document("r1", "destroyed", "later".into()).await.unwrap());
    assert!(receipts.keep_document("r2", "receipt", "other".into()).await.unwrap());
    let backend = backend.restart();
    for (rotation, part, document) in
        [("r1", "receipt", Some("first")), ("r1", "destroyed", Some("later")), ("r2", "destroyed", None)]
    {
        let kept = backend.receipts().document(rotation, part).await.unwrap();
        assert_eq!(kept.as_deref(), document, "{rotation} {part}");
    }
}

fn canary(number: u8, chain: &str) -> CanaryRecord {
    CanaryRecord {
        octets: [number; 32],
        dormant: number > 1,
        chain: Chain::parse(chain).unwrap(),
        digest: BindingDigest::from_bytes([number + 100; 32]),
    }
}

fn observation(phase: CanaryPhase, used: u32) -> Observation {
    Observation { phase, at: at(1), used, dormant: 1, without_old_key: 0 }
}

pub(crate) async fn clause_42_observed_once(backend: impl Backend) {
    let receipts = backend.receipts();
    let planted = || vec![canary(1, "k1"), canary(2, "k1")];
    assert!(receipts.observe_canaries("r1", planted(), observation(CanaryPhase::Planted, 1)).await.unwrap());
    let moved = || vec![canary(1, "k1,k2"), canary(2, "k1,k2")];
    assert!(!receipts.observe_canaries("r1", moved(), observation(CanaryPhase::Planted, 0)).await.unwrap());
    assert!(receipts.observe_canaries("r2", planted(), observation(CanaryPhase::Planted, 1)).await.unwrap());
    let chains = async |backend: &dyn ReceiptStore, rotation| {
        let canaries = backend.canaries(rotation).await.unwrap();
        canaries.records.iter().map(|record| (record.octets[0], record.dormant, record.chain.to_string())).collect()
    };
    let at_first: Vec<(u8, bool, String)> = chains(&*receipts, "r1").await;
    assert_eq!(at_first, [(1, false, "k1".to_owned()), (2, true, "k1".to_owned())]);
    assert!(receipts.observe_canaries("r1", moved(), observation(CanaryPhase::Wrapped, 1)).await.unwrap());
    let backend = backend.restart();
    let receipts = backend.receipts();
    let moved: Vec<(u8, bool, String)> = chains(&*receipts, "r1").await;
    assert_eq!(moved, [(1, false, "k1,k2".to_owned()), (2, true, "k1,k2".to_owned())]);
    let others: Vec<(u8, bool, String)> = chains(&*receipts, "r2").await;
    assert_eq!(others, at_first, "another rotation's are its own");
    let observed = receipts.canaries("r1").await.unwrap().observed;
    assert_eq!(observed, [observation(CanaryPhase::Planted, 1), observation(CanaryPhase::Wrapped, 1)]);
    assert!(receipts.canaries("r3").await.unwrap().records.is_empty());
}

pub(crate) async fn canaries_are_in_no_list_and_no_count(backend: impl Backend) {
    let (bindings, receipts) = (bindings_of(&backend).await, backend.receipts());
    let planted = vec![canary(1, "k1"), canary(2, "k1")];
    assert!(receipts.observe_canaries("r1", planted, observation(CanaryPhase::Planted, 1)).await.unwrap());
    assert!(bindings.bindings(None).await.unwrap().is_empty());
    assert!(bindings.accounts().await.unwrap().is_empty());
    assert_eq!(bindings.last_use().await.unwrap(), None);
    assert_eq!(backend.keys().bound_under("v1").await.unwrap(), 0);
    assert!(backend.rotations().chains().await.unwrap().is_empty());
    assert!(surveyed(&*receipts).await.is_empty());
}
