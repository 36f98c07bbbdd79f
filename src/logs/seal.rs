//! What seals lines: the keys of the days at hand, and the segment that is being written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{Behind, Content, MOST_TEXT, Place, SegmentKey};
use crate::clock::Day;
use crate::entropy::{Entropy, random};
use crate::keys::DayKey;

/// Days whose keys are made before their first line: a token that is away for as long costs no line.
const AHEAD: i32 = 2;

/// The days whose keys are to be at hand on `today`, the first of them today.
#[must_use]
pub fn days_ahead(today: Day) -> Vec<Day> {
    (0..=AHEAD).map(|more| Day::from_unix_days(today.unix_days().saturating_add(more))).collect()
}

/// The keys at hand. Whoever makes them puts them here; lines of a day without one are lost rather than written in clear.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct Seal {
    keys: Mutex<BTreeMap<Day, Arc<DayKey>>>,
    entropy: Arc<dyn Entropy>,
}

impl Seal {
    /// Without keys.
    #[must_use]
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { keys: Mutex::default(), entropy }
    }

    /// These keys are at hand from now on, and no others.
    pub fn keep(&self, keys: Vec<DayKey>) {
        *self.keys() = keys.into_iter().map(|key| (key.day(), Arc::new(key))).collect();
    }

    /// Whether all of `days` have a key at hand.
    #[must_use]
    pub fn has(&self, days: &[Day]) -> bool {
        let keys = self.keys();
        days.iter().all(|day| keys.contains_key(day))
    }

    pub(super) fn key(&self, day: Day) -> Option<Arc<DayKey>> {
        self.keys().get(&day).cloned()
    }

    /// Begins a segment; its first record is added to `out`.
    pub(super) fn begin(&self, key: &DayKey, behind: Behind, out: &mut String) -> Segment {
        let place = Place { day: key.day(), segment: random(&*self.entropy), number: 0 };
        let mut segment = Segment { key: SegmentKey::of(key, &place.segment), next: place };
        segment.add(&Content::Begin(behind), out);
        segment
    }

    /// Nothing panics while it holds the lock.
    fn keys(&self) -> MutexGuard<'_, BTreeMap<Day, Arc<DayKey>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being written under one key of its own. Every number is used once: it moves before a record is out.
pub(super) struct Segment {
    key: SegmentKey,
    next: Place,
}

impl Segment {
    pub(super) const fn day(&self) -> Day {
        self.next.day
    }

    /// Adds records of whole `lines` to `out`.
    pub(super) fn lines(&mut self, mut lines: &[u8], out: &mut String) {
        while !lines.is_empty() {
            let most = lines.get(..MOST_TEXT).unwrap_or(lines);
            // A line that is longer than a record is split: none of ours is.
            let end = if most.len() == lines.len() {
                most.len()
            } else {
                most.iter().rposition(|byte| *byte == b'\n').map_or(most.len(), |at| at + 1)
            };
            let (some, rest) = lines.split_at(end);
            self.add(&Content::Lines(some.to_vec()), out);
            lines = rest;
        }
    }

    /// Adds the record that says that nothing follows.
    pub(super) fn end(mut self, out: &mut String) {
        self.add(&Content::End, out);
    }

    fn add(&mut self, content: &Content, out: &mut String) {
        let place = self.next;
        self.next.number += 1;
        self.key.seal(place, content, out);
    }
}
