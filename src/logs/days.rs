//! The files of days that are over: `NAME.YYYY-MM-DD`, and `NAME.YYYY-MM-DD.N` where there are several.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Day;

/// Files of one day beyond which something else must be wrong.
const MOST_A_DAY: u32 = 1000;

/// The files that were put aside for days before `before`, of the log at `path`.
///
/// # Errors
/// What the system says of the folder. One that is not there holds none.
pub fn days_put_aside(path: &Path, before: Day) -> io::Result<Vec<PathBuf>> {
    let real = real(path);
    let Some(name) = real.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(folder(&real)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut old = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_old = |file: &str| day_of(name, file).is_some_and(|day| day < before);
        if entry.file_name().to_str().is_some_and(is_old) && entry.file_type()?.is_file() {
            old.push(entry.path());
        }
    }
    Ok(old)
}

/// Erases them. Returns how many there were.
///
/// # Errors
/// What the system says; the next call does the rest.
pub fn erase_days(path: &Path, before: Day) -> io::Result<u64> {
    let mut erased = 0;
    for file in days_put_aside(path, before)? {
        match fs::remove_file(file) {
            Ok(()) => erased += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(erased)
}

/// A name for the file of `day` that nothing has yet.
pub(super) fn aside(path: &Path, day: Day) -> io::Result<PathBuf> {
    let named = |suffix: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let first = std::iter::once(named(format!(".{day}")));
    for name in first.chain((1..MOST_A_DAY).map(|n| named(format!(".{day}.{n}")))) {
        if fs::symlink_metadata(&name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(name);
        }
    }
    Err(io::Error::other("there are too many files of one day"))
}

/// Where the file itself is: what is put aside stands beside it, and not beside a link to it.
pub(super) fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn day_of(name: &str, file: &str) -> Option<Day> {
    let rest = file.strip_prefix(name)?.strip_prefix('.')?;
    let (day, more) = rest.split_at_checked(10)?;
    let counted = more.strip_prefix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (more.is_empty() || counted).then(|| Day::parse(day))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_days_are_told_by_their_names_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let (old, kept): (&[&str], &[&str]) = (
            &["access.log.2026-11-24", "access.log.2026-11-24.1", "access.log.2024-02-29"],
            &[
                "access.log",
                "access.log.2026-11-25",
                "access.log.2026-11-24x",
                "access.log.2026-11-24.x",
                "access.log.2026-11-24.",
                "access.log.2026-11-24.gz",
                "access.log.2026-11-31",
                "access.log.1",
                "xaccess.log.2026-11-24",
                "access.logs.2026-11-24",
            ],
        );
        for name in old.iter().chain(kept) {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("access.log.2026-11-23")).unwrap();
        let before = Day::parse("2026-11-25").unwrap();
        assert_eq!(days_put_aside(&log, before).unwrap().len(), old.len());
        assert_eq!(erase_days(&log, before).unwrap(), old.len() as u64);
        assert_eq!(erase_days(&log, before).unwrap(), 0);
        assert!(kept.iter().all(|name| folder.path().join(name).exists()));
        assert!(old.iter().all(|name| !folder.path().join(name).exists()));
        assert_eq!(erase_days(&folder.path().join("none/access.log"), before).unwrap(), 0);
    }

    #[test]
    fn a_second_file_of_a_day_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let (log, day) = (folder.path().join("a.log"), Day::parse("2026-11-25").unwrap());
        for name in ["a.log.2026-11-25", "a.log.2026-11-25.1", "a.log.2026-11-25.2"] {
            let next = aside(&log, day).unwrap();
            assert_eq!(next, folder.path().join(name));
            fs::write(next, "").unwrap();
        }
    }
}
