//! The clauses about PINs, news and sessions that go on under a new token, one function each; listed by
//! [`keeps_pins_as_the_contract_says!`].

use std::sync::Arc;
use std::time::Duration;

use sekisho::clock::Timestamp;
use sekisho::session::TokenHash;
use sekisho::store::{
    BindingStore, EnrolOutcome, KeyChange, NewsKind, NewsStore, Over, PinPace, PinRecord, PinStore, PinTry, PinVerdict,
    Renewal, SERIES, SessionRecord, SessionScope, TokenTransport,
};
use tokio::task::JoinSet;

use crate::conformance::{
    Backend, account, at, bind, binding_id, bindings_of, code, enrolment, loaded, open_all, session, today,
};

/// One test a clause for the backend `$backend`.
macro_rules! keeps_pins_as_the_contract_says {
    ($backend:ty) => {
        keeps_pins_as_the_contract_says! { $backend:
            clause_50_judged_and_counted_in_one_step
            clause_50_a_crash_gives_no_try_back
            clause_51_its_own_handset_alone
            clause_52_never_over_another
            clause_53_to_the_others
            clause_54_once
            clause_55_no_way_back_in
            a_pin_is_gone_with_its_account_and_tries_with_their_handset
            what_was_hashed_anew_meanwhile_is_hashed_again
            the_secret_moves_to_another_kek
        }
    };
    ($backend:ty: $($clause:ident)+) => {
        $(#[tokio::test]
        async fn $clause() {
            crate::pin_conformance::$clause(<$backend as crate::conformance::Backend>::fresh()).await;
        })+
    };
}
pub(crate) use keeps_pins_as_the_contract_says;

const PACE: PinPace = PinPace { count: 3, period: Duration::from_hours(1) };
const RIGHT: u8 = 1;
const WRONG: u8 = 9;

fn pin(salt: u8, mac: u8) -> PinRecord {
    PinRecord { salt: [salt; 16], mac: [mac; 32], set_at: at(3) }
}

fn typed(handset: u8, salt: u8, mac: u8) -> PinTry {
    PinTry { binding: binding_id(handset), salt: [salt; 16], mac: [mac; 32] }
}

/// Two handsets of alice, whose PIN hashes to [`RIGHT`] under salt 1, and one of bob, who has none.
async fn alice_has_a_pin(backend: &impl Backend) -> (Arc<dyn BindingStore>, Arc<dyn PinStore>) {
    let (bindings, pins) = (bindings_of(backend).await, backend.pins());
    for (handset, name) in [(1, "alice"), (2, "alice"), (3, "bob")] {
        bind(&*bindings, handset, name).await;
    }
    assert!(pins.set_pin(&account("alice"), pin(1, RIGHT), Over::Nothing, binding_id(1)).await.unwrap());
    (bindings, pins)
}

async fn judge(pins: &dyn PinStore, handset: u8, mac: u8, now: Timestamp) -> PinVerdict {
    pins.judge_pin(typed(handset, 1, mac), PACE, now).await.unwrap()
}

pub(crate) async fn clause_50_judged_and_counted_in_one_step(backend: impl Backend) {
    let (_, pins) = alice_has_a_pin(&backend).await;
    let verdicts: JoinSet<PinVerdict> = (0..40)
        .map(|_| {
            let pins = Arc::clone(&pins);
            async move { judge(&*pins, 1, WRONG, at(5)).await }
        })
        .collect();
    let verdicts = verdicts.join_all().await;
    let mut heard: Vec<u32> = verdicts
        .iter()
        .filter_map(|verdict| if let PinVerdict::Wrong { in_a_row } = verdict { Some(*in_a_row) } else { None })
        .collect();
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3], "the others were not looked at");
    assert_eq!(judge(&*pins, 1, RIGHT, at(5)).await, PinVerdict::TooOften(Duration::from_mins(20)));
    assert_eq!(pins.pin_wait(binding_id(1), PACE, at(5)).await.unwrap(), Duration::from_mins(20));
    assert_eq!(pins.pin_wait(binding_id(1), PACE, at(25)).await.unwrap(), Duration::ZERO);
    assert_eq!(judge(&*pins, 1, RIGHT, at(25)).await, PinVerdict::Right);
    for in_a_row in 1..=3 {
        assert_eq!(judge(&*pins, 1, WRONG, at(25)).await, PinVerdict::Wrong { in_a_row }, "a right one forgets them");
    }
}

pub(crate) async fn clause_50_a_crash_gives_no_try_back(backend: impl Backend) {
    let (bindings, pins) = alice_has_a_pin(&backend).await;
    for in_a_row in 1..=3 {
        assert_eq!(judge(&*pins, 1, WRONG, at(5)).await, PinVerdict::Wrong { in_a_row });
    }
    drop((bindings, pins));
    let backend = backend.restart();
    let pins = backend.pins();
    assert_eq!(judge(&*pins, 1, RIGHT, at(5)).await, PinVerdict::TooOften(Duration::from_mins(20)));
    assert_eq!(pins.pin(&account("alice")).await.unwrap().unwrap().mac, [RIGHT; 32]);
    // Neither does setting another on another handset.
    assert!(pins.set_pin(&account("alice"), pin(1, RIGHT), Over::Of([1; 16]), binding_id(2)).await.unwrap());
    assert!(!pins.pin_wait(binding_id(1), PACE, at(5)).await.unwrap().is_zero());
    assert!(pins.set_pin(&account("alice"), pin(1, RIGHT), Over::Of([1; 16]), binding_id(1)).await.unwrap());
    assert!(pins.pin_wait(binding_id(1), PACE, at(5)).await.unwrap().is_zero(), "on itself it does");
}

pub(crate) async fn clause_51_its_own_handset_alone(backend: impl Backend) {
    let (_, pins) = alice_has_a_pin(&backend).await;
    for _ in 0..30 {
        judge(&*pins, 2, WRONG, at(5)).await;
    }
    assert!(!pins.pin_wait(binding_id(2), PACE, at(5)).await.unwrap().is_zero());
    assert!(pins.pin_wait(binding_id(1), PACE, at(5)).await.unwrap().is_zero());
    assert_eq!(judge(&*pins, 1, RIGHT, at(5)).await, PinVerdict::Right);
    assert!(!pins.pin_wait(binding_id(2), PACE, at(5)).await.unwrap().is_zero(), "nor does it forgive another's");
    assert_eq!(judge(&*pins, 3, RIGHT, at(5)).await, PinVerdict::None, "bob has none");
    assert_eq!(judge(&*pins, 77, RIGHT, at(5)).await, PinVerdict::None, "no such handset");
}

pub(crate) async fn clause_52_never_over_another(backend: impl Backend) {
    let (_, pins) = alice_has_a_pin(&backend).await;
    let alice = account("alice");
    for over in [Over::Nothing, Over::Of([2; 16])] {
        assert!(!pins.set_pin(&alice, pin(7, 7), over, binding_id(1)).await.unwrap());
        assert!(!pins.clear_pin(&alice, over).await.unwrap());
    }
    assert!(!pins.set_pin(&account("bob"), pin(7, 7), Over::Of([1; 16]), binding_id(3)).await.unwrap());
    assert!(!pins.set_pin(&account("nobody"), pin(7, 7), Over::Nothing, binding_id(3)).await.unwrap());
    assert!(pins.pin(&account("nobody")).await.unwrap().is_none());
    assert!(!pins.clear_pin(&account("bob"), Over::Anything).await.unwrap());
    assert_eq!(pins.pin(&alice).await.unwrap().unwrap().salt, [1; 16]);

    // Whoever typed the same old one at the same time: one of them replaces it.
    let sets: JoinSet<bool> = (10..30_u8)
        .map(|salt| {
            let (pins, alice) = (Arc::clone(&pins), account("alice"));
            async move { pins.set_pin(&alice, pin(salt, salt), Over::Of([1; 16]), binding_id(1)).await.unwrap() }
        })
        .collect();
    assert_eq!(sets.join_all().await.iter().filter(|set| **set).count(), 1);
    let now = pins.pin(&alice).await.unwrap().unwrap().salt;
    assert!(pins.clear_pin(&alice, Over::Of(now)).await.unwrap());
    assert!(pins.pin(&alice).await.unwrap().is_none());
}

async fn told(news: &dyn NewsStore, handset: u8) -> Vec<(NewsKind, Option<String>)> {
    let has = news.has_news(binding_id(handset)).await.unwrap();
    let told = news.take_news(binding_id(handset)).await.unwrap();
    assert_eq!(has, !told.is_empty());
    assert!(told.iter().all(|news| news.day == today()));
    told.into_iter().map(|news| (news.kind, news.carrier.map(|carrier| carrier.to_string()))).collect()
}

pub(crate) async fn clause_53_to_the_others(backend: impl Backend) {
    let (bindings, pins) = alice_has_a_pin(&backend).await;
    let news = backend.news();
    let docomo = || Some("docomo".to_owned());
    assert_eq!(told(&*news, 1).await, [(NewsKind::HandsetBound, docomo())]);
    assert_eq!(told(&*news, 2).await, [], "it knows");
    assert_eq!(told(&*news, 3).await, [], "nobody else's");
    for _ in 1..SERIES {
        pins.judge_pin(typed(2, 1, WRONG), PinPace { count: 1000, ..PACE }, at(5)).await.unwrap();
    }
    assert_eq!(told(&*news, 1).await, [], "no series yet");
    for _ in 0..2 * SERIES {
        pins.judge_pin(typed(2, 1, WRONG), PinPace { count: 1000, ..PACE }, at(5)).await.unwrap();
    }
    bindings.issue_code(code("alice", "4444", 4)).await.unwrap();
    for handset in 10..10 + u8::try_from(SERIES).unwrap() {
        assert_eq!(bindings.enrol(enrolment(handset, "4444", WRONG), at(5)).await.unwrap(), EnrolOutcome::CodeInvalid);
    }
    drop((bindings, pins, news));
    let backend = backend.restart();
    let news = backend.news();
    for handset in [1, 2] {
        assert_eq!(told(&*news, handset).await, [(NewsKind::WrongPins, docomo()), (NewsKind::WrongCodes, None)]);
    }
    assert_eq!(told(&*news, 3).await, []);
}

pub(crate) async fn clause_54_once(backend: impl Backend) {
    let bindings = bindings_of(&backend).await;
    for handset in [1, 2, 3] {
        bind(&*bindings, handset, "alice").await;
    }
    let takes: JoinSet<usize> = (0..10)
        .map(|_| {
            let news = backend.news();
            async move { news.take_news(binding_id(1)).await.unwrap().len() }
        })
        .collect();
    assert_eq!(takes.join_all().await.iter().sum::<usize>(), 2, "each of them to one call");
    assert!(bindings.revoke(binding_id(2)).await.unwrap().is_some());
    assert!(!backend.news().has_news(binding_id(2)).await.unwrap());
}

fn hash(number: u8) -> TokenHash {
    TokenHash::from_bytes([number; 32])
}

fn renewal(to: u8) -> Renewal {
    Renewal { token_hash: hash(to), link: [to; 32], transport: TokenTransport::Url, at: at(4) }
}

/// What becomes of the session `number`.
fn renewed(number: u8, name: &str, to: u8) -> SessionRecord {
    SessionRecord {
        token_hash: hash(to),
        link: Some([to; 32]),
        pin_at: Some(at(4)),
        last_seen_at: at(4),
        by_code: false,
        transport: TokenTransport::Url,
        ..session(number, name)
    }
}

pub(crate) async fn clause_55_no_way_back_in(backend: impl Backend) {
    let sessions = backend.sessions();
    let by_code = SessionRecord { by_code: true, ..session(1, "alice") };
    open_all(&*sessions, &[by_code, session(2, "alice")]).await;
    assert!(sessions.renew(hash(1), renewal(11)).await.unwrap());
    assert!(!sessions.renew(hash(1), renewal(12)).await.unwrap(), "the old token is gone");
    assert!(!sessions.end_one(hash(1)).await.unwrap());
    assert!(sessions.end_one(hash(2)).await.unwrap());
    assert!(!sessions.renew(hash(2), renewal(13)).await.unwrap(), "it was ended");
    assert_eq!(loaded(&*sessions).await, [renewed(1, "alice", 11)]);

    // Whoever ends it by its id at the same time ends it under whichever token it has.
    for round in 20..40_u8 {
        open_all(&*sessions, &[session(round, "crowd")]).await;
        let (one, other) = (Arc::clone(&sessions), Arc::clone(&sessions));
        let renews = tokio::spawn(async move { one.renew(hash(round), renewal(100 + round)).await.unwrap() });
        let scope = SessionScope::Id(account("crowd"), session(round, "crowd").id);
        let ends = tokio::spawn(async move { other.end(scope).await.unwrap().len() });
        assert_eq!((renews.await.is_ok(), ends.await.unwrap()), (true, 1));
        assert_eq!(loaded(&*sessions).await.len(), 1, "round {round}");
    }
    let backend = backend.restart();
    assert_eq!(loaded(&*backend.sessions()).await, [renewed(1, "alice", 11)]);
}

pub(crate) async fn a_pin_is_gone_with_its_account_and_tries_with_their_handset(backend: impl Backend) {
    let (bindings, pins) = alice_has_a_pin(&backend).await;
    assert!(bindings.account(&account("alice")).await.unwrap().unwrap().has_pin);
    assert!(!bindings.account(&account("bob")).await.unwrap().unwrap().has_pin);
    for _ in 0..3 {
        judge(&*pins, 2, WRONG, at(5)).await;
    }
    bindings.revoke(binding_id(2)).await.unwrap();
    assert!(pins.pin_wait(binding_id(2), PACE, at(5)).await.unwrap().is_zero());
    assert_eq!(judge(&*pins, 2, RIGHT, at(5)).await, PinVerdict::None, "a handset that was removed proves nothing");
    assert_eq!(judge(&*pins, 1, RIGHT, at(5)).await, PinVerdict::Right);
}

pub(crate) async fn what_was_hashed_anew_meanwhile_is_hashed_again(backend: impl Backend) {
    let (_, pins) = alice_has_a_pin(&backend).await;
    assert!(pins.set_pin(&account("alice"), pin(2, 2), Over::Of([1; 16]), binding_id(1)).await.unwrap());
    for mac in [RIGHT, WRONG] {
        assert_eq!(judge(&*pins, 1, mac, at(5)).await, PinVerdict::Changed, "and no try");
    }
    assert_eq!(pins.judge_pin(typed(1, 2, 2), PACE, at(5)).await.unwrap(), PinVerdict::Right);
    assert_eq!(pins.judge_pin(typed(1, 2, 1), PACE, at(5)).await.unwrap(), PinVerdict::Wrong { in_a_row: 1 });
}

pub(crate) async fn the_secret_moves_to_another_kek(backend: impl Backend) {
    alice_has_a_pin(&backend).await;
    let moved = KeyChange::RewrapPinSecret { wrapped: vec![3; 60] };
    let (before, keys) = (backend.keys().keys().await.unwrap(), backend.keys());
    keys.change(before.revision, vec![moved]).await.unwrap();
    drop(keys);
    let backend = backend.restart();
    let after = backend.keys().keys().await.unwrap();
    assert_eq!(after.scheme.unwrap().pin_secret, [3; 60]);
    assert_eq!(after.generation, before.generation, "no digest is made otherwise");
    assert_eq!(backend.pins().pin(&account("alice")).await.unwrap().unwrap().mac, [RIGHT; 32]);
}
