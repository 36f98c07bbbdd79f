//! The seal: a digest of each member, and the audit key's signature over all digests.
//!
//! A signature alone says that something changed; the digests below it say what.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::canonical;
use super::merkle::{hex, sha256};
use crate::keys::AuditKey;

/// What the signed bytes begin with: no other signature of the audit key can pass for one of a receipt.
const LABEL: &str = "sekisho/receipt-seal/v1\n";
/// The member that holds the seal.
pub(super) const SEAL: &str = "seal";
/// The member that holds addenda; each has a seal of its own.
pub(super) const ADDENDA: &str = "addenda";

/// The operating system gave no randomness, so nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness; nothing was sealed")]
pub struct Unsealed;

/// Adds the seal to `document` and writes it down.
pub(super) fn seal(mut document: Map<String, Value>, key: &AuditKey) -> Result<String, Unsealed> {
    let digests = digests(&document);
    let public = key.public();
    let by = json!({"id": key.id(), "public": public.text(), "fingerprint": public.fingerprint()});
    let signature = key.seal(message(&json!(digests), &by).as_bytes()).ok_or(Unsealed)?;
    document.insert(SEAL.to_owned(), json!({"digests": digests, "key": by, "signature": hex(&signature)}));
    Ok(canonical::text(&Value::Object(document)))
}

/// The signed bytes: a label, and the canonical text of digests and key.
pub(super) fn message(digests: &Value, key: &Value) -> String {
    format!("{LABEL}{}", canonical::text(&json!({"digests": digests, "key": key})))
}

/// The digest of each member of a section, and of each member that is no section, by its JSON pointer (RFC 6901); in
/// hexadecimal. A pointer names one member only, so that no two documents have the same digests.
pub(super) fn digests(document: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (name, value) in document.iter().filter(|(name, _)| ![SEAL, ADDENDA].contains(&name.as_str())) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                out.extend(members.iter().map(|(member, value)| entry(&[name, member], value)));
            }
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                out.extend([entry(&[name], value)]);
            }
        }
    }
    out
}

fn entry(path: &[&String], value: &Value) -> (String, String) {
    let names = path.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
    let pointer = format!("/{}", names.collect::<Vec<_>>().join("/"));
    let digest = sha256(canonical::text(&json!([pointer, value])).as_bytes());
    (pointer, hex(&digest))
}
