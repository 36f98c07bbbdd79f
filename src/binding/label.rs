//! What a person calls a handset, so that they know which one it is.

use std::fmt;

use thiserror::Error;

/// Most characters of a label: as many as stand in one line of a small screen.
const MOST_CHARACTERS: usize = 20;
/// Most digits of a label, in any script: more could be a number that reaches somebody.
const MOST_DIGITS: usize = 4;

/// The label of a handset: 1 to 20 visible characters, nothing that reads as a telephone number or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Box<str>);

/// Why a text is no label. Never repeats the text: it may be somebody's telephone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LabelError {
    /// Empty, too long, or with characters that cannot be seen.
    #[error("a label is 1 to 20 visible characters")]
    Syntax,
    /// More digits than four, or the sign of an address.
    #[error("a label must not hold a telephone number or an address: four digits at most, and neither @ nor ://")]
    Personal,
}

impl Label {
    /// Reads a label. White space around it is dropped, and becomes one space within.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() || text.chars().count() > MOST_CHARACTERS || text.chars().any(is_unseen) {
            return Err(LabelError::Syntax);
        }
        let digits = text.chars().filter(|c| is_digit(*c)).count();
        let address = text.contains(['@', '＠', '﹫']) || text.contains("://");
        if digits > MOST_DIGITS || address { Err(LabelError::Personal) } else { Ok(Self(text.into())) }
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digit as people write them: of any script, in circles or brackets, or as a Chinese character.
fn is_digit(c: char) -> bool {
    c.is_numeric() || "〇零一二三四五六七八九".contains(c)
}

/// Controls, what turns the reading direction or joins characters unseen (Unicode `Cf`), fillers, and characters that
/// everybody may use as they like.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{115f}' | '\u{1160}'
                | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_calls_a_handset_passes() {
        for (text, read) in [
            ("work phone", "work phone"),
            ("  二台目　P07A3 ", "二台目 P07A3"),
            ("🚲 2号", "🚲 2号"),
            ("<b>&'\"", "<b>&'\""),
            ("あいうえおかきくけこさしすせそたちつてと", "あいうえおかきくけこさしすせそたちつてと"),
            ("1234", "1234"),
        ] {
            assert_eq!(Label::parse(text).unwrap().as_str(), read);
        }
    }

    #[test]
    fn numbers_and_addresses_do_not() {
        for text in [
            "09012345678",
            "090-1234-5678",
            "tel 12345",
            "０９０１２３４５６７８",
            "〇九〇一二三",
            "①②③④⑤",
            "a@b",
            "a＠b",
            "http://x",
            "1 2 3 4 5",
        ] {
            assert_eq!(Label::parse(text), Err(LabelError::Personal), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_seen_does_not() {
        for text in ["", " ", "\u{3000}", "a\u{202e}b", "a\u{200b}", "a\0b", "\u{e63e}", "\u{2800}", &"あ".repeat(21)]
        {
            assert_eq!(Label::parse(text), Err(LabelError::Syntax), "{text:?}");
        }
    }
}
