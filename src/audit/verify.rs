//! Whether a trail is what it was: a pure function over the lines of an export.
//!
//! "Unverifiable" is not "tampered". What follows the last checkpoint, or is sealed by a key whose public half is not
//! at hand, is counted as unverifiable and contradicts nothing. What contradicts is named: the number of the first
//! entry that does not fit, and what is wrong there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::entry::{Checkpoint, Entry, EntryHash, Tip, store_of};
use super::event::Action;
use super::lines::{End, FORMAT, Head, Line, MOST_LINE_BYTES, PublicKey};
use crate::keys::AuditPublicKey;

/// What whoever verifies knows from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Fingerprints of audit keys. Where there are some, only what they seal counts, and what is sealed by keys that
    /// were introduced under them. Where there is none, the keys in the export vouch for themselves: changes by accident
    /// are found, a whole trail that somebody made up is not.
    pub keys: Vec<String>,
    /// The hash of an entry that must be in the trail, noted down at some earlier time.
    pub head: Option<EntryHash>,
    /// How many entries there must be.
    pub entries: Option<u64>,
    /// It must be the whole trail: from its first entry, or from where the gateway erased older ones, which an entry in it
    /// says.
    pub whole: bool,
}

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many entries there are, good or bad.
    pub entries: u64,
    /// The first place that does not fit.
    pub bad: Option<Bad>,
    /// Entries before the first bad one that no checkpoint at hand covers.
    pub unverifiable: u64,
    /// The number of the first entry. One that is not 1 begins a part of the trail, unless what is before was erased.
    pub from: u64,
    /// Entries before the first one that the gateway erased because they were old enough, by a sealed entry of the trail.
    pub erased: u64,
    /// The last entry that fits; note it down for the next time.
    pub head: Option<Tip>,
    /// Ids and fingerprints of the keys in the export.
    pub keys: Vec<(String, String)>,
}

/// Where a trail does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The number of the entry there.
    pub seq: u64,
    /// The line of the export, from 1.
    pub line: u64,
    /// What is wrong, without repeating what stands there.
    pub problem: &'static str,
}

impl Verdict {
    /// Whether nothing contradicts.
    #[must_use]
    pub const fn ok(&self) -> bool {
        self.bad.is_none()
    }
}

struct KeyAtHand {
    public: AuditPublicKey,
    fingerprint: String,
    /// Whether a checkpoint named it.
    used: bool,
    /// Whether what it seals counts.
    vouched: bool,
}

/// Reads an export line by line.
pub struct Verifier {
    expected: Expected,
    head: Option<Head>,
    tip: Option<Tip>,
    /// The key that the last entry names.
    last_key: String,
    keys: BTreeMap<String, KeyAtHand>,
    /// Fingerprints, by key id, that entries since the last checkpoint that counts introduced.
    introduced: Vec<(String, String)>,
    /// The entry that says that all before the first one was erased.
    erased_by: Option<u64>,
    /// Up to here checkpoints that count go.
    sealed: u64,
    /// Up to here checkpoints go whose key nobody vouches for.
    sealed_by_strangers: u64,
    saw_head: bool,
    ended: bool,
    lines: u64,
    entries: u64,
    bad: Option<Bad>,
}

type Judged = Result<(), (u64, &'static str)>;

impl Verifier {
    /// A verifier that knows what is expected.
    #[must_use]
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            head: None,
            tip: None,
            last_key: String::new(),
            keys: BTreeMap::new(),
            introduced: Vec::new(),
            erased_by: None,
            sealed: 0,
            sealed_by_strangers: 0,
            saw_head: false,
            ended: false,
            lines: 0,
            entries: 0,
            bad: None,
        }
    }

    /// Judges the next line, without its line feed.
    pub fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        let text = if line.len() > MOST_LINE_BYTES { None } else { str::from_utf8(line).ok() };
        self.entries += u64::from(text.is_some_and(Line::is_entry));
        if self.bad.is_some() {
            return;
        }
        let judged = match text.and_then(Line::parse) {
            _ if self.ended => Err((self.seq(), "something follows the end")),
            None => Err((self.seq() + 1, "this is no line of an audit export")),
            Some(line) => self.judge(line),
        };
        if let Err((seq, problem)) = judged {
            self.bad = Some(Bad { seq, line: self.lines, problem });
        }
    }

    /// The text broke off in the middle of a line.
    pub fn broken_off(&mut self) {
        self.lines += 1;
        self.bad.get_or_insert(Bad {
            seq: self.tip.map_or(0, |tip| tip.seq) + 1,
            line: self.lines,
            problem: "the last line has no end",
        });
    }

    /// The last entry that fits.
    #[must_use]
    pub const fn tip(&self) -> Option<Tip> {
        self.tip
    }

    /// The audit key that the last entry names.
    #[must_use]
    pub fn last_key(&self) -> &str {
        &self.last_key
    }

    /// The first place that does not fit, so far.
    #[must_use]
    pub const fn bad(&self) -> Option<&Bad> {
        self.bad.as_ref()
    }

    /// What was found, once all lines were judged.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        if self.bad.is_none()
            && let Err((seq, problem)) = self.judge_whole()
        {
            self.bad = Some(Bad { seq, line: self.lines, problem });
        }
        let before = self.before();
        let erased = if self.says_erased() { before } else { 0 };
        Verdict {
            from: before + 1,
            erased,
            entries: self.entries,
            bad: self.bad,
            unverifiable: self.tip.map_or(0, |tip| tip.seq.saturating_sub(self.sealed.max(before))),
            head: self.tip,
            keys: self.keys.into_iter().map(|(id, key)| (id, key.fingerprint)).collect(),
        }
    }

    /// Entries before the first one of the export.
    fn before(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.from.saturating_sub(1))
    }

    /// Whether an entry under a seal that counts says that these were erased.
    fn says_erased(&self) -> bool {
        self.erased_by.is_some_and(|seq| seq <= self.sealed)
    }

    /// The number of the last entry that fits.
    fn seq(&self) -> u64 {
        self.tip.map_or(0, |tip| tip.seq)
    }

    fn judge(&mut self, line: Line) -> Judged {
        match (line, &self.head) {
            (Line::Head(head), None) => self.judge_head(head),
            (_, None) => Err((1, "the first line does not say which trail this is")),
            (Line::Head(_), Some(_)) => Err((self.seq() + 1, "a second trail begins here")),
            (Line::Key(key), Some(head)) if self.seq() < head.from => self.judge_key(key),
            (Line::Key(_), Some(_)) => Err((self.seq() + 1, "a key among the entries")),
            (Line::Entry(entry, hash), Some(_)) => self.judge_entry(&entry, hash),
            (Line::Checkpoint(checkpoint, seal), Some(_)) => self.judge_checkpoint(&checkpoint, &seal),
            (Line::End(end), Some(head)) => {
                let entries = self.seq() + 1 - head.from;
                self.ended = true;
                self.judge_end(&end, entries)
            }
        }
    }

    fn judge_head(&mut self, head: Head) -> Judged {
        if head.format != FORMAT || head.from == 0 {
            return Err((head.from, "an export of a format that this program does not know"));
        }
        let store_id = store_of(&head.store).ok_or((head.from, "the store has no id"))?;
        if head.from == 1 && head.prev != EntryHash::before_all(&store_id) {
            return Err((1, "the trail does not begin with this store"));
        }
        self.tip = Some(Tip { seq: head.from - 1, hash: head.prev });
        self.sealed = head.from - 1;
        self.saw_head = self.expected.head == Some(head.prev);
        self.head = Some(head);
        Ok(())
    }

    fn judge_key(&mut self, key: PublicKey) -> Judged {
        let next = self.seq() + 1;
        if key.id.is_empty() || key.id.len() > 20 || !key.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err((next, "a key without an id"));
        }
        let public = AuditPublicKey::parse(&key.point).ok_or((next, "a public key that is none"))?;
        let fingerprint = public.fingerprint();
        let vouched = self.expected.keys.is_empty() || self.expected.keys.contains(&fingerprint);
        let at_hand = KeyAtHand { public, fingerprint, used: false, vouched };
        if self.keys.insert(key.id, at_hand).is_some() { Err((next, "a key that is there twice")) } else { Ok(()) }
    }

    fn judge_entry(&mut self, entry: &Entry, hash: EntryHash) -> Judged {
        let Some(tip) = self.tip else { return Ok(()) };
        let next = tip.seq + 1;
        if entry.seq != next {
            return Err((next, "another entry stands here: some are missing, there twice, or in another order"));
        }
        if entry.prev != tip.hash {
            return Err((next, "the entry was not written behind the one before it"));
        }
        if entry.hash() != hash {
            return Err((next, "the entry was changed: its hash is another"));
        }
        if entry.action == Action::AuditKeyIntroduce.as_str() {
            self.introduce(entry, next)?;
        }
        if entry.action == Action::AuditErase.as_str() {
            self.erase(entry, next)?;
        }
        self.tip = Some(Tip { seq: next, hash });
        entry.key.clone_into(&mut self.last_key);
        self.saw_head |= self.expected.head == Some(hash);
        Ok(())
    }

    fn introduce(&mut self, entry: &Entry, seq: u64) -> Judged {
        let words = entry.object.as_deref().and_then(|object| object.split_once(' '));
        let (id, fingerprint) = words.ok_or((seq, "an introduction of no key"))?;
        if self.keys.get(id).is_some_and(|key| key.fingerprint != fingerprint) {
            return Err((seq, "the public key is not the one that was introduced"));
        }
        self.introduced.push((id.to_owned(), fingerprint.to_owned()));
        Ok(())
    }

    /// `FIRST-LAST HASH`. What was begun and not done erased nothing, or all that it names.
    fn erase(&mut self, entry: &Entry, seq: u64) -> Judged {
        let words = entry.object.as_deref().and_then(|object| object.split_once(' '));
        let named = words.and_then(|(range, hash)| {
            let last: u64 = range.split_once('-')?.1.parse().ok()?;
            Some(Tip { seq: last, hash: EntryHash::parse(hash)? })
        });
        let last = named.filter(|last| last.seq < seq).ok_or((seq, "an erasure of no entries"))?;
        match &self.head {
            Some(head) if head.from == last.seq + 1 && head.prev != last.hash => {
                Err((seq, "the trail does not begin behind the entries that were erased"))
            }
            Some(head) if head.from == last.seq + 1 => {
                self.erased_by.get_or_insert(seq);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn judge_checkpoint(&mut self, checkpoint: &Checkpoint, seal: &str) -> Judged {
        let Some(tip) = self.tip else { return Ok(()) };
        if checkpoint.tip() != tip {
            return Err((tip.seq, "a checkpoint of something else"));
        }
        if self.head.as_ref().is_some_and(|head| head.store != checkpoint.store) {
            return Err((tip.seq, "a checkpoint of another store"));
        }
        // An export that begins behind this entry does not show what it names.
        if !self.last_key.is_empty() && checkpoint.key != self.last_key {
            return Err((tip.seq, "a checkpoint of another key than its entry names"));
        }
        let Some(key) = self.keys.get_mut(&checkpoint.key) else { return Ok(()) };
        key.used = true;
        let seal = URL_SAFE_NO_PAD.decode(seal).map_err(|_| (tip.seq, "a checkpoint without a seal"))?;
        if !key.public.verifies(&checkpoint.sealed_bytes(), &seal) {
            return Err((tip.seq, "the seal of a checkpoint does not fit, or its public key does not"));
        }
        if key.vouched {
            self.sealed = tip.seq;
            // Who is vouched for vouches for the next.
            for (id, fingerprint) in self.introduced.drain(..) {
                if let Some(key) = self.keys.get_mut(&id) {
                    key.vouched |= key.fingerprint == fingerprint;
                }
            }
        } else {
            self.sealed_by_strangers = tip.seq;
        }
        Ok(())
    }

    fn judge_end(&self, end: &End, entries: u64) -> Judged {
        let tip = self.tip.map(|tip| tip.hash);
        if end.entries == entries && tip == Some(end.head) {
            Ok(())
        } else {
            Err((self.seq() + 1, "the end is of another trail: some entries before it are missing"))
        }
    }

    fn judge_whole(&self) -> Judged {
        let next = self.seq() + 1;
        let first = self.head.as_ref().map_or(1, |head| head.from);
        if !self.ended {
            return Err((next, "the end is missing: the export was cut off"));
        }
        if self.keys.values().any(|key| !key.used) {
            return Err((first, "a public key that sealed nothing: it was changed, or its checkpoints are missing"));
        }
        if self.expected.whole && first > 1 && !self.says_erased() {
            return Err((1, "the beginning is missing, and no sealed entry says that it was erased"));
        }
        if self.expected.entries.is_some_and(|expected| expected != self.entries) {
            return Err((next, "there are not as many entries as expected"));
        }
        if self.expected.head.is_some() && !self.saw_head {
            return Err((next, "the expected head is not in it: entries were cut off, or the trail is another"));
        }
        if self.expected.keys.is_empty() {
            return Ok(());
        }
        if self.sealed_by_strangers > self.sealed {
            return Err((self.sealed + 1, "sealed by a key that none of the expected ones vouches for"));
        }
        if self.entries > 0 && self.sealed < first {
            return Err((first, "no checkpoint is sealed by an expected key"));
        }
        Ok(())
    }
}
