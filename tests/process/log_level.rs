//! What the system log tells, chosen while the program runs.

use serde_json::json;

use crate::process::{Folder, Serving, ended};
use crate::wire::Wire;

/// Something of which the log tells at its finer levels alone: a connection that breaks HTTP.
async fn stumble(gateway: &Serving) {
    let mut wire = Wire::connect([127, 0, 2, 7].into(), gateway.address("handset")).await;
    wire.send("NOT HTTP\r\n\r\n").await;
    wire.rest().await;
}

fn finer(gateway: &Serving) -> usize {
    gateway.log().iter().filter(|line| line["level"] == "debug").count()
}

#[tokio::test]
async fn the_level_is_chosen_anew_until_a_reload_or_a_restart() {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    assert_eq!(folder.document("log level").await, json!({"level": "info", "configured": "info"}));
    stumble(&gateway).await;
    assert_eq!(finer(&gateway), 0);

    let chosen = folder.document("log level warn,sekisho::edge=debug").await;
    assert_eq!(chosen, json!({"level": "warn,sekisho::edge=debug", "configured": "info"}));
    stumble(&gateway).await;
    gateway.logged(r#""level":"debug","message":"connection ended""#).await;
    let before = finer(&gateway);

    assert_eq!(folder.document("log level --reset").await, json!({"level": "info", "configured": "info"}));
    stumble(&gateway).await;
    folder.document("log level sekisho=debug").await;
    // What is configured comes back with a reload, be it another.
    folder.append("\n[log]\nlevel = \"warn\"\n");
    folder.document("reload").await;
    assert_eq!(folder.document("log level").await, json!({"level": "warn", "configured": "warn"}));
    stumble(&gateway).await;
    assert_eq!(finer(&gateway), before);

    for wrong in ["loud", "[span]=info", "a=b=c"] {
        let refused = ended(folder.command(&format!("log level {wrong}"))).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(!refused.stderr.contains(wrong), "{refused:?}");
    }
    let trail = folder.document("audit tail").await;
    let entries = trail["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "log-level");
    let said: Vec<_> = entries.map(|entry| (entry["outcome"].clone(), entry["object"].clone())).collect();
    let expected = ["warn,sekisho::edge=debug", "info", "sekisho=debug"];
    let expected =
        expected.into_iter().flat_map(|choice| ["begun", "done"].map(|outcome| (json!(outcome), json!(choice))));
    assert_eq!(said, expected.collect::<Vec<_>>());
    let gateway = gateway.stop().await;
    assert!(gateway.stdout().contains("what the system log tells is chosen anew"));
}

#[tokio::test]
async fn the_variable_goes_before_the_configuration() {
    let folder = Folder::alone();
    folder.append("\n[log]\nlevel = \"debug\"\n");
    let mut command = folder.command("serve");
    command.env("SEKISHO_LOG", "info");
    let gateway = folder.serve_as(command).await;
    assert_eq!(folder.document("log level").await["configured"], "info");
    folder.document("log level trace").await;
    folder.document("reload").await;
    assert_eq!(folder.document("log level").await, json!({"level": "info", "configured": "info"}));
    gateway.stop().await;

    // Without it the configuration counts from the start.
    let gateway = folder.serve().await;
    stumble(&gateway).await;
    gateway.logged(r#""level":"debug","message":"connection ended""#).await;
    gateway.stop().await;
}
