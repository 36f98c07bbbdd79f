//! Acknowledged means durable: SIGKILL right after an answer takes nothing of it back.

use http::StatusCode;

use crate::harness::{Carrier, HOST};
use crate::process::{Folder, Serving};
use crate::recorder::RecordingUpstream;

/// Tickets are kept in memory alone: what a process that died had issued is spent.
#[tokio::test]
async fn a_ticket_of_a_gateway_that_was_killed_opens_nothing() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let (plain, public) = (format!("http://{HOST}"), format!("https://{HOST}"));
    folder.edit(&plain, &public);
    folder.edit("[gateway]\n", "[gateway]\ntrusted_proxies = [\"127.0.9.0/24\"]\n");
    let over_tls = |gateway: &Serving| {
        let mut handset = gateway.handset(Carrier::SoftBank, "a");
        let forwarded = [("X-Forwarded-For", handset.source.to_string()), ("X-Forwarded-Proto", "https".to_owned())];
        handset.extra = forwarded.map(|(name, value)| (name.to_owned(), value)).into();
        handset.source = [127, 0, 9, 1].into();
        handset.identifier = None;
        handset
    };

    let gateway = folder.serve().await;
    let code = folder.code("alice").await;
    let button = over_tls(&gateway).get("/orders").await.link(&format!("{plain}/_sekisho/login?"));
    let mut clear = gateway.handset(Carrier::SoftBank, "a");
    let page = clear.get(button.strip_prefix(&plain).unwrap()).await;
    let fields = [("code", code.as_str()), ("t", &page.hidden("t")), ("to", &page.hidden("to"))];
    let entered = clear.post("/_sekisho/enrol", &fields).await;
    let ticket = entered.header("location").unwrap().strip_prefix(&public).unwrap().to_owned();
    gateway.kill().await;

    let gateway = folder.serve().await;
    let mut tls = over_tls(&gateway);
    let refused = tls.get_json(&ticket).await;
    assert_eq!((refused.status, refused.reason().as_str()), (StatusCode::FORBIDDEN, "ticket-invalid"));
    // The page leads back to where its person was going, and the handset is bound: one click more.
    let page = tls.get(&ticket).await;
    assert!(!tls.has_session());
    let button = page.link(&format!("{plain}/_sekisho/login?"));
    assert!(button.contains("to=/orders&"), "{button}");
    let mut clear = gateway.handset(Carrier::SoftBank, "a");
    let again = clear.get(button.strip_prefix(&plain).unwrap()).await;
    let ticket = again.header("location").unwrap().strip_prefix(&public).unwrap().to_owned();
    assert_eq!(tls.get(&ticket).await.status, StatusCode::FOUND);
    assert_eq!(tls.get("/orders").await.status, StatusCode::OK);
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n[log]\naccess = { file = \"access.log\", sealed = true }\n");
    for round in 0..5 {
        let account = format!("account-{round}");
        let carrier = Carrier::ALL[round % 4];
        let tail = round.to_string();

        let gateway = folder.serve().await;
        let code = folder.code(&account).await;
        let mut handset = gateway.handset(carrier, &tail);
        assert_eq!(handset.enrol("/", &code).await.status, StatusCode::FOUND);
        gateway.kill().await;

        // Enrolment: the session lives, the handset is bound, the code is spent.
        let gateway = folder.serve().await;
        handset.gateway = gateway.address("handset");
        assert_eq!(handset.get("/").await.status, StatusCode::OK, "round {round}: the session is gone");
        let mut thief = gateway.handset(carrier, "z");
        assert_eq!(thief.enrol("/", &code).await.status, StatusCode::FORBIDDEN, "round {round}: the code serves twice");
        let mut again = gateway.handset(carrier, &tail);
        assert_eq!(again.click_sign_in("/").await.status, StatusCode::FOUND, "round {round}: not bound");
        gateway.kill().await;

        // Sign-in: its session lives too.
        let gateway = folder.serve().await;
        again.gateway = gateway.address("handset");
        assert_eq!(again.get("/").await.status, StatusCode::OK, "round {round}: the second session is gone");
        let bindings = folder.document(&format!("bindings list --account {account}")).await;
        let id = bindings["bindings"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(folder.document(&format!("bindings revoke {id}")).await["revoked"], 1);
        gateway.kill().await;

        // Revocation: no session lives, nobody is bound.
        let gateway = folder.serve().await;
        for handset in [&mut handset, &mut again] {
            handset.gateway = gateway.address("handset");
            assert_eq!(handset.get("/").await.status, StatusCode::UNAUTHORIZED, "round {round}: revoked, yet in");
        }
        let answer = gateway.handset(carrier, &tail).click_sign_in("/").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "round {round}: revoked, yet bound");
        // The log lost what waited to be written, and what had been is sound.
        let read = folder.run("logs read").await;
        assert_eq!(read.code, 0, "round {round}: {}", read.stderr);
        assert!(read.stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        gateway.kill().await;
    }
    assert_eq!(folder.run("check").await.code, 0, "the store is sound after every kill");
}
