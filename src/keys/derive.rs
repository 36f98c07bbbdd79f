//! Sub-keys by HKDF and messages that cannot be mistaken for one another.

use ring::{hkdf, hmac};
use zeroize::Zeroizing;

/// The HMAC-SHA256 key for the use named by `label`: HKDF-SHA256 (RFC 5869) without salt, `label` as info.
///
/// A label names its use and version, e.g. `sekisho/id/v1`; no two uses share one. ring keeps its own copy of the
/// result, which is not wiped when dropped.
pub(crate) fn subkey(key: &[u8], label: &'static str) -> hmac::Key {
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    let info = [label.as_bytes()];
    let expanded = pseudorandom.expand(&info, hmac::HMAC_SHA256);
    expanded.map_or_else(|_| unreachable!("one hash length is within HKDF's bound"), hmac::Key::from)
}

/// HMAC-SHA256 of `message`.
pub(crate) fn mac(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(key, message);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

/// The left half: truncation of an HMAC (RFC 2104 §5).
pub(super) fn half(tag: [u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(tag) {
        *to = from;
    }
    out
}

/// `parts`, each behind its length as 32 bits big endian, so that two lists of parts never give the same bytes.
pub(crate) fn framed(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    // Exact capacity: a vector that grows would leave an unwiped copy behind.
    let mut out = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum()));
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or_else(|_| unreachable!("a part is bounded by a request head"));
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Lower-case hexadecimal, for known answers.
#[cfg(test)]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_answers() {
        // Computed with Python's hmac and hashlib.
        let key: Vec<u8> = (0..32).collect();
        let id = subkey(&key, "sekisho/id/v1");
        assert_eq!(hex(&mac(&id, b"message")), "f8a76e06e7135ecd2717392b1065682b5d7f22bc0f248e60795b6d68862dd758");
        assert_eq!(framed(&[b"ab", b"", b"c"]).as_slice(), b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
    }

    proptest! {
        #[test]
        fn two_lists_of_parts_never_frame_alike(
            a in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..5), 0..4),
            b in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..5), 0..4),
        ) {
            let of = |parts: &[Vec<u8>]| framed(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(a == b, of(&a) == of(&b));
        }
    }
}
