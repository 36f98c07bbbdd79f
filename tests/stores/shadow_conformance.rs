//! The clauses of the port of drills, one function each; listed by [`lends_shadows_as_the_contract_says!`].

use std::sync::Arc;

use sekisho::entropy::{Entropy, SystemEntropy};
use sekisho::store::{Shadow, ShadowError};

use crate::conformance::{Backend, at, bind, binding_id, bindings_of, loaded, open_all, resolves, session};

/// One test a clause for the backend `$backend`.
macro_rules! lends_shadows_as_the_contract_says {
    ($backend:ty) => {
        lends_shadows_as_the_contract_says! { $backend:
            clause_95_of_one_instant
            clause_96_apart
            clause_97_gone
            clause_98_one
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::shadow_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use lends_shadows_as_the_contract_says;

async fn shadow(backend: &impl Backend) -> Result<Box<dyn Shadow>, ShadowError> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    backend.shadows().shadow(entropy, at(0)).await
}

pub(crate) async fn clause_95_of_one_instant(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    open_all(&*backend.sessions(), &[session(1, "alice")]).await;
    let shadow = shadow(&backend).await.unwrap();
    let ports = shadow.ports();
    assert!(ports.bytes > 0);
    assert_eq!(ports.bindings.bindings(None).await.unwrap(), store.bindings(None).await.unwrap());
    assert_eq!(ports.bindings.accounts().await.unwrap(), store.accounts().await.unwrap());
    assert_eq!(loaded(&*ports.sessions).await.len(), 1, "sessions are what a leak ends");
    assert_eq!(ports.keys.keys().await.unwrap().revision, backend.keys().keys().await.unwrap().revision);
    drop(ports);
    shadow.erase().await.unwrap();
}

pub(crate) async fn clause_96_apart(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    let shadow = shadow(&backend).await.unwrap();
    let ports = shadow.ports();
    bind(&*store, 2, "bob").await;
    bind(&*ports.bindings, 3, "shadow-of-nobody-Qz7").await;
    ports.bindings.revoke(binding_id(1)).await.unwrap().unwrap();
    assert!(resolves(&*ports.bindings, 2).await.is_none());
    assert!(resolves(&*store, 3).await.is_none() && resolves(&*store, 1).await.is_some());
    let kept = backend.medium();
    assert!(!kept.windows(20).any(|window| window == b"shadow-of-nobody-Qz7"));
    drop(ports);
    shadow.erase().await.unwrap();
    assert!(resolves(&*store, 1).await.is_some());
}

pub(crate) async fn clause_97_gone(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    for erased in [true, false] {
        let shadow = shadow(&backend).await.unwrap();
        assert!(backend.has_shadow());
        if erased {
            shadow.erase().await.unwrap();
        } else {
            drop(shadow);
        }
        assert!(!backend.has_shadow(), "erased: {erased}");
    }
    // As of a process that died.
    std::mem::forget(shadow(&backend).await.unwrap());
    let backend = backend.restart();
    assert!(!backend.has_shadow());
    shadow(&backend).await.unwrap().erase().await.unwrap();
}

pub(crate) async fn clause_98_one(backend: impl Backend) {
    let store = bindings_of(&backend).await;
    bind(&*store, 1, "alice").await;
    let first = shadow(&backend).await.unwrap();
    assert!(matches!(shadow(&backend).await, Err(ShadowError::Busy)));
    assert!(backend.has_shadow(), "the first is as it was");
    assert_eq!(first.ports().bindings.bindings(None).await.unwrap().len(), 1);
    first.erase().await.unwrap();
    shadow(&backend).await.unwrap().erase().await.unwrap();
}
