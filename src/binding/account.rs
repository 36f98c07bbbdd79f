//! Accounts: an opaque id that the operator gives, and whether it may sign in.

use std::fmt;

use smol_str::SmolStr;
use thiserror::Error;

const MAX_LENGTH: usize = 64;

/// The operator's opaque id of an account: `[A-Za-z0-9._:-]{1,64}`, and nothing that names a person.
///
/// One that looks like a telephone number is refused (10 to 15 digits once separators are dropped, beginning with
/// 0 or +); an e-mail address cannot be written in these characters.
///
/// Up to 23 characters are kept in place: a gateway holds one in each of a million sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(SmolStr);

/// Why a text is no account id. Never repeats the text: it may be somebody's telephone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccountIdError {
    /// Empty, too long, or a character outside the set.
    #[error("an account id is 1 to 64 characters of A-Z a-z 0-9 . _ : -")]
    Syntax,
    /// It reads as a telephone number or an e-mail address.
    #[error("an account id must not be a telephone number or an e-mail address; use an opaque id")]
    Personal,
}

impl AccountId {
    /// Reads an account id.
    ///
    /// # Errors
    /// [`AccountIdError`] if the text is not an opaque id.
    pub fn parse(text: &str) -> Result<Self, AccountIdError> {
        if text.contains('@') || text.contains('＠') || looks_like_telephone_number(text) {
            return Err(AccountIdError::Personal);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > MAX_LENGTH || !text.bytes().all(allowed) {
            return Err(AccountIdError::Syntax);
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 10 to 15 digits after separators are dropped, starting with 0 or +; letters make it something else.
fn looks_like_telephone_number(text: &str) -> bool {
    // In place: a start reads a million accounts back.
    let mut significant = text.chars().filter(|c| c.is_alphanumeric() || *c == '+').peekable();
    let international = significant.next_if_eq(&'+').is_some();
    let national = significant.peek() == Some(&'0');
    let mut digits = 0;
    for character in significant {
        if !character.is_ascii_digit() {
            return false;
        }
        digits += 1;
    }
    (10..=15).contains(&digits) && (international || national)
}

/// Whether an account's handsets may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// They may.
    Active,
    /// They may not; nothing was erased.
    Suspended,
}

impl AccountState {
    /// The word used in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_ids_pass() {
        for id in [
            "alice",
            "a",
            "ops:17",
            "1234567890",
            "user-0901",
            "0",
            "00000000000000000",
            "k0312345678x",
            &"z".repeat(64),
        ] {
            assert!(AccountId::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn numbers_and_addresses_of_people_do_not() {
        for id in [
            "09012345678",
            "090-1234-5678",
            "0.3.1234.5678",
            "+819012345678",
            "+1:212:555:0100",
            "a@b.example",
            "012345678901234",
        ] {
            assert_eq!(AccountId::parse(id), Err(AccountIdError::Personal), "{id}");
        }
    }

    #[test]
    fn other_characters_do_not() {
        for id in ["", "a b", "ä", "a/b", "a\n", "+1", &"z".repeat(65)] {
            assert_eq!(AccountId::parse(id), Err(AccountIdError::Syntax), "{id:?}");
        }
    }
}
