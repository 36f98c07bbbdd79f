//! The clauses of statistics and of proofs, one function each; listed by [`counts_as_the_contract_says!`].

use std::sync::Arc;

use sekisho::clock::Day;
use sekisho::store::{Counted, DayCount, Proof};
use tokio::task::JoinSet;

use crate::conformance::{Backend, at, carrier};

/// One test a clause for the backend `$backend`.
macro_rules! counts_as_the_contract_says {
    ($backend:ty) => {
        counts_as_the_contract_says! { $backend:
            clause_76_added
            clause_77_gone
            clause_78_the_latest
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::statistics_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use counts_as_the_contract_says;

fn day(number: i32) -> Day {
    Day::from_unix_days(20_000 + number)
}

fn count(number: i32, name: &str, kind: Counted, count: u64) -> DayCount {
    DayCount { day: day(number), carrier: carrier(name), kind, count }
}

pub(crate) async fn clause_76_added(backend: impl Backend) {
    let store = backend.statistics();
    assert_eq!(store.first_counted().await.unwrap(), None);
    let mut at_once = JoinSet::new();
    for _ in 0..10 {
        let store = Arc::clone(&store);
        at_once.spawn(async move {
            let both = vec![count(1, "docomo", Counted::SignIn, 3), count(1, "au", Counted::Refusal, 1)];
            store.add_counts(both).await.unwrap();
        });
    }
    at_once.join_all().await;
    store.add_counts(vec![count(2, "docomo", Counted::SignIn, 1)]).await.unwrap();
    store.add_counts(vec![]).await.unwrap();
    let backend = backend.restart();
    let store = backend.statistics();
    let all = [
        count(1, "au", Counted::Refusal, 10),
        count(1, "docomo", Counted::SignIn, 30),
        count(2, "docomo", Counted::SignIn, 1),
    ];
    assert_eq!(store.counts(day(0), day(9)).await.unwrap(), all);
    assert_eq!(store.counts(day(2), day(2)).await.unwrap(), all[2..]);
    assert_eq!(store.counts(day(3), day(1)).await.unwrap(), []);
    assert_eq!(store.first_counted().await.unwrap(), Some(day(1)));
}

pub(crate) async fn clause_77_gone(backend: impl Backend) {
    let store = backend.statistics();
    for number in 1..=3 {
        store.add_counts(vec![count(number, "docomo", Counted::SignIn, 1)]).await.unwrap();
    }
    for (before, expected) in [(1, 0), (3, 2), (9, 3)] {
        assert_eq!(store.counted_before(day(before)).await.unwrap(), expected, "{before}");
    }
    assert_eq!(store.erase_counts(day(3)).await.unwrap(), 2);
    assert_eq!(store.erase_counts(day(3)).await.unwrap(), 0);
    assert_eq!(store.first_counted().await.unwrap(), Some(day(3)));
}

pub(crate) async fn clause_78_the_latest(backend: impl Backend) {
    let store = backend.proofs();
    assert_eq!(store.proofs().await.unwrap(), []);
    let proof =
        |name: &str, minute, ok| Proof { name: name.into(), at: at(minute), ok, detail: format!("at {minute}") };
    // What was noted last counts, whatever the clock said.
    for noted in [proof("b", 1, true), proof("a", 9, false), proof("a", 3, true)] {
        store.note_proof(noted).await.unwrap();
    }
    let backend = backend.restart();
    assert_eq!(backend.proofs().proofs().await.unwrap(), [proof("a", 3, true), proof("b", 1, true)]);
}
