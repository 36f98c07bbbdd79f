//! Whom a client certificate names.

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::ServerStream;
use crate::clock::Timestamp;
use crate::config::CertificateName;

/// Why a certificate names nobody in particular. What stands in it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The connection has none.
    #[error("no client certificate was shown")]
    NoCertificate,
    /// The certificate's text cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It has neither a common name nor an e-mail or DNS name.
    #[error("the client certificate names nobody")]
    Nameless,
    /// A name has a space, a colon, a letter outside ASCII, or is too long.
    #[error("a name in the client certificate is not 1 to 64 visible ASCII characters without a colon")]
    Unusable,
    /// Two of its names differ, of which the authority may have checked only one.
    #[error("the client certificate names more than one")]
    Ambiguous,
}

/// Whom the client's certificate names, which the handshake has verified.
///
/// # Errors
/// [`NameError`].
pub(crate) fn client_name(stream: &ServerStream) -> Result<CertificateName, NameError> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    certificate_name(chain.first().ok_or(NameError::NoCertificate)?)
}

/// The one name in a certificate (DER, RFC 5280): its common names (§4.1.2.6) and the e-mail and DNS names of its
/// subjectAltName (§4.2.1.6), which must all be the same. Other kinds of names are not looked at.
///
/// # Errors
/// [`NameError`].
pub fn certificate_name(der: &[u8]) -> Result<CertificateName, NameError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NameError::Unreadable)?;
    if !rest.is_empty() {
        return Err(NameError::Unreadable);
    }
    let mut names = Vec::new();
    for common in certificate.subject().iter_common_name() {
        names.push(common.as_str().map_err(|_| NameError::Unusable)?);
    }
    // An error says that there are two such extensions, or one that cannot be read.
    if let Some(alternatives) = certificate.subject_alternative_name().map_err(|_| NameError::Unreadable)? {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::RFC822Name(name) | GeneralName::DNSName(name) => names.push(name),
                GeneralName::Invalid(..) => return Err(NameError::Unreadable),
                GeneralName::OtherName(..)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::URI(_)
                | GeneralName::IPAddress(_)
                | GeneralName::RegisteredID(_) => {}
            }
        }
    }
    let mut names = names.into_iter().map(|name| CertificateName::parse(name).ok_or(NameError::Unusable));
    let first = names.next().ok_or(NameError::Nameless)??;
    names.try_for_each(|name| if name? == first { Ok(()) } else { Err(NameError::Ambiguous) })?;
    Ok(first)
}

/// When a certificate (DER) runs out (RFC 5280 §4.1.2.5); `None` for one that cannot be read.
pub(super) fn end_of(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    certificate.validity().not_after.timestamp().checked_mul(1000).map(Timestamp::from_unix_millis)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    /// A certificate with these common names and alternatives.
    fn certificate(common: &[DnValue], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        params.distinguished_name.push(DnType::OrganizationName, "Example KK");
        params.subject_alt_names = alternatives;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn named(common: &str, alternatives: Vec<SanType>) -> Result<String, NameError> {
        let common = (!common.is_empty()).then(|| DnValue::Utf8String(common.to_owned()));
        certificate_name(&certificate(common.as_slice(), alternatives)).map(|name| name.to_string())
    }

    fn email(name: &str) -> SanType {
        SanType::Rfc822Name(name.try_into().unwrap())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn all_names_of_a_certificate_agree() {
        let alice = |name: &str| Ok(name.to_owned());
        let address = || SanType::IpAddress([127, 0, 0, 1].into());
        for (common, alternatives, expected) in [
            ("alice", vec![], alice("alice")),
            ("alice@ops", vec![], alice("alice@ops")),
            ("alice@ops", vec![email("alice@ops")], alice("alice@ops")),
            ("alice", vec![dns("alice"), email("alice")], alice("alice")),
            ("", vec![email("alice@ops")], alice("alice@ops")),
            ("alice", vec![address(), SanType::URI("urn:bob".try_into().unwrap())], alice("alice")),
            ("", vec![], Err(NameError::Nameless)),
            ("", vec![address()], Err(NameError::Nameless)),
            ("alice", vec![email("bob@ops")], Err(NameError::Ambiguous)),
            ("alice", vec![dns("alice"), dns("bob")], Err(NameError::Ambiguous)),
            ("alice", vec![dns("Alice")], Err(NameError::Ambiguous)),
            ("Alice Smith", vec![], Err(NameError::Unusable)),
            ("Alice Smith", vec![email("alice@ops")], Err(NameError::Unusable)),
            ("uid:0", vec![], Err(NameError::Unusable)),
            ("alice\0", vec![], Err(NameError::Unusable)),
            ("アリス", vec![], Err(NameError::Unusable)),
            (&"a".repeat(65), vec![], Err(NameError::Unusable)),
        ] {
            assert_eq!(named(common, alternatives), expected, "{common:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        let sound = certificate(&[DnValue::Utf8String("alice".to_owned())], vec![]);
        assert_eq!(certificate_name(&[&sound[..], b"\0"].concat()), Err(NameError::Unreadable));
        for length in 0..sound.len() {
            assert_eq!(certificate_name(&sound[..length]), Err(NameError::Unreadable), "{length}");
        }
    }
}
