//! Live sessions against the embedded store: what the registry holds, what it lets go, and what outlives a restart.

#![expect(clippy::unwrap_used, reason = "a set-up that fails should fail its test")]

mod cookie;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sekisho::binding::{AccountId, BindingId};
use sekisho::carrier::{CarrierName, Carriers, Networks, ProfileSpec, RawIdentifier};
use sekisho::clock::Timestamp;
use sekisho::edge::{HeadLimits, RawHead, Scheme, TrustedProxies};
use sekisho::entropy::SystemEntropy;
use sekisho::session::{Check, LiveSession, Opening, SessionPolicy, SessionSecret, SessionToken, Sessions, TokenHash};
use sekisho::store::{
    EmbeddedStore, Renewal, SessionRecord, SessionScope, SessionStore, SessionVisit, StoreError, TokenTransport,
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const POLICY: SessionPolicy =
    SessionPolicy { idle: Duration::from_mins(30), absolute: Duration::from_hours(12), per_account: 3 };
const TAG: [u8; 32] = [7; 32];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis((1_795_530_000 + seconds) * 1000)
}

/// A store, the sessions on it, and where it lives.
struct Place {
    folder: TempDir,
    store: Arc<EmbeddedStore>,
    sessions: Sessions<()>,
}

impl Place {
    async fn new() -> Self {
        Self::on(TempDir::new().unwrap(), at(0)).await
    }

    async fn on(folder: TempDir, now: Timestamp) -> Self {
        let path = folder.path().join("test.store");
        let (store, _) = EmbeddedStore::open(&path, now, &SystemEntropy::default()).ok().unwrap();
        let store = Arc::new(store);
        let sessions = Sessions::load(Arc::clone(&store) as Arc<dyn SessionStore>, POLICY, now).await.unwrap();
        Self { folder, store, sessions }
    }

    async fn restarted(self, now: Timestamp) -> Self {
        let Self { folder, store, sessions } = self;
        store.close().await.unwrap();
        drop((sessions, store));
        Self::on(folder, now).await
    }

    async fn open(&self, account: &str, binding: u8, now: Timestamp) -> (TokenHash, Arc<LiveSession<()>>) {
        self.open_as(account, binding, TokenTransport::Cookie, None, now).await
    }

    async fn open_as(
        &self,
        account: &str,
        binding: u8,
        transport: TokenTransport,
        replaces: Option<TokenHash>,
        now: Timestamp,
    ) -> (TokenHash, Arc<LiveSession<()>>) {
        let opening = opening(account, binding);
        let opened = self.sessions.open(opening, transport, replaces, &SystemEntropy::default(), now).await;
        let (secret, session) = opened.unwrap();
        (secret.token().hash(), session)
    }

    fn lives(&self, hash: TokenHash, now: Timestamp) -> bool {
        self.lives_by(TokenTransport::Cookie, hash, now)
    }

    fn lives_by(&self, transport: TokenTransport, hash: TokenHash, now: Timestamp) -> bool {
        matches!(self.sessions.check(hash, transport, now), Check::Live(_))
    }

    /// Its own device uses it. Whether it could.
    fn used(&self, hash: TokenHash, now: Timestamp) -> bool {
        match self.sessions.check(hash, TokenTransport::Cookie, now) {
            Check::Live(session) => session.note_use(now),
            Check::Gone => return false,
        }
        true
    }

    /// What the store has.
    async fn stored(&self) -> Vec<SessionRecord> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seeing = Arc::clone(&seen);
        self.store.load(Box::new(move |record| seeing.lock().unwrap().push(record))).await.unwrap();
        std::mem::take(&mut *seen.lock().unwrap())
    }
}

fn opening(account: &str, binding: u8) -> Opening {
    Opening {
        account: AccountId::parse(account).unwrap(),
        binding: binding_id(binding),
        carrier: CarrierName::parse("alpha").unwrap(),
        secret: SessionSecret::generate(&SystemEntropy::default()),
        continuity: TAG,
        by_code: false,
        pin_at: None,
    }
}

fn binding_id(n: u8) -> BindingId {
    BindingId::parse(&format!("00000000-0000-4000-8000-0000000000{n:02}")).unwrap()
}

/// The real store, which keeps a new session only when it is told to go on.
struct Slow {
    store: Arc<EmbeddedStore>,
    asked: Semaphore,
    go_on: Semaphore,
}

#[async_trait]
impl SessionStore for Slow {
    async fn open(
        &self,
        session: SessionRecord,
        per_account: u32,
        replaces: Option<TokenHash>,
    ) -> Result<Vec<TokenHash>, StoreError> {
        self.asked.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
        self.store.open(session, per_account, replaces).await
    }
    async fn renew(&self, old: TokenHash, renewal: Renewal) -> Result<bool, StoreError> {
        self.asked.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
        self.store.renew(old, renewal).await
    }
    async fn load(&self, visit: SessionVisit) -> Result<(), StoreError> {
        self.store.load(visit).await
    }
    async fn touch(&self, seen: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError> {
        self.store.touch(seen).await
    }
    async fn keep_in_cookie(&self, token: TokenHash) -> Result<(), StoreError> {
        self.store.keep_in_cookie(token).await
    }
    async fn end(&self, scope: SessionScope) -> Result<Vec<TokenHash>, StoreError> {
        self.store.end(scope).await
    }
    async fn end_one(&self, token: TokenHash) -> Result<bool, StoreError> {
        self.store.end_one(token).await
    }
    async fn erase(&self, sessions: Vec<TokenHash>) -> Result<(), StoreError> {
        self.store.erase(sessions).await
    }
}

/// What the gateway of `carrier` says of a handset.
fn handset(carrier: &str, identifier: &str) -> RawIdentifier {
    let spec = ProfileSpec {
        header: Some("X-Device-Ref".into()),
        grammar: Some("^[A-Za-z0-9]{7}$".into()),
        user_agent: Some("any".into()),
        over_tls: Some("accept".into()),
        networks: Some(Networks::List(vec!["127.0.1.0/24".into()])),
        ..ProfileSpec::default()
    };
    let (carriers, _) = Carriers::build(&BTreeMap::from([(carrier.to_owned(), spec)])).ok().unwrap();
    let request = http::Request::get("/").header("Host", "x").header("X-Device-Ref", identifier);
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let limits = HeadLimits { head_bytes: 4096, headers: 10, url_bytes: 1024 };
    let head = RawHead::read(parts, &limits).unwrap();
    let peer = IpAddr::from([127, 0, 1, 9]);
    let client = TrustedProxies::new(Vec::new()).resolve(peer, Scheme::Http, &head).unwrap();
    carriers.identify(&head, &client).unwrap()
}

#[tokio::test]
async fn an_opened_session_is_what_it_was_opened_from() {
    let place = Place::new().await;
    assert!(place.sessions.is_empty());
    let (hash, session) = place.open("alice", 1, at(0)).await;
    assert_eq!((place.sessions.len(), place.sessions.is_empty()), (1, false));
    let facts = session.facts();
    assert_eq!((facts.token_hash, facts.account.to_string(), facts.binding), (hash, "alice".into(), binding_id(1)));
    assert_eq!((facts.created_at, session.expires_at(), session.last_seen_at()), (at(0), at(12 * 3600), at(0)));
    let stored = place.stored().await;
    let [record] = stored.as_slice() else { panic!("{} sessions", stored.len()) };
    assert_eq!((record.token_hash, record.id, &record.account), (hash, facts.id, &facts.account));
    assert_eq!((record.binding, &record.carrier, record.sid_seed), (facts.binding, &facts.carrier, facts.sid_seed));
    assert_eq!((record.continuity, record.created_at, record.expires_at), (TAG, at(0), at(12 * 3600)));
    let Check::Live(found) = place.sessions.check(hash, TokenTransport::Cookie, at(60)) else { panic!("it lives") };
    assert_eq!((found.facts().id, found.last_seen_at()), (facts.id, at(0)), "a look is no use");
    assert!(place.used(hash, at(60)));
    assert_eq!(found.last_seen_at(), at(60));
    assert!(place.used(hash, at(30)), "a clock that was set back a little ends nothing");
    assert_eq!(found.last_seen_at(), at(60), "and what was seen was seen");
    let unknown = SessionSecret::generate(&SystemEntropy::default()).token().hash();
    assert!(!place.lives(unknown, at(60)));
}

#[tokio::test]
async fn a_session_knows_its_handset() {
    let place = Place::new().await;
    let secret = SessionSecret::generate(&SystemEntropy::default());
    let continuity = Opening::continuity_of(&secret, &handset("alpha", "abcdefg"));
    let again = SessionToken::parse(secret.token().expose().as_bytes()).unwrap();
    let opening = Opening { secret, continuity, ..opening("alice", 1) };
    let opened = place.sessions.open(opening, TokenTransport::Cookie, None, &SystemEntropy::default(), at(0)).await;
    let (secret, session) = opened.unwrap();
    let token = secret.token();
    assert!(session.same_device(&token, &handset("alpha", "abcdefg")));
    assert!(session.same_device(&again, &handset("alpha", "abcdefg")));
    assert!(!session.same_device(&token, &handset("alpha", "abcdefh")));
    assert!(!session.same_device(&token, &handset("beta", "abcdefg")));
    let other = SessionSecret::generate(&SystemEntropy::default()).token();
    assert!(!session.same_device(&other, &handset("alpha", "abcdefg")));
}

#[tokio::test]
async fn what_is_ended_is_gone_at_once_and_the_others_stay() {
    let place = Place::new().await;
    let (a1, first) = place.open("alice", 1, at(0)).await;
    let (a2, second) = place.open("alice", 2, at(1)).await;
    let (a3, third) = place.open("alice", 2, at(2)).await;
    let (b, bob) = place.open("bob", 3, at(3)).await;
    let listed = |account: Option<&str>, now| {
        let account = account.map(|text| AccountId::parse(text).unwrap());
        let found = place.sessions.list(account.as_ref(), now);
        found.iter().map(|session| session.facts().token_hash).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, at(3)), [a1, a2, a3, b]);
    assert_eq!(listed(Some("alice"), at(3)), [a1, a2, a3]);
    assert_eq!(listed(Some("carol"), at(3)), []);
    // At that moment the first has idled out.
    assert_eq!(listed(Some("alice"), at(1800)), [a2, a3]);
    assert_eq!(listed(Some("bob"), at(1803)), []);

    assert_eq!(place.sessions.end(SessionScope::Binding(binding_id(2))).await.unwrap(), 2);
    assert!(second.end().has_come() && third.end().has_come());
    assert!(!first.end().has_come() && !bob.end().has_come());
    assert!(!place.lives(a2, at(4)) && !place.lives(a3, at(4)) && place.lives(a1, at(4)) && place.lives(b, at(4)));
    assert_eq!(place.sessions.end(SessionScope::Binding(binding_id(2))).await.unwrap(), 0);

    let of = |name| SessionScope::Id(AccountId::parse(name).unwrap(), bob.facts().id);
    assert_eq!(place.sessions.end(of("alice")).await.unwrap(), 0);
    assert!(!bob.end().has_come() && place.lives(b, at(4)));
    assert_eq!(place.sessions.end(of("bob")).await.unwrap(), 1);
    assert!(bob.end().has_come() && place.lives(a1, at(4)));
    assert_eq!(place.sessions.end(SessionScope::Account(AccountId::parse("bob").unwrap())).await.unwrap(), 0);
    assert_eq!(place.sessions.end(SessionScope::Account(AccountId::parse("alice").unwrap())).await.unwrap(), 1);
    assert_eq!((place.sessions.len(), place.stored().await.len()), (0, 0));
}

#[tokio::test]
async fn the_sessions_of_many_bindings_end_in_one_call() {
    let place = Place::new().await;
    let (a, first) = place.open("alice", 3, at(0)).await;
    let (b, _) = place.open("bob", 2, at(1)).await;
    let (c, _) = place.open("carol", 1, at(2)).await;
    // One that the store has lost is over too.
    assert!(place.store.end_one(a).await.unwrap());
    let scope = SessionScope::AnyOf(vec![binding_id(3), binding_id(9), binding_id(1)]);
    assert_eq!(place.sessions.end(scope).await.unwrap(), 2);
    assert!(first.end().has_come() && place.lives(b, at(2)) && !place.lives(a, at(2)) && !place.lives(c, at(2)));
    assert_eq!(place.stored().await.len(), 1);
}

#[tokio::test]
async fn sessions_of_bindings_that_do_not_stand_end() {
    let place = Place::new().await;
    for binding in 1..=3 {
        place.open("alice", binding, at(0)).await;
    }
    // The store has no binding at all.
    assert_eq!(place.sessions.end_fallen(&*place.store).await.unwrap(), 3);
    assert_eq!((place.sessions.len(), place.stored().await.len()), (0, 0));
    assert_eq!(place.sessions.end_fallen(&*place.store).await.unwrap(), 0);
}

#[tokio::test]
async fn many_sessions_of_many_accounts_are_found_by_either() {
    let place = Place::new().await;
    let mut opened = Vec::new();
    for number in 0..300 {
        let account = format!("account-{}", number % 100);
        opened.push((account.clone(), place.open(&account, 1, at(number)).await.0));
    }
    let listed = |account: &str| {
        let found = place.sessions.list(Some(&AccountId::parse(account).unwrap()), at(300));
        found.iter().map(|session| session.facts().token_hash).collect::<Vec<_>>()
    };
    for account in (0..100).map(|number| format!("account-{number}")) {
        let own: Vec<TokenHash> = opened.iter().filter(|(owner, _)| *owner == account).map(|(_, hash)| *hash).collect();
        assert_eq!(listed(&account), own);
    }
    for (_, hash) in opened.iter().step_by(2) {
        assert!(place.sessions.end_one(*hash).await.unwrap());
    }
    for (number, (account, hash)) in opened.iter().enumerate() {
        let lives = number % 2 == 1;
        assert_eq!((place.lives(*hash, at(300)), listed(account).contains(hash)), (lives, lives));
    }
    assert_eq!((place.sessions.len(), place.sessions.list(None, at(300)).len()), (150, 150));
}

#[tokio::test]
async fn one_session_is_ended_by_its_token() {
    let place = Place::new().await;
    let (hash, session) = place.open("alice", 1, at(0)).await;
    let (other, _) = place.open("alice", 1, at(0)).await;
    assert!(place.sessions.end_one(hash).await.unwrap());
    assert!(session.end().has_come() && !place.lives(hash, at(0)) && place.lives(other, at(0)));
    assert!(!place.sessions.end_one(hash).await.unwrap(), "there was none");
    assert_eq!(place.stored().await.len(), 1);
}

#[tokio::test]
async fn what_the_store_lost_is_ended_with_the_next_call() {
    let place = Place::new().await;
    let (hash, session) = place.open("alice", 1, at(0)).await;
    let (other, _) = place.open("bob", 2, at(0)).await;
    // A call that died between the store and here.
    assert_eq!(place.store.end(SessionScope::Binding(binding_id(1))).await.unwrap(), [hash]);
    assert!(place.lives(hash, at(0)));
    assert_eq!(place.sessions.end(SessionScope::Binding(binding_id(1))).await.unwrap(), 1);
    assert!(session.end().has_come() && place.lives(other, at(0)));
}

#[tokio::test]
async fn the_oldest_and_the_replaced_end_with_a_new_one() {
    let place = Place::new().await;
    let (first, oldest) = place.open("alice", 1, at(0)).await;
    let (second, _) = place.open("alice", 1, at(1)).await;
    let (third, _) = place.open("alice", 1, at(2)).await;
    let (fourth, _) = place.open("alice", 1, at(3)).await;
    assert!(oldest.end().has_come() && !place.lives(first, at(3)));
    assert!(place.lives(second, at(3)) && place.lives(third, at(3)) && place.lives(fourth, at(3)));
    let (fifth, _) = place.open_as("alice", 1, TokenTransport::Cookie, Some(fourth), at(4)).await;
    assert!(!place.lives(fourth, at(4)));
    assert!(place.lives(second, at(4)) && place.lives(third, at(4)) && place.lives(fifth, at(4)));
}

#[tokio::test]
async fn an_idle_session_is_over_on_the_instant_and_swept_from_memory_and_store() {
    let place = Place::new().await;
    let (used, _) = place.open("alice", 1, at(0)).await;
    let (idle, session) = place.open("bob", 2, at(0)).await;
    let (other, _) = place.open("carol", 3, at(0)).await;
    assert!(place.used(used, at(1799)) && !place.used(idle, at(1800)));
    assert!(session.end().has_come());
    assert_eq!(place.sessions.len(), 2, "it is forgotten as soon as it is asked for");
    place.sessions.sweep(at(1800), false).await.unwrap();
    assert_eq!(place.sessions.len(), 1, "the others by the sweep");
    assert!(!place.lives(other, at(1800)) && place.used(used, at(1801)));
    let left: Vec<TokenHash> = place.stored().await.iter().map(|record| record.token_hash).collect();
    assert_eq!(left, [used], "rows go with what they are of");
}

#[tokio::test]
async fn uses_are_written_once_a_minute_and_all_of_them_at_the_end() {
    let place = Place::new().await;
    let (hash, _) = place.open("alice", 1, at(0)).await;
    let stored = async || place.stored().await.first().unwrap().last_seen_at;
    assert!(place.used(hash, at(59)));
    place.sessions.sweep(at(59), false).await.unwrap();
    assert_eq!(stored().await, at(0));
    assert!(place.used(hash, at(60)));
    place.sessions.sweep(at(60), false).await.unwrap();
    assert_eq!(stored().await, at(60));
    assert!(place.used(hash, at(119)));
    place.sessions.sweep(at(119), false).await.unwrap();
    assert_eq!(stored().await, at(60), "a minute after the last that was written");
    place.sessions.sweep(at(119), true).await.unwrap();
    assert_eq!(stored().await, at(119));

    let place = place.restarted(at(200)).await;
    let Check::Live(session) = place.sessions.check(hash, TokenTransport::Cookie, at(119)) else {
        panic!("it outlived the restart")
    };
    assert_eq!(session.last_seen_at(), at(119));
}

#[tokio::test]
async fn what_outlives_a_restart_is_what_still_lives() {
    let place = Place::new().await;
    let (first, _) = place.open("alice", 1, at(0)).await;
    let (second, _) = place.open("bob", 2, at(1)).await;
    let place = place.restarted(at(1800)).await;
    assert!(!place.lives(first, at(1800)) && place.lives(second, at(1800)));
    assert_eq!((place.sessions.len(), place.stored().await.len()), (1, 2));
    place.sessions.sweep(at(1800), false).await.unwrap();
    assert_eq!(place.stored().await.len(), 1, "what a run before left is erased with the first sweep");
    // Loaded is durable: what the store loses meanwhile is ended with the next call.
    place.store.end(SessionScope::Binding(binding_id(2))).await.unwrap();
    assert_eq!(place.sessions.end(SessionScope::Binding(binding_id(2))).await.unwrap(), 1);

    // Seen in what is now the future: it idles from now on.
    let (third, _) = place.open("carol", 3, at(1800)).await;
    assert!(place.used(third, at(1830)));
    place.sessions.sweep(at(1830), true).await.unwrap();
    let place = place.restarted(at(1810)).await;
    let Check::Live(session) = place.sessions.check(third, TokenTransport::Cookie, at(1800)) else {
        panic!("it lives")
    };
    assert_eq!(session.last_seen_at(), at(1810));
}

#[tokio::test]
async fn where_the_store_fails_nothing_is_opened_and_nothing_but_ones_own_is_ended() {
    let place = Place::new().await;
    let (hash, session) = place.open("alice", 1, at(0)).await;
    let (own, _) = place.open("alice", 1, at(0)).await;
    place.store.close().await.unwrap();
    let refused = place
        .sessions
        .open(opening("bob", 2), TokenTransport::Cookie, None, &SystemEntropy::default(), at(1))
        .await
        .map(|_| ());
    assert_eq!(refused, Err(StoreError::Closed));
    assert_eq!(place.sessions.len(), 2);
    assert_eq!(place.sessions.end(SessionScope::Binding(binding_id(1))).await, Err(StoreError::Closed));
    assert!(place.lives(hash, at(1)) && !session.end().has_come());
    assert_eq!(place.sessions.end_one(own).await, Err(StoreError::Closed));
    assert!(!place.lives(own, at(1)), "who signs out is out, whatever the store says");
    assert_eq!(place.sessions.sweep(at(1), true).await, Ok(()), "there is nothing to write");
    assert!(place.used(hash, at(1)));
    assert_eq!(place.sessions.sweep(at(1), true).await, Err(StoreError::Closed));
    assert_eq!(place.sessions.sweep(at(1801), false).await, Err(StoreError::Closed));
    assert!(place.sessions.is_empty(), "what is over is over, whatever the store says");
}

#[tokio::test]
async fn a_session_that_the_store_does_not_have_yet_is_not_ended_as_one_that_it_lost() {
    let Place { folder: _folder, store, .. } = Place::new().await;
    let slow = Arc::new(Slow { store, asked: Semaphore::new(0), go_on: Semaphore::new(0) });
    let sessions: Sessions<()> =
        Sessions::load(Arc::clone(&slow) as Arc<dyn SessionStore>, POLICY, at(0)).await.unwrap();
    let entropy = SystemEntropy::default();
    let opened = sessions.open(opening("alice", 1), TokenTransport::Cookie, None, &entropy, at(0));
    let ended = async {
        slow.asked.acquire().await.unwrap().forget();
        let ended = sessions.end(SessionScope::Binding(binding_id(1))).await.unwrap();
        slow.go_on.add_permits(1);
        ended
    };
    let (opened, ended) = tokio::join!(opened, ended);
    let (secret, session) = opened.unwrap();
    assert_eq!(ended, 0);
    assert!(!session.end().has_come());
    assert!(matches!(sessions.check(secret.token().hash(), TokenTransport::Cookie, at(1)), Check::Live(_)));
    // From now on it is one.
    assert_eq!(sessions.end(SessionScope::Binding(binding_id(1))).await.unwrap(), 1);
}

#[tokio::test]
async fn a_token_in_a_url_is_taken_until_a_cookie_came() {
    let place = Place::new().await;
    let (hash, cookie) = place.open("alice", 1, at(0)).await;
    assert_eq!(cookie.transport(), TokenTransport::Cookie);
    assert!(place.lives_by(TokenTransport::Cookie, hash, at(0)) && !place.lives_by(TokenTransport::Url, hash, at(0)));

    let (hash, url) = place.open_as("alice", 1, TokenTransport::Url, None, at(0)).await;
    assert_eq!(url.transport(), TokenTransport::Url);
    assert!(place.lives_by(TokenTransport::Url, hash, at(0)) && place.lives_by(TokenTransport::Cookie, hash, at(0)));
    place.sessions.keep_in_cookie(&url).await.unwrap();
    assert_eq!(url.transport(), TokenTransport::Cookie);
    assert!(place.lives_by(TokenTransport::Cookie, hash, at(0)) && !place.lives_by(TokenTransport::Url, hash, at(0)));
    assert!(!url.end().has_come(), "a look by the URL ends nothing");

    let place = place.restarted(at(1)).await;
    assert!(place.lives_by(TokenTransport::Cookie, hash, at(1)) && !place.lives_by(TokenTransport::Url, hash, at(1)));
}

#[tokio::test]
async fn where_the_store_fails_a_session_stays_in_its_url() {
    let place = Place::new().await;
    let (hash, url) = place.open_as("alice", 1, TokenTransport::Url, None, at(0)).await;
    place.store.close().await.unwrap();
    assert_eq!(place.sessions.keep_in_cookie(&url).await, Err(StoreError::Closed));
    assert_eq!(url.transport(), TokenTransport::Url);
    assert!(place.lives_by(TokenTransport::Url, hash, at(0)));
}
