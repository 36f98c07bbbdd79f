//! Entries that are old enough go from the beginning on, and what is left verifies; what somebody else took away does not.

use super::*;

const fn whole() -> Expected {
    Expected { keys: Vec::new(), head: None, entries: None, whole: true }
}

fn parts(verdict: &Verdict) -> (bool, u64, u64, u64, u64) {
    (verdict.ok(), verdict.from, verdict.erased, verdict.entries, verdict.unverifiable)
}

#[tokio::test]
async fn what_is_left_of_a_trail_verifies_and_says_what_was_erased() {
    let set = Set::new().await;
    set.fill().await;
    let before = set.export(0).await;
    assert_eq!(set.trail.erase_older(at(0), at(50)).await.unwrap(), Some(0), "none is so old");
    assert_eq!(set.export(0).await, before, "and none says anything of it");
    assert_eq!(set.trail.erase_older(at(3), at(50)).await.unwrap(), Some(3));
    set.trail.seal(at(51)).await.unwrap();

    let verdict = verdict_of(set.export(0).await.as_bytes(), whole());
    assert_eq!(parts(&verdict), (true, 4, 3, 6, 0), "{verdict:?}");
    let online = set.trail.verify().await.unwrap();
    assert_eq!(parts(&online), (true, 4, 3, 6, 0), "{online:?}");
    let entries = set.trail.entries(7, 9).await.unwrap();
    let said: Vec<_> = entries.iter().map(|(e, _)| (e.action.as_str(), e.outcome.as_str(), e.count)).collect();
    assert_eq!(said, [("audit-erase", "begun", None), ("audit-erase", "done", Some(3))]);
    let object = entries[0].0.object.clone().unwrap();
    assert!(object.starts_with("1-3 ") && entries[0].0.actor == "retention", "{object}");
    assert!(entries[0].0.reason.as_ref().unwrap().contains(&at(3).rfc3339()));

    // Exports in parts: from where it begins now, and not from before.
    for after in [1, 2] {
        assert!(set.trail.export(after).await.unwrap().is_none(), "{after}");
    }
    let part = verify(&set.export(5).await);
    assert_eq!(parts(&part), (true, 6, 0, 4, 0), "{part:?}");
    assert!(!verdict_of(set.export(5).await.as_bytes(), whole()).ok(), "a part is not the whole");

    // By who knows the key, over a restart, and once more.
    let set = set.behind_its_back("").await;
    let expected = Expected { keys: vec![set.key.public().fingerprint()], ..whole() };
    assert!(verdict_of(set.export(0).await.as_bytes(), expected).ok());
    assert_eq!(set.trail.erase_older(at(40), at(101)).await.unwrap(), Some(4));
    set.trail.seal(at(102)).await.unwrap();
    let verdict = verdict_of(set.export(0).await.as_bytes(), whole());
    assert_eq!((verdict.ok(), verdict.from, verdict.erased), (true, 8, 7), "{verdict:?}");
}

#[tokio::test]
async fn all_may_be_old_and_the_trail_goes_on() {
    let set = Set::new().await;
    set.fill().await;
    assert_eq!(set.trail.erase_older(at(1000), at(2000)).await.unwrap(), Some(6), "but the last one");
    set.trail.seal(at(2001)).await.unwrap();
    set.note(Event::new(Action::GatewayStart, "gateway"), 2002).await;
    set.trail.seal(at(2003)).await.unwrap();
    let verdict = set.trail.verify().await.unwrap();
    assert_eq!((verdict.ok(), verdict.from, verdict.erased, verdict.unverifiable), (true, 7, 6, 0), "{verdict:?}");
    let set = set.behind_its_back("").await;
    assert!(set.trail.verify().await.unwrap().ok());
}

#[tokio::test]
async fn an_entry_with_a_later_time_keeps_what_is_behind_it() {
    let set = Set::new().await;
    // A clock that was wrong for a while.
    set.note(Event::new(Action::GatewayStart, "gateway"), 1).await;
    set.note(Event::new(Action::CodeIssue, "uid:1001"), 900).await;
    set.note(Event::new(Action::GatewayStop, "gateway"), 2).await;
    set.trail.seal(at(3)).await.unwrap();
    assert_eq!(set.trail.erase_older(at(500), at(600)).await.unwrap(), Some(2));
    assert_eq!(set.trail.entries(0, 1).await.unwrap()[0].0.action, "code-issue");
    assert!(set.trail.verify().await.unwrap().ok());
}

#[tokio::test]
async fn a_crash_between_the_entry_and_the_erasure_leaves_all_or_nothing() {
    let set = Set::new().await;
    set.fill().await;
    // As a kill right after the entry was sealed leaves it.
    let last = set.trail.entries(2, 1).await.unwrap()[0].1;
    let event = Event::new(Action::AuditErase, "retention").object(format_args!("1-3 {last}"));
    let _begun = set.trail.begin(event, at(50)).await.unwrap();
    set.trail.seal(at(50)).await.unwrap();
    let set = set.behind_its_back("").await;
    let verdict = set.trail.verify().await.unwrap();
    assert_eq!((verdict.ok(), verdict.from, verdict.erased), (true, 1, 0), "{verdict:?}");
    assert_eq!(set.trail.erase_older(at(3), at(101)).await.unwrap(), Some(3), "it is done at the next");
    set.trail.seal(at(102)).await.unwrap();
    let verdict = verdict_of(set.export(0).await.as_bytes(), whole());
    assert_eq!((verdict.ok(), verdict.from, verdict.erased), (true, 4, 3), "{verdict:?}");

    // And right after the erasure: the entry that began it is enough.
    let set = Set::new().await;
    set.fill().await;
    let last = set.trail.entries(2, 1).await.unwrap()[0].1;
    let event = Event::new(Action::AuditErase, "retention").object(format_args!("1-3 {last}"));
    let _begun = set.trail.begin(event, at(50)).await.unwrap();
    set.trail.seal(at(50)).await.unwrap();
    crate::store::AuditStore::erase_before(&*set.store, 4).await.unwrap();
    let set = set.behind_its_back("").await;
    let verdict = set.trail.verify().await.unwrap();
    assert_eq!((verdict.ok(), verdict.from, verdict.erased), (true, 4, 3), "{verdict:?}");
}

/// Triggers do not hold who owns the file.
const TAKE: &str = "PRAGMA foreign_keys = OFF; UPDATE audit_begin SET seq = 4; DELETE FROM audit_checkpoints WHERE seq < 4; \
                    DELETE FROM audit_entries WHERE seq < 4;";

#[tokio::test]
async fn a_beginning_that_somebody_took_away_is_missing() {
    let set = Set::new().await;
    set.fill().await;
    let set = set.behind_its_back(TAKE).await;
    let online = set.trail.verify().await.unwrap();
    assert_eq!((online.ok(), online.bad.as_ref().map(|bad| bad.seq)), (false, Some(1)), "{online:?}");
    let text = set.export(0).await;
    assert!(!verdict_of(text.as_bytes(), whole()).ok());
    let part = verify(&text);
    assert_eq!((part.ok(), part.from, part.erased), (true, 4, 0), "a part, and it says so: {part:?}");

    // More than was said to be old.
    let set = Set::new().await;
    set.fill().await;
    assert_eq!(set.trail.erase_older(at(2), at(50)).await.unwrap(), Some(2));
    set.trail.seal(at(51)).await.unwrap();
    let set = set.behind_its_back(TAKE).await;
    assert!(!set.trail.verify().await.unwrap().ok());

    // What nobody sealed says nothing.
    let set = Set::new().await;
    set.fill().await;
    let last = set.trail.entries(2, 1).await.unwrap()[0].1;
    let event = Event::new(Action::AuditErase, "retention").object(format_args!("1-3 {last}"));
    set.note(event, 50).await;
    let set = set.behind_its_back(TAKE).await;
    let found = verdict_of(set.export(0).await.as_bytes(), whole());
    assert_eq!((found.ok(), found.erased), (false, 0), "{found:?}");
}

#[tokio::test]
async fn an_export_that_an_erasure_overtakes_breaks_off_and_accuses_nobody() {
    let set = Set::new().await;
    set.fill().await;
    let mut export = set.trail.export(0).await.unwrap().unwrap();
    export.page().await.unwrap().unwrap();
    assert_eq!(set.trail.erase_older(at(3), at(50)).await.unwrap(), Some(3));
    assert!(matches!(export.page().await, Err(StoreError::Unavailable(_))));
}
