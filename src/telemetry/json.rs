//! JSON of which every line is printable ASCII, whatever a stranger put into a field.

use std::io;

use serde::Serialize as _;
use serde_json::ser::Formatter;

/// Escapes everything but printable ASCII, so that neither a line feed nor a terminal's control sequence (C0, DEL, C1)
/// nor a bidirectional override comes out of a log as itself.
pub(super) struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let printable = |b: u8| matches!(b, b' '..=b'~');
        if fragment.bytes().all(printable) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            match u8::try_from(character) {
                Ok(byte) if printable(byte) => writer.write_all(&[byte])?,
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Adds `text`, quoted. Most of it needs no escape, and is copied as it is.
pub(super) fn string(line: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    } else {
        // Strings always serialise, and a Vec takes every write.
        let _ = text.serialize(&mut serde_json::Serializer::with_formatter(line, Ascii));
    }
}

/// Adds a number. Without `fmt`, which costs more than the rest of a line.
pub(super) fn number(line: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut from, mut rest) = (digits.len(), number);
    for digit in digits.iter_mut().rev() {
        // Below ten.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (from, rest) = (from - 1, rest / 10);
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// The beginning of `text`, at most `bytes` long.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        text.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Ascii)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_largest_and_the_smallest_number_have_room() {
        let mut line = Vec::new();
        number(&mut line, 0);
        number(&mut line, u64::MAX);
        assert_eq!(line, b"018446744073709551615");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            written("a\n\u{1b}[2J\u{7f}\u{9b}\u{202e}関𝄞\"\\"),
            "\"a\\n\\u001b[2J\\u007f\\u009b\\u202e\\u95a2\\ud834\\udd1e\\\"\\\\\""
        );
    }

    proptest! {
        #[test]
        fn every_text_becomes_one_printable_line_and_reads_back(text in any::<String>()) {
            let line = written(&text);
            prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(&serde_json::from_str::<String>(&line).unwrap(), &text);
            let mut added = b"x".to_vec();
            string(&mut added, &text);
            prop_assert_eq!(added.strip_prefix(b"x"), Some(line.as_bytes()));
        }

        #[test]
        fn every_number_is_written_as_the_standard_library_writes_it(any in any::<u64>(), shift in 0_u32..64) {
            let mut line = b"x".to_vec();
            number(&mut line, any >> shift);
            prop_assert_eq!(line, format!("x{}", any >> shift).into_bytes());
        }

        #[test]
        fn a_beginning_is_a_prefix_within_its_bound(text in any::<String>(), bytes in 0_usize..20) {
            let kept = beginning(&text, bytes);
            prop_assert!(kept.len() <= bytes && text.starts_with(kept));
        }
    }
}
