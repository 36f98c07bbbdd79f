//! The security stream in a file of its own: nothing of it on stdout, opened anew by a reload, erased in time.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Captured, Folder, ended, sekisho};

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

/// `dev` shows its streams on stderr, for a person; what has a file goes there all the same.
#[tokio::test]
async fn a_newcomers_gateway_writes_it_too() {
    let folder = TempDir::new().unwrap();
    let at = folder.path().join("dev");
    let dir = at.to_str().unwrap();
    let mut dev = sekisho(["dev", "--dir", dir]).spawn().unwrap();
    let (said, shown) = (Captured::of(dev.stdout.take().unwrap()), Captured::of(dev.stderr.take().unwrap()));
    said.until(|text| text.contains("Enrolment code") && text.contains("ends it all")).await.unwrap();
    let socket = format!("{dir}/run/admin.sock");
    let verb = async |verb: &str| {
        let done = ended(sekisho(verb.split(' ').chain(["--socket", &socket]))).await;
        assert_eq!(done.code, 0, "{verb}: {done:?}");
    };
    verb("codes issue before").await;
    let config = fs::read_to_string(at.join("gateway.toml")).unwrap();
    let file = "[log]\nsecurity = { file = \"log/security.log\" }\n";
    fs::write(at.join("gateway.toml"), config.replacen("[log]\n", file, 1)).unwrap();
    verb("reload").await;
    verb("codes issue after").await;
    let id = Pid::from_raw(i32::try_from(dev.id().unwrap()).unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert!(dev.wait().await.unwrap().success());

    // Before the reload on stderr alone, after it in the file alone.
    let written = fs::read_to_string(at.join("log/security.log")).unwrap();
    let accounts: Vec<_> =
        written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["account"].clone()).collect();
    assert_eq!(accounts, ["after"], "{written}");
    shown.until(|_| false).await.unwrap_err();
    assert!(shown.text().contains("account=before") && !shown.text().contains("account=after"), "{}", shown.text());
}
