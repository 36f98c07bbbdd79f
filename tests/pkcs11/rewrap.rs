//! From a file into a token and back while the gateway serves, and what becomes of new keys while the token is away.

use std::path::Path;

use http::StatusCode;

use crate::harness::Carrier;
use crate::process::{Folder, KEK, ended};
use crate::token::{Bench, IN_FILE, PIN, SOFTHSM, Token, in_token};

fn named_next(kek: &str) -> String {
    kek.replacen("kek =", "kek_next =", 1)
}

#[tokio::test]
async fn keys_move_from_a_file_into_a_token_and_back() {
    let token_line = in_token(Path::new(SOFTHSM));
    let folder = Folder::alone();
    folder.write_secret("pin", PIN);
    let bench = Bench { folder, token: Token::new() };
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    bench.folder.edit(IN_FILE, &format!("{IN_FILE}\n{}", named_next(&token_line)));
    assert_eq!(bench.folder.document("keys rewrap").await["rewrapped"], 4);
    gateway.stop().await;

    // The token alone, and the file is nowhere.
    bench.folder.edit(&format!("{IN_FILE}\n{}", named_next(&token_line)), &token_line);
    std::fs::remove_file(bench.folder.path("kek")).unwrap();
    let gateway = bench.serve().await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);

    bench.folder.write_secret("kek", KEK);
    bench.folder.edit(&token_line, &format!("{token_line}\n{}", named_next(IN_FILE)));
    assert_eq!(bench.folder.document("keys rewrap").await["rewrapped"], 4);
    gateway.stop().await;
    bench.folder.edit(&format!("{token_line}\n{}", named_next(IN_FILE)), IN_FILE);
    let gateway = bench.folder.serve().await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);
    gateway.stop().await;
}

/// An emergency does not wait for a token.
#[tokio::test]
async fn without_its_token_a_key_is_suspended_and_one_that_leaked_lets_nobody_in() {
    let bench = Bench::troubled();
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    bench.token.trouble("away", "");
    let signs_in = async |expected| {
        let mut again = gateway.handset(Carrier::Docomo, "a");
        let page = again.get("/").await;
        let entered = again.get_json(&page.link("/_sekisho/login?")).await;
        assert_eq!(entered.status, expected, "{}", entered.text());
    };
    signs_in(StatusCode::FOUND).await;
    assert_eq!(bench.folder.document("keys suspend k1").await["suspended"], true);
    signs_in(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(bench.folder.document("keys resume k1").await["suspended"], false);
    signs_in(StatusCode::FOUND).await;

    for (id, alone) in [
        ("a1", "{\"compromised\":true,\"suspended\":true}"),
        ("k1", "{\"compromised\":true,\"suspended\":true}"),
        ("u1", "{\"compromised\":true,\"suspended\":false}"),
    ] {
        let refused = bench.folder.run(&format!("keys compromise {id} --reason found")).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{id}: {refused:?}");
        assert!(refused.stderr.contains("say it again once the token answers"), "{id}: {refused:?}");
        let shown = bench.folder.document(&format!("keys show {id}")).await;
        let flags = serde_json::json!({"compromised": shown["compromised"], "suspended": shown["suspended"]});
        assert_eq!((&shown["state"], flags.to_string().as_str()), (&"active".into(), alone), "{id}");
    }
    let resumed = bench.folder.run("keys resume k1").await;
    assert!(resumed.code == 1 && resumed.stderr.contains("it leaked"), "{resumed:?}");
    signs_in(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(alice.get("/").await.status, StatusCode::UNAUTHORIZED, "who came in by it is out");

    // Over a restart with the token back; then each is said again and replaced.
    bench.token.no_more("away");
    gateway.kill().await;
    let gateway = bench.serve().await;
    for (id, next) in [("a1", "a2"), ("k1", "k2"), ("u1", "u2")] {
        bench.folder.document(&format!("keys compromise {id} --reason found")).await;
        assert_eq!(bench.folder.document(&format!("keys show {next}")).await["state"], "active");
        assert_eq!(bench.folder.document(&format!("keys show {id}")).await["suspended"], false);
    }
    let mut again = gateway.handset(Carrier::Docomo, "a");
    let page = again.click_sign_in("/").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "not by what the leaked key made");
    let code = bench.folder.code("alice").await;
    assert_eq!(again.type_code(&page, &code).await.status, StatusCode::FOUND);
    assert_eq!(again.get("/_sekisho/me").await.status, StatusCode::OK);
    assert_eq!(bench.folder.document("audit verify").await["ok"], true);
    gateway.stop().await;
}

#[tokio::test]
async fn without_its_token_a_rotation_goes_on_and_another_does_not_begin() {
    let bench = Bench::troubled();
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    // No key, no rotation: nothing is begun that could not go on.
    let state = async || (bench.folder.document("keys list").await, bench.folder.document("rotation list").await);
    bench.token.trouble("away", "");
    let before = state().await;
    for arguments in ["--purpose binding", "--purpose binding --paused", "--purpose session"] {
        let refused = bench.folder.run(&format!("rotation start {arguments} --json")).await;
        assert_eq!((refused.code, &refused.json()["error"]["reason"]), (1, &"kek-unavailable".into()), "{refused:?}");
        assert!(refused.stderr.contains("token \"sekisho\""), "{refused:?}");
        assert_eq!(state().await, before, "{arguments}");
    }
    bench.token.no_more("away");
    bench.folder.document("rotation start --purpose binding --paused").await;
    bench.token.trouble("away", "");
    // What was made before the token went needs it no more.
    bench.folder.document("rotation resume r1").await;
    let reaches = async |state: &str| {
        let reached =
            async { while bench.folder.document("rotation status r1").await["rotation"]["state"] != state {} };
        tokio::time::timeout(std::time::Duration::from_mins(1), reached).await.unwrap();
    };
    reaches("draining").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);
    bench.folder.document("rotation rescan r1").await;
    reaches("done").await;
    bench.token.no_more("away");
    assert_eq!(bench.folder.document("rotation start --purpose session").await["rotation"]["id"], "r2");
    gateway.stop().await;
}

#[tokio::test]
async fn without_its_token_a_gateway_makes_no_key_and_serves_on() {
    let bench = Bench::troubled();
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    bench.folder.write_secret("kek.next", KEK);
    let line = in_token(&bench.token.path("proxy.so"));
    bench.folder.edit(&line, &format!("{line}\nkek_next = {{ file = \"kek.next\" }}"));
    let before = bench.folder.document("keys list").await;

    // The last is CKF_USER_PIN_LOCKED: somebody else spent the tries.
    for (trouble, content) in [("away", ""), ("broken", ""), ("flags", "40000")] {
        bench.token.trouble(trouble, content);
        let backup = bench.folder.path("one.backup");
        for verb in ["keys generate --purpose session", "keys rewrap", &format!("backup {}", backup.display())] {
            let refused = bench.folder.run(verb).await;
            assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{trouble}, {verb}: {refused:?}");
            assert!(refused.stderr.contains("token \"sekisho\", key \"kek\""), "{trouble}, {verb}: {refused:?}");
        }
        assert_eq!(bench.folder.document("keys list").await, before, "{trouble}");
        assert!(!backup.exists(), "{trouble}");
        let mut again = gateway.handset(Carrier::Docomo, "a");
        assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "{trouble}");
        bench.token.no_more(trouble);
    }
    bench.folder.document("keys generate --purpose session").await;
    assert_eq!(bench.folder.document("keys rewrap").await["rewrapped"], 5);
    gateway.stop().await;
}

/// Both ways end under one KEK: the process is killed while the token keeps it waiting, or the token goes at any of its calls.
#[tokio::test]
async fn a_rewrap_that_the_token_holds_up_or_breaks_off_leaves_all_keys_where_they_were() {
    let token = Token::new();
    let module = token.proxy();
    let bench = Bench { folder: Folder::alone(), token };
    bench.folder.write_secret("pin", PIN);
    let next = format!("{IN_FILE}\n{}", named_next(&in_token(&module)));
    bench.folder.edit(IN_FILE, &next);
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);

    let before = bench.token.logins();
    bench.token.hang();
    let rewrap = tokio::spawn(ended(bench.folder.command("keys rewrap")));
    while bench.token.logins() == before {
        tokio::task::yield_now().await;
    }
    gateway.kill().await;
    assert_eq!(rewrap.await.unwrap().code, 3, "its gateway is gone");
    std::fs::remove_file(bench.token.path("hang")).unwrap();

    let gateway = bench.serve().await;
    // Every third call of it: the sample, each key there and back, the secret of the PINs.
    let mut calls = 0;
    loop {
        bench.token.leaves_after(calls);
        let rewrap = bench.folder.run("keys rewrap").await;
        bench.token.no_more("leaves");
        if rewrap.code == 0 {
            break;
        }
        assert!(rewrap.code == 1 && rewrap.stderr.contains("token \"sekisho\""), "{rewrap:?}");
        calls += 3;
    }
    assert!(calls > 8, "two calls for each key: {calls}");
    gateway.kill().await;
    let under = async |kek: &str| {
        bench.folder.edit(&next, kek);
        let check = bench.run("check").await;
        bench.folder.edit(kek, &next);
        check.code
    };
    assert_eq!((under(IN_FILE).await, under(&in_token(&module)).await), (2, 0), "what was acknowledged was done");
    let gateway = bench.serve().await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);
    gateway.stop().await;
}

#[tokio::test]
async fn a_rewrap_tells_what_is_doubtful_about_the_key_it_moves_to() {
    let folder = Folder::alone();
    folder.write_secret("pin", PIN);
    folder.edit(IN_FILE, &format!("{IN_FILE}\n{}", named_next(&in_token(Path::new(SOFTHSM)))));
    let bench = Bench { folder, token: Token::empty() };
    // As docs/kek.md had it once, and one that is worse.
    bench.token.make(&["--keygen", "--key-type", "AES:32", "--label", "kek", "--extractable"]);
    let gateway = bench.serve().await;
    let rewrapped = bench.folder.document("keys rewrap").await;
    let warnings = rewrapped["warnings"].to_string();
    for doubt in ["the key can be taken out of the token", "the key can be used without the PIN"] {
        assert!(warnings.contains(doubt), "{rewrapped}");
        gateway.logged(doubt).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_token_that_does_not_answer_keeps_nobody_from_signing_in() {
    let bench = Bench::troubled();
    bench.folder.edit("timeout = \"20s\"", "timeout = \"2s\"");
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    let before = bench.token.logins();
    bench.token.hang();
    let verb = tokio::spawn(ended(bench.folder.command("keys generate --purpose session --json")));
    while bench.token.logins() == before {
        tokio::task::yield_now().await;
    }
    let mut alice = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(alice.enrol("/", &code).await.status, StatusCode::FOUND);
    assert!(!verb.is_finished(), "nobody waits for the token but who needs it");
    let refused = verb.await.unwrap();
    assert_eq!((refused.code, &refused.json()["error"]["reason"]), (1, &"kek-unavailable".into()), "{refused:?}");
    assert!(refused.stderr.contains("no answer within 2s"), "{refused:?}");
    bench.token.go_on();
    bench.folder.document("keys generate --purpose session").await;
    gateway.stop().await;
}
