//! The one folder that `sekisho dev` keeps between runs.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::certificates;
use super::handset::HandsetSeed;
use super::ports::GatewayPorts;
use crate::clock::Timestamp;
use crate::entropy::{Entropy, random};

/// The first line of a configuration that this command wrote, and may therefore write anew.
const MARK: &str = "# Written by `sekisho dev`, anew at every start";

const CONFIGURATION: &str = "gateway.toml";
const PASSWORD: &str = "secrets/console-password";

/// Why the folder cannot be used.
#[derive(Debug, Error)]
pub(super) enum FolderError {
    /// Somebody else's files.
    #[error("{} holds other files; name an empty or new folder with --dir", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process runs from it.
    #[error("another `sekisho dev` runs in {}; stop it, or name another folder with --dir", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// What was to be read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret that this command did not write, or that was cut short.
    #[error("{} is damaged; remove the folder to begin anew", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// No certificate could be made.
    #[error("no development certificate could be made: {source}")]
    Certificate {
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// The configuration could not be put together.
    #[error("the configuration could not be written: {0}")]
    Configuration(#[from] askama::Error),
}

/// A folder that is laid out, secrets and certificates included, and in use by this process alone.
pub(super) struct DevFolder {
    root: PathBuf,
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")]
    lock: File,
}

/// All that is in it, beside `gateway.toml`.
const FOLDERS: [&str; 5] = ["certs", "data", "log", "run", "secrets"];

/// `gateway.toml`: what was chosen at this start. Everything else stands in the template.
#[derive(Template)]
#[template(path = "gateway.toml", escape = "none")]
struct GatewayToml<'a> {
    mark: &'a str,
    ports: GatewayPorts,
    console: SocketAddr,
    audience: &'a str,
}

impl DevFolder {
    /// Makes or takes `dir`, with everything in it that the gateway needs before its configuration.
    ///
    /// # Errors
    /// [`FolderError`]; a folder with other files in it is left as it is.
    pub(super) fn open(dir: &Path, entropy: &dyn Entropy, now: Timestamp) -> Result<Self, FolderError> {
        make_folder(dir)?;
        let root = dir.canonicalize().map_err(at(dir))?;
        if !is_ours(&root)? {
            return Err(FolderError::Foreign { dir: root });
        }
        fs::set_permissions(&root, Permissions::from_mode(0o700)).map_err(at(&root))?;
        for name in FOLDERS {
            make_folder(&root.join(name))?;
        }
        let lock = lock(&root)?;
        for name in ["kek", "handset-seed"] {
            let path = root.join("secrets").join(name);
            if !path.exists() {
                let secret = Zeroizing::new(random::<32>(entropy));
                write_secret(&path, Zeroizing::new(STANDARD.encode(*secret) + "\n").as_bytes())?;
            }
        }
        let path = root.join(PASSWORD);
        if !path.exists() {
            // Digits, because they are what a handset types with one press each.
            let figures = u64::from_be_bytes(random(entropy)) % 100_000_000;
            write_secret(&path, Zeroizing::new(format!("{figures:08}\n")).as_bytes())?;
        }
        certificates::ensure(&root.join("certs"), now)?;
        Ok(Self { root, lock })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The admin socket of the gateway that runs from here.
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("run/admin.sock")
    }

    /// What the identifiers of the simulated handsets are derived from.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn handset_seed(&self) -> Result<HandsetSeed, FolderError> {
        let path = self.root.join("secrets/handset-seed");
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(at(&path))?);
        let seed = STANDARD.decode(text.trim()).ok().map(Zeroizing::new).filter(|seed| seed.len() == 32);
        seed.map(|seed| HandsetSeed::new(&seed)).ok_or(FolderError::Secret { path })
    }

    /// The password of the sample console's own login.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn console_password(&self) -> Result<Zeroizing<String>, FolderError> {
        let path = self.root.join(PASSWORD);
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(at(&path))?);
        let password = Zeroizing::new(text.trim().to_owned());
        let sound = password.len() == 8 && password.bytes().all(|octet| octet.is_ascii_digit());
        if sound { Ok(password) } else { Err(FolderError::Secret { path }) }
    }

    /// Writes `gateway.toml` for this start and says where it is.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn write_configuration(
        &self,
        ports: GatewayPorts,
        console: SocketAddr,
        audience: &str,
    ) -> Result<PathBuf, FolderError> {
        let path = self.root.join(CONFIGURATION);
        let text = GatewayToml { mark: MARK, ports, console, audience }.render()?;
        write_public(&path, &text)?;
        Ok(path)
    }
}

/// Whether nothing is in it, or a configuration that this command wrote.
fn is_ours(root: &Path) -> Result<bool, FolderError> {
    let path = root.join(CONFIGURATION);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.starts_with(MARK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The configuration is written last: a first start that was cut short left only our own folders.
            let mut entries = fs::read_dir(root).map_err(at(root))?.filter_map(Result::ok);
            Ok(entries.all(|entry| FOLDERS.iter().any(|ours| entry.file_name().as_os_str() == *ours)))
        }
        Err(source) => Err(FolderError::File { path, source }),
    }
}

/// Two processes would write each other's configuration.
fn lock(root: &Path) -> Result<File, FolderError> {
    let path = root.join("run/dev.lock");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FolderError::InUse { dir: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(FolderError::File { path, source }),
    }
}

/// Writes a file that may be read by whoever may enter the folder.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), FolderError> {
    write(path, text.as_bytes(), 0o644)
}

/// Writes a file that its owner alone may read.
pub(super) fn write_secret(path: &Path, octets: &[u8]) -> Result<(), FolderError> {
    write(path, octets, 0o600)
}

/// Whole or not at all: another process never reads half a file.
fn write(path: &Path, octets: &[u8], mode: u32) -> Result<(), FolderError> {
    let fresh = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(at(path))
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dev::handset::{Carrier, Handset};
    use crate::entropy::SeededEntropy;

    const HANDSET: Handset = Handset { carrier: Carrier::Docomo, number: 1 };

    fn open(dir: &Path, seed: u64) -> Result<DevFolder, FolderError> {
        DevFolder::open(dir, &SeededEntropy::new(seed), Timestamp::from_unix_millis(1_795_530_117_042))
    }

    fn configure(folder: &DevFolder) -> PathBuf {
        let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = GatewayPorts { plain: port(18080), tls: port(18443), ops: port(19090) };
        folder.write_configuration(ports, port(19000), "https://console.internal").unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_made_once_and_for_their_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("deep/sekisho-dev");
        let first = open(&dir, 1).unwrap();
        configure(&first);
        let kek = fs::read(dir.join("secrets/kek")).unwrap();
        let identifier = first.handset_seed().unwrap().identifier(HANDSET);
        let password = first.console_password().unwrap();
        assert!(matches!(open(&dir, 2), Err(FolderError::InUse { .. })), "two at once");
        drop(first);
        let again = open(&dir, 2).unwrap();
        assert_eq!(fs::read(dir.join("secrets/kek")).unwrap(), kek);
        assert_eq!(again.handset_seed().unwrap().identifier(HANDSET), identifier);
        assert_eq!(again.console_password().unwrap(), password);
        assert_eq!(mode(&dir), 0o700);
        for secret in ["secrets/kek", "secrets/handset-seed", PASSWORD, "certs/server.key"] {
            assert_eq!(mode(&dir.join(secret)), 0o600, "{secret}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(open(dir.path(), 1), Err(FolderError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("gateway.toml"), "[gateway]\n").unwrap();
        assert!(matches!(open(dir.path(), 1), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn a_damaged_secret_is_said_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), 1).unwrap();
        fs::write(dir.path().join("secrets/handset-seed"), "short").unwrap();
        assert!(matches!(folder.handset_seed(), Err(FolderError::Secret { .. })));
        fs::write(dir.path().join(PASSWORD), "\n").unwrap();
        let folder = {
            drop(folder);
            open(dir.path(), 1).unwrap()
        };
        assert!(
            matches!(folder.console_password(), Err(FolderError::Secret { .. })),
            "an empty password lets anybody in"
        );
    }

    #[test]
    fn the_configuration_explains_itself_and_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = configure(&open(dir.path(), 1).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (nth, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('[')) {
            assert!(lines[nth - 1].starts_with('#'), "{line} has no comment above it");
        }
        let Ok((_, warnings)) = Config::load(&path) else { panic!("{text}") };
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("gateway.public_url: warning: is not https"), "as the comment there explains");
    }
}
