//! The clauses about notices, one function each; listed by [`keeps_notices_as_the_contract_says!`].

use std::sync::Arc;

use sekisho::store::{ImportOutcome, NewNotice, NoticeStore};
use tokio::task::JoinSet;

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, code, enrolment, imported, probe, today,
};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_notices_as_the_contract_says {
    ($backend:ty) => {
        keeps_notices_as_the_contract_says! { $backend:
            clause_85_kept
            clause_86_told_by_the_sign_in_page
            clause_87_news_once
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::notice_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_notices_as_the_contract_says;

fn notice(says: u8, revision: &str) -> NewNotice {
    NewNotice { revision: revision.to_owned(), document: format!("document {says}"), digest: [says; 32] }
}

async fn ids(notices: &dyn NoticeStore, before: Option<u32>, most: u32) -> Vec<u32> {
    notices.notices(before, most).await.unwrap().iter().map(|notice| notice.id).collect()
}

pub(crate) async fn clause_85_kept(backend: impl Backend) {
    let notices = backend.notices();
    assert_eq!(ids(&*notices, None, 9).await, [0; 0]);
    let mut at_once = JoinSet::new();
    for _ in 0..10 {
        let notices = Arc::clone(&notices);
        at_once.spawn(async move { notices.put_in_force(notice(1, "2026-11-23"), at(0)).await.unwrap() });
    }
    assert_eq!(at_once.join_all().await.into_iter().filter(|new| *new).count(), 1);
    assert!(notices.put_in_force(notice(2, "2026-12-01"), at(1)).await.unwrap());
    assert!(notices.put_in_force(notice(1, "2026-11-23"), at(2)).await.unwrap(), "it is in force again");
    drop(notices);
    let backend = backend.restart();
    let notices = backend.notices();
    assert_eq!(ids(&*notices, None, 9).await, [3, 2, 1]);
    assert_eq!(ids(&*notices, None, 1).await, [3]);
    assert_eq!(ids(&*notices, Some(3), 9).await, [2, 1]);
    let second = notices.notice(2).await.unwrap().unwrap();
    assert_eq!((second.document.as_str(), second.summary.in_force_from), ("document 2", at(1)));
    assert_eq!((second.summary.revision.as_str(), second.summary.digest), ("2026-12-01", [2; 32]));
    assert_eq!(notices.notice(4).await.unwrap(), None);
    assert!(!notices.put_in_force(notice(1, "2026-11-23"), at(3)).await.unwrap());
}

async fn shown(backend: &impl Backend, name: &str) -> Vec<(u8, u32)> {
    let shown = backend.notices().shown(&account(name)).await.unwrap();
    let number = |id| (0..=255).find(|number| binding_id(*number) == id).unwrap();
    shown.into_iter().map(|(binding, notice)| (number(binding), notice.id)).collect()
}

pub(crate) async fn clause_86_told_by_the_sign_in_page(backend: impl Backend) {
    let (bindings, notices) = (bindings_of(&backend).await, backend.notices());
    bind(&*bindings, 1, "alice").await;
    assert_eq!(shown(&backend, "alice").await, [], "there was none to tell");
    notices.put_in_force(notice(1, "2026-11-23"), at(0)).await.unwrap();
    bind(&*bindings, 2, "alice").await;
    let outcomes = bindings.import(vec![imported(3, "alice")], 9, at(0)).await.unwrap();
    assert_eq!(outcomes, [ImportOutcome::Bound]);
    assert_eq!(shown(&backend, "alice").await, [(2, 1)]);
    notices.put_in_force(notice(2, "2026-12-01"), at(1)).await.unwrap();
    assert!(!backend.news().has_news(binding_id(103)).await.unwrap(), "they were told nothing that could have changed");
    for (id, handset) in [(1, 1), (2, 2), (103, 3)] {
        assert!(bindings.used(binding_id(id), today(), probe("k1", handset), 0).await.unwrap());
    }
    assert_eq!(
        shown(&backend, "alice").await,
        [(1, 2), (2, 1), (103, 2)],
        "a use tells who was told none, and no others"
    );
    assert_eq!(shown(&backend, "bob").await, []);
}

pub(crate) async fn clause_87_news_once(backend: impl Backend) {
    let (bindings, notices) = (bindings_of(&backend).await, backend.notices());
    notices.put_in_force(notice(1, "2026-11-23"), at(0)).await.unwrap();
    bind(&*bindings, 1, "alice").await;
    notices.put_in_force(notice(2, "2026-11-23"), at(1)).await.unwrap();
    bind(&*bindings, 2, "bob").await;
    let backend = backend.restart();
    let (bindings, notices, news) = (backend.bindings(), backend.notices(), backend.news());
    assert!(news.has_news(binding_id(1)).await.unwrap());
    assert!(!news.has_news(binding_id(2)).await.unwrap());
    assert_eq!(notices.take_notice(binding_id(2)).await.unwrap(), None);
    assert_eq!(notices.take_notice(binding_id(9)).await.unwrap(), None);
    let mut at_once = JoinSet::new();
    for _ in 0..10 {
        let notices = Arc::clone(&notices);
        at_once.spawn(async move { notices.take_notice(binding_id(1)).await.unwrap() });
    }
    let taken: Vec<_> = at_once.join_all().await.into_iter().flatten().collect();
    let [change] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((change.was.document.as_str(), change.is.document.as_str()), ("document 1", "document 2"));
    assert_eq!((shown(&backend, "alice").await, shown(&backend, "bob").await), (vec![(1, 2)], vec![(2, 2)]));
    // What they were shown comes into force again, in between and for good.
    notices.put_in_force(notice(1, "2026-11-23"), at(2)).await.unwrap();
    notices.put_in_force(notice(2, "2026-11-23"), at(3)).await.unwrap();
    let backend = backend.restart();
    for handset in [1, 2] {
        assert!(!backend.news().has_news(binding_id(handset)).await.unwrap());
        assert_eq!(backend.notices().take_notice(binding_id(handset)).await.unwrap(), None);
    }
    // A code that is typed on a handset that is bound tells nothing by itself.
    backend.notices().put_in_force(notice(3, "2026-12-24"), at(4)).await.unwrap();
    backend.bindings().issue_code(code("alice", "4444", 4)).await.unwrap();
    backend.bindings().enrol(enrolment(1, "4444", 4), at(5)).await.unwrap();
    assert!(backend.news().has_news(binding_id(1)).await.unwrap());
    drop(bindings);
}
