//! Acknowledged means durable: SIGKILL right after an answer takes nothing of it back.

use http::StatusCode;

use crate::harness::Carrier;
use crate::process::Folder;
use crate::recorder::RecordingUpstream;

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n");
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
        gateway.kill().await;
    }
    assert_eq!(folder.run("check").await.code, 0, "the store is sound after every kill");
}
