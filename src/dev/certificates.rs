//! The development certificates: an authority of this folder alone, and a server for this machine.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::folder::{FolderError, write_public, write_secret};
use crate::clock::Timestamp;

/// How long a certificate lasts.
const LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Remade when it would end within this time, so that it does not end under a running gateway.
const MARGIN: Duration = Duration::from_hours(24);

/// The server certificate, PEM.
const SERVER: &str = "server.pem";
/// Its end, in seconds since the Unix epoch.
const UNTIL: &str = "valid-until";

/// Makes `ca.pem`, `server.pem` and `server.key` in `dir`, unless they are there and last.
///
/// The authority's key is thrown away once it has signed: nobody can make another certificate that a browser which
/// was told to trust `ca.pem` would believe.
///
/// # Errors
/// [`FolderError`].
pub(super) fn ensure(dir: &Path, now: Timestamp) -> Result<(), FolderError> {
    let until = std::fs::read_to_string(dir.join(UNTIL)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let lasts = until.is_some_and(|until| until > now.plus(MARGIN).unix_seconds());
    if lasts && dir.join(SERVER).exists() {
        return Ok(());
    }
    let made = make(now).map_err(|source| FolderError::Certificate { source })?;
    write_public(&dir.join("ca.pem"), &made.authority)?;
    write_secret(&dir.join("server.key"), made.key.as_bytes())?;
    write_public(&dir.join(SERVER), &made.server)?;
    write_public(&dir.join(UNTIL), &format!("{}\n", now.plus(LIFETIME).unix_seconds()))
}

struct Made {
    authority: Zeroizing<String>,
    server: Zeroizing<String>,
    key: Zeroizing<String>,
}

fn make(now: Timestamp) -> Result<Made, rcgen::Error> {
    let at = |instant: Timestamp| {
        OffsetDateTime::from_unix_timestamp(instant.unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let named = |name: &str, mut params: CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = at(now.minus(Duration::from_hours(1)));
        params.not_after = at(now.plus(LIFETIME));
        params
    };
    let mut authority = named("Sekisho development authority", CertificateParams::new([])?);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let authority_pem = pem("CERTIFICATE", authority.self_signed(&authority_key)?.der());

    let mut server =
        named("Sekisho development gateway", CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned))?);
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let server = pem("CERTIFICATE", server.signed_by(&key, &Issuer::new(authority, authority_key))?.der());
    Ok(Made { authority: authority_pem, server, key: pem("PRIVATE KEY", key.serialized_der()) })
}

/// RFC 7468 §2. rcgen can write it too, but with a second release of base64.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut out = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out.extend(["-----END ", label, "-----\n"]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_795_530_117_042).plus(Duration::from_hours(24 * days))
    }

    #[test]
    fn certificates_are_kept_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let server = || std::fs::read_to_string(dir.path().join(SERVER)).unwrap();
        ensure(dir.path(), at(0)).unwrap();
        let first = server();
        assert!(first.starts_with("-----BEGIN CERTIFICATE-----"));
        ensure(dir.path(), at(88)).unwrap();
        assert_eq!(server(), first);
        ensure(dir.path(), at(90)).unwrap();
        assert_ne!(server(), first);
    }
}
