//! What a configuration is once it was checked: domain types that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::certificate_name::CertificateName;
use super::document::Lines;
use super::duration::Rate;
use super::log::{LogConfig, PrivacyConfig};
use super::origin::Origin;
use super::secret_source::SecretSource;
use super::trace::TraceConfig;
use crate::carrier::{Carriers, ProfileSpec};
use crate::edge::{HostAllowList, TrustedProxies};
use crate::store::StretchParameters;

/// A configuration that start-up may rely on: every rule that needs no file but the configuration was checked.
///
/// `C` is [`Carriers`] everywhere but inside `config`, where the profiles are still [`CarrierSpecs`].
pub struct Config<C = Carriers> {
    /// The file it was read from; relative paths in it were resolved against its folder.
    pub file: PathBuf,
    /// SHA-256 of its text, in hexadecimal: by that the audit trail names a configuration.
    pub sha256: String,
    /// Where each key stands, for findings that come up later.
    pub(super) lines: Lines,
    /// `[gateway]`.
    pub gateway: GatewayConfig,
    /// `[[listener]]`, at least one that serves handsets.
    pub listeners: Vec<ListenerConfig>,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[carriers.*]` merged over the built-in profiles.
    pub carriers: C,
    /// `[[upstream]]`, names unique.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[route]]`, paths unique, every upstream known.
    pub routes: Vec<RouteConfig>,
    /// `[session]`.
    pub session: SessionConfig,
    /// `[binding]`.
    pub binding: BindingConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[backup]`.
    pub backup: BackupConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[keys]`.
    pub keys: KeysConfig,
    /// `[notice]`.
    pub notice: NoticeConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[privacy]`.
    pub privacy: PrivacyConfig,
    /// `[trace]`, if there is one.
    pub trace: Option<TraceConfig>,
}

/// What the operator wrote about carriers, by profile name; not yet judged.
pub type CarrierSpecs = BTreeMap<String, ProfileSpec>;

/// Where the gateway is seen from outside, and whom it believes.
#[derive(Clone)]
pub struct GatewayConfig {
    /// What handsets type; its scheme decides where sessions live. Also `iss`.
    pub public_url: Origin,
    /// Where the plain listener is seen from outside.
    pub plain_url: Origin,
    /// Host / :authority allow-list.
    pub hosts: HostAllowList,
    /// Whose X-Forwarded-For, -Proto and PROXY header are believed.
    pub trusted_proxies: TrustedProxies,
}

/// One `[[listener]]`.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// What it serves.
    pub serves: Serves,
    /// Address and port; port 0 picks a free one.
    pub address: SocketAddr,
    /// TLS, if any.
    pub tls: Option<ListenerTls>,
    /// Whether every connection begins with a PROXY header, from trusted proxies.
    pub proxy_protocol: bool,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Handsets: sign-in pages and the proxied console.
    Handset,
    /// Health, readiness, metrics, JWKS.
    Ops,
    /// Proxies of ours that ask whether a request may pass.
    ForwardAuth,
    /// The admin API, for client certificates; always with [`ListenerTls::client_ca`].
    Admin,
}

impl Serves {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handset => "handset",
            Self::Ops => "ops",
            Self::ForwardAuth => "forward-auth",
            Self::Admin => "admin",
        }
    }

    /// What serves this word, if anything.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Handset, Self::Ops, Self::ForwardAuth, Self::Admin].into_iter().find(|serves| serves.as_str() == word)
    }
}

/// A certificate of a TLS listener and its key (PEM files).
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
}

/// What a TLS listener shows, and whom it lets in.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// For clients that ask for no name, or for one that no certificate has.
    pub first: ServerCertificate,
    /// For clients that ask for a name in one of these.
    pub additional: Vec<ServerCertificate>,
    /// Who issues client certificates. Where it is there, nobody comes in without one.
    pub client_ca: Option<PathBuf>,
    /// Which of them were revoked (RFC 5280 §5).
    pub client_crl: Option<PathBuf>,
}

/// `[admin]`.
pub struct AdminConfig {
    /// The UNIX socket of the admin API.
    pub socket: PathBuf,
    /// People needed to destroy a key or end a compromise. Default 1.
    pub approvals: u32,
    /// Principals that are one person, by any name for them: they approve once.
    pub people: BTreeMap<String, Vec<Principal>>,
    /// Who has which role, beside the gateway's own uid and root, which have every role.
    pub roles: BTreeMap<Role, Vec<Principal>>,
}

/// A role of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Accounts, codes, bindings, sessions.
    Operator,
    /// Keys and rotations.
    Security,
    /// Export, erasure, retention, statistics.
    Privacy,
    /// Reads the audit.
    Auditor,
}

/// Who may hold a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// `uid:1001`.
    Uid(u32),
    /// `gid:100`, or a group name resolved when the configuration was read.
    Gid(u32),
    /// `cert:alice@ops`: whom a client certificate names.
    Certificate(CertificateName),
}

/// `uid:1001`, `gid:100`, `cert:alice@ops`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
            Self::Certificate(name) => write!(f, "cert:{name}"),
        }
    }
}

/// One `[[upstream]]`.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Unique name.
    pub name: String,
    /// Servers, at least one.
    pub servers: Vec<UpstreamServer>,
    /// The assertion's `aud`.
    pub audience: String,
    /// Whether it may have handsets bound to its accounts, from routes with [`Access::Login`].
    pub may_bind: bool,
    /// What the assertion's `sub` is.
    pub subject: SubjectKind,
    /// Roots (PEM file) for https servers, in place of the system's.
    pub ca: Option<PathBuf>,
    /// What the gateway shows https servers that ask who it is.
    pub client_certificate: Option<ClientCertificate>,
    /// Connections that each of its servers may have, those of probes apart. Default 4096.
    pub connections: usize,
    /// Requests that wait where all have as many.
    pub queue: UpstreamQueue,
    /// How its servers are probed; without, they are not.
    pub health: Option<HealthConfig>,
    /// Time-outs.
    pub timeout: UpstreamTimeouts,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamServer {
    /// Over TCP.
    Tcp {
        /// TLS with verification.
        https: bool,
        /// Host name or address; an IPv6 address stands without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A UNIX socket, in the clear.
    Unix(PathBuf),
}

impl UpstreamServer {
    /// Whether it is spoken to in TLS.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        matches!(self, Self::Tcp { https: true, .. })
    }
}

/// As `upstream.servers` names it.
impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { https, host, port } => {
                let scheme = if *https { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

/// A certificate chain and its key (PEM files).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// How an upstream's servers are probed.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// What is asked for, with `GET`; 2xx and 3xx are good.
    pub path: String,
    /// How often. Default 5 s.
    pub interval: Duration,
}

/// Requests that wait for a connection to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamQueue {
    /// How many may. Default 256.
    pub length: usize,
    /// For how long. Default 5 s.
    pub time: Duration,
}

/// What an upstream is told of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// A random id of account and upstream.
    Pairwise,
    /// The operator's opaque account id.
    Account,
}

/// Time-outs towards an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamTimeouts {
    /// TCP connect and TLS handshake. Default 3 s.
    pub connect: Duration,
    /// From the request's last byte to the answer's head. Default 30 s.
    pub first_byte: Duration,
    /// Between two bytes of a body; also how long an unused connection is kept. Default 60 s.
    pub idle: Duration,
}

/// One `[[route]]`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Prefix of whole segments, beginning with `/`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Who gets through.
    pub access: Access,
    /// Bytes of a request body. Default [`LimitsConfig::body_bytes`].
    pub body_bytes: u64,
    /// How well they have to have signed in.
    pub assurance: Assurance,
}

/// `route.assurance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// By the handset.
    Device,
    /// By the handset and a PIN; only where [`RouteConfig::access`] asks for a session.
    DevicePin,
}

/// Who gets through a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A live session.
    Session,
    /// Anybody; a valid session is asserted too.
    Public,
    /// Anybody, to sign in at the upstream; a valid session is asserted too.
    Login,
}

/// `[session]`.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// Ends when unused for that long. Default 30 min.
    pub idle: Duration,
    /// Ends in any case. Default 12 h.
    pub absolute: Duration,
    /// Most sessions of an account. Default 5.
    pub per_account: u32,
    /// How tokens travel. Default `auto`.
    pub transport: TransportSetting,
    /// Whether a URL may carry a session over TLS that hides the identifier. Default no.
    pub url_over_tls: bool,
    /// For how long a typed PIN counts, within the session. Default 2 h.
    pub pin_for: Duration,
}

/// `session.transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportSetting {
    /// In cookies where the browser keeps them, else in URLs.
    Auto,
    /// In cookies only.
    Cookie,
    /// In URLs only.
    Url,
}

/// `[binding]`.
#[derive(Clone, Copy, Debug)]
pub struct BindingConfig {
    /// Unused for that many days: erased. Default 400.
    pub retention_days: u32,
    /// Most bindings of an account. Default 3.
    pub per_account: u32,
    /// The stretch.
    pub stretch: StretchSetting,
}

/// `binding.stretch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StretchSetting {
    /// Argon2id (19 MiB, 2 passes) for identifier spaces under 2^80.
    Auto,
    /// No stretch.
    Off,
    /// As `Auto`, with these parameters.
    Custom(StretchParameters),
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The embedded store's file.
    pub path: PathBuf,
}

/// `[backup]`.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// The folder of the ledger: keys of backups, and what a restored store must be told. Default: beside the store.
    pub ledger: PathBuf,
    /// Whether the operator chose it.
    pub chosen: bool,
    /// Days after which the key of a backup is destroyed; `None`: only when somebody says so.
    pub retention_days: Option<u32>,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Sign-ins, per handset and per account. Default 10/1m.
    pub sign_in: Rate,
    /// Typed codes, per handset. Default 10/1h.
    pub code: Rate,
    /// Wrong PINs, per handset; those of an account are slowed beyond it. Default 10/1m.
    pub pin: Rate,
    /// Sign-ins, codes and PINs from one network (/24, /48), slowed beyond it. Default 100/1m.
    pub network: Rate,
    /// Bytes of a request head. Default 32 KiB.
    pub head_bytes: usize,
    /// Header fields of a request. Default 100.
    pub headers: usize,
    /// Bytes of a request body. Default 16 MiB.
    pub body_bytes: u64,
    /// Bytes of a request target. Default 8 KiB.
    pub url_bytes: usize,
    /// Connections of clients that may be open at once; what the process may open decides where it is left out.
    pub connections: Option<u32>,
    /// Of those, from one IPv4 address or IPv6 /64 that is no carrier's. Default 256.
    pub connections_per_address: u32,
    /// Requests of one such address. Default: unlimited.
    pub requests: Option<Rate>,
    /// Time-outs towards clients.
    pub timeouts: ClientTimeouts,
}

/// Time-outs towards clients.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// A whole request head. Default 15 s.
    pub head: Duration,
    /// Between two bytes of a request body. Default 30 s.
    pub body_idle: Duration,
    /// A client that does not read. Default 30 s.
    pub write_idle: Duration,
    /// Between two requests. Default 75 s.
    pub keep_alive: Duration,
}

/// `[keys]`.
pub struct KeysConfig {
    /// Where the key-encryption key is.
    pub kek: KekSource,
    /// The one that `keys rewrap` changes to; a start opens the store under either.
    pub kek_next: Option<KekSource>,
    /// How long keys live.
    pub periods: KeyPeriods,
}

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPeriods {
    /// Between drained and destroy. Default 7 days.
    pub cooling: Duration,
    /// For how long an assertion key is published before it signs. Default 24 h; 6 min at least, which is what a cache of
    /// the JWKS may take to notice.
    pub assertion_publish: Duration,
    /// For how long an assertion key signs. Default 30 days.
    pub assertion_rotate: Duration,
    /// For how long a session key is used. Default 90 days.
    pub session_rotate: Duration,
    /// For how long an audit key is used. Default 365 days.
    pub audit_rotate: Duration,
}

/// Where the key-encryption key is; never the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekSource {
    /// 32 bytes in base64, which the process reads.
    Secret(SecretSource),
    /// An AES-256 key in a token, which the process never sees.
    Token(TokenKey),
}

impl KekSource {
    /// What is doubtful about the place of the KEK that `key` names, or of its PIN, and the key to say it of.
    #[must_use]
    pub fn doubt(&self, key: &str) -> Option<(String, String)> {
        match self {
            Self::Secret(secret) => Some((key.to_owned(), secret.doubt()?)),
            Self::Token(token) => Some((format!("{key}.pkcs11.pin"), token.pin.doubt()?)),
        }
    }
}

/// A key in a PKCS#11 token, by the names that its operator gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's module, a shared library.
    pub module: PathBuf,
    /// The token's label, at most 32 bytes.
    pub token: String,
    /// The key's label.
    pub key: String,
    /// The user's PIN.
    pub pin: SecretSource,
    /// How long one call may take. Default 10 s.
    pub timeout: Duration,
}

/// `[notice]`.
#[derive(Clone, Debug)]
pub struct NoticeConfig {
    /// Who runs this gateway.
    pub controller: String,
    /// Whom to ask: a URL, an address or a sentence.
    pub contact: String,
    /// Revision date of the notice, `YYYY-MM-DD`.
    pub revision: String,
}
