//! `rotation verify`, without a gateway.

use serde_json::Value;

use crate::process::{Ended, Folder, ended, ended_with, sekisho};

const KEPT: &str = include_str!("../data/receipts/destroyed.json");

async fn verify(arguments: &str) -> Ended {
    ended(sekisho(["rotation", "verify"].into_iter().chain(arguments.split(' ')))).await
}

#[tokio::test]
async fn a_receipt_is_judged_offline_and_a_changed_byte_named() {
    let folder = Folder::alone();
    folder.write("sound.json", KEPT);
    let (sound, changed) = (folder.path("sound.json"), folder.path("changed.json"));
    let (sound, changed) = (sound.to_str().unwrap(), changed.to_str().unwrap());

    let judged = verify(&format!("{sound} --json")).await;
    let document = judged.json();
    assert_eq!((judged.code, &document["ok"], &document["problems"]), (0, &true.into(), &Value::Array(vec![])));
    assert_eq!((&document["rotation"], &document["origin"]), (&"r1".into(), &"unproven".into()));
    let judged = verify(sound).await;
    assert!(judged.code == 0 && judged.stdout.contains("UNPROVEN"), "nobody overlooks it: {judged:?}");
    let fingerprint = document["fingerprint"].as_str().unwrap();
    let receipt: Value = serde_json::from_str(KEPT).unwrap();
    for key in [fingerprint, receipt["seal"]["key"]["public"].as_str().unwrap()] {
        let judged = verify(&format!("{sound} --json --audit-key {key}")).await;
        assert_eq!((judged.code, &judged.json()["origin"]), (0, &"known".into()));
        let judged = verify(&format!("{sound} --audit-key {key}")).await;
        assert!(judged.code == 0 && !judged.stdout.contains("UNPROVEN"), "{judged:?}");
    }
    let other = "0".repeat(43);
    let judged = verify(&format!("{sound} --json --audit-key {other}")).await;
    assert_eq!((judged.code, &judged.json()["ok"]), (1, &false.into()));
    assert!(judged.json()["problems"][0].as_str().unwrap().starts_with("seal.key: "), "{judged:?}");

    folder.write("changed.json", &KEPT.replacen(r#""total":3"#, r#""total":4"#, 1));
    let judged = verify(&format!("{changed} --json")).await;
    assert!(judged.code == 1 && judged.stderr.contains("counts.total: "), "{judged:?}");
    assert!(judged.json()["problems"][0].as_str().unwrap().starts_with("counts.total: "), "{judged:?}");
    let judged = verify(changed).await;
    assert!(judged.code == 1 && judged.stdout.contains("counts.total"), "{judged:?}");

    let judged = ended_with(sekisho(["rotation", "verify", "-", "--json"]), KEPT.as_bytes()).await;
    assert_eq!((judged.code, &judged.json()["ok"]), (0, &true.into()));
}

#[tokio::test]
async fn what_cannot_be_judged_is_said_to_be_a_usage_error() {
    let folder = Folder::alone();
    folder.write("sound.json", KEPT);
    let sound = folder.path("sound.json");
    let sound = sound.to_str().unwrap();
    let none = folder.path("none");
    let none = none.to_str().unwrap();
    for arguments in [
        none.to_owned(),
        format!("{sound} --audit-key zz"),
        format!("{sound} --store {none}"),
        // That is a client's key, and would leave the origin unproven unseen.
        format!("{sound} --key {none}"),
    ] {
        let judged = verify(&arguments).await;
        assert_eq!((judged.code, judged.stdout.as_str()), (2, ""), "{arguments}: {judged:?}");
        assert!(judged.stderr.starts_with("sekisho: "), "{arguments}: {judged:?}");
    }
}
