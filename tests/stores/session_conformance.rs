//! The clauses of the port of sessions.

use sekisho::carrier::CarrierName;
use sekisho::clock::Timestamp;
use sekisho::session::TokenHash;
use sekisho::store::{SessionRecord, SessionScope, TokenTransport};

use crate::conformance::{Backend, account, at, binding_id, hash, loaded, open_all, session};

pub(crate) async fn clause_13_bounded(backend: impl Backend) {
    let store = backend.sessions();
    assert_eq!(store.open(session(1, "alice"), 2, None).await.unwrap(), []);
    assert_eq!(store.open(session(9, "bob"), 2, None).await.unwrap(), []);
    assert_eq!(store.open(session(2, "alice"), 2, None).await.unwrap(), []);
    // The clock was set back: the new session is still not the oldest.
    let early = SessionRecord { created_at: at(-60), ..session(3, "alice") };
    assert_eq!(store.open(early, 2, None).await.unwrap(), [hash(1)]);
    // What it replaces makes the room.
    assert_eq!(store.open(session(4, "alice"), 2, Some(hash(3))).await.unwrap(), [hash(3)]);
    assert_eq!(store.open(session(5, "alice"), 2, Some(hash(77))).await.unwrap(), [hash(2)]);
    // A browser may have been somebody else's.
    assert_eq!(store.open(session(6, "carol"), 2, Some(hash(9))).await.unwrap(), [hash(9)]);
    // A lowered limit takes several.
    assert_eq!(store.open(session(7, "alice"), 1, None).await.unwrap().len(), 2);
    let left: Vec<TokenHash> = loaded(&*store).await.iter().map(|s| s.token_hash).collect();
    assert_eq!(left, [hash(6), hash(7)]);
}

pub(crate) async fn clause_14_gone(backend: impl Backend) {
    let store = backend.sessions();
    let of_binding = SessionRecord { binding: binding_id(1), ..session(2, "alice") };
    let all = [session(1, "alice"), of_binding, session(3, "alice"), session(4, "bob"), session(5, "bob")];
    open_all(&*store, &all).await;
    assert_eq!(store.end(SessionScope::Binding(binding_id(1))).await.unwrap(), [hash(1), hash(2)]);
    let of = |name, id| SessionScope::Id(account(name), id);
    assert_eq!(store.end(of("alice", all[3].id)).await.unwrap(), [], "it is another's");
    assert_eq!(store.end(of("bob", all[3].id)).await.unwrap(), [hash(4)]);
    assert_eq!(store.end(of("bob", all[3].id)).await.unwrap(), []);
    assert_eq!(store.end(SessionScope::Account(account("alice"))).await.unwrap(), [hash(3)]);
    open_all(&*store, &[session(6, "carol"), session(7, "dave"), session(8, "erin")]).await;
    let some = SessionScope::AnyOf(vec![binding_id(8), binding_id(77), binding_id(6)]);
    assert_eq!(store.end(some.clone()).await.unwrap(), [hash(8), hash(6)]);
    assert_eq!(store.end(some).await.unwrap(), []);
    assert!(store.end_one(hash(7)).await.unwrap());
    assert!(store.end_one(hash(5)).await.unwrap());
    assert!(!store.end_one(hash(5)).await.unwrap());
    store.touch(vec![(hash(5), at(5))]).await.unwrap();
    let backend = {
        drop(store);
        backend.restart()
    };
    assert_eq!(loaded(&*backend.sessions()).await, []);
}

pub(crate) async fn clause_15_touch_moves_forward_only(backend: impl Backend) {
    let store = backend.sessions();
    open_all(&*store, &[session(1, "alice"), session(2, "alice")]).await;
    store.touch(vec![(hash(1), at(5)), (hash(2), at(6)), (hash(3), at(7))]).await.unwrap();
    store.touch(vec![(hash(1), at(4)), (hash(2), at(7))]).await.unwrap();
    let seen: Vec<Timestamp> = loaded(&*store).await.iter().map(|s| s.last_seen_at).collect();
    assert_eq!(seen, [at(5), at(7)]);
}

pub(crate) async fn clause_18_a_cookie_never_becomes_a_url(backend: impl Backend) {
    let store = backend.sessions();
    open_all(&*store, &[session(1, "alice"), session(2, "alice"), session(3, "bob")]).await;
    store.end_one(hash(3)).await.unwrap();
    for n in [1, 1, 3, 4] {
        store.keep_in_cookie(hash(n)).await.unwrap();
    }
    store.touch(vec![(hash(1), at(5))]).await.unwrap();
    let backend = {
        drop(store);
        backend.restart()
    };
    let kept = SessionRecord { transport: TokenTransport::Cookie, last_seen_at: at(5), ..session(1, "alice") };
    assert_eq!(loaded(&*backend.sessions()).await, [kept, session(2, "alice")]);
}

pub(crate) async fn sessions_load_and_are_erased(backend: impl Backend) {
    let store = backend.sessions();
    let brief = SessionRecord { expires_at: at(5), transport: TokenTransport::Cookie, ..session(9, "alice") };
    let long = SessionRecord { last_seen_at: at(4), ..session(2, "alice") };
    open_all(&*store, &[brief.clone(), long.clone(), session(3, "bob"), session(1, "bob")]).await;
    assert_eq!(
        loaded(&*store).await,
        [brief, long.clone(), session(3, "bob"), session(1, "bob")],
        "as they were opened"
    );
    let names = loaded(&*store).await.into_iter().map(|session| session.carrier).collect::<Vec<_>>();
    let where_it_is = |name: &CarrierName| name.as_str().as_ptr();
    assert!(names.iter().all(|name| where_it_is(name) == where_it_is(&names[0])), "one name for all of a carrier");
    store.erase(vec![hash(9), hash(77), hash(3), hash(3)]).await.unwrap();
    store.erase(Vec::new()).await.unwrap();
    assert_eq!(loaded(&*store).await, [long, session(1, "bob")]);
}
