//! TLS on both sides: the only folder that names rustls, so that swapping it is one diff.
//!
//! In: PEM files named by the configuration. Out: [`ListenerTlsConfig`] for listeners, [`UpstreamTls`] for https
//! upstreams, [`VerifyingClient`] for the command line and for spans, all proved usable before a socket is opened. TLS 1.2 and 1.3 with ring; nothing older is spoken.
//! What a client certificate names is read here; what that name may do is for `admin` to say.

mod by_name;
mod client;
mod identity;
mod listener;
mod material;
mod pem;
#[cfg(test)]
pub(crate) mod test_certificates;
mod tickets;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use client::VerifyingClient;
pub(crate) use identity::client_name;
pub use identity::{NameError, certificate_name};
pub(crate) use listener::agreed_on_h2;
pub use listener::{ListenerTlsConfig, ServerStream};
pub use material::Material;
pub use upstream::{ClientStream, UpstreamTls, UpstreamTlsError};

/// What is wrong with TLS material. It names files and never repeats what is in them.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no PEM.
    #[error("{}: the PEM text is damaged; write the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no certificate.
    #[error("{}: no certificate in it; a PEM section `CERTIFICATE` is needed", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no key.
    #[error("{}: no private key in it; PKCS#8, SEC1 or PKCS#1 in PEM, not encrypted, is needed", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is of a kind that cannot be served or trusted.
    #[error("{}: the certificate cannot be used: {problem}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What the TLS library found.
        problem: rustls::Error,
    },
    /// The key is of a kind that cannot sign here.
    #[error("{}: the private key cannot be used; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together.
    #[error("{}: this key does not belong to the certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A certificate that stands beside the first names no host.
    #[error("{}: no DNS name in this certificate, so that nobody would be shown it; name the host in its subjectAltName", path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// Two certificates of a listener are for the same name.
    #[error("{}: a name of this certificate is in {} too, with a key of the same kind; keep one of the two", path.display(), other.display())]
    SameName {
        /// The file.
        path: PathBuf,
        /// The one before it.
        other: PathBuf,
    },
    /// The certificate has run out.
    #[error("{}: the certificate has expired; renew it", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no revocation list, or one that cannot be used.
    #[error("{}: no revocation list that can be used; a PEM section `X509 CRL`, signed by an authority of client_ca, is needed", path.display())]
    BadRevocationList {
        /// The file.
        path: PathBuf,
    },
    /// The authorities cannot vouch for anybody.
    #[error("{}: no client can be verified by it: {problem}", path.display())]
    BadAuthority {
        /// The file.
        path: PathBuf,
        /// What the TLS library found.
        problem: String,
    },
    /// The certificate's time has not come.
    #[error("{}: the certificate is not valid yet; is this machine's clock right?", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
    },
    /// The system's trust store is empty.
    #[error("the system's trust store holds no usable certificate; install ca-certificates or set the upstream's `ca`")]
    NoSystemRoots,
    /// The TLS library could not be set up: the system gives no random numbers.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// ring, named here so that no process-wide default decides.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Best first.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

const ALPN_H1: &[u8] = b"http/1.1";
const ALPN_H2: &[u8] = b"h2";
