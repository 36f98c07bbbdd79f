//! The security stream in a file of its own, by day, so that its retention can be kept here.
//!
//! There is one log a process, so there is one such file, or none: then its lines go with the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::metrics::Metrics;
use super::queue::{LineQueue, WhenFull};
use crate::clock::Day;
use crate::config::{LogConfig, SecurityLog};
use crate::logs::{DayFile, FileState};

static IN_USE: ArcSwapOption<SecurityFile> = ArcSwapOption::const_empty();

struct SecurityFile {
    queue: Arc<LineQueue>,
    state: Arc<FileState>,
}

/// The place that the lines go to once the configuration that names it is in force.
#[must_use = "lines go on to the place before"]
pub struct SecurityRedirection(Option<(DayFile, Arc<LineQueue>)>);

/// Opens the file that `log` names; one that exists is appended to, one that does not is made with mode 0640.
///
/// # Errors
/// What the system says of the file; then nothing has changed.
pub fn open_security_log(log: &LogConfig, metrics: &Metrics) -> io::Result<SecurityRedirection> {
    let SecurityLog::File(path) = &log.security else { return Ok(SecurityRedirection(None)) };
    let file = DayFile::open(path, None)?;
    let queue = if let Some(before) = &*IN_USE.load() {
        Arc::clone(&before.queue)
    } else {
        // Nobody writes to this one: `file` takes its place before the first line.
        let first = DayFile::open(path, None)?;
        Arc::new(LineQueue::start(Box::new(first), Duration::ZERO, metrics.lines_lost("security"))?)
    };
    Ok(SecurityRedirection(Some((file, queue))))
}

impl SecurityRedirection {
    /// Has the lines go there. What waits for a file that no configuration names any more is written to it first.
    pub fn take_effect(self) {
        IN_USE.store(self.0.map(|(file, queue)| {
            let state = file.state();
            queue.redirect(Box::new(file));
            Arc::new(SecurityFile { queue, state })
        }));
    }
}

/// Writes a line of `day`, its line feed included. Whether there is a file.
///
/// It waits up to a second for room, as the other streams do: whoever can flood the log must not be able to hide in it.
pub(super) fn write(day: Day, line: &[u8]) -> bool {
    let file = IN_USE.load_full();
    if let Some(file) = &file {
        file.queue.push(day, line, WhenFull::Wait);
    }
    file.is_some()
}

/// Closes the file, once what waits for it is written.
pub(super) fn close() {
    IN_USE.store(None);
}

/// What puts aside the lines of days before `today` that are still in the file, and waits for that; `None` where there are
/// none. Blocks for a second at most.
#[must_use]
pub fn security_day_over(today: Day) -> Option<impl FnOnce() + Send + 'static> {
    let file = IN_USE.load_full().filter(|file| file.state.is_behind(today))?;
    Some(move || file.queue.settle(today))
}

/// What keeps lines from being written, or those of a day before from being erased in time.
#[must_use]
pub fn security_log_trouble() -> Option<&'static str> {
    let file = IN_USE.load_full()?;
    (!file.state.is_sound()).then_some("lines were lost, or a day could not be put aside; the log says why")
}

/// Finds what [`open_security_log`] would say of the file, changes nothing.
///
/// # Errors
/// What the system says of the file, or of the folder that it would be made in.
pub fn probe_security_log(log: &LogConfig) -> io::Result<()> {
    if let SecurityLog::File(path) = &log.security { DayFile::probe(path) } else { Ok(()) }
}
