//! `_sk` in the body of a form that was posted: found where this folder puts it, and gone before an upstream reads it.
//!
//! Forms that are sent by GET hold the token as their first field, and a button may post such a form all the same
//! (`formmethod`), in any of the three encodings of forms (HTML §4.10.21.8). The token of a first field counts as one in
//! the URL would, and the field is taken out. Anywhere else its value is overwritten while the body passes: a body
//! keeps the length that was said of it, and nothing is held.

use super::query::{TOKEN_KEY, has_key, value};
use crate::session::SessionToken;

/// Characters of a token.
const TOKEN_LENGTH: usize = 32;
/// The longest spelling of the key, every letter of it escaped.
const LONGEST_KEY: usize = 9;
/// The longest head of a part that is looked into, in bytes, and the most lines behind the one that names the field.
const LONGEST_HEAD: usize = 256;
const MOST_LINES: usize = 4;

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

    /// How many bytes of a body [`Self::first_token`] has to see.
    #[must_use]
    pub fn first_field_length(&self) -> usize {
        match self {
            Self::Urlencoded => LONGEST_KEY + 1 + 3 * TOKEN_LENGTH + 1,
            Self::Text => TOKEN_KEY.len() + 1 + TOKEN_LENGTH + 2,
            Self::Multipart(boundary) => 2 + boundary.len() + 2 + LONGEST_HEAD + TOKEN_LENGTH + 2,
        }
    }

    /// The token in the first field of a body, and the bytes of that field with what separates it from the next.
    #[must_use]
    pub fn first_token(&self, body: &[u8]) -> Option<(SessionToken, usize)> {
        let body = body.get(..self.first_field_length()).unwrap_or(body);
        match self {
            Self::Urlencoded => {
                let length = body.iter().position(|b| *b == b'&').unwrap_or(body.len());
                let pair = std::str::from_utf8(body.get(..length)?).ok().filter(|pair| has_key(pair, TOKEN_KEY))?;
                Some((value(pair)?, body.len().min(length + 1)))
            }
            Self::Text => {
                let (field, rest) = body.split_at_checked(TOKEN_KEY.len() + 1 + TOKEN_LENGTH)?;
                let pair = std::str::from_utf8(field).ok().filter(|pair| has_key(pair, TOKEN_KEY))?;
                let token = value(pair).filter(|_| rest.starts_with(b"\r\n"))?;
                Some((token, field.len() + 2))
            }
            Self::Multipart(boundary) => {
                let part = body.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?.strip_prefix(b"\r\n")?;
                let end = part.windows(4).take(LONGEST_HEAD - 3).position(|end| end == b"\r\n\r\n")?;
                let (head, rest) = part.split_at_checked(end + 4)?;
                let (value, after) = rest.split_at_checked(TOKEN_LENGTH)?;
                let named = head.split(|b| *b == b'\n').any(names_token);
                let token = SessionToken::parse(value).filter(|_| named && after.starts_with(b"\r\n"))?;
                Some((token, body.len() - after.len() + 2))
            }
        }
    }

    /// Overwrites the tokens of a body of this kind.
    #[must_use]
    pub const fn eraser(&self) -> TokenEraser {
        let kind = match self {
            Self::Urlencoded => Kind::Fields { end: b'&', put: b'&' },
            Self::Text => Kind::Fields { end: b'\n', put: b' ' },
            Self::Multipart(_) => Kind::Parts,
        };
        // A body begins as if a field had ended.
        TokenEraser { kind, seen: Vec::new(), place: Place::Start }
    }
}

/// Whether a line in the head of a part says that it is a field `_sk` and no file (RFC 7578 §4.2).
fn names_token(line: &[u8]) -> bool {
    let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else {
        return false;
    };
    let parameter = |wanted: &str| {
        let mut parameters = value.split(';').filter_map(|part| part.split_once('='));
        parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    name.trim().eq_ignore_ascii_case("content-disposition")
        && parameter("name").is_some_and(|name| name.trim_matches('"').eq_ignore_ascii_case(TOKEN_KEY))
        && parameter("filename").is_none()
}

/// Overwrites the value of each `_sk` of a form's body, piece by piece; nothing else, and no byte more or less.
pub struct TokenEraser {
    kind: Kind,
    /// The key, or the line, that is being read, as far as it could be one of ours.
    seen: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Keys and values with `=` between them, each to the next `end`.
    Fields { end: u8, put: u8 },
    /// Parts with heads.
    Parts,
}

#[derive(Clone, Copy)]
enum Place {
    /// In a key, or a line.
    Start,
    /// In the head of a part that is a token's, so many lines behind the one that says so.
    Head(usize),
    /// In a value that is none of ours.
    Other,
    /// In the value of a token.
    Token,
    /// In the value of one that may be a token, after so many of its bytes: what looks like the head of a part may be
    /// the content of a file.
    Part(usize),
}

impl TokenEraser {
    /// Overwrites what is in this piece.
    pub fn erase(&mut self, piece: &mut [u8]) {
        for byte in piece {
            match self.kind {
                Kind::Fields { end, put } => self.in_fields(byte, end, put),
                Kind::Parts => self.in_parts(byte),
            }
        }
    }

    fn in_fields(&mut self, byte: &mut u8, end: u8, put: u8) {
        match self.place {
            _ if *byte == end => {
                self.seen.clear();
                self.place = Place::Start;
            }
            Place::Token if *byte == b'\r' => {}
            Place::Token => *byte = put,
            Place::Start if *byte == b'=' => {
                let ours = std::str::from_utf8(&self.seen).is_ok_and(|key| has_key(key, TOKEN_KEY));
                self.place = if ours { Place::Token } else { Place::Other };
            }
            Place::Start if self.seen.len() < LONGEST_KEY => self.seen.push(*byte),
            Place::Start | Place::Head(_) | Place::Other | Place::Part(_) => self.place = Place::Other,
        }
    }

    fn in_parts(&mut self, byte: &mut u8) {
        match self.place {
            _ if *byte == b'\n' => {
                self.place = self.after_line();
                self.seen.clear();
            }
            Place::Part(length) if length < TOKEN_LENGTH && is_of_token(*byte) => {
                *byte = b' ';
                self.place = Place::Part(length + 1);
            }
            Place::Start | Place::Head(_) if self.seen.len() < LONGEST_HEAD => self.seen.push(*byte),
            Place::Start | Place::Head(_) | Place::Other | Place::Token | Place::Part(_) => self.place = Place::Other,
        }
    }

    /// What follows the line that was seen.
    fn after_line(&self) -> Place {
        match self.place {
            Place::Head(_) if self.seen == b"\r" => Place::Part(0),
            Place::Head(lines) if lines < MOST_LINES => Place::Head(lines + 1),
            Place::Start if names_token(&self.seen) => Place::Head(0),
            Place::Start | Place::Head(_) | Place::Other | Place::Token | Place::Part(_) => Place::Start,
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
            (FormEncoding::Urlencoded, "%5F%73%6b=T&a=1", Some("a=1")),
            (FormEncoding::Urlencoded, "_SK=T&a=1", Some("a=1")),
            (FormEncoding::Urlencoded, "_sk", None),
            (FormEncoding::Urlencoded, "a=1&_sk=T", None),
            (FormEncoding::Urlencoded, "", None),
            (FormEncoding::Text, "_sk=T\r\na=1\r\n", Some("a=1\r\n")),
            (FormEncoding::Text, "_sk=T", None),
            (multipart(), "PT\r\n--b\r\nmore", Some("--b\r\nmore")),
            (multipart(), "PT\r\n--b--\r\n", Some("--b--\r\n")),
            (multipart(), "PT--b--\r\n", None),
            (
                multipart(),
                "--b\r\ncontent-disposition:form-data;Name=_sk\r\nx-kind: text/plain\r\n\r\nT\r\n--b--",
                Some("--b--"),
            ),
            (multipart(), "--b\r\nContent-Disposition: form-data; name=\"_sk\"; filename=x\r\n\r\nT\r\n--b--", None),
            (multipart(), "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nT\r\n--b--", None),
            (multipart(), "--b\r\nX-Name: form-data; name=\"_sk\"\r\n\r\nT\r\n--b--", None),
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
            (FormEncoding::Urlencoded, "_sk=T&x_sk=T&_sk", "_sk=&&&&x_sk=T&_sk"),
            (FormEncoding::Urlencoded, "&_s&_sk=&_sk=T", "&_s&_sk=&_sk=&&&"),
            (FormEncoding::Urlencoded, "%5f%53k=T&_%73K=T&%5f%5=T&_sk%00=T", "%5f%53k=&&&&_%73K=&&&&%5f%5=T&_sk%00=T"),
            (FormEncoding::Text, "_sk=T\r\na=1\r\n_sk=T\r\nb=_sk=T", "_sk=   \r\na=1\r\n_sk=   \r\nb=_sk=T"),
            (multipart(), "--b\r\nx\r\nPT\r\n--b--", "--b\r\nx\r\nP   \r\n--b--"),
            (multipart(), "_sk=T&name=\"_sk\"", "_sk=T&name=\"_sk\""),
            (
                multipart(),
                "--b\r\nContent-disposition:x; name=_SK\r\nx-kind: x\r\n\r\nT\r\n\r\nT",
                "--b\r\nContent-disposition:x; name=_SK\r\nx-kind: x\r\n\r\n   \r\n\r\nT",
            ),
            (
                multipart(),
                "--b\r\nContent-Disposition: x; name=_sk; filename=x\r\n\r\nT",
                "--b\r\nContent-Disposition: x; name=_sk; filename=x\r\n\r\nT",
            ),
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
            body in "(&|_|_sk|=|abc|Content-Disposition: x; name=\"_sk\"|%5f|\r\n|\n|abcdefghijklmnopqrstuvwxyz012345){0,24}",
            size in 1_usize..9,
        ) {
            for (encoding, before) in [
                (FormEncoding::Urlencoded, "&_sk="),
                (FormEncoding::Text, "\n_sk="),
                (multipart(), "\nContent-Disposition: x; name=\"_sk\"\r\n\r\n"),
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
