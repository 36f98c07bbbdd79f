//! From a file into a token and back while the gateway serves, and what becomes of new keys while the token is away.

use std::path::Path;

use http::StatusCode;

use crate::harness::Carrier;
use crate::process::{Folder, KEK};
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
    bench.folder.document("rotation start --purpose binding --paused").await;
    bench.token.trouble("away", "");
    let refused = bench.folder.run("rotation start --purpose session").await;
    assert!(refused.code == 1 && refused.stderr.contains("token \"sekisho\""), "{refused:?}");
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

    for trouble in ["away", "broken"] {
        bench.token.trouble(trouble, "");
        for verb in ["keys generate --purpose session", "keys rewrap"] {
            let refused = bench.folder.run(verb).await;
            assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{trouble}, {verb}: {refused:?}");
            assert!(refused.stderr.contains("token \"sekisho\", key \"kek\""), "{trouble}, {verb}: {refused:?}");
        }
        assert_eq!(bench.folder.document("keys list").await, before, "{trouble}");
        let mut again = gateway.handset(Carrier::Docomo, "a");
        assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "{trouble}");
        bench.token.no_more(trouble);
    }
    bench.folder.document("keys generate --purpose session").await;
    assert_eq!(bench.folder.document("keys rewrap").await["rewrapped"], 5);
    gateway.stop().await;
}
