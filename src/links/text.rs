//! A value as its reader decodes it, each character with the bytes that it was written by.
//!
//! What is changed in a page is bytes; what a browser follows is characters, after character references and the
//! page's charset. Here the two meet, so that a change is made at the right byte and all others stay.

use encoding_rs::{EUC_JP, Encoding, ISO_2022_JP, SHIFT_JIS, UTF_8};

/// Longest value that is looked into, in bytes. A longer one is left as it is; no URL of this size is followed.
pub(super) const MAX_VALUE: usize = 16 * 1024;

/// How the bytes of a value are read.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// Said by the field, the byte order mark or the page.
    As(&'static Encoding),
    /// Nothing was said: UTF-8 where the value is, `Shift_JIS` otherwise.
    Unsaid,
}

impl Reading {
    /// The encoding that `raw` is read by.
    pub(super) fn encoding(self, raw: &[u8]) -> &'static Encoding {
        match self {
            Self::As(encoding) => encoding,
            Self::Unsaid if std::str::from_utf8(raw).is_ok() => UTF_8,
            Self::Unsaid => SHIFT_JIS,
        }
    }
}

/// One character and the bytes that it was written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// `None`: bytes that are no character, or a reference that readers may take for different ones.
    pub(super) character: Option<char>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The characters of `raw`, of an attribute if `references`. `None` where it is too long to be looked into.
pub(super) fn pieces(raw: &[u8], reading: Reading, references: bool) -> Option<Vec<Piece>> {
    if raw.len() > MAX_VALUE {
        return None;
    }
    let encoding = reading.encoding(raw);
    // Elsewhere an escape is a control character.
    let escapes = encoding == ISO_2022_JP;
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    let mut double = false;
    while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((length, kanji)) = escape(rest).filter(|_| escapes) {
            // Written by no character: whoever inserts before the next one inserts after the escape.
            double = kanji;
            at += length;
            continue;
        }
        let (character, length) = match rest {
            [a, b, ..] if double => (kanji(*a, *b), 2),
            [b'&', ..] if references => reference(rest).unwrap_or((Some('&'), 1)),
            [byte, ..] if byte.is_ascii() => (Some(char::from(*byte)), 1),
            _ => multibyte(rest, encoding),
        };
        out.push(Piece { character, start: at, end: at + length });
        at += length;
    }
    Some(out)
}

/// Length of an ISO-2022-JP escape sequence, and whether it starts the two-byte set (RFC 1468).
fn escape(rest: &[u8]) -> Option<(usize, bool)> {
    match rest {
        [0x1B, b'$', b'@' | b'B', ..] => Some((3, true)),
        [0x1B, b'$', b'(', b'D', ..] => Some((4, true)),
        [0x1B, b'(', b'B' | b'J', ..] => Some((3, false)),
        _ => None,
    }
}

/// A character of JIS X 0208 by its two 7-bit bytes: EUC-JP without the high bits.
fn kanji(a: u8, b: u8) -> Option<char> {
    let euc = [a | 0x80, b | 0x80];
    EUC_JP.decode_without_bom_handling_and_without_replacement(&euc).and_then(|text| text.chars().next())
}

/// The shortest run of bytes that the encoding knows, or one byte that is none of its characters.
fn multibyte(rest: &[u8], encoding: &'static Encoding) -> (Option<char>, usize) {
    (1..=4)
        .filter_map(|length| Some((rest.get(..length)?, length)))
        .find_map(|(bytes, length)| {
            let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (Some(one), None) => Some((Some(one), length)),
                _ => None,
            }
        })
        .unwrap_or((None, 1))
}

/// A character reference at the start of `rest`, as in an attribute (HTML §13.2.5.72 and following). `None` where
/// the ampersand stands for itself.
fn reference(rest: &[u8]) -> Option<(Option<char>, usize)> {
    let after = rest.get(1..)?;
    let semicolon = |length: usize| length + usize::from(rest.get(length) == Some(&b';'));
    let run = |bytes: &[u8], of: fn(&u8) -> bool| bytes.iter().take_while(|b| of(b)).count();
    let number = |digits: &[u8], radix| {
        // Too large a number is U+FFFD to everybody.
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    match after {
        [b'#', b'x' | b'X', digits @ ..] => {
            let length = run(digits, u8::is_ascii_hexdigit);
            (length > 0).then(|| (Some(number(digits.get(..length).unwrap_or_default(), 16)), semicolon(3 + length)))
        }
        [b'#', digits @ ..] => {
            let length = run(digits, u8::is_ascii_digit);
            (length > 0).then(|| (Some(number(digits.get(..length).unwrap_or_default(), 10)), semicolon(2 + length)))
        }
        _ => {
            let length = run(after, u8::is_ascii_alphanumeric);
            let name = after.get(..length)?;
            let ended = rest.get(1 + length) == Some(&b';');
            let character = match name {
                b"amp" | b"AMP" => Some('&'),
                b"lt" | b"LT" => Some('<'),
                b"gt" | b"GT" => Some('>'),
                b"quot" | b"QUOT" => Some('"'),
                b"apos" if ended => Some('\''),
                // Two thousand more names, slashes and colons among them, which an old browser does not know.
                [_, ..] if ended => return Some((None, 2 + length)),
                _ => return None,
            };
            // `&amp=` and `&ampx` are not references in an attribute.
            let stands = ended || rest.get(1 + length) != Some(&b'=');
            stands.then(|| (character, semicolon(1 + length)))
        }
    }
}

/// The text of the pieces; what is no character is read from its bytes as far as it goes.
pub(super) fn text(raw: &[u8], pieces: &[Piece]) -> String {
    let mut out = String::with_capacity(pieces.len());
    for piece in pieces {
        match piece.character {
            Some(character) => out.push(character),
            None => out.push_str(&String::from_utf8_lossy(raw.get(piece.start..piece.end).unwrap_or_default())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &[u8], encoding: &'static Encoding) -> String {
        let pieces = pieces(raw, Reading::As(encoding), true).unwrap();
        pieces.iter().map(|p| p.character.unwrap_or('\u{FFFD}')).collect()
    }

    #[test]
    fn references_are_read_as_a_browser_reads_them_in_an_attribute() {
        for (raw, text) in [
            ("a&amp;b", "a&b"),
            ("a&ampb=1", "a&ampb=1"),
            ("a&amp=1", "a&amp=1"),
            ("a&amp", "a&"),
            ("a&b=1&copy=2", "a&b=1&copy=2"),
            ("&#47;&#x2F;&#x2f&#47", "////"),
            ("&#x;&#;&;&", "&#x;&#;&;&"),
            ("&sol;", "\u{FFFD}"),
            ("&#99999999999;", "\u{FFFD}"),
        ] {
            assert_eq!(read(raw.as_bytes(), UTF_8), text, "{raw}");
        }
    }

    #[test]
    fn a_second_byte_is_no_ascii_character() {
        assert_eq!(read(b"\x95\x5C/\x83\x7D", SHIFT_JIS), "表/マ");
        assert_eq!(read(b"\xB1\xB2", SHIFT_JIS), "ｱｲ");
        assert_eq!(read(b"\xC9\xBD/\x8E\xB1", EUC_JP), "表/ｱ");
        assert_eq!(read(b"\x1B$BI=\x1B(B/", ISO_2022_JP), "表/");
        assert_eq!(read(b"\x1B$BI=\x1B(B/", SHIFT_JIS), "\x1B$BI=\x1B(B/");
        assert_eq!(read(b"\xF9\x9F?", SHIFT_JIS).chars().count(), 2, "an emoji is one character");
        assert_eq!(read(b"x\x81", SHIFT_JIS), "x\u{FFFD}");
        assert_eq!(read(b"x\x81?", SHIFT_JIS), "x\u{FFFD}?");
    }
}
