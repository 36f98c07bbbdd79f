//! A file, a variable or a systemd credential -> [`SecretBytes`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::secret::SecretBytes;

/// Longest secret, in bytes; a key is 32, a URL with a password some hundred.
const MAX_LENGTH: u64 = 65_536;

/// Permission bits that let others than the owner read or write.
const OTHERS: u32 = 0o066;

/// Where a secret is; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// `{ file = "…" }`.
    File(PathBuf),
    /// `{ env = "…" }`.
    Env(String),
    /// `{ credential = "…" }`, from `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
    Credential(String),
}

/// Why a secret could not be read. Names the place, never the content.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{} cannot be read ({source}); create it, readable by the gateway's user alone", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is far too long.
    #[error("{} is longer than 64KiB; is this the right file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The variable is not set.
    #[error("the environment variable {name} is not set; set it in the gateway's unit or container")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// Not started by systemd with credentials.
    #[error(
        "$CREDENTIALS_DIRECTORY is not set, so there is no credential {name}; add LoadCredential={name}:PATH to the unit"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// There is nothing in it.
    #[error("{place} is empty")]
    Empty {
        /// The file, variable or credential.
        place: String,
    },
}

impl SecretSource {
    /// Reads the secret, without one trailing line break.
    ///
    /// # Errors
    /// [`SecretError`], which tells the operator what to create or set.
    pub fn read(&self) -> Result<SecretBytes, SecretError> {
        self.read_with(&|name| std::env::var_os(name))
    }

    /// What is doubtful about the place, if anything: a file that others may read or write.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        match self {
            Self::File(path) => open_to_others(path),
            // systemd keeps credentials readable by the unit alone (systemd.exec(5), "Credentials").
            Self::Env(_) | Self::Credential(_) => None,
        }
    }

    fn read_with(&self, variable: &dyn Fn(&OsStr) -> Option<OsString>) -> Result<SecretBytes, SecretError> {
        let (bytes, place) = match self {
            Self::File(path) => (read_file(path)?, path.display().to_string()),
            Self::Env(name) => {
                let value = variable(OsStr::new(name)).ok_or_else(|| SecretError::NoVariable { name: name.clone() })?;
                (value.into_vec(), format!("the environment variable {name}"))
            }
            Self::Credential(name) => {
                let folder = variable(OsStr::new("CREDENTIALS_DIRECTORY"))
                    .ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                (read_file(&Path::new(&folder).join(name))?, format!("the credential {name}"))
            }
        };
        let secret = without_line_break(bytes);
        if secret.expose().is_empty() { Err(SecretError::Empty { place }) } else { Ok(secret) }
    }
}

/// Says so if a secret file may be read or written by its group or by everybody; silent if there is no such file.
pub(super) fn open_to_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS != 0)
        .then(|| format!("{} is open to others (mode {:04o}); chmod 600 it", path.display(), mode & 0o7777))
}

fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Room for all of it at once: a growing vector would leave unwiped copies behind.
    let length = file.metadata().map_err(failed)?.len().min(MAX_LENGTH);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64);
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_LENGTH) {
        Ok(bytes)
    } else {
        drop(SecretBytes::new(bytes));
        Err(SecretError::TooLong { path: path.to_owned() })
    }
}

/// Truncates in place: what is cut off stays in the buffer that is wiped.
fn without_line_break(mut bytes: Vec<u8>) -> SecretBytes {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    SecretBytes::new(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOTHING: &dyn Fn(&OsStr) -> Option<OsString> = &|_| None;

    fn failure(result: Result<SecretBytes, SecretError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_file_is_read_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        for (content, expected) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), ("a\nb\n\n", "a\nb\n")] {
            fs::write(&path, content).unwrap();
            let secret = SecretSource::File(path.clone()).read_with(NOTHING).ok().unwrap();
            assert_eq!(secret.expose(), expected.as_bytes());
        }
        fs::write(&path, "\n").unwrap();
        assert!(failure(SecretSource::File(path.clone()).read_with(NOTHING)).ends_with("kek is empty"));
        fs::write(&path, vec![b'x'; 65_537]).unwrap();
        assert!(failure(SecretSource::File(path).read_with(NOTHING)).contains("longer than 64KiB"));
    }

    #[test]
    fn variables_and_credentials_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kek"), "from systemd\n").unwrap();
        let environment = |name: &OsStr| match name.to_str() {
            Some("CREDENTIALS_DIRECTORY") => Some(folder.path().as_os_str().to_owned()),
            Some("KEK") => Some(OsString::from("from env\n")),
            _ => None,
        };
        let read = |source: SecretSource| source.read_with(&environment).ok().unwrap();
        assert_eq!(read(SecretSource::Env("KEK".into())).expose(), b"from env");
        assert_eq!(read(SecretSource::Credential("kek".into())).expose(), b"from systemd");
    }

    #[test]
    fn errors_name_the_place_and_what_to_do() {
        let missing = SecretSource::File("/nonexistent/kek".into());
        assert!(failure(missing.read_with(NOTHING)).starts_with("/nonexistent/kek cannot be read"));
        let env = SecretSource::Env("SEKISHO_KEK".into());
        assert!(failure(env.read_with(NOTHING)).starts_with("the environment variable SEKISHO_KEK is not set"));
        let credential = SecretSource::Credential("kek".into());
        assert!(failure(credential.read_with(NOTHING)).contains("LoadCredential=kek:PATH"));
    }

    #[test]
    fn a_file_open_to_others_is_doubtful() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        fs::write(&path, "x").unwrap();
        for (mode, doubtful) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(SecretSource::File(path.clone()).doubt().is_some(), doubtful, "{mode:o}");
        }
        assert_eq!(SecretSource::File("/nonexistent".into()).doubt(), None);
    }
}
