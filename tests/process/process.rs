//! The binary in a folder of its own: started, listened to, told to stop, and ended by its own id in any case.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::harness::{CARRIERS, Carrier, HOST, Handset};

/// The KEK that a folder starts with.
pub(crate) const KEK: &str = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=";

/// No step of a test takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// The binary with `arguments`, an empty environment, and `/` as its folder: nothing may depend on either.
pub(crate) fn sekisho<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    command.args(arguments).env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, run by `wrapper`, a program that becomes it.
pub(crate) fn wrapped(wrapper: &[&str], command: &Command) -> Command {
    let inner = command.as_std();
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, whom a file that may not grow costs a write, as on a full disk, and not its life.
pub(crate) fn with_limited_files(command: &Command) -> Command {
    wrapped(&["sh", "-c", r#"trap "" XFSZ; exec "$0" "$@""#], command)
}

/// The same on one core, so that all share one worker.
pub(crate) fn on_one_core(command: &Command) -> Command {
    let script = r#"mine=$(taskset -pc $$); mine=${mine##*: }; exec taskset -c "${mine%%[,-]*}" "$0" "$@""#;
    wrapped(&["sh", "-c", script], command)
}

/// The same, whom permissions concern: root passes them all.
pub(crate) fn held_to_permissions(command: Command) -> Command {
    if rustix::process::geteuid().is_root() {
        let without = ["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"];
        wrapped(&[&["setpriv"], &without[..]].concat(), &command)
    } else {
        command
    }
}

/// What a process that ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The one document on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line, one document: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The keys that its findings name; warnings are left out.
    pub(crate) fn finding_keys(&self) -> Vec<&str> {
        let errors = self.stderr.lines().filter(|line| !line.contains(": warning: "));
        errors.map(|line| line.split(": ").nth(1).unwrap_or(line)).collect()
    }
}

/// Runs `command` to its end with `input` on stdin.
pub(crate) async fn ended_with(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        // A process that does not read has its reasons; what it answers is asserted.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = timeout(PATIENCE, both).await.expect("the process hangs").unwrap();
    Ended {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `command` to its end.
pub(crate) async fn ended(command: Command) -> Ended {
    ended_with(command, b"").await
}

/// The exit code of `command` and its errors, with an stdout whose reader went away.
pub(crate) async fn with_nobody_reading(mut command: Command, input: &[u8]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdin(Stdio::piped()).stdout(writer).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may stop reading before all is written.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let errors = errors.lines().filter(|line| !line.contains(": warning: ")).collect();
    (output.status.code(), errors)
}

/// A folder with a configuration and a KEK.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// A gateway in front of `upstream`, on free ports.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let folder = Self { folder: TempDir::new().unwrap() };
        folder.write("gateway.toml", &config(upstream));
        folder.write_secret("kek", KEK);
        folder
    }

    /// A gateway whose upstream is never asked.
    pub(crate) fn alone() -> Self {
        Self::new(SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn write_secret(&self, name: &str, content: &str) {
        self.write(name, content);
        let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path(name), only_owner).unwrap();
    }

    /// Changes the configuration; `from` must be there.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.path("gateway.toml")).unwrap();
        assert!(config.contains(from), "{from} is not in the configuration");
        self.write("gateway.toml", &config.replacen(from, to, 1));
    }

    pub(crate) fn append(&self, lines: &str) {
        let config = std::fs::read_to_string(self.path("gateway.toml")).unwrap();
        self.write("gateway.toml", &format!("{config}{lines}"));
    }

    /// `sekisho VERB --config gateway.toml`.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let config = self.path("gateway.toml");
        sekisho(verb.split(' ').chain(["--config", config.to_str().unwrap()]))
    }

    /// The same, to its end.
    pub(crate) async fn run(&self, verb: &str) -> Ended {
        ended(self.command(verb)).await
    }

    /// The document of a verb that administers, which must succeed.
    #[track_caller]
    pub(crate) fn document(&self, verb: &str) -> impl Future<Output = Value> {
        let command = self.command(&format!("{verb} --json"));
        let verb = verb.to_owned();
        async move {
            let ended = ended(command).await;
            assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{verb}: {ended:?}");
            ended.json()
        }
    }

    pub(crate) async fn code(&self, account: &str) -> String {
        self.document(&format!("codes issue {account}")).await["code"].as_str().unwrap().to_owned()
    }

    /// A gateway that serves.
    pub(crate) async fn serve(&self) -> Serving {
        self.serve_as(self.command("serve")).await
    }

    /// The same, started by a command with an environment.
    pub(crate) async fn serve_as(&self, command: Command) -> Serving {
        let listeners = std::fs::read_to_string(self.path("gateway.toml")).unwrap().matches("[[listener]]").count();
        Serving::start(command, listeners).await
    }

    /// Every file with its content and permissions, to see whether anything changed.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        use std::os::unix::fs::PermissionsExt as _;
        let entry = |file: PathBuf| {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            let content = std::fs::read(&file).unwrap();
            (file, (mode, content))
        };
        crate::harness::files(self.root()).into_iter().map(entry).collect()
    }
}

/// A stream of a process, kept from its first byte.
pub(crate) struct Captured(watch::Receiver<Vec<u8>>);

impl Captured {
    pub(crate) fn of(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                sender.send_modify(|all| all.extend_from_slice(&buffer[..length]));
            }
        });
        Self(receiver)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }

    /// Waits until `wanted` is true of the text, or the stream ended.
    pub(crate) async fn until(&self, wanted: impl Fn(&str) -> bool) -> Result<(), watch::error::RecvError> {
        let mut receiver = self.0.clone();
        let wanted = |bytes: &Vec<u8>| wanted(&String::from_utf8_lossy(bytes));
        timeout(PATIENCE, receiver.wait_for(wanted)).await.expect("it never comes").map(drop)
    }

    async fn closed(&self) {
        let _ = self.until(|_| false).await;
    }
}

/// A gateway that serves, in a process of its own.
pub(crate) struct Serving {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Serving {
    async fn start(mut command: Command, listeners: usize) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Captured::of(child.stdout.take().unwrap());
        let stderr = Captured::of(child.stderr.take().unwrap());
        let started = stdout.until(|text| text.matches(r#""message":"listening""#).count() == listeners).await;
        let serving = Self { child, stdout, stderr };
        assert!(started.is_ok(), "it ended: {}\n{}", serving.stdout(), serving.stderr());
        serving
    }

    /// Where it listens for `handset` or `ops`, in the clear.
    pub(crate) fn address(&self, serves: &str) -> SocketAddr {
        self.listening(serves, "http")
    }

    /// Where it listens for handsets over TLS.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.listening("handset", "https")
    }

    fn listening(&self, serves: &str, scheme: &str) -> SocketAddr {
        let lines = self.log();
        let is_it =
            |line: &&Value| line["message"] == "listening" && line["serves"] == serves && line["scheme"] == scheme;
        let line = lines.iter().find(is_it);
        line.unwrap_or_else(|| panic!("no {serves} in {lines:?}"))["address"].as_str().unwrap().parse().unwrap()
    }

    /// Its first listener for handsets in the clear, and the last over TLS.
    pub(crate) fn places(&self) -> [Option<SocketAddr>; 2] {
        let lines = self.log();
        let over_tls = |line: &&Value| line["message"] == "listening" && line["scheme"] == "https";
        let last = lines.iter().rfind(over_tls).map(|line| line["address"].as_str().unwrap().parse().unwrap());
        [Some(self.address("handset")), last]
    }

    pub(crate) fn handset(&self, carrier: Carrier, tail: &str) -> Handset {
        Handset::new(self.address("handset"), carrier, tail)
    }

    /// `GET path` at the ops listener.
    pub(crate) async fn ops(&self, path: &str) -> crate::harness::Answer {
        let request = http::Request::get(path).header("Host", HOST).body(http_body_util::Full::default()).unwrap();
        crate::harness::exchange([127, 0, 0, 1].into(), self.address("ops"), request).await
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its whole lines so far, each of which must be one JSON object.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Waits for a text in the log.
    pub(crate) async fn logged(&self, text: &str) {
        let seen = self.stdout.until(|all| all.contains(text)).await;
        assert!(seen.is_ok(), "it ended without {text}: {}", self.stdout());
    }

    pub(crate) fn id(&self) -> Pid {
        let id = self.child.id().expect("it ended already");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.id(), signal).unwrap();
    }

    /// Lets the running process have no more than that, or as much as it may.
    pub(crate) fn limit(&self, resource: Resource, to: Option<u64>) {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let limit = Rlimit { current: to.or(maximum), maximum };
        rustix::process::prlimit(Some(self.id()), resource, limit).unwrap();
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.id().as_raw_nonzero());
        u64::try_from(std::fs::read_dir(folder).unwrap().count()).unwrap()
    }

    /// How many descriptors it may have open: now, and at most.
    pub(crate) fn descriptors_allowed(&self) -> (u64, u64) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id().as_raw_nonzero())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Memory that it has resident, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for the end: its exit code, and both streams to their last byte.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        self.stdout.closed().await;
        self.stderr.closed().await;
        status.code()
    }

    /// SIGTERM, and the end that must be clean.
    pub(crate) async fn stop(mut self) -> Self {
        self.signal(Signal::TERM);
        assert_eq!(self.end().await, Some(0), "{}\n{}", self.stdout(), self.stderr());
        self
    }

    /// SIGKILL: no time to write anything.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.end().await, None);
    }
}

fn config(upstream: SocketAddr) -> String {
    format!(
        r#"[gateway]
public_url = "http://{HOST}"

[[listener]]
serves = "handset"
address = "127.0.0.1:0"

[[listener]]
serves = "ops"
address = "127.0.0.1:0"

[admin]
socket = "run/admin.sock"

{CARRIERS}
[[upstream]]
name = "console"
servers = ["http://{upstream}"]
audience = "https://console.internal"

[[route]]
path = "/"
upstream = "console"
access = "session"
[[route]]
path = "/public"
upstream = "console"
access = "public"

[binding]
stretch = {{ memory = "8MiB", passes = 1 }}

[store]
path = "data/store.db"

[keys]
kek = {{ file = "kek" }}

[notice]
controller = "Example KK"
contact = "https://example.jp/contact"
revision = "2026-11-23"
"#
    )
}
