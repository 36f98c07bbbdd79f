//! The trail in a real store, what verification finds in it, and what it does not take for a change.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::binding::AccountId;
use crate::clock::Timestamp;
use crate::entropy::SystemEntropy;
use crate::keys::AuditKey;
use crate::store::{EmbeddedStore, StoreError};

mod erased;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_478_400_000 + seconds * 1000)
}

fn account(name: &str) -> AccountId {
    AccountId::parse(name).unwrap()
}

/// A trail in a folder of its own.
struct Set {
    trail: AuditTrail,
    store: Arc<EmbeddedStore>,
    key: Arc<AuditKey>,
    folder: TempDir,
}

async fn open_in(folder: &Path, key: &Arc<AuditKey>, now: Timestamp) -> (AuditTrail, Arc<EmbeddedStore>) {
    let entropy = Arc::new(SystemEntropy::default());
    let store = Arc::new(EmbeddedStore::open(&folder.join("store"), at(0), &*entropy).unwrap().0);
    let store_id = crate::store::KeyStore::store_id(&*store).await.unwrap();
    let trail = AuditTrail::open(Arc::clone(&store) as _, store_id, Arc::clone(key), entropy, now).await.unwrap();
    (trail, store)
}

impl Set {
    async fn new() -> Self {
        let (folder, key) = (TempDir::new().unwrap(), Arc::new(AuditKey::fresh("u1")));
        let (trail, store) = open_in(folder.path(), &key, at(0)).await;
        Self { trail, store, key, folder }
    }

    /// Changes the closed store behind its back and opens it again.
    async fn behind_its_back(self, sql: &str) -> Self {
        let Self { trail, store, key, folder } = self;
        drop(trail);
        store.close().await.unwrap();
        drop(store);
        let conn = rusqlite::Connection::open(folder.path().join("store")).unwrap();
        conn.execute_batch(sql).unwrap();
        conn.close().unwrap();
        let (trail, store) = open_in(folder.path(), &key, at(100)).await;
        Self { trail, store, key, folder }
    }

    async fn note(&self, event: Event, second: i64) -> u64 {
        self.trail.note(event, at(second)).await.unwrap()
    }

    /// Seven entries, sealed after the fifth and at the end.
    async fn fill(&self) {
        let alice = account("alice");
        self.note(Event::new(Action::GatewayStart, "gateway").object("0.1.0"), 1).await;
        self.note(Event::new(Action::CodeIssue, "uid:1001").account(&alice), 2).await;
        let suspend = Event::new(Action::AccountSuspend, "uid:1001").account(&alice).reason("lost \"端末\"");
        let begun = self.trail.begin(suspend, at(3)).await.unwrap();
        self.trail.end(begun, Outcome::Done, Effect::change(2, 0), at(3)).await.unwrap();
        self.trail.seal(at(4)).await.unwrap();
        self.note(Event::new(Action::SessionDeviceMismatch, "handset").account(&account("bob")), 5).await;
        self.note(Event::new(Action::GatewayStop, "gateway"), 6).await;
        self.trail.seal(at(7)).await.unwrap();
    }

    async fn export(&self, after: u64) -> String {
        let mut export = self.trail.export(after).await.unwrap().unwrap();
        let mut text = String::new();
        while let Some(page) = export.page().await.unwrap() {
            text.push_str(&page);
        }
        text
    }

    async fn exported() -> String {
        let set = Self::new().await;
        set.fill().await;
        set.export(0).await
    }
}

/// As `sekisho audit verify FILE` reads it.
fn verdict_of(text: &[u8], expected: Expected) -> Verdict {
    let mut verifier = Verifier::new(expected);
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.by_ref().for_each(|line| match line.split_last() {
        Some((b'\n', line)) => verifier.line(line),
        _ => verifier.broken_off(),
    });
    verifier.finish()
}

fn verify(text: &str) -> Verdict {
    verdict_of(text.as_bytes(), Expected::default())
}

fn kept(lines: &[&str]) -> String {
    lines.join("\n") + if lines.is_empty() { "" } else { "\n" }
}

#[tokio::test]
async fn a_trail_that_nobody_changed_is_verified_to_its_end() {
    let set = Set::new().await;
    set.fill().await;
    let text = set.export(0).await;
    let verdict = verify(&text);
    assert!(verdict.ok(), "{verdict:?}");
    assert_eq!((verdict.entries, verdict.unverifiable), (7, 0));
    assert_eq!(verdict.keys, [("u1".to_owned(), set.key.public().fingerprint())]);
    assert_eq!(verdict.head, set.trail.head().await.unwrap());
    assert!(!text.contains("alice") && !text.contains("bob"), "accounts stand in it under pseudonyms");

    let online = set.trail.verify().await.unwrap();
    assert_eq!((online.ok(), online.entries, online.unverifiable), (true, 7, 0));

    for after in 1..=7 {
        let verdict = verify(&set.export(after).await);
        assert!(verdict.ok(), "behind {after}: {verdict:?}");
        assert_eq!((verdict.entries, verdict.unverifiable), (7 - after, 0));
    }
    assert!(set.trail.export(8).await.unwrap().is_none(), "there is no such entry");

    let entries = set.trail.entries(3, 2).await.unwrap();
    let words: Vec<_> = entries.iter().map(|(e, _)| (e.seq, e.outcome.as_str(), e.of, e.before, e.after)).collect();
    assert_eq!(words, [(4, "begun", None, None, None), (5, "done", Some(4), Some(2), Some(0))]);
    assert_eq!(entries[0].0.account, entries[1].0.account);
    assert!(entries[0].0.account.as_ref().is_some_and(|a| a.len() == 24 && a.starts_with("p_")));
}

/// Which entry the byte at `at` belongs to: that of its line, and for lines that are none, those around it.
fn suspects(text: &str, at: usize) -> std::ops::RangeInclusive<u64> {
    let mut lines = text.split_inclusive('\n').scan(0, |end, line| {
        *end += line.len();
        Some((*end, line))
    });
    let mut entries_before = 0;
    let line = lines.find(|(end, line)| {
        entries_before += u64::from(line.starts_with("{\"entry\":"));
        at < *end
    });
    if line.is_some_and(|(_, line)| line.starts_with("{\"entry\":")) {
        entries_before..=entries_before
    } else {
        entries_before..=entries_before + 1
    }
}

#[tokio::test]
async fn one_changed_bit_anywhere_is_found_and_its_entry_named() {
    let text = Set::exported().await;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (at % 8);
        let verdict = verdict_of(&bytes, Expected::default());
        let Some(bad) = verdict.bad else { panic!("byte {at} of {text}") };
        assert!(suspects(&text, at).contains(&bad.seq), "byte {at}: {bad:?} in {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn bytes_that_were_changed_taken_out_or_put_in_are_found(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(Set::exported());
        let mut bytes = text.clone().into_bytes();
        for (place, byte, change) in places {
            let at = place.index(bytes.len());
            match change {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        prop_assert_eq!(verdict_of(&bytes, Expected::default()).ok(), bytes == text.as_bytes());
    }
}

#[tokio::test]
async fn lines_that_are_missing_there_twice_or_elsewhere_are_found() {
    let text = Set::exported().await;
    let lines: Vec<&str> = text.lines().collect();
    for at in 0..lines.len() {
        let mut without = lines.clone();
        let gone = without.remove(at);
        let verdict = verify(&kept(&without));
        if gone.starts_with("{\"public_key\"") {
            assert!(verdict.ok() && verdict.unverifiable == 7, "without the key nothing is proven: {verdict:?}");
        } else if gone.starts_with("{\"checkpoint\"") {
            let unverifiable = if gone.contains("\"seq\":7") { 2 } else { 0 };
            assert!(verdict.ok() && verdict.unverifiable == unverifiable, "{verdict:?}");
        } else {
            assert!(!verdict.ok(), "without {gone}");
        }
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        let verdict = verify(&kept(&twice));
        assert_eq!(verdict.ok(), lines[at].starts_with("{\"checkpoint\""), "twice {}: {verdict:?}", lines[at]);
        for other in 0..at {
            let mut swapped = lines.clone();
            swapped.swap(at, other);
            assert!(!verify(&kept(&swapped)).ok(), "{other} and {at} have changed places");
        }
    }
    for many in 0..lines.len() {
        assert!(!verify(&kept(&lines[..many])).ok(), "cut off after {many} lines");
    }
    assert!(!verify("").ok());
    assert!(!verify(&text.replace('\n', "\r\n")).ok());
    assert!(!verify(&format!("{text}{text}")).ok());
}

#[tokio::test]
async fn what_was_cut_off_with_care_is_found_by_who_knows_more() {
    let set = Set::new().await;
    set.fill().await;
    let head = set.trail.head().await.unwrap().unwrap();
    let whole = set.export(0).await;
    // All that is left is sealed, and ends as an honest export would.
    let cut: Vec<&str> = whole.lines().take_while(|line| !line.contains("\"seq\":6,")).collect();
    let last: serde_json::Value =
        serde_json::from_str(cut.iter().rev().find(|l| l.contains("entry")).unwrap()).unwrap();
    let end = format!("{{\"end\":{{\"entries\":5,\"head\":{}}}}}\n", last["hash"]);
    let cut = kept(&cut) + &end;
    let with =
        |text: &str, head, entries| verdict_of(text.as_bytes(), Expected { head, entries, ..Expected::default() });
    assert!(with(&cut, None, None).ok(), "nothing in it contradicts");
    let found = with(&cut, Some(head.hash), None);
    assert_eq!((found.ok(), found.bad.unwrap().seq), (false, 6));
    assert_eq!(with(&cut, None, Some(7)).bad.unwrap().seq, 6);
    assert!(with(&whole, Some(head.hash), Some(7)).ok());
    let earlier = set.trail.entries(2, 1).await.unwrap()[0].1;
    assert!(with(&whole, Some(earlier), None).ok(), "a head that was noted down earlier");
}

#[tokio::test]
async fn unverifiable_is_not_tampered() {
    let set = Set::new().await;
    set.fill().await;
    for second in 8..11 {
        set.note(Event::new(Action::KeySetOpen, "gateway"), second).await;
    }
    let verdict = verify(&set.export(0).await);
    assert_eq!((verdict.ok(), verdict.entries, verdict.unverifiable), (true, 10, 3));
    let online = set.trail.verify().await.unwrap();
    assert_eq!((online.ok(), online.unverifiable), (true, 3));
    set.trail.seal(at(12)).await.unwrap();
    assert_eq!(verify(&set.export(0).await).unverifiable, 0);
}

#[tokio::test]
async fn a_trail_that_somebody_made_up_is_found_by_the_key_alone() {
    let (real, forged) = (Set::new().await, Set::new().await);
    real.fill().await;
    forged.fill().await;
    let by = |set: &Set| Expected { keys: vec![set.key.public().fingerprint()], ..Expected::default() };
    let text = forged.export(0).await;
    assert!(verify(&text).ok(), "it vouches for itself");
    assert!(verdict_of(text.as_bytes(), by(&forged)).ok());
    assert!(!verdict_of(text.as_bytes(), by(&real)).ok());

    // The real one, gone on with by somebody who has no key of its.
    let stranger = AuditKey::fresh("u9");
    let text = real.export(0).await;
    let (body, _) = text.split_once("{\"end\"").unwrap();
    let tip = real.trail.head().await.unwrap().unwrap();
    let entry = Event::new(Action::GatewayStop, "gateway").entry(tip, at(20), "u9", None);
    let checkpoint = Checkpoint {
        hash: entry.hash(),
        key: "u9".into(),
        seq: 8,
        store: entry::store_name(&crate::store::KeyStore::store_id(&*real.store).await.unwrap()),
        time: at(20).rfc3339(),
    };
    let seal = stranger.seal(&checkpoint.sealed_bytes()).unwrap();
    let seal = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, seal);
    let key_line = format!("{{\"public_key\":{{\"id\":\"u9\",\"point\":\"{}\"}}}}\n", stranger.public().text());
    let (head, rest) = body.split_once('\n').unwrap();
    let text = format!(
        "{head}\n{key_line}{rest}{}\n{}\n{{\"end\":{{\"entries\":8,\"head\":\"{}\"}}}}\n",
        lines::raw_entry(&entry.text(), entry.hash()),
        lines::raw_checkpoint(&checkpoint.text(), &seal),
        entry.hash(),
    );
    assert!(verify(&text).ok());
    assert_eq!(verdict_of(text.as_bytes(), by(&real)).bad.unwrap().seq, 8);
}

#[tokio::test]
async fn the_trail_goes_on_over_a_change_of_its_key() {
    let set = Set::new().await;
    set.fill().await;
    let next = Arc::new(AuditKey::fresh("u2"));
    set.trail.replace_key(Arc::clone(&next), at(8)).await.unwrap();
    set.note(Event::new(Action::GatewayStop, "gateway"), 9).await;
    set.trail.seal(at(10)).await.unwrap();
    let text = set.export(0).await;
    let keys: Vec<_> = set.trail.entries(6, 9).await.unwrap().into_iter().map(|(entry, _)| entry.key).collect();
    assert_eq!(keys, ["u1", "u1", "u2"], "the old key introduces the new one");
    for key in [&set.key, &next] {
        let keys = vec![key.public().fingerprint()];
        let verdict = verdict_of(text.as_bytes(), Expected { keys, ..Expected::default() });
        assert_eq!((verdict.ok(), verdict.entries, verdict.unverifiable), (true, 9, 0), "{verdict:?}");
    }
    // Without its public half the rest is not proven, and not contradicted.
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("{\"public_key\":{\"id\":\"u2\"")).collect();
    let verdict = verify(&kept(&without));
    assert_eq!((verdict.ok(), verdict.unverifiable), (true, 1), "{verdict:?}");
    // Somebody else's under its id.
    let other = text.replace(&next.public().text(), &AuditKey::fresh("u2").public().text());
    assert_eq!(verify(&other).bad.unwrap().seq, 8);
    let online = set.trail.verify().await.unwrap();
    assert!(online.ok() && online.unverifiable == 0, "{online:?}");
}

#[tokio::test]
async fn a_store_that_was_changed_behind_its_back_is_found_out() {
    const MAY: &str = "DROP TRIGGER audit_entries_stay; DROP TRIGGER audit_entries_remain; \
                       DROP TRIGGER audit_checkpoints_stay; DROP TRIGGER audit_checkpoints_remain; \
                       DROP TRIGGER audit_entries_behind_the_last;";
    let seal_gone = "UPDATE audit_checkpoints SET seal = zeroblob(64) WHERE seq = 7";
    for (change, bad, told_at_start) in [
        ("UPDATE audit_entries SET entry = replace(entry, 'uid:1001', 'uid:1002') WHERE seq = 3", 3, false),
        ("UPDATE audit_entries SET hash = zeroblob(32) WHERE seq = 4", 4, false),
        ("DELETE FROM audit_entries WHERE seq = 2", 2, false),
        ("UPDATE audit_checkpoints SET checkpoint = replace(checkpoint, '00:00:04', '00:00:05') WHERE seq = 5", 5, false),
        ("PRAGMA foreign_keys = OFF; DELETE FROM audit_checkpoints WHERE seq = 7; DELETE FROM audit_entries WHERE seq = 7;
          UPDATE audit_entries SET entry = replace(entry, 'handset', 'nobody!') WHERE seq = 6", 6, true),
        (seal_gone, 7, true),
    ] {
        let set = Set::new().await;
        set.fill().await;
        let set = set.behind_its_back(&format!("{MAY}{change}")).await;
        let verdict = set.trail.verify().await.unwrap();
        assert_eq!(verdict.bad.as_ref().map(|bad| bad.seq), Some(bad), "{change}: {verdict:?}");
        assert!(!verify(&set.export(0).await).ok(), "{change}");
        let told = set.trail.entries(0, 99).await.unwrap().iter().any(|(e, _)| e.action == "audit-mismatch");
        assert_eq!(told, told_at_start, "{change}");
        // It goes on, sealed, and the place stays named.
        set.note(Event::new(Action::GatewayStop, "gateway"), 101).await;
        set.trail.seal(at(102)).await.unwrap();
        let verdict = set.trail.verify().await.unwrap();
        assert_eq!(verdict.bad.map(|bad| bad.seq), Some(bad), "{change}");
    }
}

#[tokio::test]
async fn what_is_taken_from_under_a_running_gateway_is_missed() {
    let set = Set::new().await;
    set.fill().await;
    set.note(Event::new(Action::KeySetOpen, "gateway"), 8).await;
    let conn = rusqlite::Connection::open(set.folder.path().join("store")).unwrap();
    conn.execute_batch("DROP TRIGGER audit_entries_remain; DELETE FROM audit_entries WHERE seq = 8").unwrap();
    let refused = set.trail.note(Event::new(Action::GatewayStop, "gateway"), at(9)).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert!(matches!(set.trail.seal(at(9)).await, Err(SealError::Changed(Bad { seq: 7, .. }))));
    assert_eq!(set.trail.verify().await.unwrap().bad.unwrap().seq, 8);
}

#[tokio::test]
async fn a_clock_that_went_back_between_two_runs_is_told() {
    let set = Set::new().await;
    set.note(Event::new(Action::GatewayStop, "gateway"), 3600).await;
    let set = set.behind_its_back("").await;
    let last = set.trail.entries(2, 9).await.unwrap();
    assert_eq!(
        last.iter().map(|(e, _)| (e.action.as_str(), e.count)).collect::<Vec<_>>(),
        [("clock-set-back", Some(3500))]
    );
}

#[tokio::test]
async fn an_account_that_is_forgotten_is_nobody_in_the_trail() {
    let set = Set::new().await;
    let alice = account("alice");
    set.note(Event::new(Action::CodeIssue, "uid:1").account(&alice), 1).await;
    let pseudonym = set.trail.pseudonym(&alice).await.unwrap().unwrap().to_string();
    let conn = rusqlite::Connection::open(set.folder.path().join("store")).unwrap();
    let key: Vec<u8> = conn.query_row("SELECT key FROM audit_pseudonyms", [], |row| row.get(0)).unwrap();
    drop(conn);
    assert!(set.trail.forget(&alice).await.unwrap() && !set.trail.forget(&alice).await.unwrap());
    assert!(set.trail.pseudonym(&alice).await.unwrap().is_none());
    set.note(Event::new(Action::CodeIssue, "uid:1").account(&alice), 2).await;
    assert_ne!(set.trail.pseudonym(&alice).await.unwrap().unwrap().to_string(), pseudonym, "another key");
    assert!(set.export(0).await.contains(&pseudonym), "the entry stays");
    set.store.close().await.unwrap();
    let file = std::fs::read(set.folder.path().join("store")).unwrap();
    assert!(!file.windows(key.len()).any(|window| window == key), "the key is in no page");
}

#[tokio::test]
async fn entries_that_are_written_at_once_follow_each_other() {
    let set = Arc::new(Set::new().await);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..50 {
        let set = Arc::clone(&set);
        writers.spawn(async move {
            set.note(Event::new(Action::SessionsEnd, "handset").account(&account(&format!("a{}", writer % 7))), 1).await
        });
    }
    let mut numbers = writers.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=51).collect::<Vec<_>>());
    set.trail.seal(at(2)).await.unwrap();
    let verdict = set.trail.verify().await.unwrap();
    assert_eq!((verdict.ok(), verdict.entries, verdict.unverifiable), (true, 51, 0));
}

#[tokio::test]
async fn an_action_stands_in_the_trail_before_it_takes_effect() {
    let set = Set::new().await;
    let clock = crate::clock::ManualClock::starting_at(at(1));
    let deed = || Event::new(Action::AccountResume, "uid:1");
    let seen = set
        .trail
        .act::<_, StoreError>(deed(), &clock, async {
            Ok((
                set.trail.entries(1, 9).await?.iter().map(|(e, _)| e.outcome.clone()).collect::<Vec<_>>(),
                Effect::none(),
            ))
        })
        .await
        .unwrap();
    assert_eq!(seen, ["begun"]);
    let failed = set.trail.act::<(), _>(deed(), &clock, async { Err(StoreError::Closed) }).await;
    assert_eq!(failed, Err(StoreError::Closed));
    let words: Vec<_> = set.trail.entries(1, 9).await.unwrap().into_iter().map(|(e, _)| (e.outcome, e.of)).collect();
    let word = |outcome: &str, of| (outcome.to_owned(), of);
    assert_eq!(words, [word("begun", None), word("done", Some(2)), word("begun", None), word("failed", Some(4))]);

    set.store.close().await.unwrap();
    let refused =
        set.trail.act::<(), StoreError>(deed(), &clock, async { unreachable!("nothing is done unseen") }).await;
    assert_eq!(refused, Err(StoreError::Closed));
}

#[tokio::test]
async fn the_medium_refuses_what_no_call_asks_for() {
    let set = Set::new().await;
    set.fill().await;
    let conn = rusqlite::Connection::open(set.folder.path().join("store")).unwrap();
    for change in [
        "UPDATE audit_entries SET entry = ''",
        "DELETE FROM audit_entries",
        "INSERT INTO audit_entries SELECT 99, entry, hash FROM audit_entries WHERE seq = 1",
        "INSERT OR REPLACE INTO audit_entries SELECT 3, entry, hash FROM audit_entries WHERE seq = 1",
        "UPDATE audit_checkpoints SET seal = x''",
        "DELETE FROM audit_checkpoints",
        "UPDATE audit_keys SET public = ''",
        "DELETE FROM audit_keys",
    ] {
        assert!(conn.execute_batch(change).is_err(), "{change}");
    }
}
