//! Whom a client certificate names: the text after `cert:` in `[admin.roles]`.

use std::fmt;

/// Bytes of a name (X.520 bounds a common name to 64 characters).
const MOST_BYTES: usize = 64;

/// 1 to 64 visible ASCII characters without a colon, so that `cert:NAME` can be taken for no other principal. Compared
/// byte for byte. Small enough to be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateName {
    bytes: [u8; MOST_BYTES],
    length: u8,
}

impl CertificateName {
    /// Reads a name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        let mut bytes = [0; MOST_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let length = u8::try_from(text.len()).ok()?;
        sound.then_some(Self { bytes, length })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default() // ASCII, by its only constructor
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_visible_ascii_without_a_colon() {
        let longest = "a".repeat(MOST_BYTES);
        for text in ["a", "alice", "alice@ops", "\"<!-~>\"", &longest] {
            assert_eq!(CertificateName::parse(text).unwrap().as_str(), text);
        }
        for text in ["", " ", "Alice Smith", "uid:0", "a\0", "a\n", "アリス", &format!("{longest}a"), &"a".repeat(300)]
        {
            assert_eq!(CertificateName::parse(text), None, "{text:?}");
        }
    }
}
