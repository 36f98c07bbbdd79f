//! PEM files -> certificates and keys.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsError;

/// All certificates of a file, at least one, in the file's order.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { path: path.into() }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Damaged { path: path.into() }),
    }
}

/// All revocation lists of a file, at least one.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = read(path)?;
    match CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => Err(TlsError::BadRevocationList { path: path.into() }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Damaged { path: path.into() }),
    }
}

/// The first private key of a file. The library's own copy of the key is not wiped; the file's text here is.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let path = path.into();
        if matches!(error, pem::Error::NoItemsFound) { TlsError::NoKey { path } } else { TlsError::Damaged { path } }
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|source| TlsError::Unreadable { path: path.into(), source })
}
