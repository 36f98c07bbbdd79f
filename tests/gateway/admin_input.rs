//! What an operator's program sends by mistake, on every verb that changes something: a clear refusal, and nothing changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Carrier, Harness, files};
use crate::wire::soon;

/// One call with fields and a body: its status, and the document of the answer.
pub(crate) async fn call(
    harness: &Harness,
    verb: &Verb,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (u16, Value) {
    let stream = tokio::net::UnixStream::connect(harness.folder.path().join("admin.sock")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(&*verb.method).uri(&verb.path).header("Host", "sekisho");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/json", "{verb:?}");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    driver.abort();
    (status, serde_json::from_slice(&text).unwrap())
}

#[derive(Clone, Debug)]
pub(crate) struct Verb {
    pub(crate) method: String,
    pub(crate) path: String,
}

impl Verb {
    /// Every verb of the description, by method and template.
    async fn all(harness: &Harness) -> Vec<Self> {
        let description: Value = harness.admin().call(http::Method::GET, "/openapi.json").await.unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| Self { method: method.to_uppercase(), path: path.clone() }).collect::<Vec<_>>()
        };
        description["paths"].as_object().unwrap().iter().flat_map(of).collect()
    }

    /// Those that take a document; an import is judged line by line (`import.rs`), and so is a sealed log (`log_days.rs`).
    async fn changing(harness: &Harness) -> Vec<Self> {
        let lines = ["/v1/bindings/import", "/v1/logs/read"];
        let changing = |verb: &Self| verb.method != "GET" && !lines.contains(&&*verb.path);
        Self::all(harness).await.into_iter().filter(changing).collect()
    }

    /// Of this account, binding and session.
    fn with(&self, known: &Known) -> Self {
        let id = if self.path.contains("/bindings/") { &known.binding } else { &known.session };
        Self { path: self.path.replace("{account}", "alice").replace("{id}", id), ..self.clone() }
    }
}

/// Fields and body of a request to `verb` that only its id is wrong with.
fn sound(verb: &Verb) -> (&'static [(&'static str, &'static str)], &'static str) {
    if verb.path.ends_with("/compromise") {
        (&[("Content-Type", "application/json")], "{\"reason\":\"it leaked\"}")
    } else {
        (&[], "")
    }
}

/// Somebody who has everything that a verb could change.
struct Known {
    binding: String,
    session: String,
}

impl Known {
    async fn to(harness: &Harness) -> Self {
        let mut handset = harness.signed_in(Carrier::PrivateApn, "1", "alice").await;
        assert_eq!(handset.get("/").await.status, 200);
        let id = async |path: &str, kind: &str| {
            let listed: Value = harness.admin().call(http::Method::GET, path).await.unwrap();
            listed[kind][0]["id"].as_str().unwrap().to_owned()
        };
        let known =
            Self { binding: id("/v1/bindings", "bindings").await, session: id("/v1/sessions", "sessions").await };
        // What is left to do of itself is done: the audit trail is sealed.
        harness.running.upkeep().await.unwrap();
        known
    }
}

/// Every byte of the store and what lives beside it; and what is served from memory.
async fn state(harness: &Harness) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<Value>) {
    let store = files(harness.folder.path()).into_iter().filter(|file| file.display().to_string().contains("store.db"));
    let mut told = Vec::new();
    for path in ["/v1/accounts", "/v1/bindings", "/v1/sessions"] {
        told.push(harness.admin().call(http::Method::GET, path).await.unwrap());
    }
    (store.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect(), told)
}

/// Fields and a body, and the status and word of its refusal.
type Case<'c> = (&'c [(&'c str, &'c str)], &'c [u8], u16, &'c str);

fn reason(document: &Value) -> &str {
    assert_eq!(document.as_object().unwrap().len(), 1, "{document}");
    assert!(!document["error"]["message"].as_str().unwrap().is_empty());
    document["error"]["reason"].as_str().unwrap()
}

#[tokio::test]
async fn a_body_that_says_something_else_is_refused_and_changes_nothing() {
    let harness = Harness::start().await;
    let known = Known::to(&harness).await;
    let verbs = Verb::changing(&harness).await;
    assert!(verbs.len() >= 6, "{verbs:?}");
    let before = state(&harness).await;
    let json = &[("Content-Type", "application/json")][..];
    let padded = format!("{{{}}}", " ".repeat(64 << 10));
    let deep = "[".repeat(10_000);
    let deep_object = "{\"a\":".repeat(10_000);
    let cases: &[Case] = &[
        (json, b" ", 400, "body-malformed"),
        (json, b"{", 400, "body-malformed"),
        (json, b"{\"account\":\"al", 400, "body-malformed"),
        (json, b"null", 400, "body-malformed"),
        (json, b"[]", 400, "body-malformed"),
        (json, b"\"090-1234-5678\"", 400, "body-malformed"),
        (json, b"7", 400, "body-malformed"),
        (json, b"1e999999", 400, "body-malformed"),
        (json, b"{\"account\":\"09012345678\"}", 400, "body-malformed"),
        (json, b"{\"a\":1,\"a\":2}", 400, "body-malformed"),
        (json, b"{\"n\":123456789012345678901234567890123456789012345678901234567890}", 400, "body-malformed"),
        (json, b"{\"a\":\"\xff\xfe\"}", 400, "body-malformed"),
        (json, b"{\"a\":\"\\ud800\"}", 400, "body-malformed"),
        (json, b"{\"\\udc00\":1}", 400, "body-malformed"),
        (json, b"{}\0", 400, "body-malformed"),
        (json, b"\0", 400, "body-malformed"),
        (json, b"{}{}", 400, "body-malformed"),
        (json, b"\xef\xbb\xbf{}", 400, "body-malformed"),
        (json, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00", 400, "body-malformed"),
        (json, deep.as_bytes(), 400, "body-malformed"),
        (json, deep_object.as_bytes(), 400, "body-malformed"),
        (json, padded.as_bytes(), 413, "body-too-large"),
        (&[], b"{}", 415, "content-type-invalid"),
        (&[("Content-Type", "text/plain")], b"{}", 415, "content-type-invalid"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], b"account=alice", 415, "content-type-invalid"),
        (&[json[0], json[0]], b"{}", 415, "content-type-invalid"),
    ];
    for verb in verbs.iter().map(|verb| verb.with(&known)) {
        for (n, (fields, body, status, word)) in cases.iter().enumerate() {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
            let (got, document) = call(&harness, &verb, fields, body.to_vec()).await;
            assert_eq!((got, reason(&document)), (*status, *word), "{verb:?} {shown}");
            // Under a key too, and the key stands for the request that was refused.
            let key = format!("{}-{n}", verb.path.len());
            let keyed = [*fields, &[("Idempotency-Key", &*key)]].concat();
            for _ in 0..2 {
                let (got, document) = call(&harness, &verb, &keyed, body.to_vec()).await;
                let reused = (422, "idempotency-key-reused");
                assert!([(*status, *word), reused].contains(&(got, reason(&document))), "{verb:?} {shown}: {document}");
            }
            assert!(!document.to_string().contains("0901") && !document.to_string().contains("1234"), "{document}");
        }
    }
    assert_eq!(state(&harness).await, before);
    harness.finish_without(&["09012345678", "090-1234-5678"]).await;
}

/// Whoever writes `?account=alice` behind a list, or `?dry_run` behind a verb, believes that it counts.
#[tokio::test]
async fn a_query_that_no_verb_reads_is_refused_and_changes_nothing() {
    let harness = Harness::start().await;
    let known = Known::to(&harness).await;
    let verbs = Verb::all(&harness).await;
    assert!(verbs.len() > 50, "{}", verbs.len());
    let before = state(&harness).await;
    for verb in &verbs {
        let more = ["dry_run", "lang=en&%6Fther=1", "Lang=en", "from=2026-11-24&From=2026-11-24"];
        let queried = ["/v1/policy", "/v1/stats"].contains(&&*verb.path);
        for query in ["account=bob"].into_iter().chain(more.into_iter().filter(|_| queried)) {
            let asked = verb.with(&known);
            let asked = Verb { path: format!("{}?{query}", asked.path), ..asked };
            let (fields, body) = sound(verb);
            let (status, document) = call(&harness, &asked, fields, body).await;
            assert_eq!((status, reason(&document)), (400, "parameter-invalid"), "{asked:?}");
        }
    }
    assert!(state(&harness).await == before);
    let (status, _) = call(&harness, &Verb { method: "GET".into(), path: "/v1/bindings?".into() }, &[], "").await;
    assert_eq!(status, 200, "an empty query is none");
    harness.finish().await;
}

#[tokio::test]
async fn a_verb_that_takes_no_fields_takes_none_or_the_empty_object() {
    let harness = Harness::start().await;
    let known = Known::to(&harness).await;
    let json = &[("Content-Type", "application/json; charset=utf-8")][..];
    for (fields, body) in [(&[][..], ""), (json, ""), (json, "{}"), (json, " {\r\n} ")] {
        for verb in ["codes", "suspend", "resume"] {
            let verb = Verb { method: "POST".to_owned(), path: format!("/v1/accounts/alice/{verb}") };
            assert_eq!(call(&harness, &verb, fields, body).await.0, 200, "{verb:?} {body}");
        }
    }
    let verb = Verb { method: "DELETE".to_owned(), path: format!("/v1/bindings/{}", known.binding) };
    assert_eq!(call(&harness, &verb, json, "{}").await, (200, json!({"revoked": 1})));
    harness.finish().await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_any_of_it_comes() {
    let harness = Harness::start().await;
    for key in ["", "Idempotency-Key: k\r\n"] {
        let mut stream = tokio::net::UnixStream::connect(harness.folder.path().join("admin.sock")).await.unwrap();
        let head = format!(
            "POST /v1/accounts/alice/suspend HTTP/1.1\r\nHost: sekisho\r\nContent-Type: application/json\r\n\
             {key}Content-Length: 99999999\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Nothing more is sent, and the answer does not wait for it.
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body-too-large"), "{key}{answer}");
    }
    harness.finish().await;
}

#[tokio::test]
async fn no_verb_takes_an_id_that_is_none_or_of_nobody() {
    let harness = Harness::start().await;
    let known = Known::to(&harness).await;
    let verbs = Verb::all(&harness).await;
    let before = state(&harness).await;
    let long = "a".repeat(65);
    let accounts = [
        "09012345678",
        "090-1234-5678",
        "090.1234.5678",
        "%2B819012345678",
        "+81-90-1234-5678",
        "0_9_0_1234_5678",
        "alice%40example.jp",
        "a%20b",
        "%20alice",
        "alice%0A",
        "%00",
        "alice%00",
        "%FF",
        "%E3%81%82",
        "a%2Fb",
        "..%2Fbob",
        "%252e",
        "alice;x",
        "alice%3Fx",
        "*",
        &long,
    ];
    let ids = [
        "0",
        "-1",
        "nobody",
        "09012345678",
        "%00",
        "%FF",
        "%E3%81%82",
        "..%2F..",
        "'%20OR%201=1--",
        &long,
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "00000000-0000-4000-8000-00000000000g",
        "018f0000-0000-7000-8000-0000000000000",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ];
    let mut asked = 0;
    for verb in verbs {
        let (fields, body) = sound(&verb);
        let (name, values, expected) = if verb.path.contains("{account}") {
            ("{account}", &accounts[..], (400, "account-invalid"))
        } else if verb.path.contains("{id}") {
            ("{id}", &ids[..], (404, "not-found"))
        } else {
            continue;
        };
        for value in values {
            let verb = Verb { path: verb.path.replace(name, value), ..verb.clone() };
            let (status, document) = call(&harness, &verb, fields, body).await;
            assert_eq!((status, reason(&document)), expected, "{verb:?}: {document}");
            let text = document.to_string();
            for part in ["0901", "1234", "8190", "example.jp", "aaaa", "AAAA", "alice", "nobody"] {
                assert!(!text.contains(part), "{text}");
            }
            asked += 1;
        }
        if name == "{account}" && !verb.path.ends_with("/codes") {
            let verb = Verb { path: verb.path.replace(name, "nobody"), ..verb.clone() };
            let (status, document) = call(&harness, &verb, fields, body).await;
            assert_eq!((status, reason(&document)), (404, "not-found"), "{verb:?}");
        }
        // The other kind's id is no id of this kind.
        if name == "{id}" {
            let other = if verb.path.contains("/bindings/") { &known.session } else { &known.binding };
            let verb = Verb { path: verb.path.replace(name, other), ..verb.clone() };
            assert_eq!(call(&harness, &verb, fields, body).await.0, 404, "{verb:?}");
        }
    }
    assert!(asked > 150, "{asked}");
    assert_eq!(state(&harness).await, before);
    harness.finish_without(&["09012345678", "090-1234-5678", "819012345678", "alice@example.jp"]).await;
}

/// A broken line is a refused line, whatever the body says that it is; see `import.rs` for the others.
#[tokio::test]
async fn an_import_of_rubbish_refuses_its_lines_and_changes_nothing() {
    let harness = Harness::start().await;
    let _known = Known::to(&harness).await;
    let before = state(&harness).await;
    let good = r#"{"account":"bob","carrier":"private-apn","identifier":"QxCnry00000000000000002"}"#;
    let deep = "[".repeat(10_000);
    let bodies: &[&[u8]] = &[
        b"",
        b"\0",
        b"{",
        b"null",
        b"[]",
        b"[\"bob\",\"private-apn\",\"QxCnry00000000000000002\"]",
        b"{}",
        b"\xff\xfe",
        deep.as_bytes(),
        b"{\"account\":\"bob\"}",
        &good.as_bytes()[..good.len() - 1],
        b"{\"account\":7,\"carrier\":\"private-apn\",\"identifier\":\"QxCnry00000000000000002\"}",
        b"{\"account\":\"bob\",\"account\":\"bob\",\"carrier\":\"private-apn\",\"identifier\":\"QxCnry00000000000000002\"}",
        b"{\"account\":\"bob\",\"carrier\":\"private-apn\",\"identifier\":\"QxCnry00000000000000002\",\"more\":1}",
        b"{\"account\":\"bob\",\"carrier\":\"private-apn\",\"identifier\":\"\\ud800\"}",
        b"{\"account\":\"bob\",\"carrier\":\"private-apn\",\"identifier\":\"QxCnry0000000000000000\\u0000\"}",
        b"{\"account\":\"+81-90-1234-5678\",\"carrier\":\"private-apn\",\"identifier\":\"QxCnry00000000000000002\"}",
        b"{\"account\":\"bob\",\"carrier\":1e999,\"identifier\":\"QxCnry00000000000000002\"}",
    ];
    for body in bodies {
        let body: Bytes = body.to_vec().into();
        let sent = futures_util::stream::iter([Ok(body.clone())]);
        let imported = harness.admin().import(sent, |_| ()).await.unwrap();
        let refused = u64::from(!body.is_empty());
        assert_eq!((imported.imported, imported.unchanged, imported.refused_in_all()), (0, 0, refused), "{body:?}");
    }
    assert_eq!(state(&harness).await, before);
    let whole = futures_util::stream::iter([Ok(Bytes::from(good))]);
    assert_eq!(harness.admin().import(whole, |_| ()).await.unwrap().imported, 1, "the line that was broken");
    harness.finish_without(&["1234-5678"]).await;
}
