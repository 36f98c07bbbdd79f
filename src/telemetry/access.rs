//! The access stream: one line a request, cheap enough to leave on.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Version;

use super::client::ShownClient;
use super::common_log::{self, Told};
use super::json::{beginning, number, string};
use super::metrics::Metrics;
use super::queue::{LineQueue, WhenFull, Writer};
use super::stdout::Stdout;
use crate::carrier::CarrierName;
use crate::clock::{Day, Timestamp};
use crate::config::{AccessFormat, AccessLog, ClientAddressDetail, LogConfig, PrivacyConfig};
use crate::edge::ClientAddr;
use crate::entropy::Entropy;
use crate::keys::DayKey;
use crate::logs::{DayFile, FileState, Seal, days_ahead};

/// Bytes of a path that are kept; the rest would only be an attacker's.
const PATH_BYTES: usize = 512;
/// Bytes of a method that are kept; the longest registered one has 17.
const METHOD_BYTES: usize = 32;
/// How long lines gather before they are written together, and what a crash may cost.
const GATHER: Duration = Duration::from_millis(100);

/// What is written of one request.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// When it was answered.
    pub at: Timestamp,
    /// Its method.
    pub method: &'a str,
    /// Its path; anything from `?` on is cut off.
    pub path: &'a str,
    /// The protocol that it came by.
    pub version: Version,
    /// The status of the answer.
    pub status: u16,
    /// Who asked.
    pub client: Option<ClientAddr>,
    /// From the head's last byte until the head of the answer is ready; its body may stream on.
    pub duration: Duration,
    /// The carrier whose networks it came from.
    pub carrier: Option<&'a CarrierName>,
    /// As told to the upstream.
    pub request_id: &'a str,
}

/// The fields that a line of the stream has.
pub const ACCESS_FIELDS: &[&str] =
    &["time", "stream", "method", "path", "status", "client", "duration_us", "carrier", "request_id"];

/// Where the access stream goes under one configuration; shared by all workers. Dropping the last of those that share a
/// buffer writes what waits.
///
/// A line that finds the buffer full is dropped and counted (`sekisho_log_lines_lost_total{stream="access"}`): a slow
/// disk must not slow requests down.
pub struct AccessLogger {
    queue: Option<Arc<LineQueue>>,
    /// Of the file, where lines go to one.
    file: Option<Arc<FileState>>,
    /// Whether they are sealed.
    sealed: bool,
    seal: Arc<Seal>,
    detail: ClientAddressDetail,
    format: AccessFormat,
}

/// The place that lines go to once the configuration that names it is in force.
#[must_use = "lines go on to the place before"]
pub struct Redirection(Option<(Arc<LineQueue>, Writer)>);

impl Redirection {
    /// Has the lines of all configurations go there.
    pub fn take_effect(self) {
        if let Some((queue, writer)) = self.0 {
            queue.redirect(writer);
        }
    }
}

impl AccessLogger {
    /// Opens the stream. A file is appended to, and made with mode 0640. Where lines are sealed `entropy` names what is written
    /// under one key, and [`AccessLogger::keep_keys`] gives the keys: without, lines are lost.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn new(
        log: &LogConfig,
        privacy: &PrivacyConfig,
        metrics: &Metrics,
        entropy: Arc<dyn Entropy>,
    ) -> io::Result<Self> {
        let seal = Arc::new(Seal::new(entropy));
        let (writer, file) = open(log, &seal)?;
        let queue = writer.map(|writer| start(writer, metrics)).transpose()?;
        Ok(Self { queue, file, sealed: log.sealed, seal, detail: privacy.client_address, format: log.format })
    }

    /// The stream of the next configuration. A file is opened anew, also where its name is the same: it may have been
    /// moved away.
    ///
    /// # Errors
    /// What the system says of the file; then nothing has changed.
    pub fn next(&self, log: &LogConfig, privacy: &PrivacyConfig, metrics: &Metrics) -> io::Result<(Self, Redirection)> {
        let (writer, file) = open(log, &self.seal)?;
        let (queue, redirection) = match (&self.queue, writer) {
            (_, None) => (None, None),
            (None, Some(writer)) => (Some(start(writer, metrics)?), None),
            (Some(queue), Some(writer)) => (Some(Arc::clone(queue)), Some((Arc::clone(queue), writer))),
        };
        let (sealed, seal) = (log.sealed, Arc::clone(&self.seal));
        let next = Self { queue, file, sealed, seal, detail: privacy.client_address, format: log.format };
        Ok((next, Redirection(redirection)))
    }

    /// The days that no key is at hand for and one should be; none where lines are not sealed.
    #[must_use]
    pub fn days_without_key(&self, today: Day) -> Vec<Day> {
        let mut days = if self.sealed { days_ahead(today) } else { Vec::new() };
        if self.seal.has(&days) {
            days.clear();
        }
        days
    }

    /// These keys seal their days from now on, and no others do.
    pub fn keep_keys(&self, keys: Vec<DayKey>) {
        self.seal.keep(keys);
    }

    /// What puts aside the lines of days before `today` that are still in the file, and waits for that; `None` where there
    /// are none. Blocks for a second at most.
    #[must_use]
    pub fn day_over(&self, today: Day) -> Option<impl FnOnce() + Send + 'static> {
        let queue = self.queue.clone().filter(|_| self.file.as_ref().is_some_and(|file| file.is_behind(today)))?;
        Some(move || queue.settle(today))
    }

    /// What keeps lines of `today` from being written, or those of a day before from being erased in time.
    #[must_use]
    pub fn trouble(&self, today: Day) -> Option<&'static str> {
        let file = self.file.as_ref()?;
        if !self.days_without_key(today).is_empty() {
            return Some("keys of the next days could not be made");
        }
        (!file.is_sound()).then_some("lines were lost, or a day could not be put aside; the log says why")
    }

    /// Finds what [`AccessLogger::new`] would say of the file, changes nothing.
    ///
    /// # Errors
    /// What the system says of the file, or of the folder that it would be made in.
    pub fn probe(log: &LogConfig) -> io::Result<()> {
        if let AccessLog::File(path) = &log.access { DayFile::probe(path) } else { Ok(()) }
    }

    /// Whether lines are written at all, so that what they need is kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes one line. Costs nothing where the stream is off.
    pub fn write(&self, access: &Access<'_>) {
        let Some(queue) = &self.queue else { return };
        SCRATCH.with_borrow_mut(|scratch| {
            queue.push(access.at.day(), scratch.render(access, self.detail, self.format), WhenFull::Drop);
        });
    }
}

fn open(log: &LogConfig, seal: &Arc<Seal>) -> io::Result<(Option<Writer>, Option<Arc<FileState>>)> {
    Ok(match &log.access {
        AccessLog::Off => (None, None),
        AccessLog::Stdout => (Some(Box::new(Stdout)), None),
        AccessLog::File(path) => {
            let file = DayFile::open(path, log.sealed.then(|| Arc::clone(seal)))?;
            let state = file.state();
            (Some(Box::new(file)), Some(state))
        }
    })
}

fn start(writer: Writer, metrics: &Metrics) -> io::Result<Arc<LineQueue>> {
    LineQueue::start(writer, GATHER, metrics.lines_lost("access")).map(Arc::new)
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// The memory of the last line, used again for the next.
struct Scratch {
    line: Vec<u8>,
    time: String,
    /// What of `time` stands for `second`: calendars are slow, and most lines share it.
    prefix: usize,
    second: i64,
}

impl Scratch {
    const fn new() -> Self {
        Self { line: Vec::new(), time: String::new(), prefix: 0, second: i64::MIN }
    }

    fn render(&mut self, access: &Access<'_>, detail: ClientAddressDetail, format: AccessFormat) -> &[u8] {
        self.set_time(access.at);
        self.line.clear();
        let client = ShownClient::of(access.client, detail);
        let method = beginning(access.method, METHOD_BYTES);
        let path = beginning(access.path.split('?').next().unwrap_or_default(), PATH_BYTES);
        if format == AccessFormat::Common {
            let (version, status) = (access.version, access.status);
            common_log::write(&mut self.line, &Told { time: &self.time, client, method, path, version, status });
            return &self.line;
        }
        // By hand: serde_json, and the `fmt` of an address in it, cost a request twice as much.
        let line = &mut self.line;
        line.extend_from_slice(b"{\"time\":");
        string(line, &self.time);
        line.extend_from_slice(b",\"stream\":\"access\",\"method\":");
        string(line, method);
        line.extend_from_slice(b",\"path\":");
        string(line, path);
        line.extend_from_slice(b",\"status\":");
        number(line, access.status.into());
        line.extend_from_slice(b",\"client\":");
        if let Some(client) = client {
            line.push(b'"');
            client.write(line);
            line.push(b'"');
        } else {
            line.extend_from_slice(b"null");
        }
        line.extend_from_slice(b",\"duration_us\":");
        number(line, u64::try_from(access.duration.as_micros()).unwrap_or(u64::MAX));
        line.extend_from_slice(b",\"carrier\":");
        match access.carrier {
            Some(carrier) => string(line, carrier.as_str()),
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(b",\"request_id\":");
        string(line, access.request_id);
        line.extend_from_slice(b"}\n");
        &self.line
    }

    fn set_time(&mut self, at: Timestamp) {
        let second = at.unix_seconds();
        if second != self.second {
            self.time = Timestamp::from_unix_millis(second.saturating_mul(1000)).rfc3339().replace('Z', ".");
            self.prefix = self.time.len();
            self.second = second;
        }
        self.time.truncate(self.prefix);
        let millis = at.unix_millis().rem_euclid(1000);
        for digit in [millis / 100, millis / 10 % 10, millis % 10] {
            self.time.push(char::from_digit(u32::try_from(digit).unwrap_or(0), 10).unwrap_or('0'));
        }
        self.time.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{LogLevel, SecurityLog};
    use crate::entropy::SeededEntropy;

    const HEAD: Access<'static> = Access {
        at: Timestamp::from_unix_millis(1_795_530_117_042),
        method: "GET",
        path: "/orders",
        version: Version::HTTP_11,
        status: 200,
        client: None,
        duration: Duration::from_micros(1234),
        carrier: None,
        request_id: "r1",
    };

    fn privacy(client_address: ClientAddressDetail) -> PrivacyConfig {
        PrivacyConfig {
            client_address,
            audit_retention_days: None,
            statistics_floor: 10,
            statistics_days: 400,
            sessions_days: 1,
            codes_days: 1,
            access_log_days: 90,
            security_log_days: 90,
        }
    }

    fn to_file(path: &Path) -> LogConfig {
        let (access, format) = (AccessLog::File(path.to_owned()), AccessFormat::Json);
        LogConfig { access, format, sealed: false, security: SecurityLog::Stdout, level: LogLevel::Info }
    }

    fn logger(log: &LogConfig, detail: ClientAddressDetail) -> AccessLogger {
        let entropy = Arc::new(SeededEntropy::new(1));
        AccessLogger::new(log, &privacy(detail), &Metrics::new(), entropy).unwrap()
    }

    fn lines(accesses: &[Access<'_>]) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let logger = logger(&to_file(&path), ClientAddressDetail::Prefix);
        for access in accesses {
            logger.write(access);
        }
        drop(logger);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_request_is_one_line_with_the_fields_of_the_contract() {
        let later = Access { at: HEAD.at.plus(Duration::from_millis(958)), status: 502, ..HEAD };
        let written = lines(&[HEAD, later]);
        let expected = json!({
            "time": "2026-11-24T14:21:57.042Z", "stream": "access", "method": "GET", "path": "/orders", "status": 200,
            "client": null, "duration_us": 1234, "carrier": null, "request_id": "r1",
        });
        assert_eq!(written[0], expected);
        assert_eq!(ACCESS_FIELDS.len(), expected.as_object().unwrap().len());
        assert!(ACCESS_FIELDS.iter().all(|field| expected.get(*field).is_some()));
        assert_eq!(written[1]["time"], "2026-11-24T14:21:58.000Z");
        assert_eq!(written[1]["status"], 502);
    }

    #[test]
    fn a_query_is_never_written_and_a_path_is_bounded() {
        let long = "/".repeat(5000);
        let written = lines(&[Access { path: "/a?_sk=SECRET&b=1", ..HEAD }, Access { path: &long, ..HEAD }]);
        assert_eq!(written[0]["path"], "/a");
        assert_eq!(written[1]["path"].as_str().map(str::len), Some(PATH_BYTES));
    }

    #[test]
    fn a_file_is_appended_to_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        for _ in 0..2 {
            logger(&to_file(&path), ClientAddressDetail::None).write(&HEAD);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0);
    }

    proptest! {
        #[test]
        fn a_hostile_request_stays_one_printable_line(method in any::<String>(), path in any::<String>()) {
            let access = Access { method: &method, path: &path, ..HEAD };
            let mut scratch = Scratch::new();
            let line = scratch.render(&access, ClientAddressDetail::Prefix, AccessFormat::Json);
            let (end, text) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(text.iter().all(|b| (b' '..=b'~').contains(b)));
            prop_assert!(serde_json::from_slice::<Value>(text).is_ok());
            let line = scratch.render(&access, ClientAddressDetail::Prefix, AccessFormat::Common);
            let (end, text) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(text.iter().all(|b| (b' '..=b'~').contains(b)));
        }
    }
}
