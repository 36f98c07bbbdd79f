//! The clauses of the keys of log days, one function each; listed by [`keeps_log_keys_as_the_contract_says!`].

use std::sync::Arc;

use sekisho::clock::Day;
use sekisho::store::{ChangeOutcome, CopyKind, DestroyedLogKeys, KeyChange, KeyStore, LogKeyOutcome, LogKeyRecord};

use crate::conformance::{Backend, first_keys, scheme, together};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_log_keys_as_the_contract_says {
    ($backend:ty) => {
        keeps_log_keys_as_the_contract_says! { $backend:
            clause_90_one_key_a_log_day
            clause_91_never_again
            clause_92_all_rewrapped
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::log_key_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_log_keys_as_the_contract_says;

fn day(number: i32) -> Day {
    Day::from_unix_days(20_000 + number)
}

fn key(number: i32, byte: u8) -> LogKeyRecord {
    LogKeyRecord { day: day(number), wrapped: vec![byte; 60] }
}

async fn kept(store: &dyn KeyStore, number: i32, byte: u8) -> LogKeyOutcome {
    let revision = store.keys().await.unwrap().revision;
    store.keep_log_key(key(number, byte), revision).await.unwrap()
}

pub(crate) async fn clause_90_one_key_a_log_day(backend: impl Backend) {
    let keys = backend.keys();
    let made = together((1..=9).map(|byte| {
        let keys = Arc::clone(&keys);
        async move { kept(&*keys, 1, byte).await }
    }));
    let made = made.await;
    assert!(matches!(&made[0], LogKeyOutcome::There(record) if record.day == day(1)));
    assert!(made.iter().all(|outcome| *outcome == made[0]), "all get the same: {made:?}");
    assert_eq!(kept(&*keys, 0, 10).await, LogKeyOutcome::There(key(0, 10)));
    let backend = backend.restart();
    let stored = backend.keys().keys().await.unwrap();
    assert_eq!(stored.log_keys.iter().map(|key| key.day).collect::<Vec<_>>(), [day(0), day(1)]);
    assert_eq!(LogKeyOutcome::There(stored.log_keys[1].clone()), made[0]);
    assert_eq!((stored.revision, stored.log_keys_from), (0, None), "nobody has to look again");
}

fn destroyed(count: u64) -> DestroyedLogKeys {
    DestroyedLogKeys { count, unemptied: None }
}

pub(crate) async fn clause_91_never_again(backend: impl Backend) {
    let keys = backend.keys();
    for number in 1..=3 {
        kept(&*keys, number, 0xa0 + u8::try_from(number).unwrap()).await;
    }
    assert_eq!(keys.destroy_log_keys(day(1)).await.unwrap(), destroyed(0));
    assert_eq!(keys.keys().await.unwrap().log_keys_from, None, "nothing was destroyed");
    let copy = backend.backups().copy(CopyKind::Backup).await.unwrap();
    let mut copied = Vec::new();
    std::io::Read::read_to_end(&mut &copy.file, &mut copied).unwrap();
    assert_eq!(keys.destroy_log_keys(day(3)).await.unwrap(), destroyed(2));
    assert_eq!(keys.destroy_log_keys(day(2)).await.unwrap(), destroyed(0));
    let medium = backend.medium();
    for (number, stays) in [(0xa1, false), (0xa2, false), (0xa3, true)] {
        let there = |bytes: &[u8]| bytes.windows(60).any(|part| part == [number; 60]);
        assert_eq!(there(&medium), stays, "{number:x}");
        assert!(!there(&copied), "{number:x} is in a backup");
    }
    let backend = backend.restart();
    let keys = backend.keys();
    for number in 0..=2 {
        assert_eq!(kept(&*keys, number, 9).await, LogKeyOutcome::Past);
    }
    let stored = keys.keys().await.unwrap();
    assert_eq!((stored.log_keys, stored.log_keys_from), (vec![key(3, 0xa3)], Some(day(3))));
    assert_eq!(kept(&*keys, 3, 9).await, LogKeyOutcome::There(key(3, 0xa3)));
}

pub(crate) async fn clause_92_all_rewrapped(backend: impl Backend) {
    let keys = backend.keys();
    keys.initialise(first_keys(), scheme("v1")).await.unwrap();
    for number in 1..=2 {
        kept(&*keys, number, 1).await;
    }
    let revision = keys.keys().await.unwrap().revision;
    let secret = KeyChange::RewrapPinSecret { wrapped: vec![2; 60] };
    let some = |numbers: &[i32]| KeyChange::RewrapLogKeys(numbers.iter().map(|number| key(*number, 2)).collect());
    for changes in [vec![secret.clone()], vec![secret.clone(), some(&[1])], vec![some(&[1, 2, 3])]] {
        assert_eq!(keys.change(revision, changes).await.unwrap(), ChangeOutcome::Stale);
    }
    let changed = keys.change(revision, vec![some(&[1, 2]), secret]).await.unwrap();
    assert_eq!(changed, ChangeOutcome::Changed(revision + 1));
    // It was wrapped before that.
    assert_eq!(keys.keep_log_key(key(3, 1), revision).await.unwrap(), LogKeyOutcome::Stale);
    let stored = backend.restart().keys().keys().await.unwrap();
    assert_eq!(stored.log_keys, [key(1, 2), key(2, 2)]);
    assert_eq!(stored.scheme.unwrap().pin_secret, [2; 60]);
}
