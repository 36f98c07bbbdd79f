//! `audit tail | export | verify`: for the roles `auditor` and `security`, which read the trail; nobody writes it here.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::SecurityReader;
use super::api::{Id, account_id};
use super::operations::Operations;
use super::refused::Refused;
use crate::audit::{Action, Effect, Entry, EntryHash, Event, Export, SealError, Tip, Verdict};
use crate::store::StoreError;

/// Entries of one answer, where the caller does not say, and at most.
const LIMIT: u32 = 100;
const MOST: u32 = 1000;

/// Entries of the audit trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// In the order of the trail.
    pub entries: Vec<AuditEntry>,
    /// The end of the trail; absent before the first entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<AuditHead>,
}

/// One entry. Members without a value are left out, as in the trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// The pseudonym of the account it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What was done.
    pub action: String,
    /// Who did it: `uid:1001`, `handset`, `console`, `gateway`, `retention`.
    pub actor: String,
    /// How many there were after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How many there were before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// SHA-256 over this entry and all before it.
    pub hash: String,
    /// The audit key in force.
    pub key: String,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The entry that began what this one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// `begun`, `done`, `refused`, `failed`.
    pub outcome: String,
    /// The hash of the entry before it.
    pub prev: String,
    /// Why, as a person put it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its number, from 1.
    pub seq: u64,
    /// When.
    pub time: String,
}

/// The end of the trail. Who notes it down can tell later that nothing was cut off.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The number of the last entry.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// Whether the trail is what it was.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Whether nothing contradicts.
    pub ok: bool,
    /// How many entries there are.
    pub entries: u64,
    /// The first entry that does not fit.
    pub first_bad: Option<u64>,
    /// Entries before that, which no checkpoint at hand covers: neither proven nor contradicted.
    pub unverifiable: u64,
    /// The number of the first entry.
    pub from: u64,
    /// Entries before it that the gateway erased because they were old enough, as a sealed entry says.
    pub erased: u64,
    /// The line of the export where it does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What does not fit there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The last entry that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AuditHead>,
    /// The keys that sealed it.
    pub keys: Vec<AuditKeyPrint>,
}

/// A key that seals the trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditKeyPrint {
    /// `u1`.
    pub id: String,
    /// SHA-256 of its public half, base64url: what `audit verify --audit-key` takes.
    pub fingerprint: String,
}

/// Who an account is in the trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPseudonym {
    /// The account.
    pub account: String,
    /// What stands for it.
    pub pseudonym: String,
}

impl AuditEntry {
    fn of(entry: Entry, hash: EntryHash) -> Self {
        let Entry { account, action, actor, after, before, count, key, object, of, outcome, prev, reason, seq, time } =
            entry;
        let (prev, hash) = (prev.to_string(), hash.to_string());
        Self { account, action, actor, after, before, count, hash, key, object, of, outcome, prev, reason, seq, time }
    }
}

impl From<Tip> for AuditHead {
    fn from(tip: Tip) -> Self {
        Self { seq: tip.seq, hash: tip.hash.to_string() }
    }
}

impl From<Verdict> for AuditVerdict {
    fn from(verdict: Verdict) -> Self {
        let ok = verdict.ok();
        let Verdict { entries, bad, unverifiable, from, erased, head, keys } = verdict;
        Self {
            ok,
            entries,
            first_bad: bad.as_ref().map(|bad| bad.seq),
            unverifiable,
            from,
            erased,
            line: bad.as_ref().map(|bad| bad.line),
            problem: bad.map(|bad| bad.problem.to_owned()),
            head: head.map(AuditHead::from),
            keys: keys.into_iter().map(|(id, fingerprint)| AuditKeyPrint { id, fingerprint }).collect(),
        }
    }
}

/// What a query asks for: each parameter once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Range {
    after: Option<u64>,
    limit: Option<u32>,
}

impl Range {
    fn parse(query: Option<&str>) -> Result<Self, Refused> {
        let mut range = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "after" => once(&mut range.after, number(&value, 0, i64::MAX.unsigned_abs()), "after")?,
                "limit" => {
                    let limit = number(&value, 1, MOST.into()).and_then(|limit| u32::try_from(limit).ok());
                    once(&mut range.limit, limit, "limit")?;
                }
                _ => return Err(Refused::ParameterInvalid("of this request")),
            }
        }
        Ok(range)
    }
}

/// Decimal digits and nothing else.
fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (least..=most).contains(number))
}

fn once<T>(place: &mut Option<T>, value: Option<T>, name: &'static str) -> Result<(), Refused> {
    match (place.is_some(), value) {
        (false, Some(value)) => {
            *place = Some(value);
            Ok(())
        }
        _ => Err(Refused::ParameterInvalid(name)),
    }
}

/// The entries behind `after`, or the last ones.
#[utoipa::path(
    get, path = "/v1/audit",
    params(
        ("after" = Option<u64>, Query, maximum = 9_223_372_036_854_775_807_i64, description = "Entries behind this number; without it the last ones"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most entries; 100 if absent"),
    ),
    responses((status = 200, body = AuditPage), Refused)
)]
pub(super) async fn entries(
    _: SecurityReader,
    State(ops): State<Operations>,
    request: axum::extract::RawQuery,
) -> Result<Json<AuditPage>, Refused> {
    let Range { after, limit } = Range::parse(request.0.as_deref())?;
    let limit = limit.unwrap_or(LIMIT);
    let head = ops.audit.head().await?;
    let after = after.unwrap_or_else(|| head.map_or(0, |head| head.seq.saturating_sub(limit.into())));
    let entries = ops.audit.entries(after, limit).await?;
    let entries = entries.into_iter().map(|(entry, hash)| AuditEntry::of(entry, hash)).collect();
    Ok(Json(AuditPage { entries, head: head.map(AuditHead::from) }))
}

/// Seals the trail, and gives it out as JSON lines with all that verification elsewhere needs (`docs/audit.md`).
///
/// An answer without the `end` line broke off.
#[utoipa::path(
    get, path = "/v1/audit/export",
    params(("after" = Option<u64>, Query, maximum = 9_223_372_036_854_775_807_i64, description = "Entries behind this number; without it all")),
    responses((status = 200, body = String, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn export(
    _: SecurityReader,
    State(ops): State<Operations>,
    request: axum::extract::RawQuery,
) -> Result<Response, Refused> {
    let Range { after, limit: None } = Range::parse(request.0.as_deref())? else {
        return Err(Refused::ParameterInvalid("limit"));
    };
    seal(&ops).await?;
    let export = ops.audit.export(after.unwrap_or(0)).await?.ok_or(Refused::NotFound)?;
    let lines = stream::try_unfold(export, |mut export: Export| async {
        let page = export.page().await.inspect_err(|error| tracing::error!(%error, "an export broke off"))?;
        Ok::<_, StoreError>(page.map(|page| (page, export)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Seals what was written since the last checkpoint, so that nothing at the end is left unverifiable. What was changed is
/// never sealed, and must be seen all the same.
async fn seal(ops: &Operations) -> Result<(), Refused> {
    match ops.audit.seal(ops.clock.now()).await {
        Ok(()) => Ok(()),
        Err(SealError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "the audit trail has no seal at its end");
            Ok(())
        }
    }
}

/// Judges the whole trail, by the key in use and by what this gateway remembers having written.
#[utoipa::path(get, path = "/v1/audit/verify", responses((status = 200, body = AuditVerdict), Refused))]
pub(super) async fn verify(_: SecurityReader, State(ops): State<Operations>) -> Result<Json<AuditVerdict>, Refused> {
    seal(&ops).await?;
    Ok(Json(ops.audit.verify().await?.into()))
}

/// Who an account is in the trail. That somebody asked stands there as well.
#[utoipa::path(
    get, path = "/v1/audit/pseudonyms/{account}", params(("account" = String, Path)),
    responses((status = 200, body = AuditPseudonym), Refused)
)]
pub(super) async fn pseudonym(
    SecurityReader(by): SecurityReader,
    State(ops): State<Operations>,
    account: Id,
) -> Result<Json<AuditPseudonym>, Refused> {
    let account = account_id(account)?;
    let pseudonym = ops.audit.pseudonym(&account).await?.ok_or(Refused::NotFound)?;
    let event = Event::new(Action::PseudonymRead, by).account(&account).effect(Effect::none());
    ops.audit.note(event, ops.clock.now()).await?;
    Ok(Json(AuditPseudonym { account: account.to_string(), pseudonym: pseudonym.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_each_thing_once_and_within_bounds() {
        let range = |after, limit| Range { after, limit };
        for (query, expected) in [
            (None, Some(range(None, None))),
            (Some(""), Some(range(None, None))),
            (Some("after=0"), Some(range(Some(0), None))),
            (Some("limit=1000&after=7"), Some(range(Some(7), Some(1000)))),
            (Some("%61fter=%37"), Some(range(Some(7), None))),
            (Some("after=7&after=7"), None),
            (Some("after=7&%61fter=8"), None),
            (Some("after=-1"), None),
            (Some("after=+1"), None),
            (Some("after=%2B1"), None),
            (Some("after="), None),
            (Some("after"), None),
            (Some("after=9223372036854775808"), None),
            (Some("after=99999999999999999999999"), None),
            (Some("limit=0"), None),
            (Some("limit=1001"), None),
            (Some("limit=10e1"), None),
            (Some("limit=１"), None),
            (Some("after=1;limit=1"), None),
            (Some("q=1"), None),
        ] {
            assert_eq!(Range::parse(query).ok(), expected, "{query:?}");
        }
    }
}
