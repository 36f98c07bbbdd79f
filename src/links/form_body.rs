//! `_sk` in the body of a form that was posted: found where this folder puts it, and gone before an upstream reads it.
//!
//! Forms that are sent by GET hold the token as their first field, and a button may post such a form all the same
//! (`formmethod`), in any of the three encodings of forms (HTML §4.10.21.8). The token of a first field counts as one in
//! the URL would, and the field is taken out. Anywhere else its value is overwritten while the body passes: a body
//! keeps the length that was said of it, and nothing is held.

use super::query::TOKEN_KEY;
use crate::session::SessionToken;

/// Characters of a token.
const TOKEN_LENGTH: usize = 32;
/// What stands in the head of a part, which browsers write alike for every field that is no file (RFC 7578 §4.2).
const PART_NAME: &str = "Content-Disposition: form-data; name=\"_sk\"";

/// How a form is written in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormEncoding {
    /// `application/x-www-form-urlencoded`.
    Urlencoded,
    /// `multipart/form-data`, with its boundary.
    Multipart(String),
    /// `text/plain`.
    Text,
}

impl FormEncoding {
    /// By the Content-Type; `None` for a body that no form makes.
    #[must_use]
    pub fn of(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        let essence = parts.next()?.to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Some(Self::Urlencoded),
            "text/plain" => Some(Self::Text),
            "multipart/form-data" => {
                let boundary = parts.filter_map(|part| part.split_once('='));
                let (_, boundary) = boundary.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
                Some(Self::Multipart(boundary.trim_matches('"').to_owned()))
            }
            _ => None,
        }
    }

    /// What a first field begins with that is a token's.
    fn opening(&self) -> String {
        match self {
            Self::Urlencoded | Self::Text => format!("{TOKEN_KEY}="),
            Self::Multipart(boundary) => format!("--{boundary}\r\n{PART_NAME}\r\n\r\n"),
        }
    }

    /// How many bytes of a body [`Self::first_token`] has to see.
    #[must_use]
    pub fn first_field_length(&self) -> usize {
        self.opening().len() + TOKEN_LENGTH + "\r\n".len()
    }

    /// The token in the first field of a body, and the bytes of that field with what separates it from the next.
    #[must_use]
    pub fn first_token(&self, body: &[u8]) -> Option<(SessionToken, usize)> {
        let opening = self.opening();
        let value = body.strip_prefix(opening.as_bytes())?;
        let (written, rest) = value.split_at_checked(TOKEN_LENGTH)?;
        let separator = match self {
            Self::Urlencoded if rest.is_empty() => 0,
            Self::Urlencoded => rest.starts_with(b"&").then_some(1)?,
            Self::Text | Self::Multipart(_) => rest.starts_with(b"\r\n").then_some(2)?,
        };
        Some((SessionToken::parse(written)?, opening.len() + TOKEN_LENGTH + separator))
    }

    /// Overwrites the tokens of a body of this kind.
    #[must_use]
    pub const fn eraser(&self) -> TokenEraser {
        let (pattern, put): (&[u8], u8) = match self {
            Self::Urlencoded => (b"&_sk=", b'&'),
            Self::Multipart(_) => (b"name=\"_sk\"\r\n\r\n", b' '),
            Self::Text => (b"\n_sk=", b' '),
        };
        // A body begins as if a field had ended.
        let matched = match self {
            Self::Multipart(_) => 0,
            Self::Urlencoded | Self::Text => 1,
        };
        TokenEraser { pattern, put, matched, left: 0 }
    }
}

/// Overwrites the value of each `_sk` of a form's body, piece by piece; nothing else, and no byte more or less.
pub struct TokenEraser {
    /// What a value follows. Its first byte stands in it once, so that a search never has to step back.
    pattern: &'static [u8],
    put: u8,
    /// Bytes of the pattern that were just seen.
    matched: usize,
    /// Bytes of a value that may still come.
    left: usize,
}

impl TokenEraser {
    /// Overwrites what is in this piece.
    pub fn erase(&mut self, piece: &mut [u8]) {
        for byte in piece {
            if self.left > 0 {
                if is_of_token(*byte) {
                    *byte = self.put;
                    self.left -= 1;
                    // What is put may be what the next field follows.
                    self.matched = usize::from(self.pattern.first() == Some(&self.put));
                    continue;
                }
                self.left = 0;
            }
            self.matched = match self.pattern.get(self.matched) {
                Some(expected) if expected == byte => self.matched + 1,
                _ => usize::from(self.pattern.first() == Some(byte)),
            };
            if self.matched == self.pattern.len() {
                self.matched = 0;
                self.left = TOKEN_LENGTH;
            }
        }
    }
}

const fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::links::testing::TOKEN;

    fn multipart() -> FormEncoding {
        FormEncoding::of("Multipart/Form-Data; charset=x; Boundary=\"b\"").unwrap()
    }

    fn erased(encoding: &FormEncoding, body: &str, size: usize) -> String {
        let mut eraser = encoding.eraser();
        let mut bytes = body.as_bytes().to_vec();
        bytes.chunks_mut(size).for_each(|piece| eraser.erase(piece));
        assert_eq!(bytes.len(), body.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn forms_are_told_by_their_type() {
        assert_eq!(multipart(), FormEncoding::Multipart("b".to_owned()));
        for (content_type, expected) in [
            ("application/x-www-form-urlencoded ; charset=Shift_JIS", Some(FormEncoding::Urlencoded)),
            ("TEXT/PLAIN", Some(FormEncoding::Text)),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=b", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(FormEncoding::of(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn a_first_field_may_be_a_token() {
        let part = "--b\r\nContent-Disposition: form-data; name=\"_sk\"\r\n\r\n";
        for (encoding, body, rest) in [
            (FormEncoding::Urlencoded, "_sk=T&a=1", Some("a=1")),
            (FormEncoding::Urlencoded, "_sk=T", Some("")),
            (FormEncoding::Urlencoded, "_sk=T&", Some("")),
            (FormEncoding::Urlencoded, "_sk=Tx&a", None),
            (FormEncoding::Urlencoded, "_sk=&a", None),
            (FormEncoding::Urlencoded, "_sk", None),
            (FormEncoding::Urlencoded, "a=1&_sk=T", None),
            (FormEncoding::Urlencoded, "", None),
            (FormEncoding::Text, "_sk=T\r\na=1\r\n", Some("a=1\r\n")),
            (FormEncoding::Text, "_sk=T", None),
            (multipart(), "PT\r\n--b\r\nmore", Some("--b\r\nmore")),
            (multipart(), "PT\r\n--b--\r\n", Some("--b--\r\n")),
            (multipart(), "PT--b--\r\n", None),
            (multipart(), "_sk=T", None),
        ] {
            let body = body.replace('P', part).replace('T', TOKEN);
            let found = encoding.first_token(body.as_bytes());
            assert_eq!(found.as_ref().map(|(_, length)| &body[*length..]), rest, "{body}");
            assert!(
                found.is_none_or(|(token, length)| token.expose() == TOKEN && length <= encoding.first_field_length())
            );
        }
    }

    #[test]
    fn tokens_are_overwritten_and_nothing_else() {
        let part = "--b\r\nContent-Disposition: form-data; name=\"_sk\"\r\n\r\n";
        for (encoding, body, expected) in [
            (FormEncoding::Urlencoded, "a=1&_sk=T&b=_sk=T", "a=1&_sk=&&&&b=_sk=T"),
            (FormEncoding::Urlencoded, "_sk=T&_sk=Tx&x_sk=T", "_sk=&&&&_sk=&&&x&x_sk=T"),
            (FormEncoding::Urlencoded, "&_s&_sk=&_sk=T", "&_s&_sk=&_sk=&&&"),
            (FormEncoding::Urlencoded, "_sk=T_sk=T", "_sk=&&&_sk=&&&"),
            (FormEncoding::Text, "_sk=T\r\na=1\r\n_sk=T\r\nb=_sk=T", "_sk=   \r\na=1\r\n_sk=   \r\nb=_sk=T"),
            (multipart(), "--b\r\nx\r\nPT\r\n--b--", "--b\r\nx\r\nP   \r\n--b--"),
            (multipart(), "_sk=T&name=\"_sk\"", "_sk=T&name=\"_sk\""),
        ] {
            let of = |text: &str, blank: &str| {
                let blanks = blank.repeat(TOKEN_LENGTH);
                text.replace('P', part).replace('T', TOKEN).replace(&blank.repeat(3), &blanks)
            };
            for size in [1, 2, 3, 7, 1000] {
                let blank = if encoding == FormEncoding::Urlencoded { "&" } else { " " };
                assert_eq!(erased(&encoding, &of(body, "\0"), size), of(expected, blank), "{body} by {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_token_is_left_however_the_body_is_cut(
            body in "(&|_|_sk|=|abc|name=\"|\"|\r\n|\n|abcdefghijklmnopqrstuvwxyz012345){0,24}",
            size in 1_usize..9,
        ) {
            for (encoding, before) in [
                (FormEncoding::Urlencoded, "&_sk="),
                (FormEncoding::Text, "\n_sk="),
                (multipart(), "name=\"_sk\"\r\n\r\n"),
            ] {
                let whole = erased(&encoding, &body, body.len().max(1));
                prop_assert_eq!(&erased(&encoding, &body, size), &whole);
                let left = format!("{before}{TOKEN}");
                prop_assert!(!whole.contains(&left), "{}", whole);
                prop_assert_eq!(erased(&encoding, &whole, size), whole);
            }
        }
    }
}
