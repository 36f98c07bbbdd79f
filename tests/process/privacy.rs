//! The privacy policy of the real program: erasures that are broken off, and what the command line shows of it.

use http::StatusCode;
use serde_json::json;

use crate::harness::Carrier;
use crate::process::Folder;
use crate::recorder::RecordingUpstream;

/// Makes the bindings of `account` old: none was used for 500 days.
fn aged(folder: &Folder, account: &str) {
    let store = rusqlite::Connection::open(folder.path("data/store.db")).unwrap();
    let sql = "UPDATE bindings SET last_used_on = last_used_on - 500, bound_on = bound_on - 500 WHERE account = ?1";
    assert_eq!(store.execute(sql, [account]).unwrap(), 1);
}

#[tokio::test]
async fn retention_and_erasure_that_are_killed_are_done_at_the_next_start() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\n");
    let gateway = folder.serve().await;
    assert_eq!(
        gateway.handset(Carrier::Au, "9").enrol("/", &folder.code("stays").await).await.status,
        StatusCode::FOUND
    );
    gateway.stop().await;
    for round in 0..4 {
        let (old, erased) = (format!("old-{round}"), format!("erased-{round}"));
        let gateway = folder.serve().await;
        let mut handsets = [(Carrier::Docomo, &old), (Carrier::SoftBank, &erased)]
            .map(|(carrier, account)| (gateway.handset(carrier, &format!("{round}")), account));
        for (handset, account) in &mut handsets {
            assert_eq!(handset.enrol("/", &folder.code(account).await).await.status, StatusCode::FOUND);
        }
        gateway.stop().await;
        aged(&folder, &old);
        // The first round of upkeep begins as it serves; the kill hits it, or an erasure that nobody waits for.
        let gateway = folder.serve().await;
        let mut erasing = folder.command(&format!("subject erase {erased}")).spawn().unwrap();
        if round % 2 == 0 {
            erasing.wait().await.unwrap();
        }
        gateway.kill().await;
        erasing.wait().await.unwrap();

        let gateway = folder.serve().await;
        folder.document("retention run").await;
        let listed = folder.document("bindings list").await;
        let accounts: Vec<_> = listed["bindings"].as_array().unwrap().iter().map(|b| b["account"].clone()).collect();
        assert!(accounts.contains(&json!("stays")) && !accounts.contains(&json!(old)), "round {round}: {accounts:?}");
        let there = folder.run(&format!("subject export {erased}")).await.code == 0;
        assert_eq!(accounts.contains(&json!(erased)), there, "round {round}: all of it or nothing");
        assert!(round % 2 == 1 || !there, "round {round}: it was acknowledged");
        handsets[0].0.gateway = gateway.address("handset");
        handsets[1].0.gateway = gateway.address("handset");
        assert_eq!(handsets[0].0.get("/").await.status, StatusCode::UNAUTHORIZED, "round {round}");
        assert_eq!(handsets[1].0.get("/").await.status == StatusCode::OK, there, "round {round}");
        if there {
            folder.document(&format!("subject erase {erased}")).await;
        }
        gateway.stop().await;
    }
    assert_eq!(folder.run("check").await.code, 0);
    let gateway = folder.serve().await;
    assert_eq!(folder.document("audit verify").await["ok"], true);
    assert_eq!(folder.document("subject erasures").await["erasures"].as_array().unwrap().len(), 4);
    gateway.stop().await;
}

#[tokio::test]
async fn the_policy_is_shown_and_what_changed_of_it() {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    let gateway = folder.serve().await;
    let old = folder.run("policy show").await;
    assert_eq!(old.code, 0, "{old:?}");
    folder.write("old.json", &old.stdout);
    let path = folder.path("old.json");
    let diff = format!("policy diff {}", path.display());
    assert_eq!(folder.document(&diff).await, json!({ "changed": false, "changes": [] }));
    let report = folder.document("retention report").await;
    assert_eq!(report["clock_doubted"], false);
    let mut handset = gateway.handset(Carrier::SoftBank, "n");
    assert_eq!(handset.enrol("/", &folder.code("alice").await).await.status, StatusCode::FOUND);
    gateway.kill().await;

    // Under the same date another notice, which is told once, whenever the gateway is killed.
    folder.append("[privacy]\nstatistics_retention = \"30d\"\nclient_address = \"none\"\n");
    let checked = folder.run("check").await;
    assert!(checked.code == 0 && checked.stderr.contains("notice.revision: warning"), "{checked:?}");
    assert!(checked.stderr.contains("privacy.client_address"), "{checked:?}");
    let mut gateway = folder.serve().await;
    for told in [false, true] {
        handset.gateway = gateway.address("handset");
        handset.cookies.clear();
        let entered = handset.click_sign_in("/").await;
        let news = entered.header("location").unwrap().split_once("/_sekisho/news").map(|(_, query)| query.to_owned());
        assert_eq!(news.is_some(), !told, "{:?}", entered.header("location"));
        if let Some(query) = news {
            gateway.kill().await;
            gateway = folder.serve().await;
            handset.gateway = gateway.address("handset");
            let page = handset.get(&format!("/_sekisho/news{query}")).await;
            assert!(page.text().contains("接続元アドレスは記録しません"), "{}", page.text());
            gateway.kill().await;
            gateway = folder.serve().await;
        }
    }
    let history = folder.document("policy history").await;
    let kept = history["notices"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[0]["in_force_until"], &kept[1]["revision"]), (2, &json!(null), &json!("2026-11-23")));
    let former = folder.document("policy history 1").await;
    assert_eq!(former["told"]["facts"]["client_address"], "prefix", "{former}");
    assert_eq!(folder.run("policy history 3").await.code, 1);
    let changes = folder.document(&diff).await;
    let at: Vec<_> = changes["changes"].as_array().unwrap().iter().map(|change| change["at"].clone()).collect();
    let expected =
        ["purposes.statistics.retention", "settings.privacy.client_address", "settings.privacy.statistics_retention"];
    assert_eq!(at, expected, "{changes}");
    assert_eq!((&changes["changes"][2]["was"], &changes["changes"][2]["is"]), (&"400d".into(), &"30d".into()));
    for text in ["", "{}", "[]", "{\"purposes\":{},\"settings\":7}"] {
        folder.write("old.json", text);
        let ended = folder.run(&diff).await;
        assert_eq!(ended.code, 2, "{text}: {ended:?}");
        assert!(ended.stderr.contains("no document of `policy show --json`"), "{ended:?}");
    }
    gateway.stop().await;
}
