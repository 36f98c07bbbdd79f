//! SIGKILL at random moments while records are wrapped and handsets sign in. After each start every handset that was bound
//! is found, nobody is there twice, and the rotation goes on to its end.
//!
//! `SEKISHO_SOAK_ROUNDS` and `SEKISHO_SEED` as for the other soak.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use sekisho::admin::{AdminClient, ClientError};
use sekisho::entropy::{Entropy as _, SeededEntropy, SystemEntropy, random};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Carrier, Handset};
use crate::process::{Folder, Serving};
use crate::recorder::RecordingUpstream;

/// Kills where the environment does not say.
const ROUNDS: u64 = 10;
/// Kills of one store: as many as two rotations are worth.
const OF_ONE_STORE: u64 = 4;
const HANDSETS: u64 = 4000;
/// Handsets that are asked for after each start.
const ASKED: u64 = 20;
/// The last moment for a kill, in milliseconds: after a rotation was asked for, and of one that goes on.
const LONGEST: [u64; 2] = [80, 400];

#[tokio::test]
async fn a_kill_at_any_moment_of_a_wrap_loses_nobody() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("SEKISHO_SEED").unwrap_or_else(|| u64::from_be_bytes(random(&SystemEntropy::default())));
    let mut left = number("SEKISHO_SOAK_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("{left} kills with SEKISHO_SEED={seed}");
    let dice = SeededEntropy::new(seed);
    let mut amid = 0;
    while left > 0 {
        let kills = left.min(OF_ONE_STORE);
        amid += one_store(&dice, kills).await;
        left -= kills;
    }
    eprintln!("{amid} kills came while records were left to wrap");
}

fn below(dice: &SeededEntropy, bound: u64) -> u64 {
    let mut bytes = [0; 8];
    dice.fill(&mut bytes);
    u64::from_be_bytes(bytes) % bound
}

/// Returns how many kills came while records were left to wrap.
async fn one_store(dice: &SeededEntropy, kills: u64) -> usize {
    let upstream = RecordingUpstream::start().await;
    let folder = Folder::new(upstream.address);
    folder.append("[limits]\nsign_in = \"1000000/1m\"\nnetwork = \"1000000/1m\"\n");
    let admin = AdminClient::new(&folder.path("run/admin.sock"));
    let mut gateway = folder.serve().await;
    let lines: String = (0..HANDSETS)
        .map(|n| {
            let identifier = Carrier::PrivateApn.identifier(&n.to_string());
            let line = json!({ "account": format!("account-{n}"), "carrier": "private-apn", "identifier": identifier });
            line.to_string() + "\n"
        })
        .collect();
    let imported = admin.import(stream::iter([Ok(Bytes::from(lines))]), |_| ()).await.unwrap();
    assert_eq!(imported.imported, HANDSETS);

    let mut amid = 0;
    for kill in 0..kills {
        let begins = kill % 2 == 0;
        if begins {
            start(&admin).await;
        }
        let moment = Duration::from_millis(below(dice, LONGEST[usize::from(!begins)]));
        let (at, first) = (gateway.address("handset"), below(dice, HANDSETS));
        let sign_ins = async {
            for n in first.. {
                let mut handset = Handset::new(at, Carrier::PrivateApn, &(n % HANDSETS).to_string());
                let Ok(page) = handset.try_send(Method::GET, "/", &[], Bytes::new()).await else { return };
                let login = page.link("/_sekisho/login?");
                let Ok(entered) = handset.try_send(Method::GET, &login, &[], Bytes::new()).await else { return };
                assert_eq!(entered.status, StatusCode::FOUND, "handset {n}: {}", entered.text());
            }
        };
        // Without sign-ins it wraps as fast as it can.
        if kill % 3 == 0 {
            assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        } else {
            assert!(timeout(moment, sign_ins).await.is_err(), "it ended by itself: {}", gateway.stdout());
        }
        gateway.kill().await;
        gateway = folder.serve().await;
        let unwrapped: u64 = rotations(&admin).await.iter().map(|r| r["unwrapped"].as_u64().unwrap()).sum();
        amid += usize::from(unwrapped > 0);
        found(&gateway, dice).await;
    }
    let wrapped = async { while rotations(&admin).await.iter().any(|rotation| rotation["state"] == "running") {} };
    timeout(Duration::from_mins(2), wrapped).await.expect("it converges");
    found(&gateway, dice).await;
    let stats: Value = admin.call(Method::GET, "/v1/bindings/stats").await.unwrap();
    let chains = stats["chains"].as_array().unwrap();
    assert_eq!(chains.iter().map(|chain| chain["bindings"].as_u64().unwrap()).sum::<u64>(), HANDSETS, "{stats}");
    let latest = &rotations(&admin).await[0]["to"];
    assert!(chains.iter().all(|chain| chain["chain"].as_array().unwrap().last() == Some(latest)), "{stats}");
    gateway.kill().await;
    let check = folder.run("check").await;
    assert_eq!(check.code, 0, "the store is sound after every kill: {check:?}");
    amid
}

/// Begins another rotation, unless two are open.
async fn start(admin: &AdminClient) {
    let asked = json!({ "purpose": "binding" });
    match admin.call_with::<Value>(Method::POST, "/v1/rotations", Some(&asked)).await {
        Ok(_) => {}
        Err(ClientError::Refused(refusal)) if refusal.reason == "rotation-limit" => {}
        Err(error) => panic!("{error}"),
    }
}

async fn rotations(admin: &AdminClient) -> Vec<Value> {
    let listed: Value = admin.call(Method::GET, "/v1/rotations").await.unwrap();
    let listed = listed["rotations"].as_array().unwrap().clone();
    for rotation in &listed {
        let counts = ["flattened", "purged", "remaining"].map(|count| rotation[count].as_u64().unwrap());
        assert_eq!(rotation["total"].as_u64().unwrap(), counts.iter().sum::<u64>(), "{rotation}");
    }
    listed
}

/// Some handsets of all sign in, and a stranger does not.
async fn found(gateway: &Serving, dice: &SeededEntropy) {
    let at = gateway.address("handset");
    let some: Vec<u64> = (0..ASKED).map(|_| below(dice, HANDSETS)).collect();
    let ask = async |n: u64| {
        let mut handset = Handset::new(at, Carrier::PrivateApn, &n.to_string());
        (n, handset.click_sign_in("/").await.status)
    };
    let answers: Vec<_> = stream::iter(some).map(ask).buffer_unordered(4).collect().await;
    assert!(answers.iter().all(|(_, status)| *status == StatusCode::FOUND), "{answers:?}");
    assert_eq!(ask(HANDSETS + 1).await.1, StatusCode::FORBIDDEN);
}
