//! The port of notices: what people are told of their data, since when, and which of it each handset's person was shown.

use async_trait::async_trait;

use super::StoreError;
use crate::binding::{AccountId, BindingId};
use crate::clock::Timestamp;

/// What people are to be told from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotice {
    /// Its revision date, as the operator wrote it.
    pub revision: String,
    /// All that it says; the store does not look into it.
    pub document: String,
    /// SHA-256 of `document`: two that say the same have the same.
    pub digest: [u8; 32],
}

/// A notice without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeSummary {
    /// 1 for the first, and so on: the order in which they came into force.
    pub id: u32,
    /// As in [`NewNotice`].
    pub revision: String,
    /// As in [`NewNotice`].
    pub digest: [u8; 32],
    /// When it came into force; the one before it was in force until then.
    pub in_force_from: Timestamp,
}

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRecord {
    /// Which, and since when.
    pub summary: NoticeSummary,
    /// As in [`NewNotice`].
    pub document: String,
}

/// Two notices that say different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeChange {
    /// What the person was shown.
    pub was: NoticeRecord,
    /// What is in force.
    pub is: NoticeRecord,
}

/// What people are told. The same consistency domain as bindings and news.
///
/// 85. **Kept.** A notice that came into force is never changed and never goes; the last one that was put in force is in force.
///     One that says the same as the one in force is not kept a second time.
/// 86. **Told by the sign-in page.** A binding that is made by a code or a console was shown the notice in force at that moment,
///     in the step that makes it; an imported one was shown none until its first use, and then the one in force.
/// 87. **News once.** Where a person was shown a notice that says something else than the one in force,
///     [`NewsStore::has_news`](super::NewsStore::has_news) says so, and one call of `take_notice` gets both; from there on they were
///     shown the one in force.
#[async_trait]
pub trait NoticeStore: Send + Sync + 'static {
    /// Puts a notice in force at `now`. `false` if the one in force says the same.
    async fn put_in_force(&self, notice: NewNotice, now: Timestamp) -> Result<bool, StoreError>;

    /// The notice of this id. `None` if there is none.
    async fn notice(&self, id: u32) -> Result<Option<NoticeRecord>, StoreError>;

    /// At most `most` notices before the one of id `before`, or the latest; the latest first.
    async fn notices(&self, before: Option<u32>, most: u32) -> Result<Vec<NoticeSummary>, StoreError>;

    /// What the person of this handset was shown and what is in force, where these differ; see clause 87.
    async fn take_notice(&self, binding: BindingId) -> Result<Option<NoticeChange>, StoreError>;

    /// Which notice the person of each of the account's handsets was shown last, where any.
    async fn shown(&self, account: &AccountId) -> Result<Vec<(BindingId, NoticeSummary)>, StoreError>;
}
