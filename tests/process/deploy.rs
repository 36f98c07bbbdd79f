//! What `deploy/` holds for others to run: judged by their own tools.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::harness::exchange;
use crate::process::KEK;
use crate::wire::pem;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn run(program: &str, arguments: &[&str], file: &Path) -> Output {
    let started = Command::new(program).args(arguments).arg(file).output();
    started.unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"))
}

#[test]
fn systemd_finds_the_unit_hardened() {
    let unit = sample("systemd/sekisho.service");
    // In tenths.
    let judged = run("systemd-analyze", &["security", "--offline=true", "--threshold=20", "--no-pager"], &unit);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));

    let folder = tempfile::tempdir().unwrap();
    let softened = folder.path().join("sekisho.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&softened, text.replace("ProtectSystem=strict", "").replace("PrivateDevices=yes", "")).unwrap();
    let judged = run("systemd-analyze", &["security", "--offline=true", "--threshold=5", "--no-pager"], &softened);
    assert!(!judged.status.success(), "the threshold counts");
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    // Installed side by side, with a program where they expect one.
    let folder = tempfile::tempdir().unwrap();
    for unit in ["sekisho.service", "sekisho.socket"] {
        let text = std::fs::read_to_string(sample("systemd").join(unit)).unwrap();
        std::fs::write(folder.path().join(unit), text.replace("/usr/bin/sekisho", "/bin/true")).unwrap();
    }
    let verify = |unit: &str| {
        let judged =
            run("systemd-analyze", &["verify", "--man=no", "--recursive-errors=one"], &folder.path().join(unit));
        (judged.status.success(), String::from_utf8_lossy(&judged.stderr).into_owned())
    };
    for unit in ["sekisho.service", "sekisho.socket"] {
        let (sound, said) = verify(unit);
        let about_it: Vec<_> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(sound && about_it.is_empty(), "{said}");
    }
    let socket = folder.path().join("sekisho.socket");
    let misspelt = std::fs::read_to_string(&socket).unwrap().replace("Backlog=", "Backlogs=");
    std::fs::write(&socket, misspelt).unwrap();
    assert!(verify("sekisho.socket").1.contains("Backlogs"), "it reads what it is given");
}

#[test]
fn alert_rules_are_rules_and_name_metrics_that_there_are() {
    let rules = sample("prometheus/alerts.yml");
    let judged = run("promtool", &["check", "rules"], &rules);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));

    // Another test holds that page to what is served.
    let known = include_str!("../../docs/metrics.md");
    let text = std::fs::read_to_string(&rules).unwrap();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<_> = words.filter(|word| word.starts_with("sekisho_")).collect();
    assert!(named.len() > 10);
    for name in named {
        let metric = name.trim_end_matches("_bucket");
        assert!(known.contains(&format!("| `{metric}` |")), "{name}");
    }
    for lost in ["sekisho_log_lines_lost_total", "sekisho_trace_spans_total{outcome!=\"sent\"}"] {
        assert!(text.contains(lost), "nobody is told of {lost}");
    }
    // Reasons are spelt as refusals are.
    for reason in ["store-unavailable", "not-ready", "malformed-identifier", "code-invalid", "session-device-mismatch"]
    {
        assert!(text.contains(reason) && sekisho::refusal::Reason::ALL.iter().any(|known| known.as_str() == reason));
    }
}

#[test]
fn a_container_is_built_of_named_images_and_files_that_there_are_and_runs_as_nobody() {
    let text = std::fs::read_to_string(sample("container/Containerfile")).unwrap().replace("\\\n", " ");
    let lines: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect()).collect();
    let of = |instruction: &'static str| {
        let is_it = move |line: &&Vec<&str>| line.first() == Some(&instruction);
        lines.iter().filter(is_it).map(|line| &line[1..])
    };
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"];
    for line in lines.iter().filter(|line| !line.is_empty()) {
        assert!(known.contains(&line[0]), "{}: nothing is fetched by ADD, nothing secret is in ENV or ARG", line[0]);
    }
    for image in of("FROM") {
        let (_, tag) = image[0].rsplit_once(':').expect("a version");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{tag} would be another image tomorrow");
    }
    let toolchain = include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = "));
    assert!(of("FROM").next().unwrap()[0].contains(&format!(":{}-", toolchain.unwrap().trim_matches('"'))));

    // The builder is sent what .dockerignore lets through, and no more.
    let sent = include_str!("../../.dockerignore");
    let sources = of("COPY").filter(|copy| !copy[0].starts_with("--from")).flat_map(|copy| &copy[..copy.len() - 1]);
    let sources: Vec<_> = sources.copied().collect();
    assert!(sources.len() > 4);
    for source in &sources {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(), "{source}");
        assert!(sent.lines().any(|line| line == format!("!{source}")), "{source} is not sent");
    }
    let manifest = include_str!("../../Cargo.toml");
    for path in manifest.lines().filter_map(|line| line.strip_prefix("path = ")) {
        let path = path.trim_matches('"');
        assert!(sources.iter().any(|source| path.starts_with(source)), "cargo wants {path}");
    }
    let owned = of("RUN").flatten().skip_while(|word| **word != "65532").copied();
    let owned: Vec<_> = owned.filter(|word| word.starts_with("/made/")).collect();
    assert_eq!(owned, ["/made/var/lib/sekisho", "/made/run/sekisho"], "and nothing else in it is its own");
    let user = of("USER").next_back().unwrap()[0];
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 1000), "{user}");
    let last = lines.iter().rposition(|line| line.first() == Some(&"COPY"));
    assert!(last < lines.iter().position(|line| line.first() == Some(&"USER")), "what is copied is not its own");
}

/// A root like the image's: the program, the libraries that it names, the roots of the web, and the folders that are its own.
fn image_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = env!("CARGO_BIN_EXE_sekisho");
    let libraries = String::from_utf8(Command::new("ldd").arg(program).output().unwrap().stdout).unwrap();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(|path| (path, path));
    let roots = "/etc/ssl/certs/ca-certificates.crt";
    for (from, to) in
        libraries.chain([(program, "/usr/bin/sekisho"), (roots, roots)]).filter(|(from, _)| Path::new(from).exists())
    {
        let to = root.path().join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
    for (folder, mode) in
        [("var/lib/sekisho", 0o700), ("run/sekisho", 0o755), ("run/secrets", 0o755), ("etc/sekisho", 0o755)]
    {
        let own = folder.ends_with("sekisho") && !folder.starts_with("etc");
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
        if own {
            chown(&folder, Some(65_532), Some(65_532)).unwrap();
        }
    }
    let signed = rcgen::generate_simple_self_signed(["admin.example.jp".to_owned()]).unwrap();
    let (certificate, key) =
        (pem("CERTIFICATE", signed.cert.der()), pem("PRIVATE KEY", &signed.signing_key.serialize_der()));
    for (name, secret) in [("kek", KEK.to_owned()), ("tls.pem", certificate), ("tls.key", key)] {
        let path = root.path().join("run/secrets").join(name);
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        chown(&path, Some(65_532), Some(65_532)).unwrap();
    }
    let config = std::fs::read_to_string(sample("container/gateway.toml")).unwrap();
    let config = config.replace("0.0.0.0:8443", "127.0.0.1:0").replace("0.0.0.0:9090", "127.0.0.1:0");
    std::fs::write(root.path().join("etc/sekisho/gateway.toml"), config).unwrap();
    root
}

#[tokio::test]
async fn in_a_container_the_program_needs_its_libraries_and_what_is_its_own() {
    if !rustix::process::geteuid().is_root() {
        // The harness captures what is printed by macros, and a test that passes would hide it.
        let _ = writeln!(std::io::stderr(), "SKIP: nobody else can be played, and no root made: not root");
        return;
    }
    let root = image_root();
    let inside = |verb: &str| {
        let mut command = tokio::process::Command::new("/usr/sbin/chroot");
        command.args(["--userspec=65532:65532", "--groups="]).arg(root.path());
        command
            .args(["/usr/bin/sekisho", verb, "--config", "/etc/sekisho/gateway.toml"])
            .env_clear()
            .kill_on_drop(true);
        command
    };
    let checked = inside("check").output().await.unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && said.lines().count() == 1 && said.contains("whose retention is not ours"),
        "{said}"
    );

    let mut gateway = inside("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
    let listening = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it serves");
            let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if told["message"] == "listening" && told["serves"] == "ops" {
                return told["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
            }
        }
    };
    let ops = timeout(Duration::from_secs(30), listening).await.unwrap();
    for path in ["/healthz", "/readyz"] {
        let request = Request::builder().uri(path).header("Host", "ops").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(exchange(Ipv4Addr::LOCALHOST.into(), ops, request).await.status, StatusCode::OK, "{path}");
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(gateway.id().unwrap().cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(timeout(Duration::from_secs(30), gateway.wait()).await.unwrap().unwrap().success());
    assert!(root.path().join("var/lib/sekisho/sekisho.store").is_file());
}
