//! The port of news: what a person is told, once, at the next sign-in with a handset.

use async_trait::async_trait;

use super::StoreError;
use crate::binding::BindingId;
use crate::carrier::CarrierName;
use crate::clock::Day;

/// What happened to the account meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsKind {
    /// Another handset was bound to it, by a code or by a console.
    HandsetBound,
    /// A series of wrong PINs was typed on one of its handsets.
    WrongPins,
    /// A series of wrong enrolment codes was typed at one of its codes.
    WrongCodes,
}

impl NewsKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::HandsetBound, Self::WrongPins, Self::WrongCodes];

    /// The word in stores and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandsetBound => "handset-bound",
            Self::WrongPins => "wrong-pins",
            Self::WrongCodes => "wrong-codes",
        }
    }
}

/// One thing that a person does not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What happened.
    pub kind: NewsKind,
    /// The carrier of the handset that it is about, where it is about one.
    pub carrier: Option<CarrierName>,
    /// When.
    pub day: Day,
}

/// What people are to be told.
///
/// 53. **To the others.** A binding that is made by a code or a console is news to every other handset of its account,
///     in the step that makes it; a series of wrong tries to all of them, in the step that counts it. An import is none.
/// 54. **Once.** News that were taken are gone; so are those of a binding that is.
#[async_trait]
pub trait NewsStore: Send + Sync + 'static {
    /// Whether there are any for this handset, or its person was shown a notice that says something else than the one in
    /// force ([`NoticeStore`](super::NoticeStore), clause 87).
    async fn has_news(&self, binding: BindingId) -> Result<bool, StoreError>;

    /// Takes them, oldest first.
    async fn take_news(&self, binding: BindingId) -> Result<Vec<News>, StoreError>;
}
