//! The operator's verbs, as typed and as scripts read them.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::Carrier;
use crate::process::{Ended, Folder, ended, sekisho, with_nobody_reading};
use crate::recorder::RecordingUpstream;

const DONE: i32 = 0;
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const NOT_REACHABLE: i32 = 3;

fn is_time(value: &Value) -> bool {
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    value.as_str().is_some_and(|t| t.ends_with('Z') && time::OffsetDateTime::parse(t, rfc3339).is_ok())
}

fn is_day(value: &Value) -> bool {
    value.as_str().is_some_and(|t| t.len() == 10 && t.split('-').map(str::len).eq([4, 2, 2]))
}

/// Aligned columns: a head, then a row each; no control characters.
#[track_caller]
fn table(ended: &Ended) -> Vec<Vec<String>> {
    assert_eq!((ended.code, ended.stderr.as_str()), (DONE, ""), "{ended:?}");
    assert!(ended.stdout.chars().all(|c| c == '\n' || !c.is_control()), "{ended:?}");
    let cells = |line: &str| line.split("  ").map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
    ended.stdout.lines().map(cells).collect()
}

#[tokio::test]
async fn each_verb_gives_its_document_and_its_table() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let gateway = folder.serve().await;

    let issued = folder.document("codes issue alice").await;
    assert_eq!(issued["account"], "alice");
    assert!(is_time(&issued["expires_at"]), "{issued}");
    let code = issued["code"].as_str().unwrap();
    assert!(code.split('-').map(str::len).eq([4, 4, 4]) && code.bytes().all(|b| b == b'-' || b.is_ascii_digit()));

    let mut handset = gateway.handset(Carrier::Au, "a");
    assert_eq!(handset.enrol("/", code).await.status, StatusCode::FOUND);
    assert_eq!(handset.get("/").await.status, StatusCode::OK);
    let mut second = gateway.handset(Carrier::SoftBank, "b");
    assert_eq!(second.enrol("/", &folder.code("bob").await).await.status, StatusCode::FOUND);

    let shown = folder.document("accounts show alice").await;
    let subject = shown["subjects"]["console"].clone();
    assert!(subject.is_string() && subject != "alice", "{shown}");
    for (name, value) in [
        ("account", json!("alice")),
        ("state", json!("active")),
        ("bindings", json!(1)),
        ("sessions", json!(1)),
        ("has_pin", json!(false)),
    ] {
        assert_eq!(shown[name], value, "{shown}");
    }
    let rows = table(&folder.run("accounts show alice").await);
    for (name, value) in [("account", "alice"), ("state", "active"), ("bindings", "1")] {
        assert!(rows.contains(&vec![name.to_owned(), value.to_owned()]), "{rows:?}");
    }
    let all = folder.document("accounts list").await;
    let names: Vec<_> = all["accounts"].as_array().unwrap().iter().map(|a| a["account"].clone()).collect();
    assert_eq!(names, ["alice", "bob"]);
    let rows = table(&folder.run("accounts list").await);
    assert_eq!(
        (&rows[0][..2], &rows[1][..2]),
        (&["account", "state"].map(str::to_owned)[..], &["alice", "active"].map(str::to_owned)[..])
    );

    let bindings = folder.document("bindings list --account alice").await;
    let [binding] = bindings["bindings"].as_array().unwrap().as_slice() else { panic!("{bindings}") };
    assert_eq!(
        (&binding["account"], &binding["carrier"], &binding["chain"]),
        (&json!("alice"), &json!("au"), &json!(["k1"]))
    );
    assert!(is_day(&binding["bound_on"]) && is_day(&binding["last_used_on"]), "{binding}");
    assert_eq!(folder.document("bindings list").await["bindings"].as_array().unwrap().len(), 2);
    assert_eq!(table(&folder.run("bindings list").await).len(), 3);

    let sessions = folder.document("sessions list --account alice").await;
    let [session] = sessions["sessions"].as_array().unwrap().as_slice() else { panic!("{sessions}") };
    assert_eq!(
        (&session["account"], &session["carrier"], &session["transport"]),
        (&json!("alice"), &json!("au"), &json!("cookie"))
    );
    assert!(["created_at", "last_seen_at", "expires_at"].iter().all(|name| is_time(&session[*name])), "{session}");
    assert_eq!(table(&folder.run("sessions list").await).len(), 3);

    for verb in ["accounts list", "accounts list --json", "bindings list"] {
        let unread = with_nobody_reading(folder.command(verb), b"").await;
        assert_eq!(unread, (Some(DONE), String::new()), "{verb}");
    }

    // One session by its id, then an account's all, then a binding.
    let id = session["id"].as_str().unwrap();
    assert_eq!(folder.document(&format!("sessions revoke {id}")).await, json!({"revoked": 1}));
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    assert_eq!(table(&folder.run("sessions revoke --account alice").await), [["revoked", "1"]]);
    assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(folder.document("sessions revoke --account alice").await, json!({"revoked": 0}));

    // Suspended: out, and in again.
    assert_eq!(second.get("/").await.status, StatusCode::OK);
    assert_eq!(folder.document("accounts suspend bob").await["state"], "suspended");
    assert_eq!(second.get("/").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(second.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(folder.document("accounts resume bob").await["state"], "active");
    assert_eq!(second.click_sign_in("/").await.status, StatusCode::FOUND);

    let id = binding["id"].as_str().unwrap();
    assert_eq!(folder.document(&format!("bindings revoke {id}")).await, json!({"revoked": 1}));
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(folder.run(&format!("bindings revoke {id}")).await.code, REFUSED);
    gateway.stop().await;
}

#[tokio::test]
async fn the_socket_is_named_in_three_ways() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    let socket = folder.path("run/admin.sock");
    let socket = socket.to_str().unwrap();
    let by_variable = |value: &str, arguments: &[&str]| {
        let mut command = sekisho(arguments.iter().copied());
        command.env("SEKISHO_SOCKET", value);
        command
    };
    let reached: [Command; 5] = [
        sekisho(["accounts", "list", "--socket", socket]),
        sekisho(["accounts", "--socket", socket, "list"]),
        by_variable(socket, &["accounts", "list"]),
        folder.command("accounts list"),
        // What was typed wins.
        by_variable("/nonexistent/admin.sock", &["accounts", "list", "--socket", socket]),
    ];
    for command in reached {
        let shown = format!("{command:?}");
        let ended = ended(command).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (DONE, ""), "{shown}: {ended:?}");
    }
    for command in [sekisho(["accounts", "list"]), by_variable("", &["accounts", "list"])] {
        let ended = ended(command).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (USAGE, ""), "{ended:?}");
        assert!(["--socket", "--config", "SEKISHO_SOCKET"].iter().all(|way| ended.stderr.contains(way)), "{ended:?}");
    }
    gateway.stop().await;
    for command in [folder.command("accounts list --json"), sekisho(["accounts", "list", "--json", "--socket", socket])]
    {
        let ended = ended(command).await;
        assert_eq!(ended.code, NOT_REACHABLE, "{ended:?}");
        assert!(ended.stderr.contains(socket), "{ended:?}");
        assert_eq!(ended.json()["error"]["reason"], "not-reachable");
    }
}

#[tokio::test]
async fn a_refusal_says_why_and_does_not_repeat_what_was_typed() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    for (verb, reason) in [
        ("accounts show nobody", "not-found"),
        ("accounts suspend nobody", "not-found"),
        ("accounts resume nobody", "not-found"),
        ("bindings list --account nobody", "not-found"),
        ("bindings revoke nobody", "not-found"),
        ("bindings revoke ffffffffffffffffffffffffffffffff", "not-found"),
        ("sessions list --account nobody", "not-found"),
        ("sessions revoke nobody", "not-found"),
        ("sessions revoke --account nobody", "not-found"),
        ("codes issue 090-1234-5678", "account-invalid"),
        ("codes issue 09012345678", "account-invalid"),
        ("codes issue +819012345678", "account-invalid"),
        ("codes issue carol@example.jp", "account-invalid"),
        ("codes issue a/b", "account-invalid"),
        ("accounts show 09012345678", "account-invalid"),
    ] {
        let typed = verb.split(' ').next_back().unwrap();
        let ended = folder.run(verb).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (REFUSED, ""), "{verb}: {ended:?}");
        assert!(ended.stderr.starts_with("sekisho: ") && ended.stderr.lines().count() == 1, "{verb}: {ended:?}");
        assert!(!ended.stderr.contains(typed), "{verb}: {ended:?}");

        let ended = folder.run(&format!("{verb} --json")).await;
        assert_eq!(ended.code, REFUSED, "{verb}");
        assert_eq!(ended.json()["error"]["reason"], reason, "{verb}: {ended:?}");
        assert!(!ended.stdout.contains(typed), "{verb}: {ended:?}");
    }
    assert_eq!(folder.document("accounts list").await, json!({"accounts": []}), "a refusal made an account");
    let gateway = gateway.stop().await;
    for typed in ["1234", "carol"] {
        assert!(!gateway.stdout().contains(typed) && !gateway.stderr().contains(typed), "{}", gateway.stdout());
    }
}

#[tokio::test]
async fn usage_is_on_stderr_and_help_on_stdout() {
    for line in
        ["", "acounts list", "accounts", "codes issue", "serve", "bindings revoke", "sessions revoke", "check --config"]
    {
        let ended = ended(sekisho(line.split(' ').filter(|word| !word.is_empty()))).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (USAGE, ""), "{line}: {ended:?}");
        assert!(ended.stderr.contains("--help") || ended.stderr.contains("Commands:"), "{line}: {ended:?}");
    }
    for (line, told) in [
        ("--help", &["serve", "check", "carriers", "accounts", "Exit codes", "SEKISHO_SOCKET", "sekisho dev"][..]),
        ("serve --help", &["--config <FILE>", "SIGTERM", "SEKISHO_LOG"]),
        ("check --help", &["--config <FILE>", "file:line: key: problem", "Exit codes"]),
        ("accounts suspend --help", &["<ACCOUNT>", "--socket <PATH>", "SEKISHO_SOCKET", "--json"]),
        ("codes issue --help", &["telephone number", "ten minutes"]),
        ("sessions revoke --help", &["--account", "sessions list"]),
        ("carriers explain --help", &["--fingerprint-key <HEX>", "remote_ip", "stdin"]),
        ("carriers user-agent --help", &["stdin"]),
    ] {
        let ended = ended(sekisho(line.split(' '))).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (DONE, ""), "{line}");
        for told in told {
            assert!(ended.stdout.contains(told), "{told} in {line}: {}", ended.stdout);
        }
    }
    let version = ended(sekisho(["--version"])).await;
    assert_eq!((version.code, version.stdout), (DONE, format!("sekisho {}\n", env!("CARGO_PKG_VERSION"))));
}
