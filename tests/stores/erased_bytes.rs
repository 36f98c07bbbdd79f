//! What is to be gone is in no file of the store, searched for byte by byte.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sekisho::binding::{AccountId, BindingDigest, BindingId, Chain, Label};
use sekisho::carrier::CarrierName;
use sekisho::clock::Timestamp;
use sekisho::store::{
    BindingStore, ChangeOutcome, EraseOutcome, ImportedBinding, KeyChange, KeyRecord, KeyState, KeyStore, SchemeRecord,
    SubjectStore,
};
use tempfile::TempDir;

use crate::conformance::{first_keys, scheme};
use crate::embedded::open;

#[tokio::test]
async fn of_a_destroyed_key_no_file_keeps_a_byte() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let (store, _) = open(&path).unwrap();
    store.initialise(first_keys(), scheme("v1")).await.unwrap();
    let wrapped: Vec<u8> = (0..60).map(|at| b"destroy-me"[at % 10] ^ u8::try_from(at).unwrap()).collect();
    let holds = |folder: &Path| -> Vec<PathBuf> {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        // Any part of it, not just the whole.
        files.filter(|f| wrapped.chunks(15).any(|part| fs::read(f).unwrap().windows(15).any(|at| at == part))).collect()
    };
    let first = first_keys().remove(0);
    let key =
        |id: &str| KeyRecord { id: id.to_owned(), state: KeyState::Pending, wrapped: wrapped.clone(), ..first.clone() };
    let destroy = |id: &str| {
        vec![KeyChange::Move {
            id: id.to_owned(),
            from: KeyState::Pending,
            to: KeyState::Destroyed,
            at: Timestamp::from_unix_millis(0),
        }]
    };
    // One that reached the file itself, one that only the journal has.
    store.change(0, vec![KeyChange::New(key("k2"))]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(holds(folder.path()), std::slice::from_ref(&path));
    let (store, _) = open(&path).unwrap();
    assert_eq!(store.change(1, destroy("k2")).await, Ok(ChangeOutcome::Changed(2)));
    assert!(holds(folder.path()).is_empty(), "it was in the file");
    store.change(2, vec![KeyChange::New(key("k3"))]).await.unwrap();
    assert_eq!(holds(folder.path()), [folder.path().join("store-wal")]);
    assert_eq!(store.change(3, destroy("k3")).await, Ok(ChangeOutcome::Changed(4)));
    assert!(holds(folder.path()).is_empty(), "it was in the journal");

    // A crash between the change and the end of the call leaves the journal as it was; the next start folds it.
    store.change(4, vec![KeyChange::New(key("k4"))]).await.unwrap();
    let outside = Connection::open(&path).unwrap();
    outside.pragma_update(None, "secure_delete", "ON").unwrap();
    outside.execute_batch("UPDATE keys SET state = 'destroyed', wrapped = x'' WHERE id = 'k4'").unwrap();
    let crashed = TempDir::new().unwrap();
    for name in ["store", "store-wal"] {
        fs::copy(folder.path().join(name), crashed.path().join(name)).unwrap();
    }
    assert!(!holds(crashed.path()).is_empty());
    let _store = open(&crashed.path().join("store")).unwrap();
    assert!(holds(crashed.path()).is_empty(), "after the next start");
}

#[tokio::test]
async fn of_what_was_wrapped_under_the_former_kek_no_file_keeps_a_byte() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(&folder.path().join("store")).unwrap();
    let former: Vec<u8> = (0..60).map(|at| b"former-kek"[at % 10] ^ u8::try_from(at).unwrap()).collect();
    let mut keys = first_keys();
    for key in &mut keys {
        key.wrapped.clone_from(&former);
    }
    let scheme = SchemeRecord { pin_secret: former.clone(), ..scheme("v1") };
    store.initialise(keys.clone(), scheme).await.unwrap();
    let holding = || {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|f| former.chunks(15).any(|part| fs::read(f).unwrap().windows(15).any(|at| at == part))).count()
    };
    assert!(holding() > 0);
    let rewrap = |key: &KeyRecord| KeyChange::Rewrap { id: key.id.clone(), wrapped: vec![1; 60] };
    assert_eq!(store.change(0, keys.iter().map(rewrap).collect()).await, Ok(ChangeOutcome::Changed(1)));
    assert!(holding() > 0, "the secret of the PINs");
    let secret = KeyChange::RewrapPinSecret { wrapped: vec![1; 60] };
    assert_eq!(store.change(1, vec![secret]).await, Ok(ChangeOutcome::Changed(2)));
    assert_eq!(holding(), 0);
    assert!(store.keys().await.unwrap().keys.iter().all(|key| key.wrapped == [1; 60]));
}

/// Clause 75: of five hundred accounts every other one is erased, in an order of their own, and searched for byte by byte.
#[tokio::test]
async fn what_was_erased_is_in_no_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let (store, _) = open(&path).unwrap();
    let keys = KeyStore::initialise(&store, first_keys(), scheme("h1")).await;
    assert!(keys.is_ok());
    let name = |number: u32| AccountId::parse(&format!("erase-{:08x}", number.wrapping_mul(0x9e37_79b9))).unwrap();
    let label = |number: u32| Label::parse(&format!("label {}", char::from_u32(0x4e00 + number).unwrap())).unwrap();
    for number in 0..500_u32 {
        let at = Timestamp::from_unix_millis(1_795_530_000_000);
        let digest: [u8; 32] = std::array::from_fn(|at| number.wrapping_mul(0x85eb_ca6b).to_be_bytes()[at % 4]);
        let binding = ImportedBinding {
            account: name(number),
            carrier: CarrierName::parse("docomo").unwrap(),
            probes: vec![],
            digest: BindingDigest::from_bytes(digest),
            chain: Chain::parse("k1").unwrap(),
            generation: 0,
            id: BindingId::from_random(digest[..16].try_into().unwrap()),
        };
        let id = binding.id;
        BindingStore::import(&store, vec![binding], 3, at).await.unwrap();
        store.set_label(&name(number), id, Some(label(number))).await.unwrap();
        SubjectStore::subject(&store, &name(number)).await.unwrap().unwrap();
    }
    let gone: Vec<u32> = (0..500).filter(|number| number % 2 == 1).map(|number| number * 37 % 500).collect();
    for number in &gone {
        let now = Timestamp::from_unix_millis(1_795_530_000_000);
        let erased = SubjectStore::erase(&store, &name(*number), None, now).await.unwrap();
        let EraseOutcome::Erased(erasure) = erased else { panic!("{erased:?}") };
        store.finish_erasure(&erasure.id).await.unwrap();
    }
    store.scrub().await.unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap().path();
        let content = fs::read(&file).unwrap();
        let holds = |needle: &str| content.windows(needle.len()).any(|window| window == needle.as_bytes());
        for number in &gone {
            assert!(!holds(name(*number).as_str()), "account {number} is in {}", file.display());
            assert!(!holds(label(*number).as_str()), "label {number} is in {}", file.display());
        }
        if file == path {
            assert!((0..500).filter(|number| !gone.contains(number)).all(|number| holds(name(number).as_str())));
        }
    }
}
