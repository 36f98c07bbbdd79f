//! The server side: the certificates of a listener, and whom it lets in.

use std::io;
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::by_name::ByName;
use super::identity::end_of;
use super::material::{Gathering, Material};
use super::tickets::TicketKeys;
use super::upstream::roots_of;
use super::{ALPN_H1, ALPN_H2, TlsError, VERSIONS, pem, provider};
use crate::clock::Timestamp;
use crate::config::{ListenerTls, ServerCertificate};

/// A client's connection after its handshake.
pub type ServerStream<T = TcpStream> = tokio_rustls::server::TlsStream<T>;

/// A listener's certificates and keys, proved to fit together and to be valid now.
///
/// ALPN offers h2 and http/1.1. A client gets the certificate of the name that it asks for; one that asks for none of them,
/// or for no name at all, the first.
/// Sessions resume by tickets, whose keys live in this process alone and follow each other
/// ([`ListenerTlsConfig::turn_ticket_keys`]). Where client certificates are asked for, nobody comes in without one, and no
/// session resumes: each is judged anew, so that one that ran out is refused.
pub struct ListenerTlsConfig {
    server: Arc<ServerConfig>,
    certificates: Arc<ByName>,
    asks_for_certificates: bool,
    /// None where nobody's session resumes.
    tickets: Option<Arc<TicketKeys>>,
    material: Material,
    expires_at: Option<Timestamp>,
}

impl ListenerTlsConfig {
    /// Reads and checks the files; `now` decides whether the certificate has run out.
    ///
    /// # Errors
    /// All problems, each of which names the file at fault.
    pub fn load(tls: &ListenerTls, now: Timestamp) -> Result<Self, Vec<TlsError>> {
        let mut problems = Vec::new();
        let mut gathering = Gathering::new();
        let mut expires_at: Option<Timestamp> = None;
        let mut certificates: Option<ByName> = None;
        for pair in iter::once(&tls.first).chain(&tls.additional) {
            let added = certified_key(pair, now).and_then(|certified| {
                gathering.parts(b"shown", certified.cert.iter().map(AsRef::as_ref));
                let end = certified.cert.first().and_then(|leaf| end_of(leaf));
                expires_at = [expires_at, end].into_iter().flatten().min();
                match &mut certificates {
                    Some(certificates) => certificates.add(certified, &pair.certificate),
                    // Whichever comes first: where the true first is at fault, there is no answer but the problems.
                    None => ByName::new(certified, &pair.certificate).map(|all| certificates = Some(all)),
                }
            });
            problems.extend(added.err());
        }
        let clients = tls.client_ca.as_deref();
        let clients = clients.map(|ca| verifier(ca, tls.client_crl.as_deref(), &mut gathering)).transpose();
        match (certificates, clients) {
            (Some(certificates), Ok(clients)) if problems.is_empty() => {
                let asks_for_certificates = clients.is_some();
                let certificates = Arc::new(certificates);
                let setup = |problem| vec![TlsError::Setup(problem)];
                let tickets = if asks_for_certificates { None } else { Some(TicketKeys::new(now).map_err(setup)?) };
                let tickets = tickets.map(Arc::new);
                let server = Arc::new(server(&certificates, clients, tickets.as_ref()).map_err(setup)?);
                let material = gathering.material();
                Ok(Self { server, certificates, asks_for_certificates, tickets, material, expires_at })
            }
            (_, clients) => {
                problems.extend(clients.err());
                Err(problems)
            }
        }
    }

    /// The same for who speaks HTTP/1.1 alone.
    #[must_use]
    pub fn without_http2(mut self) -> Self {
        Arc::make_mut(&mut self.server).alpn_protocols = vec![ALPN_H1.to_vec()];
        self
    }

    /// Whether nobody comes in without a certificate.
    #[must_use]
    pub const fn asks_for_certificates(&self) -> bool {
        self.asks_for_certificates
    }

    /// Whether `other` shows and believes the same, and offers the same protocols.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.material == other.material
            && self.asks_for_certificates == other.asks_for_certificates
            && self.server.alpn_protocols == other.server.alpn_protocols
    }

    /// Whether a certificate that is shown is for `host`, a DNS name.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        !self.certificates.of(host).is_empty()
    }

    /// Has a fresh key seal session tickets where the current one did for six hours; tickets are good for twelve at most. To be
    /// done every so often: a key that is due stays until then.
    ///
    /// # Errors
    /// [`TlsError::Setup`]: the former keys stay in use.
    pub fn turn_ticket_keys(&self, now: Timestamp) -> Result<(), TlsError> {
        self.tickets.as_ref().map_or(Ok(()), |tickets| tickets.turn(now)).map_err(TlsError::Setup)
    }

    /// When the first of the certificates that are shown runs out, where they say so.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Shakes hands; the caller sets the deadline.
    ///
    /// # Errors
    /// The client's mistake or absence, in words of the TLS library.
    pub(crate) async fn accept<T>(&self, tcp: T) -> io::Result<ServerStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(Arc::clone(&self.server)).accept(tcp).await
    }
}

/// What rustls is told to show and to believe; without `tickets` no session resumes.
fn server(
    certificates: &Arc<ByName>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Option<&Arc<TicketKeys>>,
) -> Result<ServerConfig, Error> {
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let server = match clients {
        Some(clients) => server.with_client_cert_verifier(clients),
        None => server.with_no_client_auth(),
    };
    let mut server = server.with_cert_resolver(Arc::clone(certificates) as _);
    server.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()];
    if let Some(tickets) = tickets {
        server.ticketer = Arc::clone(tickets) as _;
    } else {
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(server)
}

/// Whether client and server agreed on HTTP/2 (ALPN, RFC 7301).
pub(crate) fn agreed_on_h2<T>(stream: &ServerStream<T>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_H2)
}

/// Who is let in: whom an authority in `ca` certifies for client authentication, unless `crl` revokes it. A certificate
/// whose authority has no list there is refused, and one whose list ran out: what is unknown may be revoked.
fn verifier(ca: &Path, crl: Option<&Path>, gathering: &mut Gathering) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = roots_of(ca)?;
    gathering.authorities(&roots);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = crl {
        let lists = pem::revocation_lists(crl)?;
        gathering.parts(b"revoked", lists.iter().map(AsRef::as_ref));
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    verifier.build().map_err(|error| match (error, crl) {
        (rustls::server::VerifierBuilderError::InvalidCrl(_), Some(crl)) => {
            TlsError::BadRevocationList { path: crl.into() }
        }
        (problem, _) => TlsError::BadAuthority { path: ca.into(), problem: problem.to_string() },
    })
}

/// Reads one certificate and its key.
fn certified_key(pair: &ServerCertificate, now: Timestamp) -> Result<CertifiedKey, TlsError> {
    let ServerCertificate { certificate, key } = pair;
    let chain = pem::certificates(certificate)?;
    check_validity(&chain, certificate, now)?;
    let loaded = provider().key_provider.load_private_key(pem::private_key(key)?);
    let signer = loaded.map_err(|_| TlsError::BadKey { path: key.clone() })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // A signer that does not tell its public key cannot be compared; ring's all tell.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { key: key.clone(), certificate: certificate.clone() })
        }
        Err(problem) => Err(TlsError::BadCertificate { path: certificate.clone(), problem }),
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
        let first = ServerCertificate { certificate, key };
        let tls = ListenerTls { first, additional: vec![], client_ca: None, client_crl: None };
        Files { folder, tls }
    }

    fn issued() -> Issued {
        TestCa::new(NOW).issue(&["admin.example.jp"], NOW)
    }

    fn problem(certificate: &str, key: &str, now: Timestamp) -> String {
        let files = files(certificate, key);
        let problems = ListenerTlsConfig::load(&files.tls, now).err().expect("must be refused");
        let [error] = problems.as_slice() else { panic!("{problems:?}") };
        error.to_string().replace(files.folder.path().to_str().unwrap(), "")
    }

    #[test]
    fn a_fitting_pair_loads() {
        let Issued { certificate, key } = issued();
        assert!(ListenerTlsConfig::load(&files(&certificate, &key).tls, NOW).is_ok());
    }

    #[test]
    fn files_that_hold_the_same_are_the_same_and_the_end_is_read() {
        let ca = TestCa::new(NOW);
        let (one, two) = (ca.issue(&["a"], NOW), ca.issue(&["a"], NOW));
        let load = |issued: &Issued, authority: Option<&str>| {
            let mut files = files(&issued.certificate, &issued.key);
            files.tls.client_ca = authority.map(|authority| {
                let path = files.folder.path().join("ca.pem");
                std::fs::write(&path, authority).unwrap();
                path
            });
            ListenerTlsConfig::load(&files.tls, NOW).unwrap()
        };
        let plain = load(&one, None);
        assert!(plain.is_same(&load(&one, None)) && !plain.is_same(&load(&two, None)));
        assert!(!plain.is_same(&load(&one, None).without_http2()));
        let other = TestCa::new(NOW);
        let asking = load(&one, Some(&ca.certificate));
        assert!(asking.asks_for_certificates() && !plain.asks_for_certificates());
        assert!(asking.is_same(&load(&one, Some(&ca.certificate))));
        assert!(!asking.is_same(&plain) && !asking.is_same(&load(&one, Some(&other.certificate))));
        let end = plain.expires_at().unwrap();
        assert!(end > NOW && end < NOW.plus(Duration::from_hours(24 * 4000)));
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
        files.tls.first.certificate = files.folder.path().join("absent.pem");
        let problems = ListenerTlsConfig::load(&files.tls, NOW).err().unwrap();
        assert!(matches!(&problems[..], [TlsError::Unreadable { path, .. }] if path.ends_with("absent.pem")));
    }
}
