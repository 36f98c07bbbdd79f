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
