//! What a person is told once, right after signing in: another handset, a series of wrong PINs or codes, or that the privacy
//! notice has changed since they were told of it.
//!
//! Only who is signed in with a handset of the account sees it, and no page comes where there is nothing to tell.

use http::{Method, Response, StatusCode};

use super::Gateway;
use super::local_path::LocalPath;
use super::notice::news_of;
use super::session_check::Current;
use super::visit::{Visit, is_prefetch, query_value};
use crate::body::Body;
use crate::pages::{self, NoticeNews, Page, TO_FIELD};
use crate::refusal::Reason;
use crate::store::{News, NewsKind, StoreError};

/// Where somebody is sent first who wants to go to `to` and is to be told something.
pub(super) fn news_url(to: &LocalPath) -> String {
    format!("/_sekisho/news?{TO_FIELD}={}", to.as_query_value())
}

impl Gateway {
    /// `GET /_sekisho/news`: shows what is new, and forgets it.
    pub(super) async fn news_page(&self, visit: &Visit<'_>) -> Response<Body> {
        let current = match self.current(visit).await {
            Ok(current) => current,
            Err(answer) => return *answer,
        };
        let to = LocalPath::parse(&query_value(visit.head, TO_FIELD).unwrap_or_default());
        // What nobody reads is not told yet.
        let read = *visit.head.method() == Method::GET && !is_prefetch(visit.head);
        let taken = if read { self.take_news(visit, &current).await } else { Ok((Vec::new(), None)) };
        let (news, notice) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "news could not be read");
                return self.linked(visit, &current, self.refuse(visit, Reason::StoreUnavailable));
            }
        };
        if news.is_empty() && notice.is_none() && read {
            let links = self.links_of(visit.arrival, &current);
            let target = links.map_or_else(|| to.as_str().to_owned(), |links| links.local(to.as_str()));
            return self.redirect(visit, StatusCode::FOUND, &target);
        }
        let page = Page::News { news: &news, notice: notice.as_ref(), to: to.as_str() };
        self.linked(visit, &current, self.page(visit, StatusCode::OK, &page))
    }

    async fn take_news(
        &self,
        visit: &Visit<'_>,
        current: &Current,
    ) -> Result<(Vec<pages::News>, Option<NoticeNews>), StoreError> {
        let binding = current.facts().binding;
        let news: Vec<_> = self.news.take_news(binding).await?.into_iter().map(shown).collect();
        let change = match self.notices.take_notice(binding).await {
            Ok(change) => change,
            // It stays untold; what was taken is told.
            Err(error) if !news.is_empty() => {
                tracing::error!(%error, "that the notice has changed could not be told");
                None
            }
            Err(error) => return Err(error),
        };
        Ok((news, change.and_then(|change| news_of(&change, visit.reader.language))))
    }
}

fn shown(News { kind, carrier, day }: News) -> pages::News {
    let kind = match kind {
        NewsKind::HandsetBound => pages::NewsKind::HandsetBound,
        NewsKind::WrongPins => pages::NewsKind::WrongPins,
        NewsKind::WrongCodes => pages::NewsKind::WrongCodes,
    };
    pages::News { kind, carrier: carrier.map(|carrier| carrier.to_string()).unwrap_or_default(), day }
}
