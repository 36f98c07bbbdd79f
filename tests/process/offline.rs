//! `carriers list | explain | user-agent`, without a gateway.

use std::process::Stdio;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::process::{Folder, ended, ended_with, sekisho, with_nobody_reading};

const CASES: &str = include_str!("../data/ident-cases.json");
const USER_AGENTS: &str = include_str!("../data/user-agents.json");
const KEY_HEX: &str = "00112233445566778899aabbccddeeff";

/// A configuration that states what the file assumes.
fn of_the_file() -> (Folder, Vec<Value>) {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let folder = Folder::alone();
    let config = std::fs::read_to_string(folder.path("gateway.toml")).unwrap();
    let mut config: Value = toml::from_str(&config).unwrap();
    config["gateway"]["hosts"] = file["config"]["hosts"].clone();
    config["gateway"]["trusted_proxies"] = file["config"]["trusted_proxies"].clone();
    config["carriers"] = file["config"]["profiles"].clone();
    folder.write("gateway.toml", &toml::to_string(&config).unwrap());
    (folder, file["cases"].as_array().unwrap().clone())
}

fn lines<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<u8> {
    values.flat_map(|value| [value.to_string(), "\n".to_owned()]).collect::<String>().into_bytes()
}

fn answers(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn expected(case: &Value, with_key: bool) -> Value {
    let mut expected = case["expect"].clone();
    let identifier = expected.as_object_mut().unwrap().remove("identifier");
    if let Some(identifier) = identifier.filter(|_| with_key) {
        let key: Vec<u8> = (0..16).map(|i| i * 0x11).collect();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), identifier.as_str().unwrap().as_bytes());
        expected["fingerprint"] = tag.as_ref().iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}")).into();
    }
    expected
}

#[tokio::test]
async fn explain_reproduces_every_expectation() {
    let (folder, cases) = of_the_file();
    assert!(cases.len() > 200);
    for key in [None, Some(KEY_HEX)] {
        let mut command = folder.command("carriers explain");
        if let Some(key) = key {
            command.args(["--fingerprint-key", key]);
        }
        let ended = ended_with(command, &lines(cases.iter().map(|case| &case["request"]))).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let answers = answers(&ended.stdout);
        assert_eq!(answers.len(), cases.len());
        for (case, answer) in cases.iter().zip(&answers) {
            assert_eq!(*answer, expected(case, key.is_some()), "{}", case["id"]);
        }
        let clear = cases.iter().filter_map(|case| case["expect"]["identifier"].as_str());
        for identifier in clear {
            assert!(!ended.stdout.contains(identifier) && !ended.stderr.contains(identifier), "{identifier}");
        }
    }
}

#[tokio::test]
async fn a_bad_line_is_answered_and_the_next_is_read() {
    let (folder, cases) = of_the_file();
    let good = lines([&cases[0]["request"]].into_iter());
    let mut input = b"canary\n{\"remote_ip\":\"canary\"}\n\xff\n\n[]\n".to_vec();
    input.extend_from_slice(&good);
    let ended = ended_with(folder.command("carriers explain"), &input).await;
    assert_eq!(ended.code, 0);
    assert!(!ended.stdout.contains("canary"), "{ended:?}");
    let answers = answers(&ended.stdout);
    let (last, errors) = answers.split_last().unwrap();
    assert_eq!(errors.len(), 5);
    assert!(errors.iter().all(|answer| answer["error"].is_string()), "{errors:?}");
    assert_eq!(*last, expected(&cases[0], false));
}

#[tokio::test]
async fn explain_needs_a_configuration_and_a_key_that_can_be_one() {
    let (folder, _) = of_the_file();
    for key in ["", "0", "xyz", "0x00"] {
        let mut command = folder.command("carriers explain");
        command.args(["--fingerprint-key", key]);
        let ended = ended(command).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{key}: {ended:?}");
        assert!(key.is_empty() || !ended.stderr.contains(&format!("\"{key}\"")), "{ended:?}");
    }
    folder.append("[nonsense]\n");
    let ended = folder.run("carriers explain").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    assert!(ended.stderr.contains("nonsense"), "{ended:?}");
}

#[tokio::test]
async fn every_user_agent_is_told_without_its_serials() {
    let file: Value = serde_json::from_str(USER_AGENTS).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 800);
    let input: String = cases.iter().flat_map(|case| [case["ua"].as_str().unwrap(), "\n"]).collect();
    let ended = ended_with(sekisho(["carriers", "user-agent"]), input.as_bytes()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let answers = answers(&ended.stdout);
    assert_eq!(answers.len(), cases.len());
    for (case, answer) in cases.iter().zip(&answers) {
        let mut expected = case["expect"].as_object().unwrap().clone();
        for serial in ["device_serial", "card_serial"].map(|name| expected.remove(name)).into_iter().flatten() {
            assert!(!answer.to_string().contains(serial.as_str().unwrap()), "{}: {answer}", case["id"]);
        }
        expected.entry("redacted").or_insert_with(|| case["ua"].clone());
        for (name, value) in expected {
            assert_eq!(answer[&name], value, "{name} of {}: {answer}", case["id"]);
        }
    }
}

#[tokio::test]
async fn each_line_is_answered_while_stdin_stays_open() {
    let (folder, cases) = of_the_file();
    let request = cases[0]["request"].to_string();
    for (mut command, line) in [
        (folder.command("carriers explain"), request.as_str()),
        (sekisho(["carriers", "user-agent"]), "DoCoMo/2.0 P903i(c100;TB;W24H12)"),
    ] {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let answer = timeout(Duration::from_secs(30), answers.next_line()).await.expect("no answer before the end");
            assert!(answer.unwrap().unwrap().parse::<Value>().unwrap()["carrier"].is_string());
        }
        drop(stdin);
        assert!(timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap().success());
    }
}

#[tokio::test]
async fn the_list_names_profiles_and_which_are_on() {
    let (folder, _) = of_the_file();
    let named = |document: &Value| {
        let carriers = document["carriers"].as_array().unwrap().iter();
        carriers.map(|c| (c["carrier"].as_str().unwrap().to_owned(), c["enabled"].clone())).collect::<Vec<_>>()
    };
    let built_in = ended(sekisho(["carriers", "list", "--json"])).await;
    assert_eq!((built_in.code, built_in.stderr.as_str()), (0, ""));
    let built_in = named(&built_in.json());
    assert!(["docomo", "au", "softbank"].iter().all(|name| built_in.contains(&((*name).to_owned(), json!(false)))));

    let configured = folder.run("carriers list --json").await;
    assert_eq!(configured.code, 0);
    let configured = named(&configured.json());
    for on in ["docomo", "au", "softbank", "emobile", "private-apn", "acr"] {
        assert!(configured.contains(&(on.to_owned(), json!(true))), "{on}: {configured:?}");
    }
    assert!(configured.contains(&("willcom".to_owned(), json!(false))), "{configured:?}");

    let table = folder.run("carriers list").await;
    let mut rows = table.stdout.lines();
    let head = rows.next().unwrap();
    assert!(head.starts_with("carrier") && !table.stdout.contains('\u{1b}'), "{}", table.stdout);
    let enabled = head.find("enabled").unwrap();
    assert_eq!(rows.clone().count(), configured.len());
    for (row, (name, on)) in rows.zip(&configured) {
        assert!(row.starts_with(name.as_str()), "{row}");
        assert!(row[enabled..].starts_with(if on == true { "yes" } else { "no" }), "{row}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let (folder, cases) = of_the_file();
    let lines = lines(cases.iter().map(|case| &case["request"]));
    for (command, input) in [
        (folder.command("carriers explain"), lines),
        (sekisho(["carriers", "user-agent"]), b"DoCoMo/2.0 P903i\n".to_vec()),
        (sekisho(["carriers", "list"]), Vec::new()),
        (sekisho(["carriers", "list", "--json"]), Vec::new()),
        (sekisho(["--help"]), Vec::new()),
    ] {
        assert_eq!(with_nobody_reading(command, &input).await, (Some(0), String::new()));
    }
}
