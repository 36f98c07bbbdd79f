//! What a person is told once, right after signing in: another handset, or a series of wrong PINs or codes.
//!
//! Only who is signed in with a handset of the account sees it, and no page comes where there is nothing to tell.

use http::{Method, Response, StatusCode};

use super::Gateway;
use super::local_path::LocalPath;
use super::visit::{Visit, is_prefetch, query_value};
use crate::body::Body;
use crate::pages::{self, Page, TO_FIELD};
use crate::refusal::Reason;
use crate::store::{News, NewsKind};

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
        let taken = if read { self.news.take_news(current.facts().binding).await } else { Ok(Vec::new()) };
        let news: Vec<pages::News> = match taken {
            Ok(news) => news.into_iter().map(shown).collect(),
            Err(error) => {
                tracing::error!(%error, "news could not be read");
                return self.linked(visit, &current, self.refuse(visit, Reason::StoreUnavailable));
            }
        };
        if news.is_empty() && read {
            let links = self.links_of(visit.arrival, &current);
            let target = links.map_or_else(|| to.as_str().to_owned(), |links| links.local(to.as_str()));
            return self.redirect(visit, StatusCode::FOUND, &target);
        }
        let page = Page::News { news: &news, to: to.as_str() };
        self.linked(visit, &current, self.page(visit, StatusCode::OK, &page))
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
