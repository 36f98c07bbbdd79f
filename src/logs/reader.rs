//! Reads a sealed log back, record by record in the order of the file, and names what does not fit.

use std::collections::{BTreeSet, HashSet};

use ring::digest::{SHA256, digest};

use super::record::{Behind, Content, HASH_BYTES, Place, Record, SEGMENT_BYTES, SegmentKey};
use crate::clock::Day;
use crate::keys::DayKey;

/// A line of a sealed log, before any key was looked for.
pub struct SealedLine {
    number: u64,
    hash: [u8; HASH_BYTES],
    /// It had a line feed.
    ended: bool,
    record: Option<Record>,
}

impl SealedLine {
    /// Line `number` of a file, from 1; without its line feed, or `None` if it is longer than any record. `ended` says whether
    /// it had one.
    #[must_use]
    pub fn read(number: u64, line: Option<&[u8]>, ended: bool) -> Self {
        let line = line.unwrap_or_default();
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, line).as_ref());
        Self { number, hash, ended, record: Record::parse(line) }
    }

    /// The day whose key it needs; `None` if it is no record.
    #[must_use]
    pub fn day(&self) -> Option<Day> {
        self.record.as_ref().map(|record| record.place.day)
    }
}

/// What is at hand for the day of a record.
#[derive(Clone, Copy)]
pub enum KeyOfDay<'k> {
    /// Its key.
    Key(&'k DayKey),
    /// Its key was destroyed.
    Destroyed,
    /// There never was one in this store.
    Unknown,
    /// Nobody asked for this day.
    NotAsked,
}

/// What a line gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Lines in clear, whole.
    Lines(Vec<u8>),
    /// Something that whoever reads must know.
    Finding(Finding),
}

/// Something that whoever reads must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line of the file, from 1.
    pub line: u64,
    /// What is there.
    pub kind: FindingKind,
    /// The day that it is about, where that is known.
    pub day: Option<Day>,
}

/// What does not fit, or is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It is no record, or was changed.
    Changed,
    /// Records before it are missing.
    Missing,
    /// It stands in the file twice, or behind one that it came before.
    Repeated,
    /// The gateway was killed while it wrote this; what it wrote is lost.
    Torn,
    /// What was written before it has no end: the gateway was killed, or its last records are missing.
    Unclosed,
    /// The file ends without an end: it is being written, the gateway was killed, or its last records are missing.
    Open,
    /// The key of the day was destroyed at the end of the retention. Told once a day.
    Destroyed,
    /// This store never had a key of the day. Told once a day.
    Unknown,
}

impl FindingKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Torn => "torn",
            Self::Unclosed => "unclosed",
            Self::Open => "open",
            Self::Destroyed => "destroyed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether there is no key to read with.
    #[must_use]
    pub const fn is_without_key(self) -> bool {
        matches!(self, Self::Destroyed | Self::Unknown)
    }

    /// Whether somebody, or a medium, must have done this to the file.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::Changed | Self::Missing | Self::Repeated)
    }
}

/// Reads one file. Memory does not grow with it, but for 16 bytes a segment.
#[derive(Default)]
pub struct SealedReader {
    /// The segment that the last record was of.
    segment: Option<InSegment>,
    /// The line before.
    before: Option<Before>,
    /// Lines in a row that were no record of it, and that could have been.
    in_doubt: u64,
    /// Segments that have begun.
    begun: HashSet<[u8; SEGMENT_BYTES]>,
    /// Days of which it was told that there is no key.
    told: BTreeSet<(Day, bool)>,
}

struct InSegment {
    day: Day,
    id: [u8; SEGMENT_BYTES],
    key: SegmentKey,
    /// The number that comes next.
    next: u64,
    closed: bool,
}

struct Before {
    line: u64,
    hash: [u8; HASH_BYTES],
    ended: bool,
    /// It did not open and that has not been told: it may be torn, which the next segment says.
    untold: bool,
}

impl SealedReader {
    /// What `line`, the next of the file, gives with what is at hand for its day.
    pub fn take(&mut self, line: &SealedLine, key: KeyOfDay<'_>) -> Vec<Found> {
        let mut found = Vec::new();
        let sound = line.record.as_ref().is_some_and(|record| {
            match key {
                KeyOfDay::Key(key) => return self.open(line, record, key, &mut found),
                KeyOfDay::Destroyed => self.without_key(line, record.place.day, true, &mut found),
                KeyOfDay::Unknown => self.without_key(line, record.place.day, false, &mut found),
                KeyOfDay::NotAsked => self.pass_over(&mut found),
            }
            true
        });
        if !sound {
            self.tell_of_before(&mut found);
            self.in_doubt += 1;
        }
        self.before = Some(Before { line: line.number, hash: line.hash, ended: line.ended, untold: !sound });
        found
    }

    /// What is to be said at the end of the file.
    #[must_use]
    pub fn finish(mut self) -> Vec<Found> {
        let mut found = Vec::new();
        let last = self.before.as_ref().map_or(0, |before| before.line);
        if self.before.as_ref().is_some_and(|before| before.untold && !before.ended) {
            found.push(tell(last, FindingKind::Torn, None));
            return found;
        }
        self.tell_of_before(&mut found);
        if let Some(segment) = self.segment.take().filter(|segment| !segment.closed) {
            found.push(tell(last, FindingKind::Open, Some(segment.day)));
        }
        found
    }

    /// `false` if it does not open.
    fn open(&mut self, line: &SealedLine, record: &Record, day_key: &DayKey, found: &mut Vec<Found>) -> bool {
        let place = record.place;
        let same = self.segment.as_ref().is_some_and(|s| s.id == place.segment && s.day == place.day);
        let fresh = (!same).then(|| SegmentKey::of(day_key, &place.segment));
        let content = match (&fresh, &self.segment) {
            (Some(key), _) => key.open(record),
            (None, Some(segment)) => segment.key.open(record),
            (None, None) => None,
        };
        let Some(content) = content else { return false };
        if let Some(key) = fresh {
            if !self.begin(line, place, &content, key, found) {
                return true;
            }
        } else {
            self.tell_of_before(found);
        }
        let in_doubt = std::mem::take(&mut self.in_doubt);
        let Some(segment) = &mut self.segment else { return true };
        if place.number < segment.next || segment.closed {
            found.push(tell(line.number, FindingKind::Repeated, Some(place.day)));
            return true;
        }
        // Each line that was changed was one record at most.
        if place.number - segment.next > in_doubt {
            found.push(tell(line.number, FindingKind::Missing, Some(place.day)));
        }
        segment.next = place.number + 1;
        match content {
            Content::Lines(lines) => found.push(Found::Lines(lines)),
            Content::End => segment.closed = true,
            Content::Begin(_) => {}
        }
        true
    }

    /// Judges how a segment begins. `false` if it stood in the file before.
    fn begin(
        &mut self,
        line: &SealedLine,
        place: Place,
        content: &Content,
        key: SegmentKey,
        found: &mut Vec<Found>,
    ) -> bool {
        let behind = if let Content::Begin(behind) = content { Some(*behind) } else { None };
        let before = self.before.as_ref();
        let fits = match behind {
            // Its beginning is among the lines that were changed, or missing, as its number tells.
            None => true,
            Some(Behind::Nothing) => before.is_none(),
            Some(Behind::Line { hash, .. }) => before.is_some_and(|before| before.hash == hash),
        };
        let torn = fits && matches!(behind, Some(Behind::Line { torn: true, .. }));
        if let Some(before) = self.before.as_mut().filter(|before| torn && before.untold) {
            before.untold = false;
            found.push(tell(before.line, FindingKind::Torn, None));
            self.in_doubt = 0;
        }
        self.tell_of_before(found);
        if !self.begun.insert(place.segment) {
            found.push(tell(line.number, FindingKind::Repeated, Some(place.day)));
            return false;
        }
        if let Some(former) = self.segment.take().filter(|former| !former.closed && !torn) {
            found.push(tell(line.number, FindingKind::Unclosed, Some(former.day)));
        }
        if !fits {
            found.push(tell(line.number, FindingKind::Missing, Some(place.day)));
        }
        self.segment = Some(InSegment { day: place.day, id: place.segment, key, next: 0, closed: false });
        true
    }

    fn without_key(&mut self, line: &SealedLine, day: Day, destroyed: bool, found: &mut Vec<Found>) {
        self.pass_over(found);
        if self.told.insert((day, destroyed)) {
            let kind = if destroyed { FindingKind::Destroyed } else { FindingKind::Unknown };
            found.push(tell(line.number, kind, Some(day)));
        }
    }

    /// What is not opened is not judged; the next segment that is tells whether the line before it is the one it saw.
    fn pass_over(&mut self, found: &mut Vec<Found>) {
        self.tell_of_before(found);
        self.in_doubt = 0;
        self.segment = None;
    }

    fn tell_of_before(&mut self, found: &mut Vec<Found>) {
        if let Some(before) = self.before.as_mut().filter(|before| before.untold) {
            before.untold = false;
            found.push(tell(before.line, FindingKind::Changed, None));
        }
    }
}

const fn tell(line: u64, kind: FindingKind, day: Option<Day>) -> Found {
    Found::Finding(Finding { line, kind, day })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use FindingKind::{Changed, Missing, Open, Repeated, Torn, Unclosed};
    use proptest::prelude::*;

    use super::super::seal::Seal;
    use super::*;
    use crate::entropy::SeededEntropy;

    const DAY: Day = Day::from_unix_days(20_783);

    fn hash_of(line: &str) -> [u8; HASH_BYTES] {
        SealedLine::read(1, Some(line.as_bytes()), true).hash
    }

    /// A file of two segments of three records each, the first of which was ended.
    fn file(ended: bool, torn: Option<&str>) -> Vec<String> {
        let (seal, key) = (Seal::new(Arc::new(SeededEntropy::new(1))), DayKey::of_nobody(DAY, 1));
        let mut out = String::new();
        let mut segment = seal.begin(&key, Behind::Nothing, &mut out);
        segment.lines(b"a\n", &mut out);
        segment.lines(b"b\n", &mut out);
        if ended {
            segment.end(&mut out);
        }
        if let Some(torn) = torn {
            out.push_str(torn);
            out.push('\n');
        }
        let last = hash_of(out.lines().last().unwrap());
        let mut segment = seal.begin(&key, Behind::Line { hash: last, torn: torn.is_some() }, &mut out);
        segment.lines(b"c\n", &mut out);
        segment.lines(b"d\n", &mut out);
        segment.end(&mut out);
        out.lines().map(str::to_owned).collect()
    }

    fn read<S: AsRef<str>>(lines: &[S]) -> (String, Vec<(u64, FindingKind)>) {
        read_ending(lines, true)
    }

    fn read_ending<S: AsRef<str>>(lines: &[S], ended: bool) -> (String, Vec<(u64, FindingKind)>) {
        let key = DayKey::of_nobody(DAY, 1);
        let mut reader = SealedReader::default();
        let mut found = Vec::new();
        for (number, line) in (1..).zip(lines) {
            let ended = ended || number < lines.len() as u64;
            let line = SealedLine::read(number, Some(line.as_ref().as_bytes()), ended);
            found.extend(reader.take(&line, KeyOfDay::Key(&key)));
        }
        found.extend(reader.finish());
        let (mut text, mut findings) = (String::new(), Vec::new());
        for found in found {
            match found {
                Found::Lines(lines) => text.push_str(std::str::from_utf8(&lines).unwrap()),
                Found::Finding(finding) => findings.push((finding.line, finding.kind)),
            }
        }
        (text, findings)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&file(true, None)), ("a\nb\nc\nd\n".to_owned(), vec![]));
        assert_eq!(read::<&str>(&[]), (String::new(), vec![]));
    }

    #[test]
    fn a_line_that_was_torn_is_told_from_one_that_was_changed() {
        let whole = file(false, Some("sekisho-log/1 2026-11-26 AwMDAwM"));
        assert_eq!(read(&whole), ("a\nb\nc\nd\n".to_owned(), vec![(4, Torn)]));
        let mut other = whole.clone();
        other[3].push('x');
        assert_eq!(read(&other), ("a\nb\nc\nd\n".to_owned(), vec![(4, Changed), (5, Unclosed), (5, Missing)]));
        assert_eq!(read_ending(&whole[..4], false).1, [(4, Torn)], "the gateway was killed just now");
        assert_eq!(read(&whole[..4]).1, [(4, Changed), (4, Open)], "it was written whole");
        assert_eq!(read(&file(false, None)).1, [(4, Unclosed)], "killed between two records");
    }

    #[test]
    fn each_record_that_was_changed_removed_doubled_or_moved_is_named() {
        let whole = file(true, None);
        for at in 0..whole.len() {
            let line = at as u64 + 1;
            let mut changed = whole.clone();
            let last = changed[at].pop().unwrap();
            changed[at].push(if last == 'A' { 'Q' } else { 'A' });
            let findings = read(&changed).1;
            // At the end of a file it looks like one that was being written.
            let expected = if at == 7 { vec![(line, Changed), (line, Open)] } else { vec![(line, Changed)] };
            assert_eq!(findings[..1], expected[..1], "changed {line}: {findings:?}");

            let mut removed = whole.clone();
            removed.remove(at);
            let findings = read(&removed).1;
            let expected = match at {
                // No later record tells that the end is missing, but it is missing.
                7 => (7, Open),
                3 => (4, Unclosed),
                _ => (line, Missing),
            };
            assert_eq!(findings[..1], [expected], "removed {line}: {findings:?}");

            let mut doubled = whole.clone();
            doubled.insert(at, whole[at].clone());
            let (text, findings) = read(&doubled);
            assert_eq!(findings[..1], [(line + 1, Repeated)], "doubled {line}: {findings:?}");
            assert_eq!(text, "a\nb\nc\nd\n");

            if at > 0 {
                let mut swapped = whole.clone();
                swapped.swap(at, at - 1);
                assert!(read(&swapped).1.iter().any(|(_, kind)| kind.is_damage()), "swapped {line}");
            }
        }
        let repeated = [whole.clone(), whole.clone()].concat();
        assert_eq!(read(&repeated).0, "a\nb\nc\nd\n");
        assert_eq!(read(&whole[4..]).1, [(1, Missing)], "the first segment is gone");
        assert!(read(&[&whole[..1], &whole[4..]].concat()).1.contains(&(2, Missing)));
    }

    #[test]
    fn a_day_without_a_key_is_told_once_and_the_rest_is_read() {
        let other = DAY.minus_days(1);
        let (seal, key, day_key) =
            (Seal::new(Arc::new(SeededEntropy::new(2))), DayKey::of_nobody(other, 2), DayKey::of_nobody(DAY, 1));
        let mut out = String::new();
        let mut segment = seal.begin(&key, Behind::Nothing, &mut out);
        segment.lines(b"gone\n", &mut out);
        segment.end(&mut out);
        let behind = Behind::Line { hash: hash_of(out.lines().last().unwrap()), torn: false };
        let mut segment = seal.begin(&day_key, behind, &mut out);
        segment.lines(b"there\n", &mut out);
        segment.end(&mut out);
        for (of_other, findings) in [
            (KeyOfDay::Destroyed, vec![(1, FindingKind::Destroyed)]),
            (KeyOfDay::Unknown, vec![(1, FindingKind::Unknown)]),
            (KeyOfDay::NotAsked, vec![]),
        ] {
            let mut reader = SealedReader::default();
            let mut found = Vec::new();
            for (number, line) in (1..).zip(out.lines()) {
                let line = SealedLine::read(number, Some(line.as_bytes()), true);
                let at_hand = if line.day() == Some(DAY) { KeyOfDay::Key(&day_key) } else { of_other };
                found.extend(reader.take(&line, at_hand));
            }
            found.extend(reader.finish());
            let told: Vec<_> = findings.into_iter().map(|(line, kind)| tell(line, kind, Some(other))).collect();
            assert_eq!(found, [told, vec![Found::Lines(b"there\n".to_vec())]].concat());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_was_done_to_a_file_makes_lines_of_nobodys(
            cuts in proptest::collection::vec((0_usize..8, 0_usize..8), 0..6),
        ) {
            let mut lines = file(true, None);
            for (from, to) in cuts {
                let line = lines.remove(from % lines.len());
                lines.insert(to % (lines.len() + 1), line);
            }
            let (text, findings) = read(&lines);
            prop_assert!(text.lines().all(|line| ["a", "b", "c", "d"].contains(&line)));
            let moved = lines != file(true, None);
            prop_assert_eq!(moved, findings.iter().any(|(_, kind)| kind.is_damage()));
        }
    }
}
