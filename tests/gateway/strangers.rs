//! Who is not let in, and what they hear: every identification reason over the real listener, in its order.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::harness::{Answer, CANARY, Carrier, HOST, Handset, Harness, exchange};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1));
/// In no network of any carrier.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 200, 7));

/// The statuses that the contract gives to the reasons of `ident-cases.json` and to what comes after them.
const STATUSES: [(&str, u16); 15] = [
    ("host-not-allowed", 421),
    ("unknown-source-address", 403),
    ("ambiguous-header-name", 400),
    ("missing-identifier", 403),
    ("conflicting-identifiers", 400),
    ("duplicate-identifier", 400),
    ("untrusted-network", 403),
    ("carrier-mismatch", 403),
    ("crawler-user-agent", 403),
    ("user-agent-mismatch", 403),
    ("identifier-over-tls", 403),
    ("unsolicited-identifier", 403),
    ("malformed-identifier", 400),
    ("transient-identifier", 403),
    ("not-bound", 403),
];

fn status_of(reason: &str) -> u16 {
    STATUSES.iter().find(|(word, _)| *word == reason).unwrap_or_else(|| panic!("{reason} has no status")).1
}

/// A handset whose carrier's gateway writes nothing by itself: the test writes all fields.
fn bare(harness: &Harness, carrier: Carrier) -> Handset {
    let mut handset = harness.handset(carrier, "a");
    handset.identifier = None;
    handset
}

/// Clicks the button of a fresh sign-in page, with these fields in the click only.
async fn click(handset: &mut Handset, fields: &[(&str, &str)], accept: &str) -> Answer {
    let link = handset.get("/").await.link("/_sekisho/login?");
    let fields = [fields, &[("Accept", accept)]].concat();
    handset.send(Method::GET, &link, &fields, Bytes::new()).await
}

/// Both renderings of a refusal: the page and the document.
async fn assert_refused(handset: &mut Handset, fields: &[(&str, &str)], reason: &str) {
    let page = click(handset, fields, "text/html").await;
    assert_eq!(page.status.as_u16(), status_of(reason), "{reason}: {}", page.text());
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{reason}");
    assert!(page.text().contains("<html") && !page.text().contains(reason), "{reason}: {}", page.text());
    let document = click(handset, fields, "application/json").await;
    assert_eq!(document.reason(), reason);
    assert_eq!(document.status, page.status, "{reason}");
    assert_eq!(document.header("content-type"), Some("application/json"), "{reason}");
    assert!(!document.json()["error"]["message"].as_str().unwrap().is_empty(), "{reason}");
    for answer in [&page, &document] {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{reason}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{reason}");
        assert!(answer.header("set-cookie").is_none(), "{reason}");
    }
}

#[tokio::test]
async fn every_reason_has_its_status_its_page_and_its_word() {
    let harness = Harness::with(|config| {
        config.replace("[carriers.au]", "[carriers.acr]\nnetworks = [\"127.0.5.0/24\"]\n[carriers.au]")
    })
    .await;
    let guid = Carrier::Docomo.identifier("a");
    let (guid, two) = (guid.as_str(), format!("{guid},{guid}"));
    let subno = Carrier::Au.identifier("a");
    let dynamic = format!("440010DYNMRSV2026-11-24T00:00:00Z{CANARY}{:A>338}", "");
    for (reason, fields) in [
        ("ambiguous-header-name", vec![("X-DCMGUID", guid), ("X_DCMGUID", guid)]),
        ("missing-identifier", vec![]),
        ("missing-identifier", vec![("X-DCMGUID", " ")]),
        ("conflicting-identifiers", vec![("X-DCMGUID", guid), ("X-UP-SUBNO", &subno)]),
        ("duplicate-identifier", vec![("X-DCMGUID", guid), ("X-DCMGUID", guid)]),
        ("duplicate-identifier", vec![("X-DCMGUID", &two)]),
        ("carrier-mismatch", vec![("X-UP-SUBNO", &subno)]),
        ("malformed-identifier", vec![("X-DCMGUID", CANARY)]),
    ] {
        assert_refused(&mut bare(&harness, Carrier::Docomo), &fields, reason).await;
    }

    let mut outside = bare(&harness, Carrier::Docomo);
    outside.source = OUTSIDE;
    assert_refused(&mut outside, &[("X-DCMGUID", guid)], "untrusted-network").await;

    let mut crawler = bare(&harness, Carrier::Docomo);
    crawler.user_agent = format!("{} (compatible; Googlebot-Mobile/2.1)", Carrier::Docomo.user_agent());
    assert_refused(&mut crawler, &[("X-DCMGUID", guid)], "crawler-user-agent").await;

    let mut other_browser = bare(&harness, Carrier::Docomo);
    other_browser.user_agent = Carrier::PrivateApn.user_agent().to_owned();
    assert_refused(&mut other_browser, &[("X-DCMGUID", guid)], "user-agent-mismatch").await;

    let mut over_tls = bare(&harness, Carrier::Docomo);
    over_tls.source = PROXY;
    over_tls.extra = vec![
        ("X-Forwarded-For".to_owned(), "127.0.1.7".to_owned()),
        ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
    ];
    assert_refused(&mut over_tls, &[("X-DCMGUID", guid)], "identifier-over-tls").await;

    let mut acr = bare(&harness, Carrier::PrivateApn);
    acr.source = "127.0.5.7".parse().unwrap();
    assert_refused(&mut acr, &[("X-ACR", &dynamic)], "transient-identifier").await;

    for accept in ["text/html", "application/json"] {
        let mut unasked = bare(&harness, Carrier::Docomo);
        let link = unasked.get("/").await.link("/_sekisho/login?").replace("&guid=ON", "");
        let refused = unasked.send(Method::GET, &link, &[("X-DCMGUID", guid), ("Accept", accept)], Bytes::new()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        if accept == "application/json" {
            assert_eq!(refused.reason(), "unsolicited-identifier");
        }
    }
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn host_comes_first_and_the_source_address_second() {
    let harness = Harness::start().await;
    let request = |host: Option<&str>, path: &str| {
        let mut request = Request::builder().uri(path).header("Accept", "application/json");
        request = request.header("X_DCMGUID", "a").header("User-Agent", "Googlebot/2.1");
        if let Some(host) = host {
            request = request.header("Host", host);
        }
        request.body(Full::default()).unwrap()
    };
    for path in ["/", "/_sekisho/login?t=x", "/_sekisho/notice", "/_sekisho/me", "/public", "/_sekisho/jwks.json"] {
        for host in
            ["evil.example", "127.0.0.1", "xadmin.example.jp", "admin.example.jp.evil.example", "a@admin.example.jp"]
        {
            let refused = exchange(PROXY, harness.address(), request(Some(host), path)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.reason().as_str()),
                (421, "host-not-allowed"),
                "{host} {path}"
            );
        }
        let refused = exchange(PROXY, harness.address(), request(Some(HOST), path)).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (403, "unknown-source-address"), "{path}");
    }
    let refused = exchange(PROXY, harness.address(), request(None, "/")).await;
    assert!(refused.status.is_client_error(), "{}", refused.status);
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

#[tokio::test]
async fn the_client_is_the_nearest_hop_that_is_no_proxy_of_ours() {
    let harness = Harness::start().await;
    let untrusted = Err("untrusted-network");
    let unknown = Err("unknown-source-address");
    for (source, forwarded, expected) in [
        (PROXY, &["127.0.1.7"][..], Ok(())),
        (PROXY, &["203.0.113.5, 127.0.1.7"], Ok(())),
        (PROXY, &["127.0.1.7, 127.0.9.2"], Ok(())),
        (PROXY, &["203.0.113.5", "127.0.1.7 , 127.0.9.2"], Ok(())),
        (PROXY, &["::ffff:127.0.1.7"], Ok(())),
        (PROXY, &["127.0.1.7, 203.0.113.5"], untrusted),
        (PROXY, &["127.0.1.7", "203.0.113.5"], untrusted),
        (PROXY, &["garbage, 203.0.113.5"], untrusted),
        (OUTSIDE, &["127.0.1.7"], untrusted),
        (PROXY, &[], unknown),
        (PROXY, &["127.0.9.2"], unknown),
        (PROXY, &["127.0.1.7, garbage"], unknown),
        (PROXY, &["127.0.1.7,"], unknown),
        (PROXY, &["127.0.1.7:80"], unknown),
    ] {
        let case = format!("{source} {forwarded:?}");
        let mut handset = harness.handset(Carrier::Docomo, "a");
        handset.source = source;
        handset.extra = forwarded.iter().map(|f| ("X-Forwarded-For".to_owned(), (*f).to_owned())).collect();
        let page = handset.get_json("/").await;
        if expected == unknown {
            assert_eq!((page.status.as_u16(), page.reason()), (403, "unknown-source-address".to_owned()), "{case}");
            continue;
        }
        let link = handset.get("/").await.link("/_sekisho/login?");
        let link = if link.contains("guid=ON") { link } else { format!("{link}&guid=ON") };
        let clicked = handset.get_json(&link).await;
        assert_eq!(clicked.reason(), expected.err().unwrap_or("not-bound"), "{case}");
        harness.clock.advance(std::time::Duration::from_mins(1));
    }
    harness.finish().await;
}

/// The file that `carriers explain` is held to, as requests to the real listener behind one more trusted proxy.
#[tokio::test]
async fn the_listener_decides_every_row_of_the_identification_cases() {
    let file: Value = serde_json::from_str(include_str!("../data/ident-cases.json")).unwrap();
    let harness = Harness::with(|config| {
        let rest = config.split_once("[[upstream]]").unwrap().1;
        let head = config.split_once("[carriers.docomo]").unwrap().0;
        let limits = "[limits]\nsign_in = \"1000/1m\"\nnetwork = \"100000/1m\"\n";
        let proxies = strings(&file["config"]["trusted_proxies"]);
        let head = head.replace("[\"127.0.9.0/24\"]", &format!("[\"127.0.9.0/24\", {proxies}]"));
        format!("{head}{}{limits}[[upstream]]{rest}", profiles(&file["config"]["profiles"]))
    })
    .await;
    let mut seen = std::collections::BTreeSet::new();
    for case in file["cases"].as_array().unwrap() {
        let (request, expect) = (&case["request"], &case["expect"]);
        let reason = expect["reason"].as_str().unwrap_or("not-bound");
        let id = case["id"].as_str().unwrap();
        let login = format!("/_sekisho/login?{}", clicked(&harness, request).await);
        let (status, body) = send(&harness, &head(request, &login, |_| true)).await;
        let told = serde_json::from_str::<Value>(&body).map(|document| document["error"]["reason"].clone());
        match told.as_ref().ok().and_then(Value::as_str) {
            Some("malformed-request") | None => {
                // The file: "a request that the HTTP layer itself rejects with a 4xx status counts as refused".
                assert!(expect["outcome"] == "refused" && (400..500).contains(&status), "{id}: {status} {body}");
            }
            Some(told) => {
                assert_eq!((told, status), (reason, status_of(reason)), "{id}");
                seen.insert(reason);
            }
        }
    }
    let all: std::collections::BTreeSet<_> = STATUSES.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(seen, all, "each reason was met");
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}

/// The query of a click: what the case asks for, and the token of a sign-in page that the same browser got before.
async fn clicked(harness: &Harness, request: &Value) -> String {
    let query = request["target"].as_str().unwrap().split_once('?').map(|(_, query)| query).unwrap_or_default();
    let browser = |name: &str| name.eq_ignore_ascii_case("user-agent") || name.eq_ignore_ascii_case("x-forwarded-for");
    let asking = head(request, "/", |name| browser(name)).replace("\r\n\r\n", &format!("\r\nHost: {HOST}\r\n\r\n"));
    let (_, page) = send(harness, &asking.replace("application/json", "text/html")).await;
    let token = page.split_once("&#38;t=").and_then(|(_, rest)| rest.get(..39)).unwrap_or("none");
    format!("{query}&t={token}")
}

/// A request head with the fields of the case that `wanted` names, sent by a trusted proxy in front.
fn head(request: &Value, target: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    for field in request["headers"].as_array().unwrap() {
        let (name, value) = (field[0].as_str().unwrap(), field[1].as_str().unwrap());
        let ours = ["accept", "connection", "content-length", "transfer-encoding"];
        if wanted(name) && !ours.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            head = format!("{head}{name}: {value}\r\n");
        }
    }
    let (peer, scheme) = (request["remote_ip"].as_str().unwrap(), request["scheme"].as_str().unwrap());
    format!(
        "{head}X-Forwarded-For: {peer}\r\nX-Forwarded-Proto: {scheme}\r\nAccept: application/json\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Sends these very bytes; status and body.
async fn send(harness: &Harness, head: &str) -> (u16, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(PROXY, 0)).unwrap();
    let mut stream = socket.connect(harness.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{head}{answer}"));
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn profiles(profiles: &Value) -> String {
    let mut toml = String::new();
    for (name, profile) in profiles.as_object().unwrap() {
        let (networks, over_tls) = (strings(&profile["networks"]), &profile["over_tls"]);
        writeln!(toml, "[carriers.{name}]\nnetworks = [{networks}]\nover_tls = {over_tls}").unwrap();
        if name == "private-apn" {
            let (header, user_agent) = (&profile["header"], &profile["user_agent"]);
            let grammar = profile["grammar"].as_str().unwrap();
            writeln!(toml, "header = {header}\ngrammar = '{grammar}'\nuser_agent = {user_agent}").unwrap();
        }
    }
    toml
}

fn strings(list: &Value) -> String {
    list.as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
