//! A number that every request counts up, without its threads meeting there.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;

use prometheus_client::metrics::counter::Atomic;

/// Threads that have a cell of their own: a worker a core, and who writes the store, the logs and the audit trail.
static THREADS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from) + 4);

/// Cells that were given out.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// The cell that all threads share which came too late for one.
const SHARED: usize = 0;

thread_local! {
    /// This thread's cell in each of these numbers; nobody gets it again.
    static CELL: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The sum of what each thread counted.
///
/// One number for all would be a locked instruction a request, and on many cores a line of memory that goes from one to the next: who has
/// a cell alone adds by a load and a store.
#[derive(Debug)]
pub(super) struct Spread(Box<[Line]>);

/// As much as a core takes from another at once.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Default for Spread {
    fn default() -> Self {
        Self((0..=*THREADS).map(|_| Line::default()).collect())
    }
}

impl Spread {
    pub(super) fn add(&self, count: u64) {
        self.add_in(CELL.get().unwrap_or_else(a_cell), count);
    }

    fn add_in(&self, own: usize, count: u64) {
        match self.0.get(own) {
            Some(Line(cell)) if own != SHARED => cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed),
            Some(Line(shared)) => {
                shared.fetch_add(count, Relaxed);
            }
            None => {}
        }
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, Line(cell)| sum.wrapping_add(cell.load(Relaxed)))
    }
}

#[cold]
fn a_cell() -> usize {
    let given = GIVEN.fetch_add(1, Relaxed).saturating_add(1);
    let cell = if given > *THREADS { SHARED } else { given };
    CELL.set(Some(cell));
    cell
}

/// For a counter of the library. What its methods give back is the sum after.
impl Atomic<u64> for Spread {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    fn inc_by(&self, count: u64) -> u64 {
        self.add(count);
        self.sum()
    }

    fn get(&self) -> u64 {
        self.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_however_many_threads_count() {
        let counts: [Spread; 3] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..*THREADS * 2 {
                let counts = &counts;
                scope.spawn(move || {
                    let cell = if thread < *THREADS { thread + 1 } else { SHARED };
                    for count in 0..1000 {
                        counts[0].add(1);
                        counts[1].add(count);
                        // Others that are tested here may have the cells.
                        counts[2].add_in(cell, count);
                    }
                });
            }
        });
        let threads = *THREADS as u64 * 2;
        assert_eq!(counts.each_ref().map(Spread::sum), [threads * 1000, threads * 499_500, threads * 499_500]);
    }
}
