//! Telling whether files that were read again hold what they held before.

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::RootCertStore;

/// What certificates, authorities and revocation lists were read, by content: equal where nothing changed.
///
/// A private key has no part in it: it belongs to its certificate, or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Material([u8; SHA256_OUTPUT_LEN]);

/// Material as it is read.
pub(super) struct Gathering(Context);

impl Gathering {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// One kind of parts, in their order.
    pub(super) fn parts<'a>(&mut self, kind: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) {
        self.part(kind);
        for part in parts {
            self.part(part);
        }
    }

    pub(super) fn authorities(&mut self, roots: &RootCertStore) {
        self.part(b"authorities");
        for anchor in &roots.roots {
            self.part(&anchor.subject);
            self.part(&anchor.subject_public_key_info);
            self.part(anchor.name_constraints.as_deref().unwrap_or_default());
        }
    }

    pub(super) fn material(self) -> Material {
        let mut out = [0; SHA256_OUTPUT_LEN];
        out.copy_from_slice(self.0.finish().as_ref());
        Material(out)
    }

    /// Preceded by its length, so that no two lists of parts are one text.
    fn part(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }
}
