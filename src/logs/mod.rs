//! Log files by day (UTC), in clear or sealed: written, put aside when the day is over, erased, read back.
//!
//! In: whole lines and the day that they belong to. Out: a file under the configured name for the present day, and one each
//! for the days before, behind whose name the day stands. A sealed file is made of records, each a line of text, under a key
//! of the day; once that key is destroyed no copy of them opens any more. Absent on purpose: what stands in a line, who may
//! read it, and any clock.

mod day_file;
mod days;
#[cfg(fuzzing)]
pub mod fuzz;
mod reader;
mod record;
mod seal;
mod whole;

pub use day_file::{DayFile, FileState};
pub use days::{days_put_aside, erase_days};
pub use reader::{Finding, FindingKind, Found, KeyOfDay, SealedLine, SealedReader};
pub use record::MOST_LINE_BYTES;
pub use seal::{Seal, days_ahead};
pub use whole::{End, Lost};
