//! Other documents under the seal of receipts: told apart by their member `format`, which is sealed with the rest.

use serde::Serialize;
use serde_json::{Map, Value};

use super::canonical;
use super::seal::{SEAL, Unsealed, seal};
use super::verify::{KnownKey, Origin, sealed as judge};
use crate::keys::AuditKey;

/// Longer than any certificate.
const MOST_BYTES: usize = 1 << 20;

/// `document` with a seal of `key` over each of its members.
///
/// # Errors
/// [`Unsealed`].
pub fn sealed(document: Map<String, Value>, key: &AuditKey) -> Result<Map<String, Value>, Unsealed> {
    let text = seal(document, key)?;
    // What was just written reads back.
    canonical::read(text.as_bytes()).map_err(|_| Unsealed)
}

/// What verifying a sealed document found.
#[derive(Clone, Debug, Serialize)]
pub struct SealVerdict {
    /// Whether nothing was changed since it was sealed.
    pub ok: bool,
    /// What is wrong, each beginning with the member that it is wrong with.
    pub problems: Vec<String>,
    /// Fingerprint of the key that sealed it.
    pub fingerprint: Option<String>,
    /// Whose seal it is.
    pub origin: Origin,
}

/// Whether `document` is one of `format`, as it was sealed; by one of `known`, where there are some.
#[must_use]
pub fn verify_sealed(document: &[u8], format: &str, known: &[KnownKey]) -> SealVerdict {
    let origin = if known.is_empty() { Origin::Unproven } else { Origin::Known };
    let refused = |problem: String| SealVerdict { ok: false, problems: vec![problem], fingerprint: None, origin };
    if document.len() > MOST_BYTES {
        return refused("the document: is longer than 1 MiB".to_owned());
    }
    let members = match canonical::read(document) {
        Ok(members) => members,
        Err(unreadable) => return refused(format!("the document: {}", unreadable.what)),
    };
    let mut problems = judge(&members, known);
    if members.get("format").and_then(Value::as_str) != Some(format) {
        problems.push(format!("format: is not `{format}`"));
    }
    let fingerprint = members.get(SEAL).and_then(|seal| seal.pointer("/key/fingerprint")).and_then(Value::as_str);
    let fingerprint = fingerprint.map(canonical::shown);
    SealVerdict { ok: problems.is_empty(), problems, fingerprint, origin }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_member_is_named_and_another_format_is_none() {
        let key = AuditKey::fresh("u1");
        let members = json!({"format": "f/v1", "account": "alice", "erased": {"bindings": 2}});
        let document = sealed(members.as_object().unwrap().clone(), &key).unwrap();
        let text = |document: &Map<String, Value>| serde_json::to_vec(document).unwrap();
        let known = [KnownKey::Public(key.public())];
        assert!(verify_sealed(&text(&document), "f/v1", &known).ok);
        assert!(!verify_sealed(&text(&document), "f/v2", &known).ok);
        let stranger = [KnownKey::Public(AuditKey::fresh("u1").public())];
        assert!(!verify_sealed(&text(&document), "f/v1", &stranger).ok);
        let mut changed = document;
        changed["erased"]["bindings"] = 1.into();
        let found = verify_sealed(&text(&changed), "f/v1", &known);
        assert_eq!(found.problems, ["erased.bindings: does not fit its digest in the seal"]);
        assert!(!verify_sealed(b"[]", "f/v1", &[]).ok);
    }
}
