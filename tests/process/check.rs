//! `check` finds what start-up would, all at once, and changes nothing; what it finds keeps `serve` from starting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::process::{Folder, KEK, ended, sekisho, wrapped};
use sekisho::clock::{Clock, SystemClock};

/// A KEK that made no store here.
const OTHER_KEK: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A folder whose store was made by a gateway that stopped in order.
async fn with_store() -> Folder {
    let folder = Folder::alone();
    let gateway = folder.serve().await;
    folder.code("alice").await;
    gateway.stop().await;
    folder
}

/// `check` and `serve` name exactly `keys`, say `told`, and leave every byte as it was.
async fn refused(folder: &Folder, keys: &[&str], told: &[&str]) {
    let before = folder.snapshot();
    let [check, serve] = [folder.run("check").await, folder.run("serve").await];
    assert_eq!(check.finding_keys(), keys, "{check:?}");
    assert!(!serve.finding_keys().is_empty(), "{serve:?}");
    assert!(serve.finding_keys().iter().all(|key| keys.contains(key)), "{serve:?}");
    for ended in [&check, &serve] {
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
        let config = folder.path("gateway.toml");
        for line in ended.stderr.lines() {
            let place = line.strip_prefix(&format!("{}:", config.display())).unwrap_or_else(|| panic!("{ended:?}"));
            assert!(place.split(':').next().unwrap().parse::<usize>().is_ok(), "{line}");
        }
    }
    for told in told {
        assert!(check.stderr.contains(told), "{told}: {check:?}");
    }
    assert_eq!(changes(folder, &before), Vec::<PathBuf>::new());
}

/// Files that are new, gone or different. The lock, SQLite's shared memory and an empty journal hold nothing.
fn changes(folder: &Folder, before: &BTreeMap<PathBuf, (u32, Vec<u8>)>) -> Vec<PathBuf> {
    let after = folder.snapshot();
    let holds = |file: &PathBuf, content: Option<&(u32, Vec<u8>)>| {
        let name = file.to_string_lossy();
        content.is_some_and(|(_, bytes)| !bytes.is_empty()) && !name.ends_with(".lock") && !name.ends_with("-shm")
    };
    let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let changed = all.into_iter().filter(|file| before.get(*file) != after.get(*file));
    changed.filter(|file| holds(file, before.get(*file)) || holds(file, after.get(*file))).cloned().collect()
}

#[tokio::test]
async fn a_good_configuration_passes_with_its_warnings_and_nothing_is_made() {
    let folder = Folder::alone();
    for folder in [folder, with_store().await] {
        let before = folder.snapshot();
        let check = folder.run("check").await;
        assert_eq!((check.code, check.stdout.as_str()), (0, ""), "{check:?}");
        assert_eq!(check.finding_keys(), Vec::<&str>::new());
        assert!(check.stderr.contains(": gateway.public_url: warning: "), "{check:?}");
        assert_eq!(folder.snapshot(), before);
    }
}

#[tokio::test]
async fn what_keeps_a_gateway_from_starting_is_told_last() {
    let folder = Folder::alone();
    folder.append("[log]\naccess = { to = \"stdout\" }\n");
    let gateway = folder.serve().await;
    folder.edit("audience = \"https://console.internal\"", "audience = \"\"");
    let told = async |verb: &str| {
        let said = folder.run(verb).await;
        let lines = said.stderr.lines().filter(|line| line.contains("gateway.toml:"));
        lines.map(|line| line.contains(": warning: ")).collect::<Vec<_>>()
    };
    for verb in ["check", "serve", "reload"] {
        let warnings = told(verb).await;
        assert!(warnings.len() > 1 && warnings.is_sorted_by(|one, next| one >= next), "{verb}: {warnings:?}");
        assert_eq!((warnings.first(), warnings.last()), (Some(&true), Some(&false)), "{verb}: {warnings:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn everything_wrong_is_told_at_once() {
    let folder = with_store().await;
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    folder.edit("127.0.0.1:0", &address);
    folder.edit(
        "[[listener]]\nserves = \"ops\"",
        "[[listener]]\nserves = \"handset\"\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"no.pem\", key = \"no.key\" }\n[[listener]]\nserves = \"ops\"",
    );
    folder.edit("run/admin.sock", "kek/admin.sock");
    folder.write_secret("kek", "c2hvcnQ=");
    folder.append("[log]\naccess = { file = \"none/access.log\" }\n");
    std::fs::write(folder.path("data/store.db"), "not a store").unwrap();
    let keys = ["listener[1].tls", "listener[0].address", "admin.socket", "log.access", "keys.kek", "store.path"];
    refused(&folder, &keys, &[&address, "no.pem", "44 characters", "not a Sekisho store"]).await;
    let check = folder.run("check").await;
    assert!(!check.stderr.contains("c2hvcnQ"), "{check:?}");

    folder.edit("[gateway]", "[gateway]\ntrusted_proxy = []");
    folder.edit("[notice]", "[notice]\nphone = \"x\"");
    refused(&folder, &["gateway.trusted_proxy", "notice.phone"], &["trusted_proxies"]).await;
}

#[tokio::test]
async fn a_port_that_anybody_holds_is_found_and_no_store_is_made() {
    let folder = Folder::alone();
    // An address of its own: nobody else may take the port once it is free again.
    let busy = TcpListener::bind("127.0.77.2:0").unwrap();
    folder.edit("127.0.0.1:0", &busy.local_addr().unwrap().to_string());
    refused(&folder, &["listener[0].address"], &["in use"]).await;
    drop(busy);
    assert_eq!(folder.run("check").await.code, 0);

    let first = folder.serve().await;
    let second = Folder::alone();
    second.edit("127.0.0.1:0", &first.address("handset").to_string());
    refused(&second, &["listener[0].address"], &["in use"]).await;
    assert!(!second.path("data").exists(), "a gateway that could not start made a store");
    first.stop().await;
}

#[tokio::test]
async fn a_store_has_one_gateway_and_a_socket_too() {
    let folder = Folder::alone();
    let first = folder.serve().await;
    let code = folder.code("alice").await;
    for verb in ["check", "serve"] {
        let ended = folder.run(verb).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.finding_keys().contains(&"admin.socket"), "{ended:?}");
    }
    folder.edit("run/admin.sock", "run/second.sock");
    for verb in ["check", "serve"] {
        let ended = folder.run(verb).await;
        assert_eq!((ended.code, ended.finding_keys()), (2, vec!["store.path"]), "{ended:?}");
        assert!(ended.stderr.contains("another gateway is using this store"), "{ended:?}");
    }
    // The first one noticed nothing.
    folder.edit("run/second.sock", "run/admin.sock");
    assert_ne!(folder.code("alice").await, code);
    first.stop().await;
    assert_eq!(folder.run("check").await.code, 0);
}

#[tokio::test]
async fn a_wrong_a_missing_and_a_malformed_kek_are_told_apart_and_overwrite_nothing() {
    let folder = with_store().await;
    folder.write_secret("kek", OTHER_KEK);
    refused(&folder, &["keys.kek"], &["wrapped under another KEK"]).await;
    folder.write_secret("kek", "not base64");
    refused(&folder, &["keys.kek"], &["32 bytes in base64"]).await;
    folder.write_secret("kek", "");
    refused(&folder, &["keys.kek"], &["is empty"]).await;
    std::fs::remove_file(folder.path("kek")).unwrap();
    refused(&folder, &["keys.kek"], &["cannot be read"]).await;
    folder.write_secret("kek", KEK);
    folder.serve().await.stop().await;
}

#[tokio::test]
async fn a_store_that_is_damaged_emptied_or_foreign_is_left_alone() {
    let folder = with_store().await;
    let store = folder.path("data/store.db");
    let sound = std::fs::read(&store).unwrap();

    // Every page but the first, whose head is judged on its own: all of it, one at a time, is found.
    let pages = sound.len() / 4096;
    assert!(pages > 4);
    for page in [1, pages / 2, pages - 1] {
        let file = std::fs::OpenOptions::new().write(true).open(&store).unwrap();
        file.write_all_at(&[0xA5; 4096], u64::try_from(page * 4096).unwrap()).unwrap();
        refused(&folder, &["store.path"], &["restore it from a backup"]).await;
        std::fs::write(&store, &sound).unwrap();
    }

    for foreign in [&b"#!/bin/sh\n"[..], &[]] {
        std::fs::write(&store, foreign).unwrap();
        refused(&folder, &["store.path"], &["not a Sekisho store"]).await;
    }
    std::fs::write(&store, &sound).unwrap();

    rusqlite::Connection::open(&store).unwrap().execute("DELETE FROM keys", []).unwrap();
    refused(&folder, &["store.path"], &["once had keys and has none now"]).await;
    std::fs::write(&store, &sound).unwrap();
    folder.serve().await.stop().await;
}

#[tokio::test]
async fn certificates_are_read_matched_and_dated() {
    let folder = Folder::alone();
    folder.edit(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = { certificate = \"tls.pem\", key = \"tls.key\" }",
    );
    let write = |days: [i64; 2], other_key: bool| {
        let mut params = CertificateParams::new(vec!["admin.example.jp".to_owned()]).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(SystemClock::default().now().unix_seconds()).unwrap();
        [params.not_before, params.not_after] = days.map(|days| now + Duration::days(days));
        let pair = KeyPair::generate().unwrap();
        folder.write("tls.pem", &pem("CERTIFICATE", params.self_signed(&pair).unwrap().der()));
        let key = if other_key { KeyPair::generate().unwrap() } else { pair };
        folder.write_secret("tls.key", &pem("PRIVATE KEY", key.serialized_der()));
    };
    let key = ["listener[0].tls"];
    refused(&folder, &key, &["tls.pem"]).await;
    write([-2, -1], false);
    refused(&folder, &key, &["tls.pem", "expired"]).await;
    write([1, 2], false);
    refused(&folder, &key, &["tls.pem", "not valid yet"]).await;
    write([-1, 1], true);
    refused(&folder, &key, &["tls.key", "tls.pem"]).await;
    write([-1, 1], false);
    folder.serve().await.stop().await;
    let doubts = async || {
        let check = folder.run("check").await;
        assert_eq!(check.code, 0, "{check:?}");
        ["runs out at", "no certificate here is for other.example.jp"].map(|doubt| check.stderr.contains(doubt))
    };
    assert_eq!(doubts().await, [true, false]);
    write([-1, 90], false);
    folder.edit(
        "public_url = \"http://admin.example.jp\"",
        "public_url = \"http://admin.example.jp\"\nhosts = [\"admin.example.jp\", \"other.example.jp\"]",
    );
    assert_eq!(doubts().await, [false, true]);
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[tokio::test]
async fn an_admin_socket_that_cannot_be_made_is_found() {
    let folder = Folder::alone();
    folder.write("run", "a file where the folder should be");
    refused(&folder, &["admin.socket"], &["run/admin.sock"]).await;
    std::fs::remove_file(folder.path("run")).unwrap();

    std::fs::create_dir(folder.path("run")).unwrap();
    folder.write("run/admin.sock", "precious");
    refused(&folder, &["admin.socket"], &["is not a socket"]).await;
    std::fs::remove_file(folder.path("run/admin.sock")).unwrap();

    // Root may write anywhere.
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(folder.path("run"), std::fs::Permissions::from_mode(0o500)).unwrap();
        refused(&folder, &["admin.socket"], &["run/admin.sock"]).await;
        std::fs::set_permissions(folder.path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(folder.run("check").await.code, 0);
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_a_finding_too() {
    for verb in ["check", "serve"] {
        let ended = ended(sekisho([verb, "--config", "/nonexistent/gateway.toml"])).await;
        assert_eq!(ended.code, 2);
        assert!(ended.stderr.starts_with("/nonexistent/gateway.toml:1: "), "{ended:?}");
    }
}

#[tokio::test]
async fn few_open_files_are_doubtful_and_serve_takes_as_many_as_it_may() {
    let limited =
        |command, files: &str| wrapped(&["sh", "-c", &format!("ulimit {files}; exec \"$0\" \"$@\"")], &command);
    let folder = Folder::alone();
    let told = async |files: &str| {
        let ended = ended(limited(folder.command("check"), files)).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stderr.lines().find(|line| line.contains("limits.connections")).map(str::to_owned)
    };
    let doubt = told("-n 600").await.unwrap();
    assert!(doubt.contains("limits.connections: warning: only ") && doubt.contains("may open 600 files"), "{doubt}");
    // What the process can have, not what it was started with.
    assert_eq!(told("-S -n 600").await, None);
    folder.append("[limits]\nconnections = 5000\n");
    assert_eq!(told("-S -n 600").await, None);
    let doubt = told("-n 6000").await.unwrap();
    assert!(doubt.contains("5000 connections need 1") && doubt.contains("may have 6000; raise LimitNOFILE"), "{doubt}");

    // The default of 4096 for each server does not go with 5000 of clients either; with fewer there is room again.
    let of_upstreams = async |files: &str| {
        let ended = ended(limited(folder.command("check"), files)).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stderr.lines().find(|line| line.contains("upstream[0].connections")).map(str::to_owned)
    };
    assert_eq!(of_upstreams("-n 20000").await, None);
    let doubt = of_upstreams("-n 9000").await.unwrap();
    assert!(doubt.contains("warning: the servers of all upstreams may have 4096 connections"), "{doubt}");
    let left =
        doubt.split_once("at once, and ").and_then(|(_, rest)| rest.split_once(" open files are left")).unwrap().0;
    let needed = doubt.split_once("LimitNOFILE to ").and_then(|(_, rest)| rest.split_once(',')).unwrap().0;
    let (left, needed): (u64, u64) = (left.parse().unwrap(), needed.parse().unwrap());
    assert_eq!(needed - 9000, 4096 - left, "{doubt}");
    assert_eq!(of_upstreams(&format!("-n {needed}")).await, None);
    assert!(of_upstreams(&format!("-n {}", needed - 1)).await.is_some());
    folder.edit("audience = ", &format!("connections = {left}\naudience = "));
    assert_eq!(of_upstreams("-n 9000").await, None);

    let gateway = folder.serve_as(limited(folder.command("serve"), "-S -n 300")).await;
    let (now, most) = gateway.descriptors_allowed();
    assert_eq!(now, most);
    gateway.stop().await;
    let gateway = folder.serve_as(limited(folder.command("serve"), "-n 6000")).await;
    gateway.logged("raise LimitNOFILE").await;
    gateway.stop().await;
}
