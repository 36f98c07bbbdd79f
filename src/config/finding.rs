//! `file:line: key: problem`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::Lines;

/// One thing wrong or doubtful, where it stands and what to do about it.
///
/// Never repeats the text of its line, so that a secret pasted there does not travel further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The configuration file.
    pub file: PathBuf,
    /// Line in it, from 1.
    pub line: usize,
    /// Key path such as `listener[1].tls.key`; `(syntax)` where no key could be read.
    pub key: String,
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// What is wrong and what to do, on one line.
    pub problem: String,
}

/// Whether a configuration can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can; a person should know.
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, problem, severity } = self;
        let prefix = match severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(f, "{}:{line}: {key}: {prefix}{problem}", file.display())
    }
}

/// Gathers findings; the line of each follows from its key path.
pub(super) struct Report {
    file: PathBuf,
    lines: Lines,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(file: &Path, lines: Lines) -> Self {
        Self { file: file.to_owned(), lines, findings: Vec::new() }
    }

    /// The configuration cannot be used because of `key`.
    pub(super) fn error(&mut self, key: &str, problem: impl fmt::Display) {
        self.push(self.line(key), key, Severity::Error, problem);
    }

    /// The configuration can be used, but a person should know about `key`.
    pub(super) fn warning(&mut self, key: &str, problem: impl fmt::Display) {
        self.push(self.line(key), key, Severity::Warning, problem);
    }

    /// As [`Self::error`], for a required key that is not there; silent if what is there was found wrong already.
    pub(super) fn missing(&mut self, key: &str, problem: impl fmt::Display) {
        if !self.names(key) {
            self.error(key, problem);
        }
    }

    /// As [`Self::error`], for text that has no key yet.
    pub(super) fn error_at(&mut self, line: usize, key: &str, problem: impl fmt::Display) {
        self.push(line, key, Severity::Error, problem);
    }

    /// The line of a key, or of the nearest table around it.
    pub(super) fn line(&self, key: &str) -> usize {
        self.lines.of(key)
    }

    /// Whether there is an error about this key, something below it, or a table around it.
    pub(super) fn names(&self, key: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.errors().any(|finding| within(&finding.key, key) || within(key, &finding.key))
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// All findings in the order of their lines.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.line);
        self.findings
    }

    fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }

    fn push(&mut self, line: usize, key: &str, severity: Severity, problem: impl fmt::Display) {
        let (file, key, problem) = (self.file.clone(), key.to_owned(), problem.to_string());
        self.findings.push(Finding { file, line, key, severity, problem });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let mut report = Report::new(Path::new("a.toml"), Lines::default());
        report.error("session.idle", "is wrong");
        report.warning("session", "is odd");
        let shown: Vec<_> = report.into_findings().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.toml:1: session.idle: is wrong", "a.toml:1: session: warning: is odd"]);
    }

    #[test]
    fn missing_is_silent_where_an_error_speaks_already() {
        let mut report = Report::new(Path::new("a.toml"), Lines::default());
        report.error("listener[0].tls.key", "is wrong");
        report.warning("notice", "is odd");
        for key in ["listener", "listener[0].tls", "listener[0].tls.key.x"] {
            assert!(report.names(key), "{key}");
        }
        for key in ["listen", "listener[0].tls.k", "listener[1]", "notice"] {
            assert!(!report.names(key), "{key}");
        }
    }
}
