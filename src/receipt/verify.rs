//! Verifying a receipt without the gateway: what it needs is in the file, and a key that its reader knows from elsewhere.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::canonical::{self, Unreadable, shown};
use super::document::{FORMAT, MEMBERS, Part};
use super::merkle::{hex, sha256};
use super::seal::{ADDENDA, SEAL, digests, message};
use super::survey::Survey;
use crate::binding::{Chain, KeyId};
use crate::clock::Timestamp;
use crate::keys::AuditPublicKey;
use crate::store::KeyPurpose;

/// Longer than any receipt.
const MOST_BYTES: usize = 1 << 20;
/// Problems that are told; where there are more, the file is another one.
const MOST_PROBLEMS: usize = 50;

/// What the reader of a receipt knows of a key that may have sealed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownKey {
    /// The key itself.
    Public(AuditPublicKey),
    /// Its fingerprint, 43 characters of base64url.
    Fingerprint(String),
}

impl KnownKey {
    /// Reads a public key as receipts and exports show it, or a fingerprint; `None` if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.len() == 43 && text.bytes().all(base64url) {
            return Some(Self::Fingerprint(text.to_owned()));
        }
        AuditPublicKey::parse(text).map(Self::Public)
    }

    fn is(&self, key: &AuditPublicKey) -> bool {
        match self {
            Self::Public(known) => known == key,
            Self::Fingerprint(known) => *known == key.fingerprint(),
        }
    }
}

/// Whose seal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Of a key that the reader knew.
    Known,
    /// Of the key that stands in the receipt: nothing was changed since it was sealed, but anybody can make a key and
    /// seal a receipt of their own. Compare the fingerprint with one that came another way.
    Unproven,
}

/// What verifying found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether nothing was changed and nothing contradicts itself.
    pub ok: bool,
    /// What is wrong, each beginning with the member that it is wrong with.
    pub problems: Vec<String>,
    /// Which rotation, as far as it could be read.
    pub rotation: Option<String>,
    /// Fingerprint of the key that sealed it.
    pub fingerprint: Option<String>,
    /// Whose seal it is.
    pub origin: Origin,
}

/// Verifies a receipt and its addenda. `known` are the keys that may have sealed them; with none, it takes the key in
/// the receipt on trust, and says so ([`Origin::Unproven`]).
#[must_use]
pub fn verify(document: &[u8], known: &[KnownKey]) -> Verdict {
    judge(document, known, |_| Vec::new())
}

/// As [`verify`], and compares it with a look at the store, or a copy of it, that was taken after the rotation.
#[must_use]
pub fn verify_against(document: &[u8], known: &[KnownKey], survey: &Survey) -> Verdict {
    judge(document, known, |receipt| differences(receipt, survey))
}

fn judge(document: &[u8], known: &[KnownKey], compare: impl FnOnce(&Map<String, Value>) -> Vec<String>) -> Verdict {
    let origin = if known.is_empty() { Origin::Unproven } else { Origin::Known };
    let mut verdict = Verdict { ok: false, problems: Vec::new(), rotation: None, fingerprint: None, origin };
    if document.len() > MOST_BYTES {
        verdict.problems.push("the document: is longer than 1 MiB, so it is no receipt".to_owned());
        return verdict;
    }
    let receipt = match canonical::read(document) {
        Ok(receipt) => receipt,
        Err(unreadable) => {
            verdict.problems = where_unreadable(document, &unreadable);
            return verdict;
        }
    };
    verdict.rotation = text(&receipt, &["rotation", "id"]).map(shown);
    verdict.fingerprint = text(&receipt, &[SEAL, "key", "fingerprint"]).map(shown);
    let mut problems = sealed(&receipt, known);
    if problems.is_empty() {
        problems = contradictions(&receipt);
        problems.extend(compare(&receipt));
    }
    problems.extend(addenda(&receipt, known));
    verdict.ok = problems.is_empty();
    problems.truncate(MOST_PROBLEMS);
    verdict.problems = problems;
    verdict
}

/// Whether every member is what was sealed, and by whom.
pub(super) fn sealed(receipt: &Map<String, Value>, known: &[KnownKey]) -> Vec<String> {
    let Some(seal) = receipt.get(SEAL) else { return vec!["seal: is missing".to_owned()] };
    let mut problems = Vec::new();
    let there = digests(receipt);
    let stated: BTreeMap<String, String> =
        seal.get("digests").and_then(|digests| serde_json::from_value(digests.clone()).ok()).unwrap_or_default();
    for (path, digest) in &there {
        match stated.get(path) {
            None => problems.push(format!("{}: was not sealed with the others", dotted(path))),
            Some(stated) if stated != digest => {
                problems.push(format!("{}: does not fit its digest in the seal", dotted(path)));
            }
            Some(_) => {}
        }
    }
    let missing = stated.keys().filter(|path| !there.contains_key(*path));
    problems.extend(missing.map(|path| format!("{}: was sealed and is missing", dotted(path))));
    problems.extend(seal_itself(seal, known));
    problems
}

/// A JSON pointer as problems name members: `counts.total`.
fn dotted(pointer: &str) -> String {
    shown(pointer.trim_start_matches('/')).replace('/', ".")
}

fn seal_itself(seal: &Value, known: &[KnownKey]) -> Vec<String> {
    let member = |name: &str| seal.get(name).unwrap_or(&Value::Null);
    let key = member("key");
    let of_key = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut problems = others(seal, "seal", &["digests", "key", "signature"]);
    problems.extend(others(key, "seal.key", &["id", "public", "fingerprint"]));
    let Some(public) = AuditPublicKey::parse(of_key("public")).filter(|key| key.text() == of_key("public")) else {
        problems.push("seal.key.public: is no public key".to_owned());
        return problems;
    };
    if public.fingerprint() != of_key("fingerprint") {
        problems.push("seal.key: public and fingerprint do not belong together".to_owned());
    }
    if !known.is_empty() && !known.iter().any(|known| known.is(&public)) {
        problems.push("seal.key: is none of the keys that may have sealed it".to_owned());
    }
    let signature = unhex(member("signature").as_str().unwrap_or_default());
    let signed = message(member("digests"), key);
    if !signature.is_some_and(|signature| public.verifies(signed.as_bytes(), &signature)) {
        problems.push("seal.signature: does not fit seal.digests and seal.key".to_owned());
    }
    problems
}

/// Members that do not belong there: a renamed one is named.
fn others(value: &Value, path: &str, expected: &[&str]) -> Vec<String> {
    let Some(members) = value.as_object() else { return vec![format!("{path}: is no object")] };
    let strange = members.keys().filter(|name| !expected.contains(&name.as_str()));
    let missing = expected.iter().filter(|name| !members.contains_key(**name));
    strange
        .map(|name| format!("{path}.{}: does not belong there", shown(name)))
        .chain(missing.map(|name| format!("{path}.{name}: is missing")))
        .collect()
}

/// What a gateway that worked would not have sealed.
fn contradictions(receipt: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let count = |path: &[&str]| at(receipt, path).and_then(Value::as_u64);
    must(text(receipt, &["format"]) == Some(FORMAT), "format: is not one that this program knows");
    must(text(receipt, &["part"]) == Some(Part::Receipt.as_str()), "part: is not `receipt`");
    must(text(receipt, &["rotation", "state"]) == Some("done"), "rotation.state: is not `done`");
    must(
        matches!(text(receipt, &["from", "state"]), Some("drained" | "destroyed")),
        "from.state: is neither `drained` nor `destroyed`",
    );
    must(count(&["counts", "remaining"]) == Some(0), "counts.remaining: is not 0");
    must(count(&["scan", "remaining"]) == Some(0), "scan.remaining: is not 0");
    let sum = ["flattened", "purged", "remaining"]
        .iter()
        .try_fold(0_u64, |sum, name| sum.checked_add(count(&["counts", name])?));
    must(sum.is_some() && sum == count(&["counts", "total"]), "counts.total: is not flattened + purged + remaining");
    let from = text(receipt, &["from", "id"]).unwrap_or_default();
    let chains = at(receipt, &["scan", "chains"]).and_then(Value::as_object);
    let past = |chain: &String| match (KeyId::parse(from), Chain::parse(chain)) {
        (Ok(from), Ok(chain)) => chain.keys().first() > Some(&from),
        (Err(_), Ok(_)) => true, // no binding is made of such a key
        (_, Err(_)) => false,
    };
    must(chains.is_some_and(|chains| chains.keys().all(past)), "scan.chains: the old key is still in one");
    let all = chains.and_then(|chains| chains.values().try_fold(0_u64, |sum, n| sum.checked_add(n.as_u64()?)));
    must(all.is_some() && all == count(&["scan", "bindings"]), "scan.bindings: is not the sum of scan.chains");
    if has_canaries(receipt) {
        problems.extend(canaries(receipt, &["planted", "wrapped", "drained"]));
    }
    problems
}

/// The other purposes have no records that could be lost, and under a key that was suspended before it was said to have
/// leaked, none can be planted.
fn has_canaries(receipt: &Map<String, Value>) -> bool {
    let binding = text(receipt, &["rotation", "purpose"]) == Some(KeyPurpose::Binding.as_str());
    let observed = at(receipt, &["canaries", "observed"]).and_then(Value::as_array);
    let leaked = at(receipt, &["from", "compromised"]) == Some(&Value::Bool(true));
    binding && !(leaked && observed.is_some_and(Vec::is_empty))
}

/// Every canary was found as long as it had to be, and none without the old key where that was needed; each of `phases`
/// was looked at.
fn canaries(receipt: &Map<String, Value>, phases: &[&str]) -> Vec<String> {
    let observed = at(receipt, &["canaries", "observed"]).and_then(Value::as_array);
    let Some(observed) = observed else { return vec!["canaries.observed: is no list".to_owned()] };
    let planted = at(receipt, &["canaries", "planted"]);
    let count = |of: Option<&Value>, name: &str| of.and_then(|of| of.get(name)).and_then(Value::as_u64).unwrap_or(0);
    let (used, dormant) = (count(planted, "used"), count(planted, "dormant"));
    let mut problems = Vec::new();
    if used == 0 || dormant == 0 {
        problems.push("canaries.planted: none were planted, so that they show nothing".to_owned());
    }
    let phase = |observed: &Value| observed.get("phase").and_then(Value::as_str).map(str::to_owned);
    let seen: Vec<_> = observed.iter().filter_map(phase).collect();
    let missing = phases.iter().filter(|phase| !seen.iter().any(|seen| seen == *phase));
    problems.extend(missing.map(|phase| format!("canaries.observed: nothing of phase {phase}")));
    for observation in observed {
        let gone = matches!(phase(observation).as_deref(), Some("drained" | "destroyed"));
        let expected = (used, if gone { 0 } else { dormant });
        let found = observation.get("found");
        let without = observation.get("found_without_old_key").and_then(Value::as_u64);
        if (count(found, "used"), count(found, "dormant")) != expected || without != Some(0) {
            let phase = phase(observation).unwrap_or_default();
            let what = "one was lost, or was found without the key that it needed";
            problems.push(format!("canaries.observed: in phase {} {what}", shown(&phase)));
        }
    }
    problems
}

/// Each addendum has a seal of its own, maybe by a later key, and names the receipt.
fn addenda(receipt: &Map<String, Value>, known: &[KnownKey]) -> Vec<String> {
    let Some(addenda) = receipt.get(ADDENDA) else { return Vec::new() };
    let Some(addenda) = addenda.as_array() else { return vec!["addenda: is no list".to_owned()] };
    let mut own = receipt.clone();
    own.remove(ADDENDA);
    let own = hex(&sha256(canonical::text(&Value::Object(own)).as_bytes()));
    let mut problems = Vec::new();
    for (number, addendum) in addenda.iter().enumerate() {
        let Some(addendum) = addendum.as_object() else {
            problems.push(format!("addenda[{number}]: is no object"));
            continue;
        };
        let Some(part) = [Part::Destroyed, Part::Restarted].get(number) else {
            problems.push(format!("addenda[{number}]: does not belong there"));
            continue;
        };
        let mut found = sealed(addendum, known);
        if addendum.contains_key(ADDENDA) {
            found.push("addenda: does not belong there".to_owned());
        }
        let same = |path: &[&str]| at(addendum, path) == at(receipt, path);
        for (holds, problem) in [
            (text(addendum, &["format"]) == Some(FORMAT), "format: is not one that this program knows"),
            (text(addendum, &["part"]) == Some(part.as_str()), "part: is not the one that comes here"),
            (text(addendum, &["from", "state"]) == Some("destroyed"), "from.state: is not `destroyed`"),
            (text(addendum, &["receipt", "sha256"]) == Some(&own), "receipt.sha256: is not that of this receipt"),
            (same(&["rotation", "id"]), "rotation.id: is another one"),
            (same(&["from", "id"]) && same(&["from", "commitment"]), "from: is another key"),
        ] {
            if !holds {
                found.push(problem.to_owned());
            }
        }
        match part {
            Part::Destroyed if has_canaries(receipt) => found.extend(canaries(addendum, &["destroyed"])),
            Part::Receipt | Part::Destroyed => {}
            Part::Restarted => found.extend(restart(addendum, addenda.first())),
        }
        problems.extend(found.into_iter().map(|problem| format!("addenda[{number}].{problem}")));
    }
    problems
}

/// A process that started after the destruction, and is not the one that the addendum before tells of.
fn restart(addendum: &Map<String, Value>, destroyed: Option<&Value>) -> Vec<String> {
    let before = destroyed.map(|destroyed| hex(&sha256(canonical::text(destroyed).as_bytes())));
    let mut problems = Vec::new();
    if text(addendum, &["destroyed", "sha256"]) != before.as_deref() {
        problems.push("destroyed.sha256: is not that of the addendum before".to_owned());
    }
    let time = |path: &[&str]| text(addendum, path).and_then(Timestamp::parse);
    let later = time(&["process", "started_at"]).zip(time(&["from", "destroyed_at"]));
    if later.is_none_or(|(started, destroyed)| started <= destroyed) {
        problems.push("process.started_at: is not after from.destroyed_at".to_owned());
    }
    problems
}

/// How a look at the store differs from what the receipt says must hold for ever. Bindings come and go after a rotation,
/// so that another root is no problem; the old key must be in no chain.
fn differences(receipt: &Map<String, Value>, survey: &Survey) -> Vec<String> {
    let from = text(receipt, &["from", "id"]).and_then(|id| KeyId::parse(id).ok());
    match from.map_or(0, |from| survey.not_past(from)) {
        0 => Vec::new(),
        count => vec![format!("counts.remaining: {count} bindings of the store have the old key in their chain")],
    }
}

/// Names the member at which a document cannot be read any further.
fn where_unreadable(document: &[u8], unreadable: &Unreadable) -> Vec<String> {
    let Unreadable { path, seen, what } = unreadable;
    let known = |name: &String| MEMBERS.contains(&name.as_str()) || name == ADDENDA;
    let place = match path.first() {
        Some(first) if known(first) => path.iter().map(|name| shown(name)).collect::<Vec<_>>().join("."),
        // A brace that is missing makes members of a section look like members of the document.
        Some(_) | None => seen.iter().rfind(|name| known(name)).map_or_else(|| "the document".to_owned(), Clone::clone),
    };
    // A name that lost its quotes is no name any more; that it is missing tells which it was.
    let text = String::from_utf8_lossy(document);
    let missing = MEMBERS.iter().filter(|name| !text.contains(&format!("\"{name}\"")));
    std::iter::once(format!("{place}: here, or behind it, the document cannot be read: {what}"))
        .chain(missing.map(|name| format!("{name}: is missing")))
        .collect()
}

fn at<'v>(document: &'v Map<String, Value>, path: &[&str]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(document.get(*first)?, |value, name| value.get(*name))
}

fn text<'v>(document: &'v Map<String, Value>, path: &[&str]) -> Option<&'v str> {
    at(document, path).and_then(Value::as_str)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect())?
}
