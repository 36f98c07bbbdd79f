//! The admin API's UNIX socket: binds it, accepts, tells the handlers who is there.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Peer;
use super::connection::{CONNECTIONS, serve_connection};

/// Why the socket could not be made.
#[derive(Debug, Error)]
pub enum BindSocketError {
    /// A gateway answers there already.
    #[error("another gateway answers at {}; stop it or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is there; it is left alone.
    #[error("{} exists and is not a socket; move it away or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; its file goes away when this is dropped.
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminServer {
    /// Binds the socket, mode 0660, replacing one that a dead gateway left behind.
    ///
    /// # Errors
    /// [`BindSocketError`]; what was there stays there.
    pub fn bind(path: &Path) -> Result<Self, BindSocketError> {
        let failed = |source| BindSocketError::Io { path: path.to_owned(), source };
        if dead_socket(path)? {
            std::fs::remove_file(path).map_err(failed)?;
        } else if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Finds what [`AdminServer::bind`] would, changes nothing.
    ///
    /// # Errors
    /// [`BindSocketError`].
    pub fn probe(path: &Path) -> Result<(), BindSocketError> {
        dead_socket(path)?;
        let folders = path.ancestors().skip(1).map(|f| if f.as_os_str().is_empty() { Path::new(".") } else { f });
        // The first folder upwards that is there takes the missing ones.
        folders.into_iter().find(|folder| folder.exists()).map_or(Ok(()), |folder| {
            accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                .map_err(|error| BindSocketError::Io { path: path.to_owned(), source: error.into() })
        })
    }

    /// Serves `router` until `shutdown` fires, then lets open requests finish.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        let accept = async || {
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit, self.listener.accept().await)
        };
        loop {
            let (permit, accepted) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        if let Ok(credentials) = stream.peer_cred() {
                            let peer = Peer::Socket { uid: credentials.uid(), gid: credentials.gid() };
                            serve_connection(stream, router.layer(axum::Extension(peer)), shutdown).await;
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // Best effort: a file left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a dead gateway's socket is there, to be replaced. Anything else that is there is an error.
fn dead_socket(path: &Path) -> Result<bool, BindSocketError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(BindSocketError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => Err(BindSocketError::InUse(path.to_owned())),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(BindSocketError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use axum::{Extension, Json};
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::{AdminClient, ClientError, Refusal, RefusalDetail};

    fn router() -> Router {
        let refusal =
            || RefusalDetail { reason: "not-found".to_owned(), message: "nothing there".to_owned(), findings: vec![] };
        Router::new()
            .route(
                "/uid",
                get(async |Extension(peer): Extension<Peer>| {
                    let Peer::Socket { uid, .. } = peer else { panic!("{peer:?}") };
                    Json(json!(uid))
                }),
            )
            .route("/text", get(async || "no document"))
            .route("/no", post(async move || (http::StatusCode::NOT_FOUND, Json(Refusal { error: refusal() }))))
    }

    #[tokio::test]
    async fn a_caller_is_who_the_kernel_says_and_hears_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(AdminServer::bind(&path).unwrap().serve(router(), shutdown.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

        let client = AdminClient::new(&path);
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(client.call::<u32>(Method::GET, "/uid").await.unwrap(), own);
        let refused = client.call::<Value>(Method::POST, "/no").await;
        assert!(matches!(refused, Err(ClientError::Refused(detail)) if detail.reason == "not-found"));
        assert!(matches!(client.call::<Value>(Method::GET, "/text").await, Err(ClientError::Protocol { .. })));
        assert!(matches!(AdminServer::bind(&path), Err(BindSocketError::InUse(_))));

        shutdown.cancel();
        server.await.unwrap();
        assert!(!path.exists());
        assert!(matches!(client.call::<Value>(Method::GET, "/uid").await, Err(ClientError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_gateway_that_refuses_the_import() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let detail =
            || RefusalDetail { reason: "role-required".to_owned(), message: "not you".to_owned(), findings: vec![] };
        let refuse = post(async move || (http::StatusCode::FORBIDDEN, Json(Refusal { error: detail() })));
        let router = Router::new().route("/v1/bindings/import", refuse);
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(AdminServer::bind(&path).unwrap().serve(router, shutdown.clone()));
        let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let lines = {
            let asked = Arc::clone(&asked);
            futures_util::stream::repeat_with(move || {
                asked.store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(bytes::Bytes::from_static(b"{}\n"))
            })
        };
        let refused = AdminClient::new(&path).import(lines, |_| ()).await;
        assert!(matches!(refused, Err(ClientError::Refused(detail)) if detail.reason == "role-required"));
        assert!(!asked.load(std::sync::atomic::Ordering::SeqCst));
        shutdown.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(AdminServer::bind(&path).is_ok());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminServer::bind(&path), Err(BindSocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
