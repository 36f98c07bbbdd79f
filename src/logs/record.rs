//! One record of a sealed log: a line of printable ASCII,
//! `sekisho-log/1 DAY SEGMENT NUMBER SEALED`.
//!
//! A segment is what one opening of the file wrote under one day: it has a random id of 128 bits, and with it a key of its own
//! (HKDF-SHA256, RFC 5869, of the day's key), so that a number is never used twice under one key, whatever happens to the
//! process or its clock. The number is the nonce of AES-256-GCM (NIST SP 800-38D §8.2.1, deterministic) and the record's place
//! in the segment; store, day, segment and number are authenticated, so a record opens nowhere else.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;

use crate::clock::Day;
use crate::keys::{DayKey, framed};

/// What every record begins with: the format and its version.
const FORMAT: &str = "sekisho-log/1";
const KEY_LABEL: &[u8] = b"sekisho/log-segment/v1";
const RECORD_LABEL: &[u8] = b"sekisho/log-record/v1";
/// Bytes of a segment's id.
pub(super) const SEGMENT_BYTES: usize = 16;
/// Bytes of lines in one record, at most: a record that is damaged costs no more.
pub(super) const MOST_TEXT: usize = 32 << 10;
/// Bytes of a record as a line of text, at most.
pub const MOST_LINE_BYTES: usize = 64 << 10;
/// Bytes of SHA-256.
pub(super) const HASH_BYTES: usize = 32;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) day: Day,
    pub(super) segment: [u8; SEGMENT_BYTES],
    /// From 0, without gaps.
    pub(super) number: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A segment begins behind this.
    Begin(Behind),
    /// Whole lines, each with its line feed.
    Lines(Vec<u8>),
    /// The segment was ended on purpose.
    End,
}

/// What stood in the file when a segment began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// A last line with this SHA-256.
    Line {
        hash: [u8; HASH_BYTES],
        /// It had no line feed: whoever wrote it was killed.
        torn: bool,
    },
}

/// A record as it was read; nothing of it is believed yet.
pub(super) struct Record {
    pub(super) place: Place,
    sealed: Vec<u8>,
}

/// The key of one segment.
pub(super) struct SegmentKey {
    key: LessSafeKey,
    store_id: [u8; 16],
}

impl SegmentKey {
    pub(super) fn of(key: &DayKey, segment: &[u8; SEGMENT_BYTES]) -> Self {
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.expose());
        let info = [KEY_LABEL, segment.as_slice()];
        let expanded = pseudorandom.expand(&info, &AES_256_GCM);
        let expanded = expanded.unwrap_or_else(|_| unreachable!("one key's length is within HKDF's bound"));
        Self { key: LessSafeKey::new(UnboundKey::from(expanded)), store_id: *key.store_id() }
    }

    /// Adds the record, its line feed included, to `out`.
    pub(super) fn seal(&self, place: Place, content: &Content, out: &mut String) {
        let mut bytes = content.bytes();
        let bound = Aad::from(self.bound_to(&place));
        let tag = self.key.seal_in_place_separate_tag(nonce(place.number), bound, &mut bytes);
        let tag = tag.unwrap_or_else(|_| unreachable!("a record is far below the bound of AES-GCM"));
        bytes.extend_from_slice(tag.as_ref());
        let Place { day, segment, number } = place;
        let _ = write!(out, "{FORMAT} {day} {} {number} ", URL_SAFE_NO_PAD.encode(segment)); // a String takes every write
        URL_SAFE_NO_PAD.encode_string(&bytes, out);
        out.push('\n');
    }

    /// What the record says; `None` if it was not sealed so for this place.
    pub(super) fn open(&self, record: &Record) -> Option<Content> {
        let mut sealed = record.sealed.clone();
        let bound = Aad::from(self.bound_to(&record.place));
        let bytes = self.key.open_in_place(nonce(record.place.number), bound, &mut sealed).ok()?;
        Content::parse(bytes)
    }

    fn bound_to(&self, place: &Place) -> Vec<u8> {
        let (day, number) = (place.day.unix_days().to_be_bytes(), place.number.to_be_bytes());
        framed(&[RECORD_LABEL, &self.store_id, &day, &place.segment, &number]).to_vec()
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    for (to, from) in bytes.iter_mut().rev().zip(number.to_le_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(bytes)
}

impl Record {
    /// Reads a line without its line feed; `None` if that is no record. There is one way to write each.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let mut parts = text.split(' ');
        let mut part = || parts.next();
        let (format, day, segment, number, sealed) = (part()?, part()?, part()?, part()?, part()?);
        if format != FORMAT || parts.next().is_some() {
            return None;
        }
        let day = Day::parse(day)?;
        let segment = URL_SAFE_NO_PAD.decode(segment).ok()?.try_into().ok()?;
        let number = number.parse::<u64>().ok().filter(|read| read.to_string() == number)?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        Some(Self { place: Place { day, segment, number }, sealed })
    }

    /// The day of the file that begins with this line, if it is a record's.
    pub(super) fn day_of_beginning(line: &[u8]) -> Option<Day> {
        let rest = line.strip_prefix(FORMAT.as_bytes())?.strip_prefix(b" ")?;
        Day::parse(std::str::from_utf8(rest.get(..10)?).ok()?)
    }
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Begin(Behind::Nothing) => b"B0".to_vec(),
            Self::Begin(Behind::Line { hash, torn }) => {
                [if *torn { b"Bt".as_slice() } else { b"Bl" }, hash.as_slice()].concat()
            }
            Self::Lines(lines) => [b"L", lines.as_slice()].concat(),
            Self::End => b"E".to_vec(),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let line = |hash: &[u8], torn| Some(Self::Begin(Behind::Line { hash: hash.try_into().ok()?, torn }));
        match bytes {
            b"B0" => Some(Self::Begin(Behind::Nothing)),
            [b'B', b'l', hash @ ..] => line(hash, false),
            [b'B', b't', hash @ ..] => line(hash, true),
            [b'L', lines @ ..] => Some(Self::Lines(lines.to_vec())),
            b"E" => Some(Self::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { day: Day::from_unix_days(20_783), segment: [3; 16], number: 7 };

    fn key(byte: u8) -> SegmentKey {
        SegmentKey::of(&DayKey::of_nobody(PLACE.day, byte), &PLACE.segment)
    }

    fn sealed(content: &Content) -> String {
        let mut out = String::new();
        key(1).seal(PLACE, content, &mut out);
        assert_eq!(out.pop(), Some('\n'));
        out
    }

    #[test]
    fn a_record_opens_as_it_was_sealed_and_nowhere_else() {
        let hash = [9; 32];
        for content in [
            Content::Lines(b"one\ntwo\n".to_vec()),
            Content::End,
            Content::Begin(Behind::Nothing),
            Content::Begin(Behind::Line { hash, torn: true }),
            Content::Begin(Behind::Line { hash, torn: false }),
        ] {
            let line = sealed(&content);
            assert!(line.starts_with("sekisho-log/1 2026-11-26 AwMDAwMDAwMDAwMDAwMDAw 7 "), "{line}");
            assert!(line.len() < 130 && !line.contains("one"));
            let record = Record::parse(line.as_bytes()).unwrap();
            assert_eq!((record.place, key(1).open(&record)), (PLACE, Some(content)));
            assert_eq!(key(2).open(&record), None, "another day's key");
            for place in [
                Place { day: PLACE.day.minus_days(1), ..PLACE },
                Place { segment: [4; 16], ..PLACE },
                Place { number: 8, ..PLACE },
            ] {
                assert_eq!(key(1).open(&Record { place, sealed: record.sealed.clone() }), None);
            }
        }
    }

    #[test]
    fn a_known_answer_opens() {
        // Made with Python's cryptography: HKDF and AESGCM, key 0x01 * 32, store 0x07 * 16, segment 0x03 * 16, number 7.
        let line = b"sekisho-log/1 2026-11-26 AwMDAwMDAwMDAwMDAwMDAw 7 nXv0ccAQGlrDN7cRajQFM98BDEgo";
        let record = Record::parse(line).unwrap();
        assert_eq!(key(1).open(&record), Some(Content::Lines(b"one\n".to_vec())));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let line = sealed(&Content::Lines(b"one\n".to_vec()));
        for at in 0..line.len() {
            for other in [b'A', b'1', b' ', b'='] {
                let mut changed = line.clone().into_bytes();
                if changed[at] != other {
                    changed[at] = other;
                    let opened = Record::parse(&changed).map(|record| {
                        let key = SegmentKey::of(&DayKey::of_nobody(record.place.day, 1), &record.place.segment);
                        key.open(&record)
                    });
                    assert!(opened.flatten().is_none(), "byte {at}");
                }
            }
            assert!(Record::parse(&line.as_bytes()[..at]).is_none_or(|record| key(1).open(&record).is_none()));
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_record() {
        let line = sealed(&Content::End);
        for changed in [
            line.replace(" 7 ", " 07 "),
            line.replace(" 7 ", " +7 "),
            line.replace(" 7 ", "  7 "),
            format!("{line} "),
            format!("{line}="),
            format!(" {line}"),
            format!("{line}\r"),
            line.replace("2026-11-26", "2026-11-31"),
        ] {
            assert!(Record::parse(changed.as_bytes()).is_none(), "{changed}");
        }
        assert_eq!(Record::day_of_beginning(line.as_bytes()), Some(PLACE.day));
        assert_eq!(Record::day_of_beginning(b"{\"time\":\"2026-11-26T00:00:00Z\"}"), None);
    }

    #[test]
    fn the_longest_record_is_a_line_that_is_read() {
        let line = sealed(&Content::Lines(vec![b'x'; MOST_TEXT]));
        assert!(line.len() < MOST_LINE_BYTES);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(record) = Record::parse(&line) {
                let _ = key(1).open(&record);
            }
        }
    }
}
