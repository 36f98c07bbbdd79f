//! The file of a log: lines are appended to it, and with the first of another day what it holds is put aside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use ring::digest::{SHA256, digest};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use time::OffsetDateTime;

use super::days::{aside, folder, real};
use super::record::{Behind, HASH_BYTES, MOST_LINE_BYTES, Record};
use super::seal::{Seal, Segment};
use super::whole::{End, Lost};
use crate::clock::{Day, Timestamp};

/// Bytes at the beginning of a file that tell what it is.
const BEGINNING: usize = 256;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How a log's file does, for whoever looks from outside.
#[derive(Debug)]
pub struct FileState {
    /// Days since 1970 of the lines in the file; `i32::MAX` while there are none.
    day: AtomicI32,
    /// Whether what is over could not be put aside, or lines were lost for want of a key.
    fault: AtomicBool,
}

impl FileState {
    /// Whether the file holds lines of a day before `today`.
    #[must_use]
    pub fn is_behind(&self, today: Day) -> bool {
        self.day.load(Ordering::Acquire) < today.unix_days()
    }

    /// Whether the last lines went where they belong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.fault.load(Ordering::Acquire)
    }
}

/// The file of a log. Only regular files are put aside; a pipe or a device takes lines as they come.
pub struct DayFile {
    path: PathBuf,
    /// With it lines are sealed.
    seal: Option<Arc<Seal>>,
    file: File,
    regular: bool,
    /// Of the lines in the file; `None` while there are none.
    day: Option<Day>,
    /// What stands in the file is of the other kind, sealed or not, and nothing is to be mixed.
    foreign: bool,
    segment: Option<Segment>,
    /// What the last line in clear left; `None` until the first is written.
    end: Option<End>,
    state: Arc<FileState>,
}

impl DayFile {
    /// Opens the file, which is made with mode 0640 if there is none. What is there stays as it is until lines come.
    ///
    /// # Errors
    /// What the system says of the file, and [`io::ErrorKind::InvalidInput`] where lines are to be sealed into a pipe or a
    /// device.
    pub fn open(path: &Path, seal: Option<Arc<Seal>>) -> io::Result<Self> {
        let path = real(path);
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        let regular = file.metadata()?.is_file();
        if seal.is_some() && !regular {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "sealed lines need a regular file"));
        }
        let state = Arc::new(FileState { day: AtomicI32::new(i32::MAX), fault: AtomicBool::new(false) });
        let mut opened = Self { path, seal, file, regular, day: None, foreign: false, segment: None, end: None, state };
        opened.look()?;
        Ok(opened)
    }

    /// Finds what [`DayFile::open`], and putting days aside, would meet; changes nothing.
    ///
    /// # Errors
    /// What the system says of the file or of its folder.
    pub fn probe(path: &Path) -> io::Result<()> {
        let path = real(path);
        let there = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            there => Some(there?),
        };
        if there.is_some() {
            OpenOptions::new().append(true).open(&path)?;
        }
        if there.is_none_or(|there| there.is_file()) {
            accessat(CWD, folder(&path), Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
        }
        Ok(())
    }

    /// How it does.
    #[must_use]
    pub fn state(&self) -> Arc<FileState> {
        Arc::clone(&self.state)
    }

    /// Appends whole lines of `day`; without lines, only sees that what is over is put aside.
    ///
    /// Lines of the day before go with those of `day`: workers that answer at midnight are not told apart. A clock that was
    /// set further back has the file put aside like one that went on.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::NotFound`] where no key seals that day. The lines that it counts are lost
    /// then, and never written in clear where they should be sealed. Half a line is taken back where that can be done.
    pub fn append(&mut self, day: Day, lines: &[u8]) -> Result<(), Lost> {
        let aside = self.put_aside_for(day, lines);
        let done = if self.foreign && aside.is_err() {
            Err(Lost::all(lines, io::ErrorKind::InvalidData.into()))
        } else {
            self.append_to(day, lines, aside.is_ok())
        };
        let fault = aside.is_err() || done.is_err();
        if self.state.fault.swap(fault, Ordering::AcqRel) != fault {
            let file = &self.path;
            match (&aside, &done) {
                (_, Err(Lost { error, .. })) => {
                    tracing::error!(file = %file.display(), %error, %day, "lines of a log are lost");
                }
                (Err(error), Ok(())) => {
                    tracing::error!(file = %file.display(), %error, "a day of a log could not be put aside");
                }
                (Ok(()), Ok(())) => tracing::info!(file = %file.display(), "a log is as it should be again"),
            }
        }
        done
    }

    fn put_aside_for(&mut self, day: Day, lines: &[u8]) -> io::Result<()> {
        let stays = self.day.is_none_or(|of_file| of_file == day || of_file.minus_days(1) == day);
        let due = self.regular && (!stays || (self.foreign && !lines.is_empty()));
        if due { self.put_aside() } else { Ok(()) }
    }

    /// `begun` says whether the file is of the day that it should be of. If not, what is written to it goes with its first day,
    /// once it can be put aside; sealed lines are under the key of their own day all the same.
    fn append_to(&mut self, day: Day, lines: &[u8], begun: bool) -> Result<(), Lost> {
        if lines.is_empty() {
            return Ok(());
        }
        let day = self.day.filter(|_| begun).unwrap_or(day);
        let done = match self.seal.clone() {
            None => self.append_clear(lines),
            Some(seal) => self.append_sealed(&seal, day, lines).map_err(|error| Lost::all(lines, error)),
        };
        // Where some are lost the others are of that day.
        if self.regular && begun {
            self.note(Some(day));
        }
        done
    }

    fn append_clear(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let mut end = match self.end.take() {
            Some(end) => end,
            // A run that was killed, or found no room, may have left half a line.
            None if self.regular && self.ends_within_a_line().unwrap_or(false) => End::WITHIN,
            None => End::NOTHING,
        };
        let done = if self.regular { end.append(&mut self.file, lines) } else { end.write(&mut self.file, lines) };
        self.end = Some(end);
        done
    }

    fn ends_within_a_line(&self) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        file.read_at(&mut last, length.saturating_sub(1))?;
        Ok(last != [b'\n'])
    }

    fn append_sealed(&mut self, seal: &Seal, day: Day, lines: &[u8]) -> io::Result<()> {
        let mut out = String::new();
        let mut segment = if let Some(segment) = self.segment.take().filter(|segment| segment.day() == day) {
            segment
        } else {
            let key = seal.key(day);
            let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no key that seals this day");
            let key = key.ok_or_else(missing)?;
            let behind = self.behind()?;
            if let Behind::Line { torn: true, .. } = behind {
                out.push('\n');
            }
            seal.begin(&key, behind, &mut out)
        };
        segment.lines(lines, &mut out);
        // Where that fails half a record may stand there, and the next segment says so.
        self.file.write_all(out.as_bytes())?;
        self.segment = Some(segment);
        Ok(())
    }

    /// Ends what is being written, gives the file the name of its day, and begins another.
    fn put_aside(&mut self) -> io::Result<()> {
        self.end_segment();
        let ours = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            // Somebody moved it already, and it is theirs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            there => {
                let there = there?;
                if (there.dev(), there.ino()) == (ours.dev(), ours.ino())
                    && ours.len() > 0
                    && let Some(day) = self.day
                {
                    fs::rename(&self.path, aside(&self.path, day)?)?;
                }
            }
        }
        self.file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        self.note(None);
        self.foreign = false;
        self.end = None;
        self.look()
    }

    /// Learns of which day and kind the lines are that stand in the file.
    fn look(&mut self) -> io::Result<()> {
        let there = self.file.metadata()?;
        if !self.regular || there.len() == 0 {
            return Ok(());
        }
        let mut beginning = vec![0; BEGINNING];
        let read = File::open(&self.path)?.read_at(&mut beginning, 0)?;
        beginning.truncate(read);
        let sealed = Record::day_of_beginning(&beginning);
        self.foreign = sealed.is_some() != self.seal.is_some();
        let modified = || OffsetDateTime::from(there.modified().ok()?).unix_timestamp().checked_mul(1000);
        let day =
            sealed.or_else(|| day_of_line(&beginning)).or_else(|| Some(Timestamp::from_unix_millis(modified()?).day()));
        self.note(day);
        Ok(())
    }

    fn note(&mut self, day: Option<Day>) {
        self.day = day;
        self.state.day.store(day.map_or(i32::MAX, Day::unix_days), Ordering::Release);
    }

    /// The last line of the file.
    fn behind(&self) -> io::Result<Behind> {
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let from = length.saturating_sub(MOST_LINE_BYTES as u64 + 1);
        let mut end = vec![0; usize::try_from(length - from).unwrap_or(0)];
        file.read_exact_at(&mut end, from)?;
        if end.is_empty() {
            return Ok(Behind::Nothing);
        }
        let torn = end.pop_if(|last| *last == b'\n').is_none();
        let begins = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, end.get(begins..).unwrap_or_default()).as_ref());
        Ok(Behind::Line { hash, torn })
    }

    fn end_segment(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        let mut out = String::new();
        segment.end(&mut out);
        if let Err(error) = self.file.write_all(out.as_bytes()) {
            tracing::warn!(%error, "the end of a sealed log was not written");
        }
    }
}

impl Drop for DayFile {
    fn drop(&mut self) {
        self.end_segment();
    }
}

/// The day of a line in one of our formats: JSON, which begins with the time, or the Common Log Format.
fn day_of_line(line: &[u8]) -> Option<Day> {
    let text = String::from_utf8_lossy(line);
    if let Some(time) = text.strip_prefix("{\"time\":\"") {
        return Day::parse(time.get(..10)?);
    }
    let (_, date) = text.split_once(" [")?;
    let (day, month, year) = (date.get(..2)?, date.get(3..6)?, date.get(7..11)?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Day::parse(&format!("{year}-{month:02}-{day}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::reader::{FindingKind, Found, KeyOfDay, SealedLine, SealedReader};
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::keys::DayKey;

    const DAY: Day = Day::from_unix_days(20_783);
    const NEXT: Day = Day::from_unix_days(20_784);

    /// As a run of the gateway has it: no two draw the same.
    fn seal() -> Arc<Seal> {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let seal = Seal::new(Arc::new(SeededEntropy::new(RUNS.fetch_add(1, Ordering::Relaxed))));
        seal.keep(vec![DayKey::of_nobody(DAY, 1), DayKey::of_nobody(NEXT, 2)]);
        Arc::new(seal)
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    /// The lines of a sealed file, and what was found in it.
    fn opened(path: &Path) -> (String, Vec<FindingKind>) {
        let bytes = fs::read(path).unwrap();
        let mut reader = SealedReader::default();
        let mut found = Vec::new();
        for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let ended = line.ends_with(b"\n");
            let line = SealedLine::read(number, Some(line.strip_suffix(b"\n").unwrap_or(line)), ended);
            let byte = if line.day() == Some(DAY) { 1 } else { 2 };
            let key = line.day().map(|day| DayKey::of_nobody(day, byte));
            found.extend(reader.take(&line, key.as_ref().map_or(KeyOfDay::Unknown, KeyOfDay::Key)));
        }
        found.extend(reader.finish());
        let (mut text, mut kinds) = (String::new(), Vec::new());
        for found in found {
            match found {
                Found::Lines(lines) => text.push_str(std::str::from_utf8(&lines).unwrap()),
                Found::Finding(finding) => kinds.push(finding.kind),
            }
        }
        (text, kinds)
    }

    #[test]
    fn a_day_that_is_over_is_put_aside_with_the_first_line_of_another_or_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let line = "{\"time\":\"2026-11-26T00:00:00Z\"}\n";
        let mut file = DayFile::open(&path, None).unwrap();
        let state = file.state();
        assert!(!state.is_behind(NEXT), "there is nothing in it");
        file.append(DAY, line.as_bytes()).unwrap();
        assert!(state.is_behind(NEXT) && !state.is_behind(DAY));
        file.append(DAY.minus_days(1), b"late\n").unwrap();
        drop(file);
        // A run after it looks at what is there.
        let mut file = DayFile::open(&path, None).unwrap();
        assert!(file.state().is_behind(NEXT));
        file.append(NEXT, b"").unwrap();
        assert_eq!(
            (text(&path), text(&folder.path().join("access.log.2026-11-26"))),
            (String::new(), format!("{line}late\n"))
        );
        file.append(NEXT, b"next\n").unwrap();
        file.append(DAY, b"late\n").unwrap();
        file.append(DAY.minus_days(1), b"set back\n").unwrap();
        assert_eq!(text(&folder.path().join("access.log.2026-11-27")), "next\nlate\n");
        assert_eq!(text(&path), "set back\n");
        file.append(NEXT, b"again\n").unwrap();
        file.append(NEXT.minus_days(9), b"").unwrap();
        assert_eq!(text(&folder.path().join("access.log.2026-11-27.1")), "again\n");
    }

    #[test]
    fn half_a_line_that_a_run_left_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let left = "{\"time\":\"2026-11-26T00:00:00Z\"}\n{\"time\":\"20";
        fs::write(&path, left).unwrap();
        let mut file = DayFile::open(&path, None).unwrap();
        assert_eq!(text(&path), left, "as it was until lines come");
        file.append(DAY, b"one\n").unwrap();
        file.append(DAY, b"two\n").unwrap();
        drop(file);
        DayFile::open(&path, None).unwrap().append(DAY, b"three\n").unwrap();
        assert_eq!(text(&path), format!("{left}\none\ntwo\nthree\n"));
    }

    #[test]
    fn a_file_that_somebody_moved_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("moved"));
        let mut file = DayFile::open(&path, None).unwrap();
        file.append(DAY, b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.append(NEXT, b"two\n").unwrap();
        fs::write(&moved, "theirs\n").unwrap();
        fs::rename(&moved, &path).unwrap();
        file.append(NEXT.minus_days(9), b"three\n").unwrap();
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((names, text(&path)), (vec!["access.log".into()], "theirs\nthree\n".to_owned()));
    }

    #[test]
    fn a_link_is_followed_and_a_device_is_never_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("access.log"), folder.path().join("real/data.log"));
        fs::create_dir(folder.path().join("real")).unwrap();
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = DayFile::open(&link, None).unwrap();
        file.append(DAY, b"one\n").unwrap();
        file.append(NEXT, b"two\n").unwrap();
        assert_eq!(text(&folder.path().join("real/data.log.2026-11-26")), "one\n");
        assert_eq!(text(&link), "two\n");
        let mut device = DayFile::open(Path::new("/dev/null"), None).unwrap();
        device.append(DAY, b"one\n").unwrap();
        device.append(NEXT, b"two\n").unwrap();
        assert!(!device.state().is_behind(Day::from_unix_days(i32::MAX)));
        assert!(DayFile::open(Path::new("/dev/null"), Some(seal())).is_err());
    }

    #[test]
    fn sealed_lines_stand_nowhere_in_clear_and_are_read_over_runs_and_days() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let long = vec![b'x'; 1000].repeat(100);
        let mut file = DayFile::open(&path, Some(seal())).unwrap();
        file.append(DAY, b"one\ntwo\n").unwrap();
        file.append(DAY, b"three\n").unwrap();
        drop(file);
        let mut file = DayFile::open(&path, Some(seal())).unwrap();
        file.append(DAY, b"four\n").unwrap();
        file.append(NEXT, &long).unwrap();
        file.append(NEXT, b"\nfive\n").unwrap();
        drop(file);
        let aside = folder.path().join("access.log.2026-11-26");
        assert_eq!(opened(&aside), ("one\ntwo\nthree\nfour\n".to_owned(), vec![]));
        let (next, findings) = opened(&path);
        assert!(findings.is_empty() && next.as_bytes() == [&long[..], b"\nfive\n"].concat());
        assert!(!text(&aside).contains("three") && !text(&path).contains("xxxx"));
    }

    #[test]
    fn a_run_that_was_killed_in_the_middle_of_a_record_is_told_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut file = DayFile::open(&path, Some(seal())).unwrap();
        file.append(DAY, b"one\n").unwrap();
        file.append(DAY, b"two\n").unwrap();
        // Killed: no end is written, and of the last record a part is.
        let whole = fs::read(&path).unwrap();
        std::mem::forget(file);
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(opened(&path), ("one\n".to_owned(), vec![FindingKind::Torn]));
        let mut file = DayFile::open(&path, Some(seal())).unwrap();
        file.append(DAY, b"three\n").unwrap();
        drop(file);
        assert_eq!(opened(&path), ("one\nthree\n".to_owned(), vec![FindingKind::Torn]));
    }

    #[test]
    fn without_a_key_nothing_is_written_and_that_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut file = DayFile::open(&path, Some(seal())).unwrap();
        let state = file.state();
        assert!(file.append(Day::from_unix_days(20_785), b"lost\n").is_err());
        assert_eq!((text(&path), state.is_sound()), (String::new(), false));
        file.append(DAY, b"kept\n").unwrap();
        assert!(state.is_sound());
    }

    #[test]
    fn where_a_day_cannot_be_put_aside_no_line_is_lost_and_that_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        for seal in [None, Some(seal())] {
            let path = folder.path().join(if seal.is_some() { "sealed.log" } else { "clear.log" });
            let mut file = DayFile::open(&path, seal).unwrap();
            let state = file.state();
            file.append(DAY, b"one\n").unwrap();
            // All names of that day are taken.
            for name in std::iter::once(String::new()).chain((1..1000).map(|n| format!(".{n}"))) {
                fs::write(format!("{}.2026-11-26{name}", path.display()), "").unwrap();
            }
            file.append(NEXT, b"two\n").unwrap();
            assert!(!state.is_sound() && state.is_behind(NEXT));
            fs::remove_file(format!("{}.2026-11-26", path.display())).unwrap();
            file.append(NEXT, b"three\n").unwrap();
            assert!(state.is_sound() && !state.is_behind(NEXT));
            let (aside, sealed) = (format!("{}.2026-11-26", path.display()), path.ends_with("sealed.log"));
            let lines = |path: &Path| if sealed { opened(path).0 } else { text(path) };
            assert_eq!((lines(Path::new(&aside)), lines(&path)), ("one\ntwo\n".to_owned(), "three\n".to_owned()));
        }
    }

    #[test]
    fn what_is_in_clear_and_what_is_sealed_are_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let clear = "127.0.2.0/24 - - [26/Nov/2026:14:21:57 +0000] \"GET / HTTP/1.1\" 200 -\n";
        DayFile::open(&path, None).unwrap().append(DAY, clear.as_bytes()).unwrap();
        DayFile::open(&path, Some(seal())).unwrap().append(DAY, b"sealed\n").unwrap();
        assert_eq!(text(&folder.path().join("access.log.2026-11-26")), clear);
        assert_eq!(opened(&path), ("sealed\n".to_owned(), vec![]));
        DayFile::open(&path, None).unwrap().append(DAY, b"clear again\n").unwrap();
        assert_eq!(text(&path), "clear again\n");
        assert_eq!(opened(&folder.path().join("access.log.2026-11-26.1")), ("sealed\n".to_owned(), vec![]));
    }
}
