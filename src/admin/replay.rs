//! `Idempotency-Key`: the same request, asked again, gets the first answer again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use ring::digest;

use super::access::Peer;
use super::body;
use super::refused::Refused;
use crate::clock::{Clock, Timestamp};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long an answer is remembered, beginning with its request.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Answers that are remembered; beyond it the oldest is forgotten.
const CAPACITY: usize = 1024;
const KEY_BYTES: usize = 128;

/// The answers of the last minutes. Lives in memory only: after a restart a key is new.
///
/// An answer to `codes issue` holds the code, for no longer than the code itself may be used.
pub(super) struct Answers {
    clock: Arc<dyn Clock>,
    entries: Mutex<VecDeque<Entry>>,
}

struct Entry {
    peer: Peer,
    key: Box<str>,
    /// SHA-256 of method, target and body: bounded, and no place where a telephone number could stay.
    request: [u8; 32],
    begun_at: Timestamp,
    /// `None` while the first request is at work.
    answer: Option<Answer>,
}

/// Status, the revision of the keys where one was said, and body.
type Answer = (StatusCode, Option<HeaderValue>, Bytes);

/// What is to be done with a request.
enum Turn<'a> {
    First(Work<'a>),
    Again(Answer),
}

/// A request at work. Dropped without an answer, by a panic too, it is forgotten, so that it may be tried again.
struct Work<'a> {
    answers: &'a Answers,
    peer: Peer,
    key: &'a str,
}

impl Answers {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    fn turn<'a>(&'a self, peer: Peer, key: &'a str, request: [u8; 32]) -> Result<Turn<'a>, Refused> {
        let now = self.clock.now();
        let mut entries = self.lock();
        entries.retain(|entry| now.since(entry.begun_at) < REMEMBERED);
        match entries.iter().find(|entry| entry.peer == peer && *entry.key == *key) {
            Some(entry) if entry.request != request => Err(Refused::IdempotencyKeyReused),
            Some(entry) => entry.answer.clone().map(Turn::Again).ok_or(Refused::IdempotencyKeyBusy),
            None => {
                if entries.len() >= CAPACITY {
                    entries.pop_front();
                }
                entries.push_back(Entry { peer, key: key.into(), request, begun_at: now, answer: None });
                Ok(Turn::First(Work { answers: self, peer, key }))
            }
        }
    }

    /// Nothing panics while it holds the lock, so what poison would protect is whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work<'_> {
    fn finish(self, answer: Answer) {
        let mut entries = self.answers.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| self.began(entry)) {
            entry.answer = Some(answer);
        }
    }

    fn began(&self, entry: &Entry) -> bool {
        entry.peer == self.peer && *entry.key == *self.key && entry.answer.is_none()
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.answers.lock().retain(|entry| !self.began(entry));
    }
}

/// Runs a request that changes something to its end, even if its caller hangs up: an erased binding whose sessions
/// were not ended yet must not be left behind. With an `Idempotency-Key`, once.
pub(super) async fn once(
    State(answers): State<Arc<Answers>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let work = async move {
        let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
        match (keys.next().cloned(), keys.next()) {
            (None, _) => next.run(request).await,
            (Some(key), None) => once_for(&answers, peer, &key, request, next).await.into_response(),
            // Which of them it stands for, two readers could see differently.
            (Some(_), Some(_)) => Refused::IdempotencyKeyInvalid.into_response(),
        }
    };
    tokio::spawn(work).await.unwrap_or_else(|_| Refused::Internal.into_response())
}

async fn once_for(
    answers: &Answers,
    peer: Peer,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let key = key.to_str().map_err(|_| Refused::IdempotencyKeyInvalid)?;
    if !(1..=KEY_BYTES).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refused::IdempotencyKeyInvalid);
    }
    let (head, body) = request.into_parts();
    let body = body::read(body).await?;
    let request = Request::from_parts(head, Bytes::clone(&body).into());
    let work = match answers.turn(peer, key, fingerprint(&request, &body))? {
        Turn::First(work) => work,
        Turn::Again(answer) => return Ok(json(answer)),
    };
    let answer = next.run(request).await;
    let (status, tag) = (answer.status(), answer.headers().get(header::ETAG).cloned());
    let body = answer.into_body().collect().await.map_err(|_| Refused::Internal)?.to_bytes();
    // A failure of ours is no answer: the caller shall try again.
    if !status.is_server_error() {
        work.finish((status, tag.clone(), body.clone()));
    }
    Ok(json((status, tag, body)))
}

/// Neither a method nor a target nor the value of a field has a line feed in it.
fn fingerprint(request: &Request, body: &[u8]) -> [u8; 32] {
    let mut text = digest::Context::new(&digest::SHA256);
    text.update(format!("{} {}\n", request.method(), request.uri()).as_bytes());
    for name in [header::CONTENT_TYPE, header::IF_MATCH] {
        for value in request.headers().get_all(name) {
            text.update(value.as_bytes());
            text.update(b"\n");
        }
        text.update(b"\n");
    }
    text.update(body);
    let mut out = [0; 32];
    out.copy_from_slice(text.finish().as_ref());
    out
}

/// Every answer of the API is JSON.
fn json((status, tag, body): Answer) -> Response {
    let mut answer = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(tag) = tag {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::{get, post};
    use axum::{Json, Router, middleware};
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::ManualClock;

    const ALICE: Peer = Peer::Socket { uid: 1001, gid: 100 };
    const BOB: Peer = Peer::Socket { uid: 1002, gid: 100 };

    struct Api {
        router: Router,
        clock: Arc<ManualClock>,
    }

    impl Api {
        /// `POST /count` counts calls; `POST /fail` fails, counting too; `POST /panic` panics the first time.
        fn new() -> Self {
            let clock = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(0)));
            let answers = Arc::new(Answers::new(Arc::clone(&clock) as Arc<dyn Clock>));
            let calls = Arc::new(AtomicUsize::new(0));
            let next = move || calls.fetch_add(1, Ordering::SeqCst);
            let (a, b, c, d) = (next.clone(), next.clone(), next.clone(), next);
            let router = Router::new()
                .route("/count", post(async move || Json(a())).get(async move || Json(d())))
                .route("/fail", post(async move || (StatusCode::SERVICE_UNAVAILABLE, Json(b()))))
                .route("/panic", post(async move || if c() == 0 { panic!("on purpose") } else { Json(7) }))
                .route("/tagged", post(async || ([(header::ETAG, "\"7\"")], Json(0))))
                .route("/other", get(async || ()))
                .layer(middleware::from_fn_with_state(answers, once));
            Self { router, clock }
        }

        async fn call(&self, method: &str, path: &str, key: Option<&str>, peer: Peer) -> (u16, String) {
            self.call_with(method, path, key, peer, "").await
        }

        async fn call_with(
            &self,
            method: &str,
            path: &str,
            key: Option<&str>,
            peer: Peer,
            body: &'static str,
        ) -> (u16, String) {
            let mut request = Request::builder().method(method).uri(path).extension(peer);
            if let Some(key) = key {
                request = request.header(IDEMPOTENCY_KEY, key);
            }
            let request = request.body(axum::body::Body::from(body)).unwrap();
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    #[tokio::test]
    async fn the_first_answer_is_given_again_to_the_same_peer_for_ten_minutes() {
        let api = Api::new();
        let first = api.call("POST", "/count", Some("k"), ALICE).await;
        assert_eq!(first, (200, "0".to_owned()));
        api.clock.advance(Duration::from_millis(599_999));
        assert_eq!(api.call("POST", "/count", Some("k"), ALICE).await, first);
        assert_eq!(api.call("POST", "/count", Some("k"), BOB).await.1, "1");
        assert_eq!(api.call("POST", "/count", Some("l"), ALICE).await.1, "2");
        assert_eq!(api.call("POST", "/count", None, ALICE).await.1, "3");
        assert_eq!(api.call("GET", "/count", Some("k"), ALICE).await.1, "4");
        api.clock.advance(Duration::from_millis(1));
        assert_eq!(api.call("POST", "/count", Some("k"), ALICE).await.1, "5");
    }

    #[tokio::test]
    async fn a_key_stands_for_one_request_and_has_a_syntax() {
        let api = Api::new();
        api.call("POST", "/count", Some("k"), ALICE).await;
        assert_eq!(api.call("POST", "/count?x", Some("k"), ALICE).await.0, 422);
        assert_eq!(api.call_with("POST", "/count", Some("k"), ALICE, "{}").await.0, 422);
        for key in ["", "a b", &"k".repeat(KEY_BYTES + 1)] {
            assert_eq!(api.call("POST", "/count", Some(key), ALICE).await.0, 400, "{key}");
        }
    }

    #[tokio::test]
    async fn two_keys_are_none_and_the_revision_is_part_of_the_answer() {
        let api = Api::new();
        let ask = async |keys: &[&str]| {
            let mut request = Request::builder().method("POST").uri("/tagged").extension(ALICE);
            for key in keys {
                request = request.header(IDEMPOTENCY_KEY, *key);
            }
            api.router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap()
        };
        for keys in [["k", "k"], ["k", "l"]] {
            assert_eq!(ask(&keys).await.status(), 400, "{keys:?}");
        }
        for _ in 0..2 {
            assert_eq!(ask(&["k"]).await.headers()[header::ETAG], "\"7\"");
        }
    }

    #[tokio::test]
    async fn a_failure_is_tried_again() {
        let api = Api::new();
        assert_eq!(api.call("POST", "/fail", Some("k"), ALICE).await, (503, "0".to_owned()));
        assert_eq!(api.call("POST", "/fail", Some("k"), ALICE).await, (503, "1".to_owned()));
        let api = Api::new();
        assert_eq!(api.call("POST", "/panic", Some("k"), ALICE).await.0, 500);
        assert_eq!(api.call("POST", "/panic", Some("k"), ALICE).await, (200, "7".to_owned()));
    }

    #[test]
    fn a_request_at_work_is_not_begun_twice_and_the_oldest_makes_room() {
        let keys: Vec<_> = (0..=CAPACITY).map(|n| n.to_string()).collect();
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(0)));
        let answers = Answers::new(clock);
        let work = answers.turn(ALICE, "k", [1; 32]);
        assert!(matches!(answers.turn(ALICE, "k", [1; 32]), Err(Refused::IdempotencyKeyBusy)));
        drop(work);
        let held: Vec<_> = keys.iter().map(|key| answers.turn(ALICE, key, [1; 32])).collect();
        assert_eq!(answers.lock().len(), CAPACITY);
        assert!(matches!(answers.turn(ALICE, "0", [1; 32]), Ok(Turn::First(_))));
        drop(held);
    }
}
