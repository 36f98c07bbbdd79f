//! A store from before its keys changed, restored, while the token that holds the KEK goes and comes: no handset is served
//! before all is done again, whoever asks hears what for, and nothing has to be restarted.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::Carrier;
use crate::process::Serving;
use crate::token::Bench;

const PATIENCE: Duration = Duration::from_mins(1);

/// With a ledger, and one handset that signs in as often as it likes.
async fn bench() -> (Bench, Serving) {
    let bench = Bench::troubled();
    bench.folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n[backup]\nledger = \"ledger\"\n");
    let gateway = bench.serve().await;
    let code = bench.folder.code("alice").await;
    assert_eq!(gateway.handset(Carrier::Docomo, "a").enrol("/", &code).await.status, StatusCode::FOUND);
    (bench, gateway)
}

async fn taken(bench: &Bench) {
    let backup = bench.folder.path("one.backup");
    bench.folder.document(&format!("backup {}", backup.display())).await;
}

async fn restored(bench: &Bench) {
    let backup = bench.folder.path("one.backup");
    let ended = bench.run(&format!("restore {} --replace", backup.display())).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

/// Nobody is served, and what it waits for is told.
async fn waits(bench: &Bench, gateway: &Serving, what_for: &str) {
    let told = async {
        loop {
            let status = bench.folder.document("status").await;
            if status["catching_up"].as_str().unwrap().contains(what_for) {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{what_for}: {}", gateway.stdout()));
    let ready = gateway.ops("/readyz").await;
    assert_eq!((ready.status, &ready.json()["caught_up"]), (StatusCode::SERVICE_UNAVAILABLE, &false.into()));
    let refused = gateway.handset(Carrier::Docomo, "a").get_json("/").await;
    assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not-ready"));
}

async fn serves(gateway: &Serving) {
    let ready = async { while gateway.ops("/readyz").await.status != StatusCode::OK {} };
    timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("it never serves: {}", gateway.stdout()));
}

async fn chains(bench: &Bench) -> Value {
    let listed = bench.folder.document("bindings list").await;
    listed["bindings"].as_array().unwrap().iter().map(|binding| binding["chain"].clone()).collect()
}

async fn signs_in(gateway: &Serving) -> StatusCode {
    gateway.handset(Carrier::Docomo, "a").click_sign_in("/").await.status
}

#[tokio::test]
async fn a_key_is_replaced_again_once_the_token_is_back() {
    let (bench, gateway) = bench().await;
    bench.folder.document("keys suspend k1").await;
    taken(&bench).await;
    bench.folder.document("keys resume k1").await;
    bench.folder.document("rotation start --purpose binding").await;
    gateway.stop().await;
    restored(&bench).await;

    // A person has to say what becomes of the key; by then the token is gone.
    let gateway = bench.serve().await;
    waits(&bench, &gateway, "sekisho keys resume k1").await;
    bench.token.trouble("away", "");
    bench.folder.document("keys resume k1").await;
    waits(&bench, &gateway, "there is no such token").await;
    assert_eq!(chains(&bench).await, json!([["k1"]]));
    assert_eq!(bench.folder.document("keys show k1").await["state"], "active", "nothing was done by half");
    bench.token.no_more("away");
    serves(&gateway).await;
    assert_eq!(chains(&bench).await, json!([["k1", "k2"]]));
    assert_eq!(signs_in(&gateway).await, StatusCode::FOUND);
    assert_eq!(chains(&bench).await, json!([["k2"]]));
    assert_eq!(bench.folder.document("audit verify").await["ok"], true);
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_that_leaked_lets_nobody_in_while_no_other_can_take_its_place() {
    let (bench, gateway) = bench().await;
    taken(&bench).await;
    gateway.stop().await;
    let before = bench.token.logins();
    let gateway = bench.serve().await;
    let start = bench.token.logins() - before;
    bench.folder.document("keys compromise k1 --reason found").await;
    gateway.stop().await;
    restored(&bench).await;

    // The token answers until the keys are open, and no longer.
    bench.token.leaves_after(start);
    let gateway = bench.serve().await;
    waits(&bench, &gateway, "there is no such token").await;
    let leaked = bench.folder.document("keys show k1").await;
    let flags = [&leaked["state"], &leaked["compromised"], &leaked["suspended"]];
    assert_eq!(flags, [&json!("active"), &json!(true), &json!(true)], "flagged alone");
    gateway.kill().await;
    let before = bench.folder.snapshot();
    let refused = bench.run("serve").await;
    assert_eq!((refused.code, refused.finding_keys()), (2, vec!["keys.kek"]), "{refused:?}");
    assert!(bench.folder.snapshot() == before, "a start without the token changes nothing");

    bench.token.no_more("leaves");
    let gateway = bench.serve().await;
    serves(&gateway).await;
    assert_eq!(chains(&bench).await, json!([["k1", "k2"]]));
    let mut handset = gateway.handset(Carrier::Docomo, "a");
    let page = handset.click_sign_in("/").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "not by what the leaked key made");
    let code = bench.folder.code("alice").await;
    assert_eq!(handset.type_code(&page, &code).await.status, StatusCode::FOUND);
    assert_eq!(chains(&bench).await, json!([["k2"]]));
    assert_eq!(bench.folder.document("audit verify").await["ok"], true);
    gateway.stop().await;
}
