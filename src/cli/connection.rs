//! The way to a running gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::failure::{Failure, Findings};
use super::output::{Document, finish};
use crate::admin::{AdminClient, ClientError};
use crate::config::Config;

const VARIABLE: &str = "SEKISHO_SOCKET";

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
    /// Print one JSON document on stdout and nothing else
    #[arg(long, global = true)]
    json: bool,
}

impl Connection {
    /// Sends one request and prints the document of the answer.
    pub(super) fn call<D: Document + DeserializeOwned>(&self, method: Method, path: &str) -> ExitCode {
        self.finish(self.fetch::<D>(method, path))
    }

    fn fetch<D: DeserializeOwned>(&self, method: Method, path: &str) -> Result<D, Failure> {
        self.run(async |client| client.call(method, path).await)
    }

    /// Does `work` with the running gateway.
    pub(super) fn run<T>(&self, work: impl AsyncFnOnce(AdminClient) -> Result<T, ClientError>) -> Result<T, Failure> {
        let client = AdminClient::new(&self.socket(std::env::var_os(VARIABLE).map(PathBuf::from))?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work(client))?)
    }

    /// Prints what became of a command, and its exit code.
    pub(super) fn finish<D: Document>(&self, outcome: Result<D, Failure>) -> ExitCode {
        finish(outcome, self.json)
    }

    /// What was typed comes before what the environment says.
    fn socket(&self, environment: Option<PathBuf>) -> Result<PathBuf, Failure> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(file)) => {
                let (config, _) = Config::load(file).map_err(|found| Failure::Configuration(Findings(found)))?;
                Ok(config.admin.socket)
            }
            (None, None) => environment.filter(|path| !path.as_os_str().is_empty()).ok_or(Failure::NoSocket),
        }
    }
}

/// A path of the API; whatever was typed stays one segment, for the gateway to judge.
pub(super) fn path<const N: usize>(segments: [&str; N]) -> String {
    let encoded = segments.map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)));
    format!("/v1{}", encoded.concat())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::routing::delete;
    use axum::{Json, Router};
    use http::StatusCode;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{AdminServer, Refusal, RefusalDetail, Revoked};
    use crate::cli::failure::Exit;

    fn connection(socket: Option<&str>) -> Connection {
        Connection { socket: socket.map(PathBuf::from), config: None, json: false }
    }

    #[test]
    fn the_socket_is_the_one_typed_then_that_of_the_environment() {
        let environment = || Some(PathBuf::from("/from/environment"));
        assert_eq!(connection(Some("/typed")).socket(environment()).unwrap(), Path::new("/typed"));
        assert_eq!(connection(None).socket(environment()).unwrap(), Path::new("/from/environment"));
        for nothing in [None, Some(PathBuf::new())] {
            assert_eq!(connection(None).socket(nothing).unwrap_err().exit(), Exit::Usage);
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
        let detail = RefusalDetail { reason: "role-required".to_owned(), message: "not you".to_owned() };
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
