//! The port of statistics: how many, on which day, of which carrier; never who.

use async_trait::async_trait;

use super::StoreError;
use crate::carrier::CarrierName;
use crate::clock::Day;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counted {
    /// A bound handset signed in.
    SignIn,
    /// A handset was bound.
    Enrolment,
    /// A request was refused.
    Refusal,
}

impl Counted {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SignIn, Self::Enrolment, Self::Refusal];

    /// The word used in stores and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Enrolment => "enrolment",
            Self::Refusal => "refusal",
        }
    }
}

/// How many of a kind there were on a day from a carrier's networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// The day, UTC.
    pub day: Day,
    /// The carrier profile.
    pub carrier: CarrierName,
    /// Of what.
    pub kind: Counted,
    /// How many.
    pub count: u64,
}

/// Statistics. May live apart from all other ports.
///
/// 76. **Added.** A count that is added to one that is there becomes their sum; all of a call are added, or none.
/// 77. **Gone.** Days that were erased are in no later answer, and leave nothing in the medium.
#[async_trait]
pub trait StatisticsStore: Send + Sync + 'static {
    /// Adds counts.
    async fn add_counts(&self, counts: Vec<DayCount>) -> Result<(), StoreError>;

    /// The counts of the days from `from` to `to`, both included, by day, carrier and kind.
    async fn counts(&self, from: Day, to: Day) -> Result<Vec<DayCount>, StoreError>;

    /// The first day of which there is a count.
    async fn first_counted(&self) -> Result<Option<Day>, StoreError>;

    /// How many rows there are of days before `before`.
    async fn counted_before(&self, before: Day) -> Result<u64, StoreError>;

    /// Erases the counts of days before `before`. Returns how many there were.
    async fn erase_counts(&self, before: Day) -> Result<u64, StoreError>;
}
