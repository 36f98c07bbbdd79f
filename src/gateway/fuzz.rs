//! What fuzz targets call of the private parsers; compiled for them alone (`--cfg fuzzing`, which cargo-fuzz sets).

use super::form::Form;
use super::local_path::{LocalPath, Room};
use crate::carrier::Charset;

/// Where a sign-in with this `to` would lead.
#[must_use]
pub fn local_path(to: &str) -> String {
    LocalPath::parse(to).as_str().to_owned()
}

/// Where a sign-in would lead that was asked for at this path and query.
#[must_use]
pub fn wanted_path(path: &str, query: Option<&str>) -> String {
    LocalPath::of_request(path, query, Room::of(512, 24, Some(("guid", "ON")), false)).as_str().to_owned()
}

/// The first field `name` of a posted form, as read from a page in each of the charsets.
#[must_use]
pub fn form_field(body: &[u8], name: &str) -> [String; 3] {
    [Charset::ShiftJis, Charset::EucJp, Charset::Utf8].map(|charset| Form::parse(body, charset).field(name).to_owned())
}
