//! The values that stand for a handset in the store: digest, chain of keys, random id.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use thiserror::Error;
use uuid::Uuid;

/// Id of a binding key: `k` and a number that only grows, so the order of ids is the order of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u32);

impl KeyId {
    /// The `number`-th binding key of this store, from 1.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number behind the `k`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Reads `k17`.
    ///
    /// # Errors
    /// [`ChainError`] if the text is not `k` and a decimal number.
    pub fn parse(text: &str) -> Result<Self, ChainError> {
        text.strip_prefix('k').and_then(|n| n.parse().ok()).map(Self).ok_or(ChainError)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// A text that is no chain of key ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a chain of key ids")]
pub struct ChainError;

/// The keys that made a digest, innermost first: `[k1]`, or `[k1,k2]` once k2 wrapped it.
///
/// Shared: millions of records have one of a handful.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain(Arc<[KeyId]>);

impl Chain {
    /// A digest made by one key alone.
    #[must_use]
    pub fn flat(key: KeyId) -> Self {
        Self(Arc::new([key]))
    }

    /// A chain of keys, innermost first.
    ///
    /// # Errors
    /// [`ChainError`] if it is empty or a key does not come after the one before it.
    pub fn new(keys: Vec<KeyId>) -> Result<Self, ChainError> {
        let ascending = keys.iter().zip(keys.iter().skip(1)).all(|(inner, outer)| inner < outer);
        if keys.is_empty() || !ascending { Err(ChainError) } else { Ok(Self(keys.into())) }
    }

    /// This chain wrapped by `outer`, which is younger than all its keys.
    pub(super) fn under(&self, outer: KeyId) -> Self {
        Self(self.0.iter().copied().chain([outer]).collect())
    }

    /// The keys, innermost first; never empty.
    #[must_use]
    pub fn keys(&self) -> &[KeyId] {
        &self.0
    }

    /// The key that hashed the identifier itself. Who is rid of it is rid of every older one.
    #[must_use]
    pub fn innermost(&self) -> KeyId {
        self.0.first().copied().unwrap_or_else(|| unreachable!("a chain is never empty"))
    }

    /// The key that made the digest of what those below it made.
    #[must_use]
    pub fn outermost(&self) -> KeyId {
        self.0.last().copied().unwrap_or_else(|| unreachable!("a chain is never empty"))
    }

    /// Reads the text form, `k1,k2`.
    ///
    /// # Errors
    /// [`ChainError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, ChainError> {
        Self::new(text.split(',').map(KeyId::parse).collect::<Result<_, _>>()?)
    }
}

/// `k1,k2`.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{key}")?;
        }
        Ok(())
    }
}

/// A keyed hash of a handset identifier: 32 bytes, meaningless without the keys of its chain.
///
/// Not printed anywhere: `Debug` shows no byte of it.
#[derive(Clone)]
pub struct BindingDigest([u8; 32]);

impl BindingDigest {
    /// The digest with these bytes; made by the key ring, or read back by a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The exclusive or of its four words: a quarter of its size tells nearly all digests apart, and any bit that differs in it
    /// is seen.
    #[must_use]
    pub fn fold(&self) -> i64 {
        let (words, _) = self.0.as_chunks::<8>();
        words.iter().fold(0, |folded, word| folded ^ i64::from_be_bytes(*word))
    }
}

/// In constant time.
impl PartialEq for BindingDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for BindingDigest {}

impl fmt::Debug for BindingDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingDigest(..)")
    }
}

/// Random id of a binding record; says nothing about handset or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(Uuid);

impl BindingId {
    /// The id made of 16 random bytes (UUID version 4).
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Reads the text form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_read_back_as_written_and_only_grow_outwards() {
        for text in ["k1", "k1,k2", "k9,k10,k11"] {
            assert_eq!(Chain::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Chain::parse("k9,k10").unwrap().keys(), [KeyId::new(9), KeyId::new(10)]);
        for text in ["", "k", "k2,k1", "k1,k1", "1", "k1,", "k-1"] {
            assert!(Chain::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_prints_no_byte() {
        assert_eq!(format!("{:?}", BindingDigest::from_bytes([7; 32])), "BindingDigest(..)");
    }
}
