//! The clauses of the port of keys, but for what rotations add to them.

use std::sync::Arc;

use sekisho::store::{KeyPurpose, KeyRecord, KeyState, SchemeRecord, StoredKeys};

use crate::conformance::{Backend, first_keys, scheme, together};

pub(crate) async fn clause_16_first_writer_wins(backend: impl Backend) {
    let keys = backend.keys();
    let StoredKeys { keys: there, scheme: none, .. } = keys.keys().await.unwrap();
    assert!(there.is_empty() && none.is_none());
    let both = together((1..=2).map(|n| {
        let keys = Arc::clone(&keys);
        async move { keys.initialise(first_keys(), scheme(&format!("v{n}"))).await }
    }));
    both.await.into_iter().for_each(Result::unwrap);
    let StoredKeys { keys: stored, scheme: first, .. } = keys.keys().await.unwrap();
    assert_eq!(stored.len(), KeyPurpose::ALL.len());
    keys.initialise(vec![], scheme("v9")).await.unwrap();
    assert_eq!(keys.keys().await.unwrap().scheme, first);
}

pub(crate) async fn keys_come_back_as_they_were_put(backend: impl Backend) {
    let keys = backend.keys();
    let mut put = first_keys();
    for (number, state) in (2_u8..).zip(KeyState::ALL).filter(|(_, state)| *state != KeyState::Active) {
        let id = format!("k{}", number * 3);
        let flags = (number % 2 == 0, number % 3 == 0);
        put.push(KeyRecord {
            id,
            state,
            suspended: flags.0,
            compromised: flags.1,
            wrapped: vec![number; 60],
            ..put[0].clone()
        });
    }
    let plain = SchemeRecord { stretch: None, ..scheme("v1") };
    keys.initialise(put.clone(), plain.clone()).await.unwrap();
    let StoredKeys { keys: stored, scheme, .. } = keys.keys().await.unwrap();
    assert_eq!(scheme, Some(plain));
    let order: Vec<&str> = stored.iter().map(|k| k.id.as_str()).collect();
    assert_eq!(order, ["a1", "u1", "k1", "k6", "k12", "k15", "k18", "k21", "s1"]);
    for key in put {
        let back = stored.iter().find(|k| k.id == key.id).unwrap();
        assert_eq!(format!("{back:?}"), format!("{key:?}"));
    }
}
