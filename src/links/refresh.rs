//! The URL in a `Refresh` field or a meta refresh.

use std::ops::Range;

use super::text::Piece;

/// Which pieces of a refresh value are its URL: `5; url=/next`, in all spellings that browsers take (HTML §4.2.5.3,
/// shared declarative refresh steps). `None` where the page itself is loaded again.
pub(super) fn url_of(pieces: &[Piece]) -> Option<Range<usize>> {
    let at = |index: usize| pieces.get(index).and_then(|piece| piece.character);
    let skip = |mut index: usize, of: fn(char) -> bool| {
        while at(index).is_some_and(of) {
            index += 1;
        }
        index
    };
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}');
    let start = skip(0, space);
    let number = skip(start, |c| c.is_ascii_digit() || c == '.');
    if number == start {
        return None;
    }
    let mut index = skip(number, space);
    if matches!(at(index), Some(';' | ',')) {
        index += 1;
    } else if index == number {
        return None;
    }
    index = skip(index, space);
    let named =
        "url".chars().enumerate().all(|(n, letter)| at(index + n).is_some_and(|c| c.eq_ignore_ascii_case(&letter)));
    if named {
        let equals = skip(index + 3, space);
        if at(equals) == Some('=') {
            index = skip(equals + 1, space);
        }
    }
    let quote = at(index).filter(|c| matches!(c, '"' | '\''));
    if quote.is_some() {
        index += 1;
    }
    let rest = pieces.get(index..)?;
    let length = quote.and_then(|_| rest.iter().position(|p| p.character == quote)).unwrap_or(rest.len());
    (length > 0).then_some(index..index + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::text::{Reading, pieces, text};

    #[test]
    fn the_url_is_found_in_every_spelling() {
        for (value, url) in [
            ("5; url=/next", Some("/next")),
            ("5;URL='/next'", Some("/next")),
            ("0;url=\"/a b\" x", Some("/a b")),
            (" 5 , Url = /next", Some("/next")),
            ("5 /next", Some("/next")),
            ("5;/next", Some("/next")),
            ("5.5;url='/next", Some("/next")),
            (".5; url=/next", Some("/next")),
            ("5; urlx", Some("urlx")),
            ("5; url", Some("url")),
            ("5", None),
            ("5;", None),
            ("5; url=", None),
            ("url=/next", None),
            ("5x; url=/next", None),
            ("", None),
        ] {
            let found = pieces(value.as_bytes(), Reading::Unsaid, true).unwrap();
            let got = url_of(&found).map(|range| text(value.as_bytes(), &found[range]));
            assert_eq!(got.as_deref(), url, "{value:?}");
        }
    }
}
