//! The server side: one certificate a listener, swappable while it serves.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::upstream::roots_of;
use super::{ALPN_H1, ALPN_H2, TlsError, VERSIONS, pem, provider};
use crate::clock::Timestamp;
use crate::config::ListenerTls;

/// A client's connection after its handshake.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A listener's certificate and key, proved to fit together and to be valid now.
///
/// ALPN offers h2 and http/1.1. Every client gets this one certificate, whatever name it asks for or leaves out.
/// Sessions resume by tickets whose key lives in this process alone and rotates. Where client certificates are asked
/// for, nobody comes in without one, and no session resumes: each is judged anew, so that one that ran out is refused.
pub struct ListenerTlsConfig {
    current: ArcSwap<ServerConfig>,
    /// Fires when `current` is replaced.
    era: ArcSwap<CancellationToken>,
}

impl ListenerTlsConfig {
    /// Reads and checks the files; `now` decides whether the certificate has run out.
    ///
    /// # Errors
    /// [`TlsError`], which names the file at fault.
    pub fn load(tls: &ListenerTls, now: Timestamp) -> Result<Self, TlsError> {
        let chain = pem::certificates(&tls.certificate)?;
        check_validity(&chain, &tls.certificate, now)?;
        let certified = certified_key(chain, pem::private_key(&tls.key)?, tls)?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(TlsError::Setup)?;
        let clients = tls.client_ca.as_deref().map(|ca| verifier(ca, tls.client_crl.as_deref())).transpose()?;
        let anonymous = clients.is_none();
        let server = match clients {
            Some(clients) => server.with_client_cert_verifier(clients),
            None => server.with_no_client_auth(),
        };
        let mut server = server.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        server.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()];
        if anonymous {
            server.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Setup)?;
        } else {
            server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(Self::of(server))
    }

    fn of(server: ServerConfig) -> Self {
        Self { current: ArcSwap::from_pointee(server), era: ArcSwap::default() }
    }

    /// Serves new connections with `with` from now on; open connections keep what they have, unless they watch their
    /// [`ListenerTlsConfig::era`].
    pub fn replace(&self, with: Self) {
        self.current.store(with.current.into_inner());
        self.era.swap(Arc::default()).cancel();
    }

    /// Fires once what a connection met is replaced: to be taken before its handshake. Who was let in by a certificate may be
    /// on a list of revoked ones now.
    pub(crate) fn era(&self) -> Arc<CancellationToken> {
        self.era.load_full()
    }

    /// The same for who speaks HTTP/1.1 alone.
    #[must_use]
    pub fn without_http2(self) -> Self {
        let mut server = ServerConfig::clone(&self.current.into_inner());
        server.alpn_protocols = vec![ALPN_H1.to_vec()];
        Self::of(server)
    }

    /// Shakes hands; the caller sets the deadline.
    ///
    /// # Errors
    /// The client's mistake or absence, in words of the TLS library.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<ServerStream> {
        TlsAcceptor::from(self.current.load_full()).accept(tcp).await
    }
}

/// Whether client and server agreed on HTTP/2 (ALPN, RFC 7301).
pub(crate) fn agreed_on_h2(stream: &ServerStream) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_H2)
}

/// Who is let in: whom an authority in `ca` certifies for client authentication, unless `crl` revokes it. A certificate
/// whose authority has no list there is refused, and one whose list ran out: what is unknown may be revoked.
fn verifier(ca: &Path, crl: Option<&Path>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(ca)?), provider());
    if let Some(crl) = crl {
        verifier = verifier.with_crls(pem::revocation_lists(crl)?).enforce_revocation_expiration();
    }
    verifier.build().map_err(|error| match (error, crl) {
        (rustls::server::VerifierBuilderError::InvalidCrl(_), Some(crl)) => {
            TlsError::BadRevocationList { path: crl.into() }
        }
        (problem, _) => TlsError::BadAuthority { path: ca.into(), problem: problem.to_string() },
    })
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    tls: &ListenerTls,
) -> Result<CertifiedKey, TlsError> {
    let signer =
        provider().key_provider.load_private_key(key).map_err(|_| TlsError::BadKey { path: tls.key.clone() })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // A signer that does not tell its public key cannot be compared; ring's all tell.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { key: tls.key.clone(), certificate: tls.certificate.clone() })
        }
        Err(problem) => Err(TlsError::BadCertificate { path: tls.certificate.clone(), problem }),
    }
}

/// Refuses a leaf that is outside its validity.
///
/// The verifier looks at the validity before anything else, so the certificate itself can stand as the anchor and
/// whatever is found after that (no such issuer, another name, a CA used as a leaf) is for clients to judge.
fn check_validity(chain: &[CertificateDer<'static>], path: &Path, now: Timestamp) -> Result<(), TlsError> {
    let Some((leaf, rest)) = chain.split_first() else {
        return Err(TlsError::NoCertificate { path: path.into() });
    };
    let unusable = |problem| TlsError::BadCertificate { path: path.into(), problem };
    let mut anchors = RootCertStore::empty();
    anchors.add(leaf.clone()).map_err(unusable)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider())
        .build()
        .map_err(|error| unusable(Error::General(error.to_string())))?;
    let since_epoch = Duration::from_millis(u64::try_from(now.unix_millis()).unwrap_or(0));
    let any_name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    match verifier.verify_server_cert(leaf, rest, &any_name, &[], UnixTime::since_unix_epoch(since_epoch)) {
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Err(TlsError::Expired { path: path.into() })
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            Err(TlsError::NotYetValid { path: path.into() })
        }
        Err(problem @ Error::InvalidCertificate(CertificateError::BadEncoding)) => Err(unusable(problem)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tls::test_certificates::{Issued, TestCa, days};

    const NOW: Timestamp = days(20_000);

    struct Files {
        folder: tempfile::TempDir,
        tls: ListenerTls,
    }

    fn files(certificate: &str, key: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = (path("server.pem", certificate), path("server.key", key));
        let tls = ListenerTls { certificate, key, client_ca: None, client_crl: None };
        Files { folder, tls }
    }

    fn issued() -> Issued {
        TestCa::new(NOW).issue(&["admin.example.jp"], NOW)
    }

    fn problem(certificate: &str, key: &str, now: Timestamp) -> String {
        let files = files(certificate, key);
        let error = ListenerTlsConfig::load(&files.tls, now).err().expect("must be refused").to_string();
        error.replace(files.folder.path().to_str().unwrap(), "")
    }

    #[test]
    fn a_fitting_pair_loads() {
        let Issued { certificate, key } = issued();
        assert!(ListenerTlsConfig::load(&files(&certificate, &key).tls, NOW).is_ok());
    }

    #[test]
    fn every_problem_names_its_file() {
        let Issued { certificate, key } = issued();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (certificate, key, expected) in [
            ("", &*key, "/server.pem: no certificate"),
            (&*key, &*key, "/server.pem: no certificate"),
            (&*certificate, "", "/server.key: no private key"),
            (&*certificate, &*certificate, "/server.key: no private key"),
            (&*certificate, &*encrypted, "/server.key: no private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA", &*key, "/server.pem: the PEM text is damaged"),
            (no_der, &*key, "/server.pem: the certificate cannot be used"),
            (&*certificate, &*issued().key, "/server.key: this key does not belong"),
        ] {
            let problem = problem(certificate, key, NOW);
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn validity_is_judged_at_the_given_time() {
        let Issued { certificate, key } = issued();
        let later = problem(&certificate, &key, NOW.plus(Duration::from_hours(400 * 24)));
        assert!(later.starts_with("/server.pem: the certificate has expired"), "{later}");
        let earlier = problem(&certificate, &key, NOW.minus(Duration::from_hours(400 * 24)));
        assert!(earlier.starts_with("/server.pem: the certificate is not valid yet"), "{earlier}");
    }

    #[test]
    fn a_self_signed_authority_may_be_served() {
        let ca = TestCa::new(NOW);
        assert!(ListenerTlsConfig::load(&files(&ca.certificate, &ca.key).tls, NOW).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut files = files("", "");
        files.tls.certificate = files.folder.path().join("absent.pem");
        let error = ListenerTlsConfig::load(&files.tls, NOW).err().unwrap();
        assert!(matches!(error, TlsError::Unreadable { path, .. } if path.ends_with("absent.pem")));
    }
}
