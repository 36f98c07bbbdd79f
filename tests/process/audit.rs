//! The audit trail of the real program: kept over SIGKILL, exported, verified on a machine without a gateway.

use std::path::Path;
use std::time::Duration;

use http::Method;
use sekisho::admin::AdminClient;
use sekisho::entropy::{SystemEntropy, random};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::process::{Ended, Folder, ended, ended_with, sekisho, with_nobody_reading};

/// `audit verify FILE --json`, without anything else on the machine.
async fn verified(file: &Path, more: &[&str]) -> (i32, Value) {
    let ended = offline(file, more).await;
    (ended.code, ended.json())
}

async fn offline(file: &Path, more: &[&str]) -> Ended {
    let arguments = ["audit", "verify", file.to_str().unwrap(), "--json"];
    ended(sekisho(arguments.into_iter().chain(more.iter().copied()))).await
}

async fn exported(folder: &Folder) -> String {
    let export = folder.run("audit export").await;
    assert_eq!((export.code, export.stderr.as_str()), (0, ""), "{export:?}");
    folder.write("trail.jsonl", &export.stdout);
    export.stdout
}

#[tokio::test]
async fn a_trail_is_exported_verified_elsewhere_and_one_changed_byte_is_named() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    for account in ["alice", "bob"] {
        folder.code(account).await;
    }
    folder.document("accounts suspend alice").await;
    let text = exported(&folder).await;
    let file = folder.path("trail.jsonl");
    let online = folder.document("audit verify").await;
    assert_eq!(online["ok"], true, "{online}");
    gateway.stop().await;

    let (code, found) = verified(&file, &[]).await;
    assert_eq!(
        (code, &found["ok"], &found["first_bad"], &found["unverifiable"]),
        (0, &json!(true), &json!(null), &json!(0))
    );
    assert_eq!((&found["entries"], &found["head"]["seq"]), (&json!(9), &json!(9)));
    assert_eq!((&found["keys"], &found["head"]), (&online["keys"], &online["head"]));
    let key = found["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    let head = found["head"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(verified(&file, &["--audit-key", &key, "--head", &head, "--expect-entries", "9"]).await.0, 0);
    let other = "A".repeat(43);
    let zero = "0".repeat(64);
    for more in [["--audit-key", &*other], ["--head", &*zero], ["--expect-entries", "10"]] {
        let (code, found) = verified(&file, &more).await;
        assert_eq!((code, &found["ok"]), (1, &json!(false)), "{more:?}: {found}");
    }
    let table = ended(sekisho(["audit", "verify", file.to_str().unwrap()])).await;
    assert!(table.code == 0 && table.stdout.starts_with("ok            yes\n"), "{table:?}");
    let piped = ended_with(sekisho(["audit", "verify", "-", "--json"]), text.as_bytes()).await;
    assert_eq!((piped.code, &piped.json()["entries"]), (0, &json!(9)));

    // Entry 6 is another's, by one byte.
    let changed = text.replacen("\"outcome\":\"done\",\"prev\"", "\"outcome\":\"dome\",\"prev\"", 9);
    let (at, _) = text.match_indices("\"seq\":6,").next().unwrap();
    let start = text[..at].rfind('\n').unwrap();
    let one = format!("{}{}", &text[..start], text[start..].replacen("uid:", "uid;", 1));
    for (content, bad) in [(&one, 6), (&changed, 1)] {
        folder.write("trail.jsonl", content);
        let (code, found) = verified(&file, &[]).await;
        assert_eq!((code, &found["ok"], &found["first_bad"]), (1, &json!(false), &json!(bad)), "{found}");
        assert!(found["problem"].is_string() && found["line"].is_u64(), "{found}");
    }
    for content in ["", "\n", "{}\n", "rubbish", &"x".repeat(1 << 20), &text[..text.len() - 1], &text[..text.len() / 2]]
    {
        folder.write("trail.jsonl", content);
        let (code, found) = verified(&file, &[]).await;
        assert_eq!((code, &found["ok"]), (1, &json!(false)), "{found}");
    }
    let missing = offline(&folder.path("nothing"), &[]).await;
    assert_eq!((missing.code, missing.json()["error"]["reason"].as_str()), (2, Some("usage")), "{missing:?}");
    assert_eq!(folder.run("audit export").await.code, 3, "no gateway answers");
}

#[tokio::test]
async fn the_end_of_the_trail_is_shown_and_followed() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    folder.code("alice").await;
    let tail = folder.document("audit tail -n 2").await;
    let words: Vec<_> = tail["entries"].as_array().unwrap().iter().map(|e| (&e["action"], &e["outcome"])).collect();
    assert_eq!(words, [(&json!("code-issue"), &json!("begun")), (&json!("code-issue"), &json!("done"))]);
    assert_eq!(folder.document("audit tail -n 0").await["entries"], json!([]));
    let table = folder.run("audit tail").await;
    assert!(
        table.code == 0 && table.stdout.lines().count() == 6 && table.stdout.contains("gateway-start"),
        "{table:?}"
    );
    let told = folder.document("audit pseudonym alice").await;
    assert_eq!(told["pseudonym"], tail["entries"][0]["account"]);

    let mut command = folder.command("audit tail --follow --json -n 1");
    let mut following = command.spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(following.stdout.take().unwrap()));
    let next = async |lines: &mut tokio::io::Lines<_>| {
        let line: Option<String> = timeout(Duration::from_mins(1), lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str::<Value>(&line.unwrap()).unwrap()["action"].clone()
    };
    assert_eq!(next(&mut lines).await, "pseudonym-read");
    folder.document("accounts suspend alice").await;
    assert_eq!((next(&mut lines).await, next(&mut lines).await), (json!("account-suspend"), json!("account-suspend")));
    following.kill().await.unwrap();

    let (code, errors) = with_nobody_reading(folder.command("audit export"), b"").await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "whoever closed the pipe has read enough");
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_stands_in_the_trail_after_a_kill_at_any_moment() {
    let folder = Folder::alone();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut gateway = folder.serve().await;
        let socket = folder.path("run/admin.sock");
        let mut callers = JoinSet::new();
        for caller in 0..4 {
            let client = AdminClient::new(&socket);
            callers.spawn(async move {
                let mut done = Vec::new();
                for turn in 0.. {
                    let account = format!("r{round}c{caller}t{turn}");
                    for verb in ["codes", "suspend", "resume"] {
                        let path = format!("/v1/accounts/{account}/{verb}");
                        match client.call::<Value>(Method::POST, &path).await {
                            Ok(_) => done.push((account.clone(), verb)),
                            Err(_) => return done,
                        }
                    }
                }
                done
            });
        }
        let after: [u8; 1] = random(&SystemEntropy::default());
        let moment = Duration::from_millis(50 + u64::from(after[0]));
        assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        gateway.kill().await;
        acknowledged.extend(callers.join_all().await.into_iter().flatten());
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());

    let gateway = folder.serve().await;
    exported(&folder).await;
    let (code, found) = verified(&folder.path("trail.jsonl"), &[]).await;
    assert_eq!((code, &found["ok"], &found["unverifiable"]), (0, &json!(true), &json!(0)), "{found}");
    let mut entries = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry: &Value| entry["seq"].as_u64().unwrap());
        let path = format!("/v1/audit?after={after}&limit=1000");
        let page: Value = AdminClient::new(&folder.path("run/admin.sock")).call(Method::GET, &path).await.unwrap();
        match page["entries"].as_array().unwrap() {
            page if page.is_empty() => break,
            page => entries.extend(page.clone()),
        }
    }
    let has = |pseudonym: &Value, action: &str, outcome: &str| {
        entries.iter().any(|e| e["account"] == *pseudonym && e["action"] == action && e["outcome"] == outcome)
    };
    for (account, verb) in &acknowledged {
        let path = format!("/v1/audit/pseudonyms/{account}");
        let told: Value = AdminClient::new(&folder.path("run/admin.sock")).call(Method::GET, &path).await.unwrap();
        let action = match *verb {
            "codes" => "code-issue",
            "suspend" => "account-suspend",
            _ => "account-resume",
        };
        for outcome in ["begun", "done"] {
            assert!(has(&told["pseudonym"], action, outcome), "{account} {verb} {outcome}");
        }
    }
    gateway.stop().await;
}
