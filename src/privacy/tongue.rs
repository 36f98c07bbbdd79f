//! Texts in the languages that people are told things in.

/// A text in the languages of handsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// English.
    pub en: &'static str,
    /// Japanese, in characters that `Shift_JIS` has.
    pub ja: &'static str,
}

/// In which language something is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tongue {
    /// English.
    #[default]
    English,
    /// Japanese.
    Japanese,
}

impl Tongue {
    /// The tag (BCP 47).
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Japanese => "ja",
        }
    }

    /// Reads a tag.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        [Self::English, Self::Japanese].into_iter().find(|tongue| tongue.tag() == tag)
    }
}

impl Text {
    /// The text in that language.
    #[must_use]
    pub const fn say(self, tongue: Tongue) -> &'static str {
        match tongue {
            Tongue::English => self.en,
            Tongue::Japanese => self.ja,
        }
    }
}
