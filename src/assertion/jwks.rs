//! The public keys as a document: JWKS (RFC 7517 §5), named by thumbprint (RFC 7638).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;
use ring::digest::{SHA256, digest};
use serde::Serialize;

/// How long a verifier may keep the document.
pub const JWKS_MAX_AGE: Duration = Duration::from_mins(5);

/// Octets of a coordinate on P-256.
const COORDINATE: usize = 32;

/// A P-256 public key as a JWK (RFC 7518 §6.2).
#[derive(Serialize)]
pub(super) struct PublicKey {
    kty: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    crv: &'static str,
    x: String,
    y: String,
    kid: String,
}

impl PublicKey {
    /// From an uncompressed point (SEC 1 §2.3.3), as ring gives it; `None` if it is none.
    pub(super) fn from_point(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(COORDINATE)?;
        if y.len() != COORDINATE {
            return None;
        }
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // The members that RFC 7638 §3.2 requires of an EC key, in lexicographic order, without white space.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Some(Self { kty: "EC", usage: "sig", alg: "ES256", crv: "P-256", x, y, kid })
    }

    /// The RFC 7638 thumbprint.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }
}

/// The document and its strong entity tag (RFC 9110 §8.8.3).
pub(super) fn document(keys: &[PublicKey]) -> (Bytes, HeaderValue) {
    let json = serde_json::json!({ "keys": keys }).to_string();
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest(&SHA256, json.as_bytes())));
    let tag = HeaderValue::try_from(tag).unwrap_or_else(|_| unreachable!("base64url in quotes is a field value"));
    (Bytes::from(json), tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: &str, y: &str) -> Vec<u8> {
        [vec![4], URL_SAFE_NO_PAD.decode(x).unwrap(), URL_SAFE_NO_PAD.decode(y).unwrap()].concat()
    }

    /// The example key of RFC 7517 A.1.
    fn example() -> Vec<u8> {
        point("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM")
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // Computed with Python's hashlib from the canonical JSON.
        assert_eq!(PublicKey::from_point(&example()).unwrap().kid(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }

    #[test]
    fn the_document_lists_the_keys_and_its_tag_follows_it() {
        let (document_of_one, tag) = document(&[PublicKey::from_point(&example()).unwrap()]);
        let json: serde_json::Value = serde_json::from_slice(&document_of_one).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"keys": [{
                "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
                "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
            }]})
        );
        let tag = tag.to_str().unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 45);
        assert_ne!(document(&[]).1, tag);
    }

    #[test]
    fn only_an_uncompressed_point_is_a_key() {
        let good = example();
        let mut compressed = good[..33].to_vec();
        compressed[0] = 2;
        for bad in [vec![], compressed, good[..64].to_vec(), [good.clone(), vec![0]].concat(), good[1..].to_vec()] {
            assert!(PublicKey::from_point(&bad).is_none());
        }
    }
}
