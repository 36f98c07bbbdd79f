//! The way to a running gateway.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::failure::{Failure, Findings};
use super::output::{Document, end, finish};
use crate::admin::{AdminClient, AdminUrl, ClientError};
use crate::config::{ClientCertificate, Config};
use crate::tls::VerifyingClient;

const SOCKET: &str = "SEKISHO_SOCKET";
const ADMIN_URL: &str = "SEKISHO_ADMIN_URL";
const ADMIN_CERT: &str = "SEKISHO_ADMIN_CERT";
const ADMIN_KEY: &str = "SEKISHO_ADMIN_KEY";
const ADMIN_CA: &str = "SEKISHO_ADMIN_CA";

/// What every command that administers takes.
#[derive(Args)]
pub(super) struct Connection {
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help = "The running gateway's admin socket [default: that of --config, or $SEKISHO_SOCKET]"
    )]
    socket: Option<PathBuf>,
    /// The gateway's configuration, for its admin.socket
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "URL",
        conflicts_with_all = ["socket", "config"],
        help = "The running gateway's admin listener, https://HOST[:PORT], in place of its socket [default: $SEKISHO_ADMIN_URL]"
    )]
    admin_url: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Your certificate, for the admin listener (PEM) [default: $SEKISHO_ADMIN_CERT]"
    )]
    cert: Option<PathBuf>,
    #[arg(long, global = true, value_name = "FILE", help = "Its private key (PEM) [default: $SEKISHO_ADMIN_KEY]")]
    key: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Whose word counts for who the admin listener is (PEM) [default: $SEKISHO_ADMIN_CA, or the system's roots]"
    )]
    ca: Option<PathBuf>,
    /// Print one JSON document on stdout and nothing else
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The way that was chosen.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Socket(PathBuf),
    Tls { url: AdminUrl, shown: ClientCertificate, ca: Option<PathBuf> },
}

impl Connection {
    /// Whether a way to a gateway was typed.
    pub(super) const fn names_a_gateway(&self) -> bool {
        self.socket.is_some()
            || self.config.is_some()
            || self.admin_url.is_some()
            || self.cert.is_some()
            || self.key.is_some()
            || self.ca.is_some()
    }

    /// The configuration that was named.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Sends one request and prints the document of the answer.
    pub(super) fn call<D: Document + DeserializeOwned>(&self, method: Method, path: &str) -> ExitCode {
        self.finish(self.fetch::<D>(method, path))
    }

    /// As [`Connection::call`], with a document.
    pub(super) fn call_with<D: Document + DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        document: &serde_json::Value,
    ) -> ExitCode {
        self.finish(self.run(async |client| client.call_with::<D>(method, path, Some(document)).await))
    }

    /// Sends one request and reads the document of the answer.
    pub(super) fn fetch<D: DeserializeOwned>(&self, method: Method, path: &str) -> Result<D, Failure> {
        self.run(async |client| client.call(method, path).await)
    }

    /// Does `work` with the running gateway.
    pub(super) fn run<T>(&self, work: impl AsyncFnOnce(AdminClient) -> Result<T, ClientError>) -> Result<T, Failure> {
        let client = match self.way(&|name| std::env::var_os(name))? {
            Way::Socket(path) => AdminClient::new(&path),
            Way::Tls { url, shown, ca } => {
                AdminClient::over_tls(url, VerifyingClient::load(Some(&shown), ca.as_deref())?)
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work(client))?)
    }

    /// Prints what became of a command, and its exit code.
    pub(super) fn finish<D: Document>(&self, outcome: Result<D, Failure>) -> ExitCode {
        finish(outcome, self.json)
    }

    /// Says why a command failed, if it did, and gives its exit code.
    pub(super) fn end(&self, outcome: Result<(), Failure>) -> ExitCode {
        end(outcome, self.json)
    }

    /// Whether documents are wanted.
    pub(super) const fn json(&self) -> bool {
        self.json
    }

    /// What was typed comes before what the environment says.
    fn way(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Way, Failure> {
        let set = |name| environment(name).filter(|value| !value.is_empty());
        match (&self.socket, &self.config, &self.admin_url) {
            (Some(socket), _, _) => Ok(Way::Socket(socket.clone())),
            (None, Some(file), _) => {
                let socket = Config::admin_socket(file).map_err(|found| Failure::Configuration(Findings(found)))?;
                Ok(Way::Socket(socket))
            }
            (None, None, Some(url)) => self.tls(url, &set),
            (None, None, None) => match (set(SOCKET), set(ADMIN_URL)) {
                (Some(_), Some(_)) => Err(Failure::TwoWays),
                (Some(socket), None) => Ok(Way::Socket(socket.into())),
                (None, Some(url)) => self.tls(url.to_str().unwrap_or_default(), &set),
                (None, None) => Err(Failure::NoSocket),
            },
        }
    }

    fn tls(&self, url: &str, set: &dyn Fn(&'static str) -> Option<OsString>) -> Result<Way, Failure> {
        let url = AdminUrl::parse(url).map_err(Failure::AdminUrl)?;
        let file = |typed: &Option<PathBuf>, name| typed.clone().or_else(|| set(name).map(PathBuf::from));
        let certificate = file(&self.cert, ADMIN_CERT).ok_or(Failure::NoCertificate)?;
        let key = file(&self.key, ADMIN_KEY).ok_or(Failure::NoCertificate)?;
        Ok(Way::Tls { url, shown: ClientCertificate { certificate, key }, ca: file(&self.ca, ADMIN_CA) })
    }
}

/// A path of the API; whatever was typed stays one segment, for the gateway to judge.
pub(super) fn path<const N: usize>(segments: [&str; N]) -> String {
    let encoded = segments.map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)));
    format!("/v1{}", encoded.concat())
}

#[cfg(test)]
mod tests {
    use axum::routing::delete;
    use axum::{Json, Router};
    use http::StatusCode;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{AdminServer, Refusal, RefusalDetail, Revoked};
    use crate::cli::failure::Exit;

    fn connection(socket: Option<&str>) -> Connection {
        let socket = socket.map(PathBuf::from);
        Connection { socket, config: None, admin_url: None, cert: None, key: None, ca: None, json: false }
    }

    #[test]
    fn what_was_typed_comes_before_the_environment() {
        let environment = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let url = |text| AdminUrl::parse(text).unwrap();
        let typed = || Connection { admin_url: Some("https://gw:8444/".to_owned()), ..connection(None) };
        let by_socket = |path: &str| Ok(Way::Socket(path.into()));
        let by_tls = |text, certificate: &str, key: &str, ca: Option<&str>| {
            let shown = ClientCertificate { certificate: certificate.into(), key: key.into() };
            Ok(Way::Tls { url: url(text), shown, ca: ca.map(PathBuf::from) })
        };
        let all: &[_] = &[
            ("SEKISHO_SOCKET", ""),
            ("SEKISHO_ADMIN_URL", "https://env"),
            ("SEKISHO_ADMIN_CERT", "env.pem"),
            ("SEKISHO_ADMIN_KEY", "env.key"),
            ("SEKISHO_ADMIN_CA", "env-ca.pem"),
        ];
        let own = || Connection { cert: Some("my.pem".into()), key: Some("my.key".into()), ..typed() };
        let socket: &[_] = &[("SEKISHO_SOCKET", "/from/environment")];
        for (connection, set, expected) in [
            (connection(Some("/typed")), socket, by_socket("/typed")),
            (connection(Some("/typed")), all, by_socket("/typed")),
            (connection(None), socket, by_socket("/from/environment")),
            (connection(None), all, by_tls("https://env", "env.pem", "env.key", Some("env-ca.pem"))),
            (typed(), all, by_tls("https://gw:8444", "env.pem", "env.key", Some("env-ca.pem"))),
            (own(), &[], by_tls("https://gw:8444", "my.pem", "my.key", None)),
            (own(), socket, by_tls("https://gw:8444", "my.pem", "my.key", None)),
            (typed(), &[], Err(Exit::Usage)),
            (Connection { key: None, ..own() }, &[], Err(Exit::Usage)),
            (Connection { admin_url: Some("http://gw".to_owned()), ..own() }, &[], Err(Exit::Usage)),
            (Connection { admin_url: Some("https://gw/v1".to_owned()), ..own() }, &[], Err(Exit::Usage)),
            (connection(None), &[("SEKISHO_SOCKET", "/s"), ("SEKISHO_ADMIN_URL", "https://gw")], Err(Exit::Usage)),
            (connection(None), &[("SEKISHO_SOCKET", "")], Err(Exit::Usage)),
            (connection(None), &[], Err(Exit::Usage)),
        ] {
            assert_eq!(connection.way(&environment(set)).map_err(|failure| failure.exit()), expected);
        }
    }

    #[test]
    fn nobody_at_the_socket_is_not_reachable() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let failure = connection(socket.to_str()).fetch::<serde_json::Value>(Method::GET, "/v1/accounts").unwrap_err();
        assert_eq!(failure.exit(), Exit::NotReachable);
        assert_eq!(failure.document().error.reason, "not-reachable");
    }

    #[test]
    fn a_refusal_keeps_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let shutdown = CancellationToken::new();
        let detail =
            RefusalDetail { reason: "role-required".to_owned(), message: "not you".to_owned(), findings: vec![] };
        let refusal = serde_json::to_value(Refusal { error: detail }).unwrap();
        let router = Router::new()
            .route("/v1/sessions/a%2Fb", delete(async || Json(Revoked { revoked: 1 })))
            .fallback(async move || (StatusCode::FORBIDDEN, Json(refusal.clone())));
        let (bound, is_bound) = std::sync::mpsc::channel();
        let server = std::thread::spawn({
            let (socket, shutdown) = (socket.clone(), shutdown.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let server = AdminServer::bind(&socket).unwrap();
                    bound.send(()).unwrap();
                    server.serve(router, shutdown).await;
                });
            }
        });
        is_bound.recv().unwrap();

        let connection = connection(socket.to_str());
        let revoked = connection.fetch::<Revoked>(Method::DELETE, &path(["sessions", "a/b"])).unwrap();
        assert_eq!(revoked.revoked, 1);
        let failure = connection.fetch::<Revoked>(Method::DELETE, &path(["bindings", "x"])).unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(failure.to_string(), "not you");
        assert_eq!(failure.document().error.reason, "role-required");

        shutdown.cancel();
        server.join().unwrap();
    }

    #[test]
    fn what_was_typed_stays_one_segment() {
        assert_eq!(path(["accounts", "alice", "codes"]), "/v1/accounts/alice/codes");
        assert_eq!(path(["accounts", "../a?b#c/d e"]), "/v1/accounts/%2E%2E%2Fa%3Fb%23c%2Fd%20e");
    }
}
