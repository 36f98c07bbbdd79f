//! Sign-in, enrolment and console through the real process; then nothing secret is found anywhere.

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{AU_CANARY, CANARY, Carrier, HOST, contains, files};
use crate::process::Folder;
use crate::recorder::RecordingUpstream;

/// Serials as docomo and SoftBank handsets write them into their User-Agent.
const SERIALS: [&str; 3] = ["SN012345678901234", "ser012345678901234", "icc01234567890123456789"];

#[tokio::test]
async fn nothing_secret_is_in_any_file_stream_metric_or_answer() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let gateway = folder.serve().await;
    let mut secrets: Vec<String> = [CANARY, AU_CANARY].into_iter().chain(SERIALS).map(str::to_owned).collect();
    for (i, carrier) in Carrier::ALL.into_iter().enumerate() {
        let account = format!("account-{i}");
        let code = folder.code(&account).await;
        let mut handset = gateway.handset(carrier, "a");
        if carrier == Carrier::Docomo {
            handset.user_agent = format!("DoCoMo/2.0 P07A3(c500;TB;W24H15;{};{})", SERIALS[1], SERIALS[2]);
        }
        let page = handset.click_sign_in("/").await;
        let mistyped = format!("{}-0000-0000", &code[..4]);
        let wrong = handset.type_code(&page, &mistyped).await;
        assert_eq!(wrong.status, StatusCode::FORBIDDEN);
        let entered = handset.type_code(&wrong, &code).await;
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        let console = handset.get("/orders?page=2").await;
        assert_eq!((console.status, console.text().as_str()), (StatusCode::OK, "<html>console</html>"));
        let received = format!("{:?}", upstream.last());
        assert!(!SERIALS.iter().any(|serial| received.contains(serial)), "{received}");
        secrets.push(upstream.last().headers["sekisho-jwt-assertion"].to_str().unwrap().to_owned());
        assert_eq!(handset.get("/_sekisho/me").await.status, StatusCode::OK);
        let tokens = handset.cookies.iter().filter(|(name, _)| name.ends_with("sekisho"));
        secrets.extend(tokens.map(|(_, token)| token.clone()));
        secrets.extend([code.replace('-', ""), code, mistyped]);
    }
    let metrics = gateway.ops("/metrics").await;
    let shown = [metrics.text(), gateway.ops("/readyz").await.text(), gateway.ops("/healthz").await.text()];
    assert!(shown[0].contains("sekisho_"), "{}", shown[0]);
    let names: Vec<_> = files(folder.root()).iter().map(|f| f.file_name().unwrap().to_owned()).collect();
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.db.lock"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
    // Twice: with the journal and its shared memory beside the store, and without.
    let running = folder.snapshot();
    let stopped = gateway.stop().await;
    let after = folder.snapshot();

    for secret in secrets {
        let secret = secret.as_str();
        let held = |content: &[u8]| contains(content, secret.as_bytes());
        for (file, (_, content)) in running.iter().chain(&after) {
            assert!(!held(content), "{secret} is in {}", file.display());
        }
        for text in shown.iter().chain([&stopped.stdout(), &stopped.stderr()]) {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

#[tokio::test]
async fn every_line_of_the_log_is_one_printable_object_with_its_fields() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    let mut handset = gateway.handset(Carrier::Docomo, "a");
    handset.enrol("/admin/start?q=SECRETQUERY", &code).await;

    // What a stranger can get past the HTTP codec: C1 controls, direction overrides, quotes, escaped C0 controls.
    let hostile = "/public/\u{9b}31m%0a%1b[0m\"\\\u{202e}";
    let head =
        format!("GET {hostile} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: \u{9b}31m\t\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(gateway.address("handset")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");

    let gateway = gateway.stop().await;
    let text = gateway.stdout();
    assert!(text.ends_with('\n') && text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{text}");
    assert!(!text.contains("SECRETQUERY") && !text.contains('?'), "{text}");
    let lines = gateway.log();
    for line in &lines {
        let time = line["time"].as_str().unwrap();
        assert!(time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).is_ok());
        assert!(time.ends_with('Z'), "{line}");
        assert!(["access", "security", "system"].contains(&line["stream"].as_str().unwrap()), "{line}");
    }
    let of = |stream: &str| lines.iter().filter(|line| line["stream"] == stream).collect::<Vec<_>>();
    let access = of("access");
    for line in &access {
        for (field, is_right) in [
            ("method", line["method"].is_string()),
            ("path", line["path"].is_string()),
            ("status", line["status"].is_u64()),
            ("duration_us", line["duration_us"].is_u64()),
            ("carrier", line["carrier"].is_string() || line["carrier"].is_null()),
        ] {
            assert!(is_right, "{field} in {line}");
        }
    }
    let start = access.iter().find(|line| line["path"] == "/admin/start").unwrap();
    assert_eq!((&start["method"], &start["status"], &start["carrier"]), (&"GET".into(), &401.into(), &"docomo".into()));
    assert_eq!(start["client"], "127.0.1.0/24", "no more than the prefix by default");
    assert!(access.iter().any(|line| line["path"] == hostile), "{access:?}");
    let events: Vec<_> = of("security").iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["code-issued", "refused", "enrolled", "signed-in"], "{events:?}");
    assert!(of("system").iter().any(|line| line["message"] == "a new store was created"));
}
