//! What `check` and a start find in a token, and that a gateway serves with one.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use crate::harness::{Carrier, contains};
use crate::process::{Folder, KEK};
use crate::recorder::RecordingUpstream;
use crate::token::{Bench, IN_FILE, PIN, SOFTHSM, Token, in_token};

#[tokio::test]
async fn a_gateway_whose_kek_is_in_a_token_serves_and_starts_again() {
    let upstream = RecordingUpstream::start().await;
    let bench = Bench::new(Folder::new(upstream.address), Token::new(), Path::new(SOFTHSM));
    std::fs::remove_file(bench.folder.path("kek")).unwrap();
    let check = bench.run("check").await;
    assert_eq!((check.code, check.finding_keys()), (0, vec![]), "{check:?}");
    assert!(!check.stderr.contains("keys.kek"), "{check:?}");
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    let gateway = gateway.stop().await;
    for text in [gateway.stdout(), gateway.stderr()] {
        assert!(!text.contains(PIN), "{text}");
    }
    let again = bench.serve().await;
    let mut handset = again.handset(Carrier::Docomo, "a");
    assert_eq!(handset.click_sign_in("/").await.status, StatusCode::FOUND);
    assert_eq!(handset.get("/").await.text(), "<html>console</html>");
    again.stop().await;
    for (file, (_, content)) in bench.folder.snapshot() {
        assert!(file.ends_with("pin") || !contains(&content, PIN.as_bytes()), "{}", file.display());
    }
    // Another key of the same name opens nothing, and is told from a token that fails.
    let other = Bench { token: Token::new(), ..bench };
    for verb in ["check", "serve"] {
        let ended = other.run(verb).await;
        assert_eq!((ended.code, ended.finding_keys()), (2, vec!["keys.kek"]), "{ended:?}");
        assert!(ended.stderr.contains("wrapped under another KEK"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_brought_into_a_token_opens_what_it_wrapped() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    gateway.stop().await;
    let token = Token::empty();
    token.bring_in_the_file();
    let bench = Bench::new(folder, token, Path::new(SOFTHSM));
    bench.warned("the key was brought into the token").await;
    let gateway = bench.serve().await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status, StatusCode::FOUND);
    gateway.stop().await;
    // And back: what the token wrapped, the file opens.
    let fresh = Folder::alone();
    fresh.edit(IN_FILE, &in_token(Path::new(SOFTHSM)));
    fresh.write_secret("pin", PIN);
    let bench = Bench { folder: fresh, ..bench };
    bench.serve().await.stop().await;
    bench.folder.edit(&in_token(Path::new(SOFTHSM)), IN_FILE);
    bench.folder.write_secret("kek", KEK);
    bench.folder.serve().await.stop().await;
}

#[tokio::test]
async fn a_token_that_is_not_there_is_told() {
    let bench = Bench::alone();
    let tokens = bench.token.path("tokens");
    std::fs::rename(&tokens, bench.token.path("elsewhere")).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    bench.refused("there is no such token").await;
    std::fs::remove_dir(&tokens).unwrap();
    bench.refused("the module cannot be loaded").await;
    std::fs::rename(bench.token.path("elsewhere"), &tokens).unwrap();
    bench.token.initialise("sekisho");
    bench.refused("several tokens have this label").await;
}

#[tokio::test]
async fn a_module_that_is_not_there_or_is_none_is_told() {
    let bench = Bench::alone();
    bench.folder.edit(SOFTHSM, "/nonexistent/module.so");
    bench.refused("the module cannot be loaded (No such file").await;
    bench.folder.edit("/nonexistent/module.so", "/bin/sh");
    bench.refused("the module cannot be loaded").await;
    bench.folder.write("text.so", "not a library");
    bench.folder.edit("/bin/sh", "text.so");
    bench.refused("the module cannot be loaded").await;
}

#[tokio::test]
async fn a_wrong_pin_is_told_and_the_last_try_is_never_spent() {
    let bench = Bench::troubled();
    bench.folder.write_secret("pin", "wrong-pin");
    bench.refused("the token refused the PIN").await;
    let tries = bench.token.logins();
    assert_eq!(tries, 2, "one for check, one for serve");
    // CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED: SoftHSM sets none of them.
    for (flag, told) in
        [("20000", "one more wrong PIN locks"), ("40000", "the PIN is locked"), ("80000", "has to be changed")]
    {
        bench.token.trouble("flags", flag);
        bench.refused(told).await;
    }
    assert_eq!(bench.token.logins(), tries);
    bench.token.no_more("flags");
    bench.folder.write_secret("pin", PIN);
    assert_eq!(bench.run("check").await.code, 0);
    std::fs::remove_file(bench.folder.path("pin")).unwrap();
    bench.refused("the PIN cannot be had").await;
}

#[tokio::test]
async fn a_key_that_is_missing_double_or_of_another_kind_is_told() {
    let bench = Bench::new(Folder::alone(), Token::empty(), Path::new(SOFTHSM));
    bench.refused("there is no such key in the token").await;
    bench.token.make(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "kek"]);
    bench.refused("is not an AES key of 256 bits").await;
    bench.token.make(&["--keygen", "--key-type", "AES:16", "--label", "kek", "--sensitive"]);
    bench.refused("is not an AES key of 256 bits").await;
    bench.token.make(&["--keygen", "--key-type", "AES:32", "--label", "kek", "--sensitive"]);
    bench.refused("several keys in the token have this label").await;
}

#[tokio::test]
async fn a_key_that_can_leave_its_token_or_needs_no_pin_is_doubtful() {
    for (kind, doubt) in [
        (&["--extractable", "--private"][..], "the key can be taken out of the token"),
        (&["--sensitive"][..], "the key can be used without the PIN"),
    ] {
        let bench = Bench::new(Folder::alone(), Token::empty(), Path::new(SOFTHSM));
        bench.token.make(&[&["--keygen", "--key-type", "AES:32", "--label", "kek"][..], kind].concat());
        bench.warned(doubt).await;
        let gateway = bench.serve().await;
        assert!(gateway.log().iter().any(|line| line["message"] == "the KEK is doubtful"), "{}", gateway.stdout());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_token_that_authenticates_nothing_or_is_broken_is_refused() {
    let bench = Bench::troubled();
    bench.token.trouble("deaf", "");
    bench.refused("does not authenticate it").await;
    bench.token.no_more("deaf");
    bench.token.trouble("broken", "");
    bench.refused("C_DecryptInit answered DeviceError").await;
    bench.token.no_more("broken");
    bench.serve().await.stop().await;
    // Broken later, it is not taken for the wrong KEK.
    bench.token.trouble("broken", "");
    let check = bench.run("check").await;
    assert!(check.stderr.contains("DeviceError") && !check.stderr.contains("another KEK"), "{check:?}");
}

#[tokio::test]
async fn a_token_that_does_not_answer_is_waited_for_so_long_and_no_longer() {
    let bench = Bench::troubled();
    bench.folder.edit("timeout = \"20s\"", "timeout = \"300ms\"");
    bench.token.hang();
    let before = std::time::Instant::now();
    bench.refused("no answer within 300ms").await;
    assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
}

#[tokio::test]
async fn gateways_share_a_token() {
    let token = Token::new();
    let folders: Vec<Folder> = std::iter::repeat_with(Folder::alone).take(4).collect();
    for folder in &folders {
        folder.edit(IN_FILE, &in_token(Path::new(SOFTHSM)));
        folder.write_secret("pin", PIN);
    }
    // The second time they open what they wrapped the first time. All log in at once.
    for _ in 0..2 {
        let start = |folder: &Folder| {
            let mut command = folder.command("serve");
            command.envs(token.environment());
            command
        };
        let gateways = join_all(folders.iter().map(|folder| folder.serve_as(start(folder)))).await;
        for gateway in gateways {
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn sign_ins_go_on_while_the_token_is_away() {
    let upstream = RecordingUpstream::start().await;
    let bench = Bench::new(Folder::new(upstream.address), Token::new(), Path::new(SOFTHSM));
    let gateway = bench.serve().await;
    std::fs::rename(bench.token.path("tokens"), bench.token.path("elsewhere")).unwrap();
    let code = bench.folder.code("alice").await;
    let mut handset = gateway.handset(Carrier::Docomo, "a");
    assert_eq!(handset.enrol("/", &code).await.status, StatusCode::FOUND);
    assert_eq!(handset.get("/").await.text(), "<html>console</html>");
    assert_eq!(gateway.ops("/readyz").await.status, StatusCode::OK);
    gateway.stop().await;
}
