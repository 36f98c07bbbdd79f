//! Which of a listener's certificates a client gets: by the name that it asks for (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::TlsError;

/// Certificates by the DNS names in them. Who asks for none of these names, or for no name at all, gets the first.
pub(super) struct ByName {
    first: Arc<CertifiedKey>,
    /// In lower case; a wildcard stands as `*.example.jp`. Several for one name have keys of different kinds.
    named: HashMap<String, Vec<Named>>,
}

/// A certificate, and where it came from.
pub(super) struct Named {
    certified: Arc<CertifiedKey>,
    file: PathBuf,
}

impl ByName {
    /// With the certificate of `file` as the first.
    ///
    /// # Errors
    /// [`TlsError`], as [`ByName::add`]; a first certificate without names is none.
    pub(super) fn new(certified: CertifiedKey, file: &Path) -> Result<Self, TlsError> {
        let first = Arc::new(certified);
        let mut all = Self { first: Arc::clone(&first), named: HashMap::new() };
        for name in dns_names(&first, file)? {
            all.insert(name, &first, file)?;
        }
        Ok(all)
    }

    /// One more, for the names in it.
    ///
    /// # Errors
    /// [`TlsError`]: it has no names, or one that a certificate before it has with a key of the same kind, so that nobody
    /// could say which of the two a client gets.
    pub(super) fn add(&mut self, certified: CertifiedKey, file: &Path) -> Result<(), TlsError> {
        let certified = Arc::new(certified);
        let names = dns_names(&certified, file)?;
        if names.is_empty() {
            return Err(TlsError::Nameless { path: file.into() });
        }
        names.into_iter().try_for_each(|name| self.insert(name, &certified, file))
    }

    fn insert(&mut self, name: String, certified: &Arc<CertifiedKey>, file: &Path) -> Result<(), TlsError> {
        let named = self.named.entry(name).or_default();
        // The same name twice in one certificate is once.
        if named.iter().any(|other| Arc::ptr_eq(&other.certified, certified)) {
            return Ok(());
        }
        let same_kind = |other: &&Named| other.certified.key.algorithm() == certified.key.algorithm();
        if let Some(other) = named.iter().find(same_kind) {
            return Err(TlsError::SameName { path: file.into(), other: other.file.clone() });
        }
        named.push(Named { certified: Arc::clone(certified), file: file.into() });
        Ok(())
    }

    /// Those of a name that a client asks for.
    pub(super) fn of(&self, name: &str) -> &[Named] {
        let name = name.to_ascii_lowercase();
        let exact = self.named.get(&name);
        let found = exact.or_else(|| {
            // A wildcard stands for one label, the first (RFC 9525 §6.3).
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        });
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().map(|name| self.of(name)).unwrap_or_default();
        let offered = hello.signature_schemes();
        let verifiable = |named: &&Named| named.certified.key.choose_scheme(offered).is_some();
        // Where it can verify none of them, any of them tells it so.
        let chosen = named.iter().find(verifiable).or(named.first());
        Some(chosen.map_or_else(|| Arc::clone(&self.first), |named| Arc::clone(&named.certified)))
    }
}

/// Names alone: nothing of a key.
impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.named.keys()).finish()
    }
}

/// The DNS names of the leaf's subjectAltName (RFC 5280 §4.2.1.6), in lower case. Common names count for nothing, as
/// browsers do not look at them.
fn dns_names(certified: &CertifiedKey, file: &Path) -> Result<Vec<String>, TlsError> {
    let unreadable = || TlsError::BadCertificate {
        path: file.into(),
        problem: rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding),
    };
    let leaf = certified.cert.first().ok_or_else(unreadable)?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    let Some(alternatives) = certificate.subject_alternative_name().map_err(|_| unreadable())? else {
        return Ok(Vec::new());
    };
    let names =
        alternatives.value.general_names.iter().filter_map(|name| {
            if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None }
        });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Timestamp;
    use crate::config::{ListenerTls, ServerCertificate};
    use crate::tls::ListenerTlsConfig;
    use crate::tls::test_certificates::{Issued, TestCa, days};

    const NOW: Timestamp = days(20_000);

    /// What is wrong with a listener that has these certificates, in order.
    fn problems(certificates: &[Issued], now: Timestamp) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut pairs = certificates.iter().enumerate().map(|(index, issued)| {
            let path = |kind: &str, text: &str| {
                let path = folder.path().join(format!("{index}.{kind}"));
                std::fs::write(&path, text).unwrap();
                path
            };
            ServerCertificate { certificate: path("pem", &issued.certificate), key: path("key", &issued.key) }
        });
        let first = pairs.next().unwrap();
        let tls = ListenerTls { first, additional: pairs.collect(), client_ca: None, client_crl: None };
        let folder = folder.path().to_str().unwrap();
        let problems = ListenerTlsConfig::load(&tls, now).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.to_string().replace(folder, "")).collect()
    }

    #[test]
    fn no_two_certificates_of_a_listener_are_for_one_name() {
        let ca = TestCa::new(NOW);
        let issue = |names: &[&str]| ca.issue(names, NOW);
        for (certificates, expected) in [
            (&[&["a.example"][..], &["b.example"]][..], None),
            (&[&["a.example"], &["*.example"]], None),
            (&[&[], &["a.example"]], None),
            (&[&["a.example", "A.EXAMPLE"], &["b.example"]], None),
            (
                &[&["a.example"], &["b.example", "A.example"]],
                Some("/1.pem: a name of this certificate is in /0.pem too"),
            ),
            (
                &[&["a.example"], &["b.example"], &["b.example"]],
                Some("/2.pem: a name of this certificate is in /1.pem"),
            ),
            (&[&["*.example"], &["*.example"]], Some("/1.pem: a name of this certificate is in /0.pem")),
            (&[&["a.example"], &[]], Some("/1.pem: no DNS name in this certificate")),
            (&[&["a.example"], &["127.0.0.1"]], Some("/1.pem: no DNS name in this certificate")),
        ] {
            let certificates: Vec<_> = certificates.iter().map(|names| issue(names)).collect();
            let found = problems(&certificates, NOW);
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(expected) => assert!(matches!(&found[..], [one] if one.starts_with(expected)), "{found:?}"),
            }
        }
    }

    #[test]
    fn keys_of_two_kinds_may_be_for_one_name() {
        let ca = TestCa::new(NOW);
        let certificates = [ca.issue(&["a.example"], NOW), ca.issue_with(&rcgen::PKCS_ED25519, &["a.example"], NOW)];
        assert!(problems(&certificates, NOW).is_empty());
    }

    #[test]
    fn all_that_ran_out_or_cannot_be_used_are_told_at_once() {
        let ca = TestCa::new(NOW);
        let mut broken = ca.issue(&["c.example"], NOW);
        broken.key = ca.issue(&["c.example"], NOW).key;
        let certificates = [ca.issue(&["a.example"], NOW), ca.issue(&["b.example"], NOW), broken];
        let found = problems(&certificates, NOW);
        assert!(matches!(&found[..], [one] if one.starts_with("/2.key: this key does not belong")), "{found:?}");
        let found = problems(&certificates, NOW.plus(Duration::from_hours(400 * 24)));
        let expired = ["/0.pem", "/1.pem", "/2.pem"].map(|file| format!("{file}: the certificate has expired"));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().zip(expired).all(|(found, expected)| found.starts_with(&expected)), "{found:?}");
    }
}
