//! Keyed hashes that are not of bindings: enrolment codes and handset tags.

use ring::hmac;

use super::derive::{framed, half, mac, subkey};
use crate::binding::EnrolmentCode;
use crate::carrier::RawIdentifier;
use crate::secret::SecretBytes;

/// The session keys, the active one first; a sub-key for each use. ring's copies are not wiped.
///
/// Deliberately absent: `Debug`, `Display`, `Clone`, `Serialize`.
pub struct SessionKeys {
    active: SessionKey,
    retiring: Vec<SessionKey>,
}

struct SessionKey {
    id: String,
    code: hmac::Key,
    handset: hmac::Key,
}

impl SessionKeys {
    /// The keys by id: `active` makes, `retiring` may still have made what is stored.
    pub(super) fn new(active: (&str, &SecretBytes), retiring: &[(&str, &SecretBytes)]) -> Self {
        let split = |(id, key): (&str, &SecretBytes)| SessionKey {
            id: id.to_owned(),
            code: subkey(key.expose(), "sekisho/code/v1"),
            handset: subkey(key.expose(), "sekisho/handset-tag/v1"),
        };
        Self { active: split(active), retiring: retiring.iter().copied().map(split).collect() }
    }

    /// (key id, HMAC of the whole code) under the active key: to be stored.
    #[must_use]
    pub fn code_mac(&self, code: &EnrolmentCode) -> (String, [u8; 32]) {
        self.active.code_mac(code)
    }

    /// The same under every key that may have made a stored one.
    #[must_use]
    pub fn code_macs(&self, code: &EnrolmentCode) -> Vec<(String, [u8; 32])> {
        std::iter::once(&self.active).chain(&self.retiring).map(|key| key.code_mac(code)).collect()
    }

    /// Tag of a handset that counts its wrong tries against the code selected by `selector`, and means nothing for
    /// another code. Not stretched: it is erased together with the code, minutes later.
    #[must_use]
    pub fn handset_tag(&self, identifier: &RawIdentifier, selector: &str) -> [u8; 16] {
        let parts = [selector.as_bytes(), identifier.carrier().as_str().as_bytes(), identifier.expose()];
        half(mac(&self.active.handset, &framed(&parts)))
    }
}

impl SessionKey {
    fn code_mac(&self, code: &EnrolmentCode) -> (String, [u8; 32]) {
        (self.id.clone(), mac(&self.code, code.expose().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::keys::hex;

    assert_not_impl_any!(SessionKeys: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);

    fn keys() -> SessionKeys {
        let (old, new) = (SecretBytes::new((0..32).collect()), SecretBytes::new(vec![9; 32]));
        SessionKeys::new(("s2", &new), &[("s1", &old)])
    }

    fn tag(carrier: &str, octets: &[u8], selector: &str) -> [u8; 16] {
        keys().handset_tag(&RawIdentifier::for_test(carrier, octets, true), selector)
    }

    #[test]
    fn a_code_is_hashed_under_every_key_but_stored_under_the_active_one() {
        let code = EnrolmentCode::parse("012345678901").unwrap();
        let all = keys().code_macs(&code);
        assert_eq!(all.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["s2", "s1"]);
        assert_eq!(keys().code_mac(&code), all[0]);
        assert_eq!(hex(&all[1].1), "bf2b598ae4a3e05b0b45018ad4c68e757c98a38197b925b4e220b93b21fe9a69");
        assert_ne!(all[0].1, all[1].1);
    }

    #[test]
    fn a_handset_tag_depends_on_code_carrier_and_identifier() {
        let one = tag("docomo", b"0123abc", "0123");
        assert_eq!(hex(&one), "8afbe10977cedfad3ff9ccc93fa4ceed");
        for other in [
            tag("docomo", b"0123abc", "0124"),
            tag("docomo", b"0123abC", "0123"),
            tag("au", b"0123abc", "0123"),
            tag("docom", b"o0123abc", "0123"),
        ] {
            assert_ne!(one, other);
        }
    }
}
