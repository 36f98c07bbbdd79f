//! Bytes that must not be printed, copied or left behind in memory.

use zeroize::Zeroizing;

/// Secret bytes: wiped on drop, read only through [`SecretBytes::expose`].
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`, `PartialEq`.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The clear bytes. Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::SecretBytes;

    assert_not_impl_any!(SecretBytes: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
}
