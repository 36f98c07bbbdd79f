//! Days that somebody types, for every command that takes some.

use form_urlencoded::Serializer;

use crate::clock::Day;

/// Reads `YYYY-MM-DD`.
///
/// # Errors
/// What a day has to look like.
pub(super) fn day(text: &str) -> Result<Day, &'static str> {
    Day::parse(text).ok_or("must be a day, YYYY-MM-DD")
}

/// The query that asks the admin API for a span of days, either end of which may be left open.
pub(super) fn span(from: Option<Day>, to: Option<Day>) -> String {
    let mut query = Serializer::new(String::new());
    for (name, day) in [("from", from), ("to", to)] {
        if let Some(day) = day {
            query.append_pair(name, &day.to_string());
        }
    }
    query.finish()
}
