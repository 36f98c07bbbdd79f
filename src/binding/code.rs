//! The one-time enrolment code: what it looks like, how it is drawn and read.

use std::fmt::Write as _;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::entropy::{Entropy, random};

/// Digits of a code.
const DIGITS: usize = 12;
/// Digits that select the code; the rest is secret.
const SELECTOR_DIGITS: usize = 4;
/// One more than the largest code.
const CODES: u64 = 1_000_000_000_000;
/// Most characters of typed text that are looked at.
const MOST_TYPED: usize = 64;

/// Twelve decimal digits, of which the first four select the code and eight are secret.
///
/// Wiped on drop. Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct EnrolmentCode(Zeroizing<String>);

impl EnrolmentCode {
    /// How long a code may be used.
    pub const LIFETIME: Duration = Duration::from_mins(10);

    /// A fresh code, uniform over all 10^12: draws of 40 bits are rejected until one falls below.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        loop {
            let drawn = Zeroizing::new(random::<5>(entropy));
            let number = drawn.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            if number < CODES {
                let mut digits = Zeroizing::new(String::with_capacity(DIGITS));
                write!(digits, "{number:012}").unwrap_or_else(|_| unreachable!("a string takes what is written"));
                return Self(digits);
            }
        }
    }

    /// What a person typed: spaces, hyphens and what Japanese keyboards give for them, and full-width digits are
    /// forgiven. `None` if that does not leave twelve digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Exact capacity, never exceeded: a string that grows would leave an unwiped copy behind.
        let mut digits = Zeroizing::new(String::with_capacity(DIGITS));
        for (at, typed) in text.chars().enumerate() {
            if at == MOST_TYPED {
                return None;
            }
            if let Some(digit) = digit(typed) {
                if digits.len() == DIGITS {
                    return None;
                }
                digits.push(digit);
            } else if !is_separator(typed) {
                return None;
            }
        }
        (digits.len() == DIGITS).then_some(Self(digits))
    }

    /// The four digits that select the code; not secret.
    #[must_use]
    pub fn selector(&self) -> &str {
        self.0.get(..SELECTOR_DIGITS).unwrap_or_default()
    }

    /// `1234-5678-9012`, for the one time it is shown.
    #[must_use]
    pub fn expose_grouped(&self) -> String {
        self.0.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
    }

    /// The 12 digits. Every use is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn digit(typed: char) -> Option<char> {
    match typed {
        '0'..='9' => Some(typed),
        '０'..='９' => char::from_digit(u32::from(typed) - u32::from('０'), 10),
        _ => None,
    }
}

/// White space, hyphens, dashes, the minus sign and the long-vowel marks that kana input puts in their place.
fn is_separator(typed: char) -> bool {
    typed.is_whitespace()
        || matches!(typed, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}' | '\u{30fc}' | '\u{ff70}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::entropy::SeededEntropy;

    assert_not_impl_any!(EnrolmentCode: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    /// Hands out what it is told to.
    struct Told(std::sync::Mutex<Vec<[u8; 5]>>);
    impl Entropy for Told {
        fn fill(&self, out: &mut [u8]) {
            out.copy_from_slice(&self.0.lock().unwrap().remove(0));
        }
    }

    #[test]
    fn draws_beyond_the_last_code_are_rejected() {
        let bytes = |number: u64| <[u8; 5]>::try_from(&number.to_be_bytes()[3..]).unwrap();
        for (draws, expected) in [
            (vec![0], "000000000000"),
            (vec![CODES - 1], "999999999999"),
            (vec![CODES, 42], "000000000042"),
            (vec![(1 << 40) - 1, CODES, 123_456_789_012], "123456789012"),
        ] {
            let told = Told(std::sync::Mutex::new(draws.into_iter().map(bytes).collect()));
            assert_eq!(EnrolmentCode::generate(&told).expose(), expected);
        }
    }

    #[test]
    fn codes_spread_over_all_selectors_evenly() {
        let entropy = SeededEntropy::new(11);
        let mut first_digit = [0_u32; 10];
        for _ in 0..10_000 {
            first_digit[usize::from(EnrolmentCode::generate(&entropy).selector().as_bytes()[0] - b'0')] += 1;
        }
        // Seven standard deviations.
        assert!(first_digit.iter().all(|count| (790..=1210).contains(count)), "{first_digit:?}");
    }

    #[test]
    fn what_people_type_is_read() {
        for text in [
            "012345678901",
            "0123-4567-8901",
            " 0123 4567 8901\r\n",
            "０１２３－４５６７－８９０１",
            "０１２３ー４５６７ー８９０１",
            "0123ｰ4567ｰ8901",
            "0123\u{3000}4567\u{2212}8901",
            "0-1-2-3-4-5-6-7-8-9-0-1",
        ] {
            assert_eq!(EnrolmentCode::parse(text).unwrap().expose(), "012345678901", "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            "01234567890",
            "0123456789012",
            "01234567890a",
            "0123.4567.8901",
            "+12345678901",
            "٠١٢٣٤٥٦٧٨٩٠١",
            "0123_4567_8901",
            &format!("{}012345678901", " ".repeat(64)),
        ] {
            assert!(EnrolmentCode::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(seed in any::<u64>()) {
            let code = EnrolmentCode::generate(&SeededEntropy::new(seed));
            let shown = code.expose_grouped();
            prop_assert_eq!(shown.len(), 14);
            let read = EnrolmentCode::parse(&shown).unwrap();
            prop_assert_eq!(read.expose(), code.expose());
            prop_assert_eq!(read.selector(), &shown[..4]);
        }

        #[test]
        fn no_text_upsets_the_reader(text in ".{0,80}") {
            if let Some(code) = EnrolmentCode::parse(&text) {
                prop_assert!(code.expose().len() == 12 && code.expose().bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }
}
