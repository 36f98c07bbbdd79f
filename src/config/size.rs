//! `"16KiB"`.

use thiserror::Error;

const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum SizeError {
    #[error("a size is a whole number and a unit, such as \"512B\", \"16KiB\", \"16MiB\" or \"1GiB\"")]
    Syntax,
    #[error("is too large")]
    TooLarge,
}

/// Reads a size in bytes: a whole number and one unit of `B`, `KiB`, `MiB`, `GiB`.
pub(super) fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SizeError::Syntax)?;
    if number.is_empty() {
        return Err(SizeError::Syntax);
    }
    let count: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    count.checked_mul(*bytes).ok_or(SizeError::TooLarge)
}

/// A size as one would write it: in the largest unit that holds it whole.
pub(super) fn text(bytes: u64) -> String {
    let whole = UNITS.iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(&UNITS[0]);
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (written, bytes) in [("512B", 512), ("16KiB", 16_384), ("19MiB", 19_922_944), ("1GiB", 1 << 30)] {
            assert_eq!(parse(written), Ok(bytes), "{written}");
            assert_eq!(text(bytes), written);
        }
        assert_eq!(parse("0B"), Ok(0));
        for written in ["", "16", "KiB", "16 KiB", "16KB", "16kib", "-1B", "1.5MiB"] {
            assert_eq!(parse(written), Err(SizeError::Syntax), "{written:?}");
        }
        for written in ["99999999999999999999B", "18446744073709551615GiB"] {
            assert_eq!(parse(written), Err(SizeError::TooLarge), "{written}");
        }
    }
}
