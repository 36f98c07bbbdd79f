//! The clauses of the audit trail's port.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sekisho::audit::{Action, Entry, EntryHash, Event, Tip};
use sekisho::keys::AuditPublicKey;
use sekisho::secret::SecretBytes;
use sekisho::store::{NewAuditEntry, SealingKey, StoreError, StoredAuditEntry, StoredCheckpoint};
use tokio::task::JoinSet;

use crate::conformance::{Backend, account, at};

fn entry(minute: i64, who: Option<&str>, known: Option<Tip>) -> NewAuditEntry {
    let event = Event::new(Action::CodeIssue, "uid:1001");
    let event = who.map_or(event.clone(), |who| event.account(&account(who)));
    let fresh = SecretBytes::new(vec![u8::try_from(minute).unwrap(); 32]);
    NewAuditEntry { event, at: at(minute), key: "u1".into(), known, fresh }
}

fn tip(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

pub(crate) async fn clause_26_chained(backend: impl Backend) {
    let store = backend.audit();
    assert_eq!((store.audit_head().await.unwrap(), store.audit_entries(0, 9).await.unwrap()), (None, vec![]));
    let mut writers = JoinSet::new();
    for minute in 1..=20 {
        let store = Arc::clone(&store);
        writers.spawn(async move { store.append(entry(minute, Some("alice"), None)).await.unwrap() });
    }
    let mut written = writers.join_all().await;
    written.sort_unstable_by_key(|entry| entry.seq);
    let store_id = backend.keys().store_id().await.unwrap();
    let mut last = Tip { seq: 0, hash: EntryHash::before_all(&store_id) };
    for entry in &written {
        assert_eq!((entry.seq, entry.prev), (last.seq + 1, last.hash));
        last = tip(entry);
    }
    assert_eq!(store.audit_head().await.unwrap(), Some(last));
    let of = |entry: &Entry| StoredAuditEntry { seq: entry.seq, text: entry.text(), hash: entry.hash() };
    let stored: Vec<_> = written.iter().map(of).collect();
    assert_eq!(store.audit_entries(0, 99).await.unwrap(), stored);
    assert_eq!(store.audit_entries(17, 2).await.unwrap(), stored[17..19]);
    let backend = backend.restart();
    assert_eq!(backend.audit().audit_entries(0, 99).await.unwrap(), stored);
    assert_eq!(tip(&backend.audit().append(entry(21, None, Some(last))).await.unwrap()).seq, 21);
}

/// An export ends with the entry that was the last when it began, so this holds for readers beside writers too.
pub(crate) async fn clause_27_append_only(backend: impl Backend) {
    let store = backend.audit();
    let first = store.append(entry(1, None, None)).await.unwrap();
    let kept = |seal: u8| StoredCheckpoint { seq: 1, key: "u1".into(), text: "c".into(), seal: vec![seal; 64] };
    assert!(store.keep_checkpoint(kept(1), first.hash()).await.unwrap());
    assert!(store.keep_checkpoint(kept(2), first.hash()).await.unwrap(), "it fits, and the one that is there stays");
    assert_eq!(store.checkpoints(0, 9).await.unwrap(), [kept(1)]);
    let key = |last: u8| {
        let point = [vec![4; 64], vec![last]].concat();
        SealingKey { id: "u1".into(), public: AuditPublicKey::parse(&URL_SAFE_NO_PAD.encode(point)).unwrap() }
    };
    store.keep_sealing_key(key(1)).await.unwrap();
    store.keep_sealing_key(key(2)).await.unwrap();
    assert_eq!(store.sealing_key("u1").await.unwrap(), Some(key(1)));
    assert_eq!(store.sealing_key("u2").await.unwrap(), None);
    assert_eq!(store.sealing_keys(0, 1).await.unwrap(), [key(1)]);
    assert_eq!(store.sealing_keys(1, 9).await.unwrap(), [], "it sealed nothing there");
}

pub(crate) async fn clause_28_remembered(backend: impl Backend) {
    let store = backend.audit();
    let first = tip(&store.append(entry(1, None, None)).await.unwrap());
    let second = tip(&store.append(entry(2, None, Some(first))).await.unwrap());
    for known in [
        Tip { hash: second.hash, ..first },
        Tip { seq: 3, ..second },
        Tip { seq: u64::MAX, ..second },
        Tip { hash: EntryHash::from_bytes([0; 32]), ..second },
    ] {
        let refused = store.append(entry(3, Some("bob"), Some(known))).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{known:?}: {refused:?}");
    }
    assert_eq!(store.audit_head().await.unwrap(), Some(second));
    assert_eq!(store.pseudonym(&account("bob")).await.unwrap(), None, "nothing of it was kept");
    store.append(entry(3, None, Some(first))).await.unwrap();
}

pub(crate) async fn clause_29_one_pseudonym(backend: impl Backend) {
    let store = backend.audit();
    assert_eq!(store.pseudonym(&account("alice")).await.unwrap(), None);
    let mut names = Vec::new();
    for (minute, who) in [(1, "alice"), (2, "bob"), (3, "alice")] {
        names.push(store.append(entry(minute, Some(who), None)).await.unwrap().account.unwrap());
    }
    assert!(names[0] == names[2] && names[0] != names[1], "{names:?}");
    let told = store.pseudonym(&account("alice")).await.unwrap().unwrap();
    assert_eq!(told.to_string(), names[0]);
    assert!(store.forget_pseudonym(&account("alice")).await.unwrap());
    assert!(!store.forget_pseudonym(&account("alice")).await.unwrap());
    assert_eq!(store.pseudonym(&account("alice")).await.unwrap(), None);
    let later = store.append(entry(4, Some("alice"), None)).await.unwrap().account.unwrap();
    assert!(!names.contains(&later));
    assert_eq!(store.append(entry(5, None, None)).await.unwrap().account, None);
}

pub(crate) async fn clause_30_a_checkpoint_fits(backend: impl Backend) {
    let store = backend.audit();
    assert_eq!(store.last_checkpoint().await.unwrap(), None);
    let first = tip(&store.append(entry(1, None, None)).await.unwrap());
    let second = tip(&store.append(entry(2, None, None)).await.unwrap());
    let of = |seq, key: &str| StoredCheckpoint { seq, key: key.into(), text: "c".into(), seal: vec![1; 64] };
    for (seq, hash) in [(1, second.hash), (3, second.hash), (0, first.hash)] {
        assert!(!store.keep_checkpoint(of(seq, "u1"), hash).await.unwrap(), "{seq}");
    }
    assert_eq!(store.checkpoints(0, 9).await.unwrap(), []);
    for (checkpoint, hash) in [(of(2, "u9"), second.hash), (of(2, "u10"), second.hash), (of(1, "u1"), first.hash)] {
        assert!(store.keep_checkpoint(checkpoint, hash).await.unwrap());
    }
    assert_eq!(store.checkpoints(0, 9).await.unwrap(), [of(1, "u1"), of(2, "u9"), of(2, "u10")]);
    assert_eq!(store.checkpoints(1, 2).await.unwrap(), [of(2, "u9"), of(2, "u10")]);
    assert_eq!(store.last_checkpoint().await.unwrap(), Some(of(2, "u10")));
    assert_eq!(backend.restart().audit().last_checkpoint().await.unwrap(), Some(of(2, "u10")));
}

pub(crate) async fn clause_46_from_the_beginning_alone(backend: impl Backend) {
    let store = backend.audit();
    assert!(store.erase_before(1).await.is_err(), "there is nothing to begin with");
    let mut written = Vec::new();
    for minute in 1..=6 {
        written.push(store.append(entry(minute, Some("alice"), None)).await.unwrap());
    }
    let of = |seq: u64| StoredCheckpoint { seq, key: "u1".into(), text: "c".into(), seal: vec![1; 64] };
    for seq in [2_u64, 4, 6] {
        let hash = written[usize::try_from(seq).unwrap() - 1].hash();
        assert!(store.keep_checkpoint(of(seq), hash).await.unwrap());
    }
    for beyond in [7, 0, u64::MAX] {
        assert!(store.erase_before(beyond).await.is_err(), "{beyond}");
    }
    assert_eq!(store.erase_before(1).await.unwrap(), 0);
    assert_eq!(store.erase_before(4).await.unwrap(), 3);
    let backend = backend.restart();
    let store = backend.audit();
    let left: Vec<_> = store.audit_entries(0, 9).await.unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(left, [4, 5, 6]);
    assert_eq!(store.checkpoints(0, 9).await.unwrap(), [of(4), of(6)]);
    assert_eq!(store.erase_before(4).await.unwrap(), 0, "again");
    assert!(store.erase_before(2).await.is_err(), "it is not there");
    assert_eq!(store.erase_before(6).await.unwrap(), 2, "the last one stays");
    let next = store.append(entry(7, Some("alice"), Some(tip(&written[5])))).await.unwrap();
    assert_eq!((next.seq, next.prev), (7, written[5].hash()));
    assert_eq!(next.account, written[0].account, "a pseudonym does not go with its entries");
}
