//! A SoftHSM token of its own, and a gateway whose KEK is in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::process::{Ended, Folder, KEK, Serving, ended};

/// Where Debian puts it.
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "7391-canary-pin";

/// What `pkcs11-tool` makes a KEK with, as docs/kek.md says.
const KEYGEN: &[&str] = &["--keygen", "--key-type", "AES:32", "--label", "kek", "--sensitive", "--private"];

/// A folder with a token `sekisho`.
pub(crate) struct Token {
    folder: TempDir,
}

impl Token {
    /// With a key `kek`.
    pub(crate) fn new() -> Self {
        let token = Self::empty();
        token.make(KEYGEN);
        token
    }

    pub(crate) fn empty() -> Self {
        let token = Self { folder: TempDir::new().unwrap() };
        std::fs::create_dir(token.path("tokens")).unwrap();
        let tokens = token.path("tokens");
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        std::fs::write(token.path("softhsm2.conf"), conf).unwrap();
        token.initialise("sekisho");
        token
    }

    pub(crate) fn initialise(&self, label: &str) {
        let arguments = ["--init-token", "--free", "--label", label, "--so-pin", "so-pin-1234", "--pin", PIN];
        self.run(Command::new("softhsm2-util").args(arguments));
    }

    /// Has `pkcs11-tool` make something in the token.
    pub(crate) fn make(&self, arguments: &[&str]) {
        let login = ["--module", SOFTHSM, "--token-label", "sekisho", "--login", "--pin", PIN];
        self.run(Command::new("pkcs11-tool").args(login).args(arguments));
    }

    /// A key `kek` with the bytes of [`KEK`].
    pub(crate) fn bring_in_the_file(&self) {
        std::fs::write(self.path("bytes"), STANDARD.decode(KEK).unwrap()).unwrap();
        let file = self.path("bytes");
        let object = ["--write-object", file.to_str().unwrap(), "--type", "secrkey", "--key-type", "AES:32"];
        self.make(&[&object[..], &["--label", "kek", "--sensitive", "--private"]].concat());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A token in trouble: what `proxy.c` looks for.
    pub(crate) fn trouble(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn no_more(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// From the login on that comes after so many more, no token is there.
    pub(crate) fn leaves_after(&self, logins: usize) {
        self.trouble("leaves", &(self.logins() + logins + 1).to_string());
    }

    /// Logins from now on wait.
    pub(crate) fn hang(&self) {
        self.run(Command::new("mkfifo").arg(self.path("hang")));
    }

    /// Those that wait, and those that come, go on.
    pub(crate) fn go_on(&self) {
        let hang = self.path("hang");
        let opened = std::fs::OpenOptions::new().write(true).open(&hang).unwrap();
        std::fs::remove_file(&hang).unwrap();
        drop(opened);
    }

    pub(crate) fn logins(&self) -> usize {
        std::fs::read(self.path("logins")).map_or(0, |bytes| bytes.len())
    }

    /// The module that stands between: SoftHSM, and the troubles on top.
    pub(crate) fn proxy(&self) -> PathBuf {
        let module = self.path("proxy.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkcs11/proxy.c");
        let softhsm = format!("-DSOFTHSM=\"{SOFTHSM}\"");
        self.run(
            Command::new("cc").args(["-Wall", "-Werror", "-shared", "-fPIC", &softhsm, "-o"]).arg(&module).arg(source),
        );
        module
    }

    /// What a process needs to know of this token.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("SOFTHSM2_CONF", self.path("softhsm2.conf")), ("PROXY_FOLDER", self.path(""))]
    }

    fn run(&self, command: &mut Command) {
        let output = command.envs(self.environment()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

/// A gateway, and the token that holds its KEK.
pub(crate) struct Bench {
    pub(crate) folder: Folder,
    pub(crate) token: Token,
}

/// `keys.kek` as [`Folder`] has it.
pub(crate) const IN_FILE: &str = "kek = { file = \"kek\" }";

impl Bench {
    pub(crate) fn new(folder: Folder, token: Token, module: &Path) -> Self {
        folder.edit(IN_FILE, &in_token(module));
        folder.write_secret("pin", &format!("{PIN}\n"));
        Self { folder, token }
    }

    pub(crate) fn alone() -> Self {
        Self::new(Folder::alone(), Token::new(), Path::new(SOFTHSM))
    }

    /// With troubles.
    pub(crate) fn troubled() -> Self {
        let token = Token::new();
        let proxy = token.proxy();
        Self::new(Folder::alone(), token, &proxy)
    }

    pub(crate) async fn run(&self, verb: &str) -> Ended {
        let mut command = self.folder.command(verb);
        command.envs(self.token.environment());
        ended(command).await
    }

    pub(crate) async fn serve(&self) -> Serving {
        let mut command = self.folder.command("serve");
        command.envs(self.token.environment());
        self.folder.serve_as(command).await
    }

    /// `check` and `serve` end with 2, name the KEK, the token and what to do, and not the PIN; neither makes a store.
    pub(crate) async fn refused(&self, told: &str) {
        for verb in ["check", "serve"] {
            let ended = self.run(verb).await;
            assert_eq!((ended.code, ended.finding_keys()), (2, vec!["keys.kek"]), "{told}: {ended:?}");
            for part in [told, "token \"sekisho\", key \"kek\", module /"] {
                assert!(ended.stderr.contains(part), "{part} is not in {ended:?}");
            }
            assert!(!ended.stderr.contains(PIN) && !ended.stderr.contains("wrong-pin"), "{ended:?}");
        }
        assert!(!self.folder.path("data/store.db").exists(), "{told}");
    }

    /// `check` says that all is well, but for this.
    pub(crate) async fn warned(&self, told: &str) {
        let check = self.run("check").await;
        assert_eq!((check.code, check.finding_keys()), (0, vec![]), "{check:?}");
        assert!(check.stderr.contains(&format!("keys.kek: warning: {told}")), "{check:?}");
    }
}

/// What stands in the configuration.
pub(crate) fn in_token(module: &Path) -> String {
    let module = module.display();
    format!(
        "kek = {{ pkcs11 = {{ module = \"{module}\", token = \"sekisho\", key = \"kek\", pin = {{ file = \"pin\" }}, timeout = \"20s\" }} }}"
    )
}
