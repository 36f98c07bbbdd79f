//! `"30m"` and `"10/1m"`.

use std::time::Duration;

use thiserror::Error;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// No setting needs more than a century; the cap keeps `now + duration` far from overflow.
const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;

/// `count` events in `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events.
    pub count: u32,
    /// In this time.
    pub period: Duration,
}

/// Why a text is no duration or rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum DurationError {
    #[error("a duration is a whole number and a unit, such as \"500ms\", \"15s\", \"30m\", \"12h\" or \"400d\"")]
    Syntax,
    #[error("must be longer than nothing")]
    Zero,
    #[error("is longer than 36500d")]
    TooLong,
    #[error("a rate is a count of 1 to 1000000 and a duration, such as \"10/1m\"")]
    Rate,
}

/// Reads a duration: a whole number and one unit of `ms`, `s`, `m`, `h`, `d`; never zero.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Syntax)?;
    if number.is_empty() {
        return Err(DurationError::Syntax);
    }
    let count: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    match count.checked_mul(*millis) {
        Some(0) => Err(DurationError::Zero),
        Some(total) if total <= LONGEST_MILLIS => Ok(Duration::from_millis(total)),
        _ => Err(DurationError::TooLong),
    }
}

/// Reads a rate: `COUNT/DURATION`.
pub(super) fn parse_rate(text: &str) -> Result<Rate, DurationError> {
    let (count, period) = text.split_once('/').ok_or(DurationError::Rate)?;
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::Rate);
    }
    let count = count.parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or(DurationError::Rate)?;
    Ok(Rate { count, period: parse(period)? })
}

/// A duration as one would write it: in the largest unit that holds it whole.
pub(super) fn text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = UNITS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(&UNITS[0]);
    format!("{}{name}", millis / unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (written, millis) in
            [("500ms", 500), ("15s", 15_000), ("30m", 1_800_000), ("12h", 43_200_000), ("400d", 34_560_000_000)]
        {
            assert_eq!(parse(written), Ok(Duration::from_millis(millis)), "{written}");
            assert_eq!(text(Duration::from_millis(millis)), written);
        }
        for written in ["", "30", "m", "30 m", "-1s", "+1s", "1.5h", "1h30m", "30M", "１s", "1w", "s1"] {
            assert_eq!(parse(written), Err(DurationError::Syntax), "{written:?}");
        }
        assert_eq!(parse("0s"), Err(DurationError::Zero));
        for written in ["36501d", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(parse(written), Err(DurationError::TooLong), "{written}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("10/1m"), Ok(Rate { count: 10, period: Duration::from_mins(1) }));
        for (written, error) in [
            ("10", DurationError::Rate),
            ("/1m", DurationError::Rate),
            ("0/1m", DurationError::Rate),
            ("+1/1m", DurationError::Rate),
            ("1000001/1m", DurationError::Rate),
            ("10/m", DurationError::Syntax),
            ("10/0s", DurationError::Zero),
        ] {
            assert_eq!(parse_rate(written), Err(error), "{written}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 1..=LONGEST_MILLIS) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&text(duration)), Ok(duration));
        }

        #[test]
        fn no_text_is_a_panic(written in ".*") {
            let _ = (parse(&written), parse_rate(&written));
        }
    }
}
