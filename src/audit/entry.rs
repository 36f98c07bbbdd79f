//! What the chain is made of: entries, each over the one before it, and the checkpoints that are sealed.
//!
//! Texts are canonical JSON (RFC 8785): members sorted, no white space, integers alone. Two texts never stand for the
//! same entry, so a hash is over one text and no other.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::binding::AccountId;
use crate::secret::SecretBytes;

/// What the hash of an entry begins with, of the one before the first, and what a seal is over.
const ENTRY: &[u8] = b"sekisho/audit/entry/v1";
const BEFORE_ALL: &[u8] = b"sekisho/audit/store/v1";
const CHECKPOINT: &[u8] = b"sekisho/audit/checkpoint/v1";
const PSEUDONYM: &[u8] = b"sekisho/audit/pseudonym/v1";

/// Bytes of a pseudonym: enough that no two accounts share one.
const PSEUDONYM_BYTES: usize = 16;

/// SHA-256 over an entry and everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryHash([u8; 32]);

impl EntryHash {
    /// The hash that the first entry of a store is chained to: no two stores have a chain in common.
    #[must_use]
    pub fn before_all(store_id: &[u8; 16]) -> Self {
        Self::over(&[BEFORE_ALL, store_id])
    }

    /// SHA-256 of the label, `prev` and the entry's text.
    #[must_use]
    pub fn of(prev: Self, text: &str) -> Self {
        Self::over(&[ENTRY, &prev.0, text.as_bytes()])
    }

    /// The hash that has these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        bytes_of(text).map(Self)
    }

    fn over(parts: &[&[u8]]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in parts {
            hash.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        Self(out)
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl From<EntryHash> for String {
    fn from(hash: EntryHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for EntryHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a hash is 64 lower-case hexadecimal digits")
    }
}

/// The end of a chain, or of a part of it. `seq` 0 is before the first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The number of the last entry.
    pub seq: u64,
    /// Its hash.
    pub hash: EntryHash,
}

/// Who an account is in the trail: an HMAC under a random key of its own. Without the key, which is erased with the
/// account, nobody can tell whose it was, not even by trying all accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// The pseudonym of `account` under its key.
    #[must_use]
    pub fn of(account: &AccountId, key: &SecretBytes) -> Self {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
        mac.update(PSEUDONYM);
        mac.update(account.as_str().as_bytes());
        let tag = mac.sign();
        let short = tag.as_ref().get(..PSEUDONYM_BYTES).unwrap_or_default();
        Self(format!("p_{}", URL_SAFE_NO_PAD.encode(short)))
    }
}

/// `p_` and 22 characters of base64url.
impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One entry. Its members are in the order of the canonical text; those that have no value are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The pseudonym of the account it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What was done: a word of [`Action`](super::Action), or of a later version's.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// How many there were after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How many there were before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The audit key in force: no other seals this entry.
    pub key: String,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The entry that began what this one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// A word of [`Outcome`](super::Outcome).
    pub outcome: String,
    /// The hash of the entry before it.
    pub prev: EntryHash,
    /// Why, as a person put it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its number: 1, 2, 3.
    pub seq: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
}

impl Entry {
    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> String {
        canonical(self)
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> EntryHash {
        EntryHash::of(self.prev, &self.text())
    }
}

/// What is sealed: all entries up to `seq` are as they were at that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The hash of the last entry.
    pub hash: EntryHash,
    /// The audit key that sealed it: the one that the last entry names.
    pub key: String,
    /// The number of the last entry.
    pub seq: u64,
    /// The store that the chain belongs to: 32 hexadecimal digits.
    pub store: String,
    /// When it was sealed, RFC 3339 in UTC.
    pub time: String,
}

impl Checkpoint {
    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> String {
        canonical(self)
    }

    /// What the seal is over.
    #[must_use]
    pub fn sealed_bytes(&self) -> Vec<u8> {
        [CHECKPOINT, self.text().as_bytes()].concat()
    }

    /// The end of the chain that it speaks of.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        Tip { seq: self.seq, hash: self.hash }
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect()
}

/// The bytes that lower-case hexadecimal digits stand for.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}

/// Reads a store's id as it stands in exports and checkpoints.
pub(super) fn store_of(name: &str) -> Option<[u8; 16]> {
    bytes_of(name)
}

/// A store's id as it stands in exports and checkpoints.
pub(super) fn store_name(store_id: &[u8; 16]) -> String {
    hex(store_id)
}

/// Serde writes members in the order of the fields, escapes as RFC 8785 does, and puts no space anywhere.
pub(super) fn canonical(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("texts and integers become JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Event};
    use crate::clock::Timestamp;

    fn full() -> Entry {
        let text = |t: &str| Some(t.to_owned());
        Entry {
            account: text("p_a"),
            action: "code-issue".into(),
            actor: "uid:1".into(),
            after: Some(1),
            before: Some(2),
            count: Some(3),
            key: "u1".into(),
            object: text("端末\"\\\u{1}"),
            of: Some(4),
            outcome: "done".into(),
            prev: EntryHash::from_bytes([0xab; 32]),
            reason: text("r"),
            seq: 9,
            time: "2026-11-24T00:00:00Z".into(),
        }
    }

    #[test]
    fn members_are_sorted_and_nothing_is_between_them() {
        let prev = "ab".repeat(32);
        assert_eq!(
            full().text(),
            format!(
                "{{\"account\":\"p_a\",\"action\":\"code-issue\",\"actor\":\"uid:1\",\"after\":1,\"before\":2,\"count\":3,\
                 \"key\":\"u1\",\"object\":\"端末\\\"\\\\\\u0001\",\"of\":4,\"outcome\":\"done\",\"prev\":\"{prev}\",\
                 \"reason\":\"r\",\"seq\":9,\"time\":\"2026-11-24T00:00:00Z\"}}"
            )
        );
        let names = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            let as_written = names.clone();
            names.sort();
            assert_eq!(names, as_written);
            names.iter().map(|name| text.find(&format!("\"{name}\":")).unwrap()).collect::<Vec<_>>()
        };
        let checkpoint = Checkpoint {
            hash: full().hash(),
            key: "u1".into(),
            seq: 9,
            store: "00".repeat(16),
            time: "2026-11-24T00:00:00Z".into(),
        };
        for text in [full().text(), checkpoint.text()] {
            assert!(names(&text).is_sorted(), "{text}");
        }
    }

    #[test]
    fn known_answers() {
        // Computed with Python's hashlib and hmac: what docs/audit.md tells others to compute.
        let before = EntryHash::before_all(&[7; 16]);
        let event = Event::new(Action::GatewayStart, "gateway").object("0.1.0");
        let tip = Tip { seq: 0, hash: before };
        let entry = event.entry(tip, Timestamp::from_unix_millis(1_795_478_400_000), "u1", None);
        assert_eq!(before.to_string(), "0861240f48dfbd2469daa187a451c20bef6fab18e7d6a942a77b3e0f4e2f077c");
        assert_eq!(entry.hash().to_string(), "648570dd310751f0e6fb11fc365ec599c25664d08cccb7464753906f01ee2131");
        let alice = AccountId::parse("alice").unwrap();
        assert_eq!(Pseudonym::of(&alice, &SecretBytes::new(vec![9; 32])).to_string(), "p_Pu33mxF7se0v32r6uIiDoQ");
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_in_no_other_way() {
        let hash = full().hash();
        assert_eq!(EntryHash::parse(&hash.to_string()), Some(hash));
        let text = hash.to_string();
        for other in
            [&text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("{text}00"), "", &text.replace('a', "g")]
        {
            assert!(*other == text || EntryHash::parse(other).is_none(), "{other}");
        }
    }
}
