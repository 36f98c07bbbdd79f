//! Statistics in which nobody is recognised: counts of a day, a carrier and an outcome, small ones withheld.
//!
//! What is shown of a day is a function of that day's counts alone, whatever range is asked for, so that ranges asked one after
//! the other have no differences to read. A day that is not over is shown in steps of the floor. A count under the floor,
//! nought included, is withheld; where that leaves one count of a day that is not nought, which whoever knows the day's sum
//! could work out, the smallest shown one is withheld as well. There are no sums over days.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::carrier::CarrierName;
use crate::clock::Day;
use crate::store::{Counted, DayCount, StatisticsStore, StoreError};

/// Most days of one answer.
pub const MOST_DAYS: u32 = 400;

/// What was counted and waits to be written.
pub struct Statistics {
    store: Arc<dyn StatisticsStore>,
    waiting: Mutex<BTreeMap<(Day, CarrierName, Counted), u64>>,
    /// Held while counts are on their way into the store: whoever reads waits for them.
    writing: tokio::sync::Mutex<()>,
}

/// One cell as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCount {
    /// The day.
    pub day: Day,
    /// The carrier.
    pub carrier: CarrierName,
    /// Of what.
    pub kind: Counted,
    /// How many; `None` is withheld.
    pub count: Option<u64>,
    /// Whether the day is not over, so that the count is in steps of the floor.
    pub open: bool,
}

impl Statistics {
    /// Counts into `store`.
    #[must_use]
    pub fn new(store: Arc<dyn StatisticsStore>) -> Self {
        Self { store, waiting: Mutex::default(), writing: tokio::sync::Mutex::default() }
    }

    /// One more.
    pub fn count(&self, kind: Counted, carrier: &CarrierName, day: Day) {
        *self.waiting().entry((day, carrier.clone(), kind)).or_default() += 1;
    }

    /// Writes what was counted. What the store refused is kept for the next time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().await;
        let taken = std::mem::take(&mut *self.waiting());
        if taken.is_empty() {
            return Ok(());
        }
        let count = |((day, carrier, kind), count): (&(Day, CarrierName, Counted), &u64)| DayCount {
            day: *day,
            carrier: carrier.clone(),
            kind: *kind,
            count: *count,
        };
        let written = self.store.add_counts(taken.iter().map(count).collect()).await;
        if written.is_err() {
            let mut waiting = self.waiting();
            for (key, count) in taken {
                *waiting.entry(key).or_default() += count;
            }
        }
        written
    }

    /// What may be shown of the days from `from` to `to`, for these carriers and those that were counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shown(
        &self,
        (from, to): (Day, Day),
        carriers: &[CarrierName],
        floor: u64,
        today: Day,
    ) -> Result<Vec<ShownCount>, StoreError> {
        self.flush().await?;
        let first = self.store.first_counted().await?.unwrap_or(today);
        let (from, to) = (from.max(first), to.min(today));
        let counts = self.store.counts(from, to).await?;
        Ok(shown(&counts, (from, to), carriers, floor, today))
    }

    /// How many rows [`Statistics::erase`] would erase.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self, before: Day) -> Result<u64, StoreError> {
        self.store.counted_before(before).await
    }

    /// Erases days before `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erase(&self, before: Day) -> Result<u64, StoreError> {
        self.store.erase_counts(before).await
    }

    /// Nothing panics while it holds the lock.
    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Day, CarrierName, Counted), u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every cell of the range. Cells that are not in `counts` are noughts, and shown as any other small count.
fn shown(
    counts: &[DayCount],
    (from, to): (Day, Day),
    carriers: &[CarrierName],
    floor: u64,
    today: Day,
) -> Vec<ShownCount> {
    // A carrier of the configuration that was not counted is shown as one with a few: a missing cell tells nothing.
    let names: BTreeSet<&CarrierName> = carriers.iter().chain(counts.iter().map(|count| &count.carrier)).collect();
    let known: BTreeMap<(Day, &CarrierName, Counted), u64> =
        counts.iter().map(|count| ((count.day, &count.carrier, count.kind), count.count)).collect();
    let mut all = Vec::new();
    for day in (from.unix_days()..=to.unix_days()).map(Day::from_unix_days) {
        for kind in Counted::ALL {
            let open = day >= today;
            let cell = |carrier: &&CarrierName| {
                let count = known.get(&(day, *carrier, kind)).copied().unwrap_or(0);
                let count = if open { count / floor.max(1) * floor.max(1) } else { count };
                ShownCount { day, carrier: (*carrier).clone(), kind, count: (count >= floor).then_some(count), open }
            };
            let mut row: Vec<ShownCount> = names.iter().map(cell).collect();
            // Of a finished day only what is not nought is a secret: who knows the sum may know which carriers there were.
            // Of an open one every withheld cell is, or the first sign-in of a carrier would be seen in another's cell.
            let secret = |shown: &&ShownCount| {
                shown.count.is_none() && (open || known.contains_key(&(day, &shown.carrier, kind)))
            };
            if row.iter().filter(secret).count() == 1 {
                withhold_smallest(&mut row);
            }
            all.extend(row);
        }
    }
    all
}

/// One withheld cell alone could be worked out from a sum that somebody knows: the smallest shown one goes with it.
fn withhold_smallest(row: &mut [ShownCount]) {
    if let Some(smallest) = row.iter_mut().filter(|cell| cell.count.is_some()).min_by_key(|cell| cell.count) {
        smallest.count = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOOR: u64 = 10;
    const TODAY: Day = Day::from_unix_days(20_781);

    fn name(text: &str) -> CarrierName {
        CarrierName::parse(text).unwrap()
    }

    fn carriers() -> Vec<CarrierName> {
        ["au", "docomo", "softbank"].map(name).into()
    }

    fn count(ago: i32, carrier: &str, count: u64) -> DayCount {
        let day = Day::from_unix_days(TODAY.unix_days() - ago);
        DayCount { day, carrier: name(carrier), kind: Counted::SignIn, count }
    }

    fn sign_ins(counts: &[DayCount], from: i32, to: i32) -> Vec<(i32, String, Option<u64>)> {
        let day = |ago| Day::from_unix_days(TODAY.unix_days() - ago);
        let cells = shown(counts, (day(from), day(to)), &carriers(), FLOOR, TODAY);
        let ago = |cell: &ShownCount| TODAY.unix_days() - cell.day.unix_days();
        let cells = cells.iter().filter(|cell| cell.kind == Counted::SignIn);
        cells.map(|cell| (ago(cell), cell.carrier.to_string(), cell.count)).collect()
    }

    fn cell(ago: i32, carrier: &str, count: Option<u64>) -> (i32, String, Option<u64>) {
        (ago, carrier.to_owned(), count)
    }

    #[test]
    fn small_counts_and_a_complement_are_withheld() {
        let counts = [
            count(3, "docomo", 40),
            count(3, "au", 25),
            count(3, "softbank", 9),
            count(2, "docomo", 40),
            count(2, "au", 25),
            count(2, "softbank", 10),
            count(1, "docomo", 40),
        ];
        assert_eq!(
            sign_ins(&counts, 3, 1),
            [
                cell(3, "au", None), // with softbank's, which alone could be worked out
                cell(3, "docomo", Some(40)),
                cell(3, "softbank", None),
                cell(2, "au", Some(25)),
                cell(2, "docomo", Some(40)),
                cell(2, "softbank", Some(10)),
                cell(1, "au", None), // nought and a few look the same
                cell(1, "docomo", Some(40)),
                cell(1, "softbank", None),
            ]
        );
    }

    #[test]
    fn a_day_that_is_not_over_moves_in_steps() {
        for (there, expected) in [(0, None), (9, None), (10, Some(10)), (11, Some(10)), (19, Some(10)), (20, Some(20))]
        {
            let counts = ["au", "docomo", "softbank"].map(|carrier| count(0, carrier, there));
            assert!(sign_ins(&counts, 0, 0).iter().all(|cell| cell.2 == expected), "{there}");
        }
    }

    proptest! {
        /// The differencing attack: whoever asks for all ranges, one after the other, and knows the sum of a day and which
        /// carriers had none besides, tells no withheld count.
        #[test]
        fn differences_of_ranges_tell_nothing(days in proptest::collection::vec([0_u64..30, 0..30, 0..30], 1..6)) {
            let last = i32::try_from(days.len()).unwrap();
            let mut counts = Vec::new();
            for (ago, row) in (1..).zip(&days) {
                let there = ["au", "docomo", "softbank"].iter().zip(row).filter(|(_, n)| **n > 0);
                counts.extend(there.map(|(name, n)| count(ago, name, *n)));
            }
            let whole = sign_ins(&counts, last, 1);
            // A cell is the same in every range that has it.
            for from in 1..=last {
                for to in 1..=from {
                    for cell in sign_ins(&counts, from, to) {
                        prop_assert!(whole.contains(&cell));
                    }
                }
            }
            for (ago, row) in (1..).zip(&days) {
                let shown: Vec<_> = whole.iter().filter(|cell| cell.0 == ago).map(|cell| cell.2).collect();
                prop_assert!(shown.iter().flatten().all(|count| *count >= FLOOR));
                // What the sum of the day leaves to the withheld cells is shared by two that are not nought, or is all of
                // that sum, which is shown nowhere.
                let secrets = shown.iter().zip(row).filter(|(count, there)| count.is_none() && **there > 0).count();
                prop_assert!(secrets != 1 || shown.iter().all(Option::is_none));
            }
        }

        /// One sign-in more on an open day is seen in no cell, or in a step of the floor.
        #[test]
        fn one_more_is_never_a_difference_of_one(there in 0_u64..100, others in 0_u64..40) {
            // Of one carrier, whatever the others have.
            let at = |here| {
                let counts = [count(0, "au", here), count(0, "docomo", others), count(0, "softbank", others)];
                let counts: Vec<_> = counts.into_iter().filter(|count| count.count > 0).collect();
                sign_ins(&counts, 0, 0)
            };
            for (before, after) in at(there).into_iter().zip(at(there + 1)) {
                let (before, after) = (before.2.unwrap_or(0), after.2.unwrap_or(0));
                let crossed = (there + 1).is_multiple_of(FLOOR);
                prop_assert!(after == before || crossed);
            }
        }
    }
}
