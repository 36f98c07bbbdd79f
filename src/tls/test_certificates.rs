//! Certificates for tests, made on the spot.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use time::OffsetDateTime;

use crate::clock::Timestamp;

/// Days after the Unix epoch.
pub(crate) const fn days(days: i64) -> Timestamp {
    Timestamp::from_unix_millis(days * 86_400_000)
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority that lives for a year on either side of its birth, as does what it issues.
pub(crate) struct TestCa {
    pub(crate) certificate: String,
    pub(crate) key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new(now: Timestamp) -> Self {
        let mut params = params(&[], now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Sekisho test CA");
        let pair = KeyPair::generate().unwrap();
        let certificate = pem("CERTIFICATE", params.self_signed(&pair).unwrap().der());
        let key = pem("PRIVATE KEY", pair.serialized_der());
        Self { certificate, key, issuer: Issuer::new(params, pair) }
    }

    pub(crate) fn issue(&self, names: &[&str], now: Timestamp) -> Issued {
        self.issue_with(&rcgen::PKCS_ECDSA_P256_SHA256, names, now)
    }

    /// For a key of that kind.
    pub(crate) fn issue_with(&self, kind: &'static SignatureAlgorithm, names: &[&str], now: Timestamp) -> Issued {
        let pair = KeyPair::generate_for(kind).unwrap();
        let certificate = params(names, now).signed_by(&pair, &self.issuer).unwrap();
        Issued { certificate: pem("CERTIFICATE", certificate.der()), key: pem("PRIVATE KEY", pair.serialized_der()) }
    }
}

fn params(names: &[&str], now: Timestamp) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let born = OffsetDateTime::from_unix_timestamp(now.unix_seconds()).unwrap();
    params.not_before = born - time::Duration::days(365);
    params.not_after = born + time::Duration::days(365);
    params
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
