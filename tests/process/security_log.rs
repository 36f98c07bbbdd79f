//! The security stream in a file of its own: nothing of it on stdout, opened anew by a reload, erased in time.

use std::fs;

use serde_json::Value;

use crate::process::Folder;

/// The events that a file has, and whom they are about.
fn events(folder: &Folder, name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(folder.path(name)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    lines
        .inspect(|line| assert_eq!(line["stream"], "security"))
        .map(|l| (said(&l, "event"), said(&l, "account")))
        .collect()
}

#[tokio::test]
async fn the_security_log_in_a_file_is_kept_here_and_no_longer_than_its_retention() {
    let folder = Folder::alone();
    folder.append(
        "[log]\naccess = { to = \"off\" }\nsecurity = { file = \"security.log\" }\n\
         [privacy]\nsecurity_log_retention = \"30d\"\n",
    );
    let (old, not_ours) = ("security.log.2020-01-01", "security.log.2020-01-01.notes");
    folder.write(old, "{}\n");
    folder.write(not_ours, "{}\n");
    let gateway = folder.serve().await;
    folder.code("alice").await;
    // Moved away as by logrotate: what is written before the reload goes with it.
    fs::rename(folder.path("security.log"), folder.path("moved")).unwrap();
    assert_eq!(folder.run("reload").await.code, 0);
    folder.code("bob").await;
    assert_eq!(folder.run("retention run").await.code, 0);
    assert!(!folder.path(old).exists() && folder.path(not_ours).exists());
    let report = folder.document("retention report").await;
    let kinds = report["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["kind"] == "security-log").unwrap();
    assert_eq!((&kind["retention"], &kind["due"]), (&"30 days, then the day's file is erased".into(), &0.into()));
    let posture = folder.document("posture").await;
    let promise = posture["promises"].as_array().unwrap().iter().find(|p| p["name"] == "security-log").unwrap();
    assert_eq!(promise["standing"], "kept", "{promise}");

    let gateway = gateway.stop().await;
    assert!(gateway.log().iter().all(|line| line["stream"] == "system"), "{}", gateway.stdout());
    let issued = |account: &str| ("code-issued".to_owned(), account.to_owned());
    assert_eq!(events(&folder, "moved"), [issued("alice")]);
    assert_eq!(events(&folder, "security.log"), [issued("bob")]);
}
