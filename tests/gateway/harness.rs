//! One gateway on free ports, a recording upstream, handsets on source addresses of their carriers, a clock that
//! moves when told to. Everything goes over real sockets and the real store.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sekisho::admin::{AdminClient, ClientError, Reloaded};
use sekisho::clock::{Clock, ManualClock, Timestamp};
use sekisho::config::{Config, Finding, Serves};
use sekisho::edge::Inherited;
use sekisho::entropy::{Entropy, SeededEntropy};
use sekisho::gateway::Running;
use sekisho::telemetry::Metrics;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::logs;
use crate::recorder::RecordingUpstream;
use crate::wire::tls_exchange;

/// Part of every identifier in these tests: it may be found nowhere.
pub(crate) const CANARY: &str = "QxCnry";

/// 2026-11-24T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_unix_millis(1_795_478_400_000);

/// The host that handsets type.
pub(crate) const HOST: &str = "admin.example.jp";

/// A running gateway and what stands around it.
pub(crate) struct Harness {
    pub(crate) running: Running,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) upstream: RecordingUpstream,
    pub(crate) folder: TempDir,
    config: String,
}

impl Harness {
    /// With the configuration that most tests need.
    pub(crate) async fn start() -> Self {
        Self::with(|config| config).await
    }

    /// With a configuration changed by `edit`.
    pub(crate) async fn with(edit: impl FnOnce(String) -> String) -> Self {
        let upstream = RecordingUpstream::start().await;
        let folder = TempDir::new().unwrap();
        let kek = folder.path().join("kek");
        std::fs::write(&kek, "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n").unwrap();
        std::fs::set_permissions(&kek, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let config = edit(base_config(upstream.address));
        let clock = Arc::new(ManualClock::starting_at(START));
        let running = boot(folder.path(), &config, &clock).await;
        Self { running, clock, upstream, folder, config }
    }

    /// Stops the gateway and starts it again on the same store.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(async |_| ()).await
    }

    /// As [`Harness::restart`], with `between` done to the store while no gateway has it.
    pub(crate) async fn restart_after(mut self, between: impl AsyncFnOnce(&Path)) -> Self {
        self.running.stop(Duration::from_secs(5)).await;
        between(&self.folder.path().join("store.db")).await;
        self.running = boot(self.folder.path(), &self.config, &self.clock).await;
        self
    }

    /// Writes another configuration, changed by `edit`, and has the gateway bring it into force.
    pub(crate) async fn reload(&mut self, edit: impl FnOnce(String) -> String) -> Result<Reloaded, Vec<String>> {
        let config = edit(self.config.clone());
        std::fs::write(self.folder.path().join("gateway.toml"), &config).unwrap();
        match self.admin().call::<Reloaded>(Method::POST, "/v1/reload").await {
            Ok(reloaded) => {
                self.config = config;
                Ok(reloaded)
            }
            Err(ClientError::Refused(detail)) => {
                assert_eq!(detail.reason, "configuration-refused", "{}", detail.message);
                Err(detail.findings)
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Where handsets connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener(Serves::Handset)
    }

    /// Where machines connect.
    pub(crate) fn ops(&self) -> SocketAddr {
        self.listener(Serves::Ops)
    }

    /// Where handsets connect over TLS, if the test's configuration has such a listener.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.running.listeners().iter().find(|l| l.serves == Serves::Handset && l.tls).unwrap().address
    }

    /// The first listener that serves this.
    pub(crate) fn listener(&self, serves: Serves) -> SocketAddr {
        self.running.listeners().iter().find(|l| l.serves == serves).unwrap().address
    }

    /// The admin API.
    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(&self.folder.path().join("admin.sock"))
    }

    /// A fresh enrolment code for `account`.
    pub(crate) async fn code(&self, account: &str) -> String {
        let issued: serde_json::Value =
            self.admin().call(Method::POST, &format!("/v1/accounts/{account}/codes")).await.unwrap();
        issued["code"].as_str().unwrap().to_owned()
    }

    /// A handset of `carrier`, with an identifier made of the canary and `tail`.
    pub(crate) fn handset(&self, carrier: Carrier, tail: &str) -> Handset {
        Handset::new(self.address(), carrier, tail)
    }

    /// A handset that is bound to `account` and signed in.
    pub(crate) async fn signed_in(&self, carrier: Carrier, tail: &str, account: &str) -> Handset {
        let mut handset = self.handset(carrier, tail);
        let code = self.code(account).await;
        let entered = handset.enrol("/", &code).await;
        assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
        handset
    }

    /// Takes a backup that nobody keeps; what the ledger knows of it.
    pub(crate) async fn backup(&self) -> serde_json::Value {
        let listed = async || -> serde_json::Value { self.admin().call(Method::GET, "/v1/backups").await.unwrap() };
        let before = listed().await;
        self.admin().receive(Method::POST, "/v1/backups", |_| true).await.unwrap();
        let after = listed().await;
        let known = before["backups"].as_array().unwrap();
        after["backups"].as_array().unwrap().iter().find(|backup| !known.contains(backup)).unwrap().clone()
    }

    /// What monitoring sees.
    pub(crate) async fn metrics(&self) -> String {
        let request = Request::builder().uri("/metrics").header("Host", "ops").body(Full::default()).unwrap();
        exchange(Ipv4Addr::LOCALHOST.into(), self.ops(), request).await.text()
    }

    /// Searches metrics, log and files for the canaries, and stops the gateway.
    pub(crate) async fn finish(self) {
        self.finish_without(&[]).await;
    }

    /// As [`Harness::finish`], and searches for these secrets too. Returns the access log, of all days.
    pub(crate) async fn finish_without(self, secrets: &[&str]) -> String {
        let metrics = self.metrics().await;
        self.running.stop(Duration::from_secs(5)).await;
        let log = logs::captured();
        for secret in [&[CANARY, AU_CANARY], secrets].concat() {
            assert!(!metrics.contains(secret), "a secret is in the metrics");
            assert!(!log.contains(secret), "a secret is in the log");
            assert_not_in_files(self.folder.path(), secret);
        }
        let is_log = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().starts_with("access.log");
        let logs = files(self.folder.path()).into_iter().filter(is_log);
        logs.map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect()
    }
}

fn assert_not_in_files(folder: &Path, secret: &str) {
    for file in files(folder) {
        let content = std::fs::read(&file).unwrap();
        assert!(!contains(&content, secret.as_bytes()), "a secret is in {}", file.display());
    }
}

async fn boot(folder: &Path, config: &str, clock: &Arc<ManualClock>) -> Running {
    logs::capture();
    let file = folder.join("gateway.toml");
    std::fs::write(&file, config).unwrap();
    let config = match Config::load(&file) {
        Ok((config, _)) => config,
        Err(findings) => panic!("{}", lines(&findings)),
    };
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(fresh_seed()));
    let metrics = Arc::new(Metrics::new());
    match Running::start(config, clock, entropy, metrics, 2, Inherited::default()).await {
        Ok(running) => running,
        Err(findings) => panic!("{}", lines(&findings)),
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A restart must not repeat the stream of the run before.
fn fresh_seed() -> u64 {
    static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The carriers of [`Carrier`], each in a network of its own.
pub(crate) const CARRIERS: &str = r#"[carriers.docomo]
networks = ["127.0.1.0/24"]
[carriers.au]
networks = ["127.0.2.0/24"]
[carriers.softbank]
networks = ["127.0.3.0/24"]
[carriers.private-apn]
header = "X-Device-Ref"
grammar = "^[A-Za-z0-9_-]{22,64}$"
user_agent = "any"
over_tls = "accept"
networks = ["127.0.4.0/24"]
"#;

fn base_config(upstream: SocketAddr) -> String {
    format!(
        r#"
[gateway]
public_url = "http://{HOST}"
trusted_proxies = ["127.0.9.0/24"]

[[listener]]
serves = "handset"
address = "127.0.0.1:0"

[[listener]]
serves = "ops"
address = "127.0.0.1:0"

[admin]
socket = "admin.sock"

{CARRIERS}
[[upstream]]
name = "console"
servers = ["http://{upstream}"]
audience = "https://console.internal"
timeout = {{ connect = "2s", first_byte = "5s", idle = "10s" }}

[[route]]
path = "/"
upstream = "console"
access = "session"
[[route]]
path = "/public"
upstream = "console"
access = "public"
[[route]]
path = "/signin"
upstream = "console"
access = "login"

[binding]
stretch = {{ memory = "8MiB", passes = 1 }}

[store]
path = "store.db"

[keys]
kek = {{ file = "kek" }}

[notice]
controller = "Example KK"
contact = "https://example.jp/contact"
revision = "2026-11-23"

[log]
access = {{ file = "access.log" }}
"#
    )
}

/// A simulated carrier: the network it comes from, the field its gateway writes, the browser behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Docomo,
    Au,
    SoftBank,
    PrivateApn,
}

impl Carrier {
    pub(crate) const ALL: [Self; 4] = [Self::Docomo, Self::Au, Self::SoftBank, Self::PrivateApn];

    fn network(self) -> u8 {
        match self {
            Self::Docomo => 1,
            Self::Au => 2,
            Self::SoftBank => 3,
            Self::PrivateApn => 4,
        }
    }

    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Docomo => "X-DCMGUID",
            Self::Au => "X-UP-SUBNO",
            Self::SoftBank => "X-JPHONE-UID",
            Self::PrivateApn => "X-Device-Ref",
        }
    }

    pub(crate) fn user_agent(self) -> &'static str {
        match self {
            Self::Docomo => "DoCoMo/2.0 P07A3(c500;TB;W24H15)",
            Self::Au => "KDDI-CA39 UP.Browser/6.2.0.13.1.5 (FUI) MMP/2.0",
            Self::SoftBank => "SoftBank/1.0/930SH/SHJ001/SN012345678901234 Browser/NetFront/3.4 Profile/MIDP-2.0",
            Self::PrivateApn => {
                "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36"
            }
        }
    }

    /// An identifier of this carrier's grammar with the canary in it. `tail` is one character, or digits for au.
    pub(crate) fn identifier(self, tail: &str) -> String {
        match self {
            Self::Docomo => format!("{CANARY}{tail}"),
            // au's identifiers are digits: their canary is a number of its own.
            Self::Au => format!("{AU_CANARY}{:0>3}_w5.ezweb.ne.jp", tail.as_bytes()[0]),
            Self::SoftBank => format!("{CANARY}{tail:0>10}"),
            Self::PrivateApn => format!("{CANARY}{tail:0>22}"),
        }
    }
}

/// The canary of identifiers that are digits.
pub(crate) const AU_CANARY: &str = "05990017031";

/// A browser with a cookie jar behind a carrier's gateway.
pub(crate) struct Handset {
    pub(crate) gateway: SocketAddr,
    pub(crate) carrier: Carrier,
    pub(crate) source: IpAddr,
    pub(crate) identifier: Option<String>,
    pub(crate) cookies: BTreeMap<String, String>,
    pub(crate) extra: Vec<(String, String)>,
    pub(crate) user_agent: String,
    pub(crate) host: String,
    /// Speaks TLS, to a TLS listener; HTTP/2 if that is agreed on.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no whole answer.
pub(crate) type NoAnswer = Box<dyn std::error::Error + Send + Sync>;

impl Answer {
    pub(crate) fn text(&self) -> String {
        let shift_jis = self.header("content-type").is_some_and(|t| t.contains("Shift_JIS"));
        let encoding = if shift_jis { encoding_rs::SHIFT_JIS } else { encoding_rs::UTF_8 };
        encoding.decode(&self.body).0.into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Whether it gives the browser a session; the probe for cookies is none.
    pub(crate) fn sets_session(&self) -> bool {
        let cookies = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        cookies.filter_map(|text| text.split_once('=')).any(|(name, _)| name.ends_with("sekisho"))
    }

    /// The reason of a JSON refusal.
    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The first link on the page that begins with `prefix`, entities decoded.
    pub(crate) fn link(&self, prefix: &str) -> String {
        self.attribute("href", prefix)
    }

    /// The first value of an attribute that begins with `prefix`, entities decoded.
    pub(crate) fn attribute(&self, name: &str, prefix: &str) -> String {
        let text = self.text();
        let needle = format!("{name}=\"{prefix}");
        let start = text.find(&needle).unwrap_or_else(|| panic!("no {needle} in {text}")) + name.len() + 2;
        let end = start + text[start..].find('"').unwrap();
        text[start..end].replace("&#38;", "&").replace("&amp;", "&").replace("&#x26;", "&")
    }

    /// The value of the hidden field `name`.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let text = self.text();
        let needle = format!("name=\"{name}\" value=\"");
        let start = text.find(&needle).unwrap_or_else(|| panic!("no field {name} in {text}")) + needle.len();
        text[start..start + text[start..].find('"').unwrap()].to_owned()
    }
}

impl Handset {
    pub(crate) fn new(gateway: SocketAddr, carrier: Carrier, tail: &str) -> Self {
        Self {
            gateway,
            carrier,
            source: IpAddr::V4(Ipv4Addr::new(127, 0, carrier.network(), 7)),
            identifier: Some(carrier.identifier(tail)),
            cookies: BTreeMap::new(),
            extra: Vec::new(),
            user_agent: carrier.user_agent().to_owned(),
            host: HOST.to_owned(),
            tls: None,
        }
    }

    /// Whether its jar holds a session.
    pub(crate) fn has_session(&self) -> bool {
        self.cookies.keys().any(|name| name.ends_with("sekisho"))
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], Bytes::new()).await
    }

    /// As a script asks.
    pub(crate) async fn get_json(&mut self, target: &str) -> Answer {
        self.send(Method::GET, target, &[("Accept", "application/json")], Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, target, &kind, body.into()).await
    }

    /// Asks for `path`, and clicks the button of the sign-in page that comes.
    pub(crate) async fn click_sign_in(&mut self, path: &str) -> Answer {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.text());
        self.get(&page.link("/_sekisho/login?")).await
    }

    /// The whole way of a new handset: sign-in page, click, code.
    pub(crate) async fn enrol(&mut self, path: &str, code: &str) -> Answer {
        let page = self.click_sign_in(path).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
        self.type_code(&page, code).await
    }

    /// Fills the form of an enrolment page in.
    pub(crate) async fn type_code(&mut self, page: &Answer, code: &str) -> Answer {
        let action = page.attribute("action", "/_sekisho/enrol");
        let (t, to) = (page.hidden("t"), page.hidden("to"));
        self.post(&action, &[("code", code), ("t", &t), ("to", &to)]).await
    }

    pub(crate) async fn send(&mut self, method: Method, target: &str, fields: &[(&str, &str)], body: Bytes) -> Answer {
        let Some(tls) = self.tls.clone() else {
            return self.try_send(method, target, fields, body).await.unwrap();
        };
        let request = self.request(method, target, fields, body);
        let answer = tls_exchange(self.source, self.gateway, &tls, request).await;
        self.take(answer)
    }

    /// The same in clear, of a gateway that may end meanwhile.
    pub(crate) async fn try_send(
        &mut self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let request = self.request(method, target, fields, body);
        try_exchange(self.source, self.gateway, request).await.map(|answer| self.take(answer))
    }

    /// What it would send.
    pub(crate) fn request(
        &self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(target).header("Host", &self.host);
        request = request.header("User-Agent", &self.user_agent);
        if let Some(identifier) = self.identifier.as_ref().filter(|_| self.gateway_inserts(target)) {
            request = request.header(self.carrier.header(), identifier);
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
            request = request.header("Cookie", cookies.join("; "));
        }
        let extra: Vec<_> = self.extra.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for (name, value) in fields.iter().chain(&extra) {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).unwrap()
    }

    /// Keeps the answer's cookies, and looks for what no answer may hold.
    fn take(&mut self, answer: Answer) -> Answer {
        let before = self.cookies.clone();
        self.keep_cookies(&answer.headers);
        for token in before.values().chain(self.cookies.values()).filter(|token| token.len() >= 16) {
            assert!(!contains(&answer.body, token.as_bytes()), "a cookie is in an answer: {}", answer.text());
        }
        assert!(!contains(&answer.body, CANARY.as_bytes()), "the canary is in an answer: {}", answer.text());
        assert!(!contains(&answer.body, AU_CANARY.as_bytes()), "the canary is in an answer: {}", answer.text());
        let head = format!("{:?}", answer.headers);
        assert!(!head.contains(CANARY) && !head.contains(AU_CANARY), "the canary is in a head: {head}");
        answer
    }

    /// docomo's gateway writes the identifier only where the URL asks for it.
    fn gateway_inserts(&self, target: &str) -> bool {
        self.carrier != Carrier::Docomo || target.to_ascii_lowercase().contains("guid=on")
    }

    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for value in headers.get_all("set-cookie") {
            let text = value.to_str().unwrap();
            let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// One request on a connection of its own, from `source`.
pub(crate) async fn exchange(source: IpAddr, to: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    try_exchange(source, to, request).await.unwrap()
}

/// The same, of a gateway that may end meanwhile.
pub(crate) async fn try_exchange(
    source: IpAddr,
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Answer, NoAnswer> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let stream = socket.connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Every regular file below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}
