//! The privacy notice: made from the configuration in force, and kept from the moment at which that comes into force, so that
//! what people were told can be looked at later, and who was told something else is told of the change.

use http::{Response, StatusCode};
use ring::digest::{SHA256, digest};

use super::Gateway;
use super::visit::{Visit, query_value};
use crate::audit::{Action, AuditTrail, Effect, Event};
use crate::backup::hex;
use crate::body::Body;
use crate::clock::Clock;
use crate::config::{Config, Finding, Severity};
use crate::pages::{Language, NoticeDocument, NoticeFacts, NoticeNews, NoticePage, NoticeRevision, Page, ReadField};
use crate::refusal::Reason;
use crate::store::{NewNotice, NoticeChange, NoticeRecord, NoticeStore, NoticeSummary, StoreError};
use crate::telemetry::Actor;

/// Query parameter of a former notice: its number, or its revision date.
const REVISION: &str = "revision";
/// How many former notices are looked through and listed.
const MOST_LISTED: u32 = 100;

/// What a configuration tells people.
pub(super) struct Told {
    document: NoticeDocument,
    text: String,
    digest: [u8; 32],
}

impl Told {
    /// By `config`.
    pub(super) fn of(config: &Config) -> Self {
        let enabled = config.carriers.profiles().iter().filter(|profile| profile.enabled());
        let reads = enabled.filter_map(|profile| {
            let header = profile.header()?.to_string();
            Some(ReadField { carrier: profile.display_name().to_owned(), header })
        });
        let document = NoticeDocument::of(NoticeFacts {
            controller: config.notice.controller.clone(),
            contact: config.notice.contact.clone(),
            revision: config.notice.revision.clone(),
            reads: reads.collect(),
            retention_days: config.binding.retention_days,
            session_idle_seconds: config.session.idle.as_secs(),
            session_absolute_seconds: config.session.absolute.as_secs(),
            client_address: config.privacy.client_address,
        });
        let text = document.text();
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self { document, text, digest: sum }
    }

    /// What stands for all that it says.
    pub(super) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Keeps what is told from now on. Where people were told something else so far, that it changes stands in the audit trail.
///
/// # Errors
/// [`StoreError`]; it must not come into force then.
pub(super) async fn put_in_force(
    notices: &dyn NoticeStore,
    told: &Told,
    audit: &AuditTrail,
    clock: &dyn Clock,
    by: Actor,
) -> Result<(), StoreError> {
    let Told { document, text, digest } = told;
    let revision = &document.facts.revision;
    let new = NewNotice { revision: revision.clone(), document: text.clone(), digest: *digest };
    let put = async { notices.put_in_force(new, clock.now()).await };
    match notices.notices(None, 1).await?.pop() {
        Some(former) if former.digest == *digest => Ok(()),
        None => put.await.map(drop),
        Some(_) => {
            let deed = Event::new(Action::NoticeChange, by).object(format!("{revision} {}", hex(digest)));
            audit.act(deed, clock, async { Ok(((), Effect::of(u64::from(put.await?)))) }).await
        }
    }
}

/// What is doubtful of it: that the same revision date stood over something else.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn doubt(
    config: &Config,
    told: &Told,
    notices: &dyn NoticeStore,
) -> Result<Option<Finding>, StoreError> {
    let revision = &told.document.facts.revision;
    let listed = notices.notices(None, MOST_LISTED).await?;
    let other = listed.iter().find(|former| former.revision == *revision && former.digest != told.digest);
    let Some(other) = other else { return Ok(None) };
    let former = notices.notice(other.id).await?.and_then(|record| NoticeDocument::parse(&record.document));
    let differs = former.map(|former| told.document.differs_in(&former).join(", ")).unwrap_or_default();
    let problem = format!(
        "stood over something else before ({differs}); people are told of the change all the same: write the day of it"
    );
    Ok(Some(Finding { severity: Severity::Warning, ..config.finding("notice.revision", problem) }))
}

/// What has changed, in a language.
pub(super) fn news_of(change: &NoticeChange, language: Language) -> Option<NoticeNews> {
    let is = NoticeDocument::parse(&change.is.document)?;
    let changes = match NoticeDocument::parse(&change.was.document) {
        Some(was) => is.changes_since(&was, language),
        None => is.sections(language).to_vec(),
    };
    let summary = &change.is.summary;
    Some(NoticeNews { revision: summary.revision.clone(), from: summary.in_force_from.day(), changes })
}

impl Gateway {
    /// `GET /_sekisho/notice`: the notice in force, or with [`REVISION`] a former one.
    pub(super) async fn notice(&self, visit: &Visit<'_>) -> Response<Body> {
        let Some(asked) = query_value(visit.head, REVISION) else { return self.notice_in_force(visit).await };
        match self.former_notice(&asked).await {
            Ok(Some((record, Some(next)))) => self.former_page(visit, &record, &next).await,
            Ok(Some((_, None))) => self.notice_in_force(visit).await,
            Ok(None) => self.refuse_in_place(visit, Reason::NoRoute).await,
            Err(error) => self.notice_unavailable(visit, &error).await,
        }
    }

    /// Also where the store is away: only the way to former ones is missing then.
    async fn notice_in_force(&self, visit: &Visit<'_>) -> Response<Body> {
        let listed = self.notices.notices(None, MOST_LISTED).await.unwrap_or_else(|error| {
            tracing::error!(%error, "former notices could not be listed");
            Vec::new()
        });
        let ours = |one: &NoticeSummary| one.digest == *self.told.digest();
        let earlier: Vec<_> = listed.into_iter().skip_while(|one| !ours(one)).skip(1).map(revision).collect();
        let page = NoticePage { told: &self.told.document, former: None, earlier: &earlier };
        self.linked_for_all(visit, self.page(visit, StatusCode::OK, &Page::Notice(page))).await
    }

    /// The notice of that number, or the last one of that revision date, and the one that came after it; none came after the
    /// one in force.
    async fn former_notice(&self, asked: &str) -> Result<Option<(NoticeRecord, Option<NoticeRecord>)>, StoreError> {
        let id = if asked.bytes().all(|byte| byte.is_ascii_digit()) {
            asked.parse().ok()
        } else {
            let listed = self.notices.notices(None, MOST_LISTED).await?;
            listed.iter().find(|one| one.revision == asked).map(|one| one.id)
        };
        let Some(id) = id else { return Ok(None) };
        let Some(record) = self.notices.notice(id).await? else { return Ok(None) };
        Ok(Some((record, self.notices.notice(id.saturating_add(1)).await?)))
    }

    async fn former_page(&self, visit: &Visit<'_>, record: &NoticeRecord, next: &NoticeRecord) -> Response<Body> {
        let Some(told) = NoticeDocument::parse(&record.document) else {
            return self.notice_unavailable(visit, &StoreError::Corrupt("a notice that was kept".to_owned())).await;
        };
        let earlier = match self.notices.notices(Some(record.summary.id), MOST_LISTED).await {
            Ok(earlier) => earlier.into_iter().map(revision).collect::<Vec<_>>(),
            Err(error) => return self.notice_unavailable(visit, &error).await,
        };
        let [from, until] = [record, next].map(|record| record.summary.in_force_from.day());
        let page = Page::Notice(NoticePage { told: &told, former: Some((from, until)), earlier: &earlier });
        self.linked_for_all(visit, self.page(visit, StatusCode::OK, &page)).await
    }

    async fn notice_unavailable(&self, visit: &Visit<'_>, error: &StoreError) -> Response<Body> {
        tracing::error!(%error, "a former notice could not be shown");
        self.refuse_in_place(visit, Reason::StoreUnavailable).await
    }
}

fn revision(summary: NoticeSummary) -> NoticeRevision {
    NoticeRevision { id: summary.id, from: summary.in_force_from.day(), revision: summary.revision }
}
