//! Another configuration while the gateway serves: all of it or nothing, and nobody is cut off.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use http::{Method, StatusCode};
use sekisho::config::Serves;
use tokio::net::TcpStream;

use crate::admin_tls::{Authority, OpenAdmin, call};
use crate::bystander::Bystander;
use crate::harness::{Carrier, HOST, Harness, exchange};
use crate::recorder::{Received, RecordingUpstream};
use crate::wire::{PlayedUpstream, TestTls, Wire, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the upstream was told of the session.
fn claims(received: &Received) -> serde_json::Value {
    use base64::Engine as _;
    let token = received.headers.get("Sekisho-Jwt-Assertion").unwrap().to_str().unwrap();
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// The audit entries of an action: by whom, what came of it, of what.
async fn entries(harness: &Harness, action: &str) -> Vec<(String, String, String)> {
    let page: serde_json::Value = harness.admin().call(Method::GET, "/v1/audit?after=0&limit=1000").await.unwrap();
    let entries = page["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == action);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    entries.map(|e| (text(&e["actor"]), text(&e["outcome"]), text(&e["object"]))).collect()
}

/// A gateway whose upstream answered a client once: with their connections, both of one worker.
async fn answered_once() -> (PlayedUpstream, Harness, [Wire; 2]) {
    let played = PlayedUpstream::start().await;
    let harness = Harness::with(|config| played.routed(&config, "public", "")).await;
    let mut client = Wire::connect([127, 0, 4, 7].into(), harness.address()).await;
    client.get("/played/1", "").await;
    let mut upstream = played.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    (played, harness, [client, upstream])
}

#[tokio::test]
async fn routes_upstreams_and_texts_change_and_sessions_stay() {
    let mut harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Au, "a", "alice").await;
    assert_eq!(handset.get("/reports/1").await.status, StatusCode::OK);
    let before = claims(&harness.upstream.last());

    let reports = RecordingUpstream::start().await;
    let address = reports.address;
    let reloaded = harness
        .reload(move |config| {
            // Before the console, so that its index is another one.
            let upstream = format!(
                "[[upstream]]\nname = \"reports\"\nservers = [\"http://{address}\"]\n\
                 audience = \"https://reports.internal\"\n\n[[upstream]]\nname = \"console\""
            );
            let config = config.replacen("[[upstream]]\nname = \"console\"", &upstream, 1);
            let config = config.replace("Example KK", "Another KK");
            format!("{config}\n[[route]]\npath = \"/reports\"\nupstream = \"reports\"\naccess = \"session\"\n")
        })
        .await
        .unwrap();
    assert_eq!(handset.get("/reports/1").await.status, StatusCode::OK);
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    let (there, here) = (claims(&reports.last()), claims(&harness.upstream.last()));
    assert_eq!(there["aud"], "https://reports.internal");
    assert_eq!(here["aud"], "https://console.internal", "no assertion is taken for another's of the former index");
    assert_eq!((&here["sub"], &here["sid"]), (&before["sub"], &before["sid"]));
    assert_ne!(here["sub"], there["sub"]);
    assert!(harness.handset(Carrier::Docomo, "b").get("/_sekisho/notice").await.text().contains("Another KK"));

    let metrics = harness.metrics().await;
    for line in [
        "sekisho_config_reloads_total{outcome=\"done\"} 1",
        "sekisho_config_reloads_total{outcome=\"refused\"} 0",
        "sekisho_upstream_requests_total{upstream=\"reports\",outcome=\"ok\"} 1",
        "sekisho_upstream_requests_total{upstream=\"console\",outcome=\"ok\"} 2",
    ] {
        assert!(metrics.lines().any(|there| there == line), "{line} in\n{metrics}");
    }
    let noted = entries(&harness, "config-reload").await;
    assert_eq!(noted.iter().map(|(_, outcome, _)| outcome.as_str()).collect::<Vec<_>>(), ["begun", "done"]);
    assert!(noted.iter().all(|(_, _, object)| *object == reloaded.sha256) && noted[0].0.starts_with("uid:"));
    harness.finish().await;
}

#[tokio::test]
async fn an_assertion_is_not_used_for_another_audience_or_issuer() {
    let mut harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Au, "a", "alice").await;
    for (from, to, claim, expected) in [
        ("console.internal\"", "other.internal\"", "aud", "https://other.internal"),
        ("internal\"\n", "internal\"\nsubject = \"account\"\n", "sub", "alice"),
    ] {
        assert_eq!(handset.get("/").await.status, StatusCode::OK);
        harness.reload(|config| config.replace(from, to)).await.unwrap();
        assert_eq!(handset.get("/").await.status, StatusCode::OK);
        assert_eq!(claims(&harness.upstream.last())[claim], expected);
    }
    harness
        .reload(|config| {
            let hosts = format!("public_url = \"http://{HOST}:8080\"\nhosts = [\"{HOST}\"]");
            config.replace(&format!("public_url = \"http://{HOST}\""), &hosts)
        })
        .await
        .unwrap();
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    assert_eq!(claims(&harness.upstream.last())["iss"], format!("http://{HOST}:8080"));
    harness.finish().await;
}

#[tokio::test]
async fn a_request_ends_under_the_configuration_that_it_began_under() {
    let played = PlayedUpstream::start().await;
    let mut harness = Harness::with(|config| played.routed(&config, "public", "")).await;
    let (source, address) = ([127, 0, 4, 7].into(), harness.address());
    let mut client = Wire::connect(source, address).await;
    client.get("/played/slow", "").await;
    let mut upstream = played.accept().await;
    upstream.head().await;

    harness
        .reload(|config| config.split("\n[[upstream]]\nname = \"played\"").next().unwrap().to_owned())
        .await
        .unwrap();
    upstream.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    // The same connection of the client meets the configuration in force.
    client.get("/played/slow", "").await;
    assert_eq!(client.answer().await.status(), 401, "the route is gone, and the console's wants a session");
    harness.finish().await;
}

#[tokio::test]
async fn what_was_counted_of_an_upstream_goes_with_it() {
    let (played, mut harness, [mut client, mut upstream]) = answered_once().await;
    let address = played.address.to_string();
    let of = |metrics: &str, word: &str| -> Vec<String> {
        let lines = metrics.lines().filter(|line| line.contains(word));
        lines.map(|line| line.split_once('{').unwrap().0.to_owned()).collect()
    };
    let before = harness.metrics().await;
    let counted = [
        "sekisho_upstream_connections_open",
        "sekisho_upstream_ejections_total",
        "sekisho_upstream_requests_total",
        "sekisho_upstream_requests_turned_away_total",
        "sekisho_upstream_requests_waiting",
        "sekisho_upstream_server_ejected",
    ];
    let mut there = of(&before, "upstream=\"played\"");
    there.sort();
    there.dedup();
    assert_eq!(there, counted, "{before}");

    // Another name, and then another server under that name; one request is at work meanwhile.
    client.get("/played/slow", "").await;
    upstream.head().await;
    harness
        .reload(|config| {
            let config = config.replace("name = \"played\"", "name = \"renamed\"");
            config.replace("upstream = \"played\"", "upstream = \"renamed\"")
        })
        .await
        .unwrap();
    upstream.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    let renamed = harness.metrics().await;
    assert_eq!(of(&renamed, "upstream=\"played\""), [""; 0], "{renamed}");
    assert!(of(&renamed, &address).len() == 3 && of(&renamed, "upstream=\"renamed\"").len() == 9, "{renamed}");

    let other = RecordingUpstream::start().await;
    let to = other.address.to_string();
    harness.reload(|config| config.replace(&address, &to)).await.unwrap();
    let moved = harness.metrics().await;
    assert_eq!((of(&moved, &address).len(), of(&moved, &to).len()), (0, 3), "{moved}");
    harness
        .reload(|config| config.split("\n[[upstream]]\nname = \"renamed\"").next().unwrap().to_owned())
        .await
        .unwrap();
    let gone = harness.metrics().await;
    assert_eq!(of(&gone, "upstream=\"renamed\""), [""; 0], "{gone}");
    assert_eq!(of(&gone, "upstream=\"console\"").len(), 9, "the other one is there");
    harness.finish().await;
}

#[tokio::test]
async fn connections_to_a_server_that_stays_are_kept() {
    let (_played, mut harness, [mut client, mut upstream]) = answered_once().await;
    harness
        .reload(|config| config.replace("audience = \"https://played.internal\"", "audience = \"https://p.internal\""))
        .await
        .unwrap();
    client.get("/played/2", "").await;
    assert!(upstream.head().await.starts_with("GET /played/2 "), "on the connection from before");
    upstream.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    harness.finish().await;
}

#[tokio::test]
async fn what_is_known_of_a_servers_health_holds_on() {
    let ill = RecordingUpstream::start().await;
    ill.answer(|received| {
        let status = if received.target == "/healthz" { 503 } else { 200 };
        http::Response::builder().status(status).body(http_body_util::Full::default()).unwrap()
    });
    let address = ill.address;
    let mut harness = Harness::with(|config| {
        let from = config.lines().find(|line| line.starts_with("servers")).unwrap().to_owned();
        let probes = "health = { path = \"/healthz\", interval = \"100ms\" }";
        config.replace(&from, &format!("servers = [\"http://{address}\"]\n{probes}"))
    })
    .await;
    let down = format!("sekisho_upstream_server_up{{upstream=\"console\",server=\"http://{address}\"}} 0");
    soon(async { while !harness.metrics().await.contains(&down) {} }).await;
    harness.reload(|config| config.replace("Example KK", "Another KK")).await.unwrap();
    let mut visitor = harness.handset(Carrier::Au, "a");
    assert_eq!(visitor.get_json("/public").await.reason(), "no-healthy-upstream");

    // Who is not probed any more counts as well, and is not shown.
    harness
        .reload(|config| config.replace("health = { path = \"/healthz\", interval = \"100ms\" }", ""))
        .await
        .unwrap();
    assert_eq!(visitor.get("/public").await.status, StatusCode::OK);
    assert!(!harness.metrics().await.contains("sekisho_upstream_server_up{"));
    harness.finish().await;
}

#[tokio::test]
async fn what_is_not_sound_changes_nothing_and_every_finding_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let mut harness = Harness::start().await;
    let mut handset = harness.signed_in(Carrier::Au, "a", "alice").await;
    let refused: [(&str, &dyn Fn(String) -> String); 14] = [
        ("log", &|config| format!("{config}\n]]")),
        ("limits.heads", &|config| format!("{config}\n[limits]\nheads = 3\n")),
        ("route[0].upstream", &|config| config.replacen("upstream = \"console\"", "upstream = \"gone\"", 1)),
        ("store.path", &|config| config.replace("path = \"store.db\"", "path = \"other.db\"")),
        ("keys.kek", &|config| config.replace("kek = { file = \"kek\" }", "kek = { file = \"kek2\" }")),
        ("binding.stretch", &|config| config.replace("passes = 1", "passes = 2")),
        ("admin.socket", &|config| config.replace("socket = \"admin.sock\"", "socket = \"other.sock\"")),
        ("listener[2].address", &|config| format!("{config}\n[[listener]]\nserves = \"ops\"\naddress = \"{taken}\"\n")),
        ("listener[2].tls", &|config| {
            let tls = "tls = { certificate = \"none.pem\", key = \"none.key\" }";
            format!("{config}\n[[listener]]\nserves = \"handset\"\naddress = \"127.0.0.1:0\"\n{tls}\n")
        }),
        ("log.access", &|config| config.replace("file = \"access.log\"", "file = \"no/folder/access.log\"")),
        ("carriers.private-apn.grammar", &|config| config.replace("^[A-Za-z0-9_-]{22,64}$", "^[A-Z")),
        ("upstream", &|config| {
            let from = config.lines().find(|line| line.starts_with("servers")).unwrap().to_owned();
            config.replace(&from, "servers = [\"https://127.0.0.1:9\"]\nca = \"none.pem\"")
        }),
        ("listener", &|config| config.replace("serves = \"handset\"", "serves = \"ops\"")),
        ("(file)", &|_| "\u{0}".to_owned()),
    ];
    let count = refused.len();
    for (key, edit) in refused {
        // Sound changes beside the one that is not: none of them comes into force.
        let findings = harness
            .reload(|config| {
                let config = config.replace("Example KK", "Another KK");
                edit(config.replace("path = \"/public\"", "path = \"/open\""))
            })
            .await
            .expect_err(key);
        let named = findings.iter().any(|finding| finding.contains(&format!(": {key}: ")));
        assert!(named || key == "(file)", "{key}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.contains("gateway.toml:")), "{findings:?}");
        assert_eq!(handset.get("/").await.status, StatusCode::OK, "{key}");
        assert_eq!(harness.handset(Carrier::Docomo, "b").get("/public").await.status, StatusCode::OK, "{key}");
        assert!(!handset.get("/_sekisho/notice").await.text().contains("Another KK"), "{key}");
    }
    std::fs::remove_file(harness.folder.path().join("gateway.toml")).unwrap();
    let gone = harness.admin().call::<serde_json::Value>(Method::POST, "/v1/reload").await.unwrap_err().to_string();
    assert!(gone.contains("the former one holds"), "{gone}");
    let refusals = format!("sekisho_config_reloads_total{{outcome=\"refused\"}} {}", count + 1);
    let metrics = harness.metrics().await;
    assert!(metrics.contains(&refusals) && metrics.contains("sekisho_config_reloads_total{outcome=\"done\"} 0"));
    assert_eq!(entries(&harness, "config-reload").await, []);
    assert!(!harness.folder.path().join("other.db").exists() && !harness.folder.path().join("other.sock").exists());
    #[cfg(not(feature = "otel"))]
    {
        let trace = |config| format!("{config}\n[trace]\nendpoint = \"http://127.0.0.1:4318\"\n");
        let findings = harness.reload(trace).await.unwrap_err();
        assert!(
            findings.iter().any(|finding| finding.contains(": trace: needs a build with the feature")),
            "{findings:?}"
        );
    }
    // Several at once are told at once.
    let findings = harness
        .reload(|config| config.replace("path = \"store.db\"", "path = \"o.db\"").replace("passes = 1", "passes = 2"))
        .await
        .unwrap_err();
    let restarts: Vec<_> = findings.iter().filter(|finding| finding.contains("needs a restart")).collect();
    assert_eq!(restarts.len(), 2, "{findings:?}");
    harness.finish().await;
}

#[tokio::test]
async fn listeners_open_close_and_change_while_others_serve() {
    let tls = TestTls::new();
    let mut harness = Harness::start().await;
    let (plain, source) = (harness.address(), Ipv4Addr::new(127, 0, 4, 7).into());
    let mut open = Wire::connect(source, plain).await;
    open.get("/public", "").await;
    assert_eq!(open.answer().await.status(), 200);

    harness.reload(|config| tls.listening(&config)).await.unwrap();
    let secure = harness.tls_address();
    assert!(tls.connects(source, secure).await);
    assert_eq!(harness.address(), plain, "port 0 stays what it became");
    open.get("/public", "").await;
    assert_eq!(open.answer().await.status(), 200);

    // Without it again: who is connected gets an answer, and hears that it is the last.
    let mut handset = harness.handset(Carrier::PrivateApn, "a");
    (handset.gateway, handset.tls) = (secure, Some(tls.http1()));
    assert_eq!(handset.get("/public").await.status, StatusCode::OK);
    harness.reload(|config| config.rsplit_once("\n[[listener]]").unwrap().0.to_owned()).await.unwrap();
    soon(async { while TcpStream::connect(secure).await.is_ok() {} }).await;
    open.get("/public", "").await;
    assert_eq!(open.answer().await.status(), 200);

    // What a listener serves may change; its port stays.
    harness.reload(|config| config.replace("serves = \"ops\"", "serves = \"handset\"")).await.unwrap();
    let now = harness.running.listeners();
    assert!(now.iter().all(|listener| listener.serves == Serves::Handset), "{now:?}");
    harness.reload(|config| config.replacen("serves = \"handset\"", "serves = \"ops\"", 1)).await.unwrap();
    assert_eq!(harness.ops(), plain);
    harness.finish().await;
}

#[tokio::test]
async fn hosts_limits_and_carriers_are_those_in_force() {
    let mut harness = Harness::start().await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    let mut stranger = harness.handset(Carrier::Au, "b");
    stranger.host = "other.example.jp".to_owned();
    assert_eq!(stranger.get("/public").await.status, StatusCode::MISDIRECTED_REQUEST);
    let long = format!("/public?{}", "x".repeat(3000));
    assert_eq!(alice.get(&long).await.status, StatusCode::OK);

    harness
        .reload(|config| {
            let hosts = format!("public_url = \"http://{HOST}\"\nhosts = [\"{HOST}\", \"other.example.jp\"]");
            let config = config.replace(&format!("public_url = \"http://{HOST}\""), &hosts);
            let config = config.replace("[carriers.au]\nnetworks = [\"127.0.2.0/24\"]\n", "");
            format!("{config}\n[limits]\nurl = \"1KiB\"\n[session]\nidle = \"1m\"\n")
        })
        .await
        .unwrap();
    assert_eq!(stranger.get("/public").await.status, StatusCode::OK);
    assert_eq!(alice.get(&long).await.status, StatusCode::URI_TOO_LONG);
    // au is off: a session of its networks is not one any more.
    assert_eq!(alice.get_json("/").await.reason(), "session-device-mismatch");

    let mut bob = harness.signed_in(Carrier::SoftBank, "c", "bob").await;
    harness.clock.advance(Duration::from_secs(61));
    assert_eq!(bob.get_json("/").await.reason(), "session-expired", "the idle time in force counts");
    harness.finish().await;
}

#[tokio::test]
async fn tries_are_not_forgotten_by_a_reload() {
    let mut harness = Harness::with(|config| format!("{config}\n[limits]\ncode = \"2/1h\"\n")).await;
    let mut handset = harness.handset(Carrier::Au, "a");
    for expected in [StatusCode::FORBIDDEN, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS] {
        // The form of before is good under the configuration of after.
        let page = handset.click_sign_in("/").await;
        harness.reload(|config| config.replace("first_byte = \"5s\"", "first_byte = \"6s\"")).await.unwrap();
        assert_eq!(handset.type_code(&page, "0000-0000-0000").await.status, expected);
    }
    harness.finish().await;
}

#[tokio::test]
async fn roles_and_authorities_are_those_in_force() {
    let authority = Authority::new();
    let mut harness = Harness::with(|config| authority.listening(&config, "operator = [\"cert:alice\"]", "")).await;
    let alice = authority.client(Some(&authority.issue("alice")));
    let ask =
        async |harness: &Harness| call(harness, &alice, "GET", "/v1/accounts", &[]).await.map(|(status, _)| status);
    assert_eq!(ask(&harness).await, Some(200));
    harness.reload(|config| config.replace("cert:alice", "cert:bob")).await.unwrap();
    assert_eq!(ask(&harness).await, Some(403));
    let (status, document) = call(&harness, &alice, "POST", "/v1/reload", &[]).await.unwrap();
    assert_eq!((status, &document["error"]["reason"]), (403, &serde_json::json!("role-required")));
    harness.reload(|config| config.replace("cert:bob", "cert:alice")).await.unwrap();
    assert_eq!(ask(&harness).await, Some(200));

    // Another authority: who was let in by the former one is let go, once a request under way has its answer.
    let other = Authority::new();
    let (from, to) = (authority.ca_file(), other.ca_file());
    let mut open = OpenAdmin::connect(&harness, &alice).await;
    assert_eq!(open.ask("/v1/accounts").await, Some(200));
    let (from, to) = (from.display().to_string(), to.display().to_string());
    harness.reload(|config| config.replace(&from, &to)).await.unwrap();
    // An idle connection ends after ten seconds anyway.
    tokio::time::timeout(Duration::from_secs(5), open.ended()).await.expect("whom the former authority let in stays");
    assert_eq!(ask(&harness).await, None);
    harness.finish().await;
}

#[tokio::test]
async fn the_access_log_is_opened_anew() {
    let mut harness = Harness::start().await;
    let mut visitor = harness.handset(Carrier::Au, "a");
    let path = |name: &str| harness.folder.path().join(name);
    let (log, moved, other) = (path("access.log"), path("access.log.1"), path("other.log"));
    visitor.get("/public/1").await;
    let holds = async |file: &std::path::Path, text: &str| {
        let not_yet = || !std::fs::read_to_string(file).unwrap_or_default().contains(text);
        let written = async {
            while not_yet() {
                tokio::task::yield_now().await;
            }
        };
        soon(written).await;
    };
    holds(&log, "/public/1").await;
    std::fs::rename(&log, &moved).unwrap();
    harness.reload(|config| config).await.unwrap();
    visitor.get("/public/2").await;
    holds(&log, "/public/2").await;
    assert!(!std::fs::read_to_string(&moved).unwrap().contains("/public/2"));
    harness.reload(|config| config.replace("access.log", "other.log")).await.unwrap();
    visitor.get("/public/3").await;
    holds(&other, "/public/3").await;
    harness.reload(|config| config.replace("{ file = \"other.log\" }", "{ to = \"off\" }")).await.unwrap();
    visitor.get("/public/4").await;
    harness.reload(|config| config.replace("{ to = \"off\" }", "{ file = \"other.log\" }")).await.unwrap();
    visitor.get("/public/5").await;
    holds(&other, "/public/5").await;
    assert!(!std::fs::read_to_string(&other).unwrap().contains("/public/4"));
    harness.finish().await;
}

#[tokio::test]
async fn many_reloads_at_once_come_one_after_the_other() {
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| calm.beside(&config)).await;
    let watch = calm.watch(&harness).await;
    let reloads = (0..20).map(|_| {
        let admin = harness.admin();
        tokio::spawn(async move { admin.call::<serde_json::Value>(Method::POST, "/v1/reload").await })
    });
    for reload in reloads.collect::<Vec<_>>() {
        assert!(soon(reload).await.unwrap().is_ok());
    }
    assert!(harness.metrics().await.contains("sekisho_config_reloads_total{outcome=\"done\"} 20"));
    let noted = entries(&harness, "config-reload").await;
    let outcomes: Vec<_> = noted.iter().map(|(_, outcome, _)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["begun", "done"].repeat(20));
    watch.noticed_nothing().await;
    harness.finish().await;
}

#[tokio::test]
async fn a_new_carriers_field_is_taken_out_of_requests_at_once() {
    let mut harness = Harness::start().await;
    harness
        .reload(|config| {
            let profile = "[carriers.later]\nheader = \"X-Later-Ref\"\ngrammar = \"^[a-z]{30}$\"\nuser_agent = \"any\"\n\
                           over_tls = \"accept\"\nnetworks = [\"127.0.5.0/24\"]\n";
            format!("{config}\n{profile}")
        })
        .await
        .unwrap();
    let request = http::Request::get("/public").header("Host", HOST).header("X_Later-Ref", "abc");
    let to: SocketAddr = harness.address();
    let answer = exchange([127, 0, 4, 7].into(), to, request.body(http_body_util::Full::default()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(harness.upstream.last().headers.keys().all(|name| !name.as_str().contains("later")));
    harness.finish().await;
}

#[tokio::test]
async fn the_access_log_can_be_read_by_log_analysers() {
    let harness =
        Harness::with(|config| config.replace("\"access.log\" }", "\"access.log\", format = \"clf\" }")).await;
    let mut alice = harness.signed_in(Carrier::Au, "a", "alice").await;
    assert_eq!(alice.get("/orders?page=SECRET").await.status, StatusCode::OK);
    let log = harness.finish_without(&["SECRET"]).await;
    assert!(!log.contains("alice"), "nobody is named: {log}");
    let line = regex::Regex::new(
        r#"^127\.0\.2\.0/24 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(GET|POST) /\S* HTTP/1\.1" \d{3} -$"#,
    )
    .unwrap();
    assert!(log.lines().count() > 2 && log.lines().all(|text| line.is_match(text)), "{log}");
    assert!(log.contains("\"GET /orders HTTP/1.1\" 200 -\n"), "{log}");
}
