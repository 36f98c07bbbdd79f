//! One request as the gateway's own pages see it; proxied requests never build one.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderName, Method};

use super::Gateway;
use super::arrival::Arrival;
use super::local_path::{LocalPath, Room};
use crate::carrier::{Profile, UserAgent};
use crate::clock::Timestamp;
use crate::edge::{Client, RawHead};
use crate::pages::{Page, Reader, ReaderHints};
use crate::refusal::Reason;
use crate::trace::RequestId;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How browsers say that nobody clicked: `Sec-Purpose` (Fetch), and what older ones sent before it.
const PURPOSES: [HeaderName; 3] =
    [HeaderName::from_static("sec-purpose"), HeaderName::from_static("purpose"), HeaderName::from_static("x-moz")];

/// Who asks for one of our pages, from where, and what their browser can read.
pub(super) struct Visit<'r> {
    pub(super) arrival: &'r Arrival,
    pub(super) head: &'r RawHead,
    pub(super) client: Client,
    /// The profile of the source network; headers had no say.
    pub(super) carrier: Option<&'r Arc<Profile>>,
    pub(super) user_agent: UserAgent,
    /// For where they wanted to go, in the URLs that their browser can hold.
    room: Room,
    pub(super) reader: Reader,
    pub(super) request_id: RequestId,
    pub(super) now: Timestamp,
}

impl<'r> Visit<'r> {
    pub(super) fn of(gateway: &'r Gateway, arrival: &'r Arrival) -> Self {
        let Arrival { head, client, request_id, now, .. } = arrival;
        let (client, request_id, now) = (*client, *request_id, *now);
        let carrier = gateway.config.carriers.match_source(&client);
        let user_agent = UserAgent::parse(head.text(&USER_AGENT).unwrap_or_default());
        let reader = Gateway::reader_of(&ReaderHints::of(head), carrier, &user_agent);
        let origin = gateway.own_origins.iter().map(String::len).max().unwrap_or(0);
        // What the browser holds, and the gateway itself takes.
        let url_bytes = user_agent.url_bytes().min(origin + gateway.head_limits.url_bytes);
        let asked = carrier.and_then(|profile| profile.required_query());
        let room = Room::of(url_bytes, origin, asked, user_agent.posts());
        Self { arrival, head, client, carrier, user_agent, room, reader, request_id, now }
    }

    /// The page of a refusal, with the advice of this carrier.
    pub(super) fn refusal(&self, reason: Reason, retry_after_seconds: Option<u64>) -> Page<'_> {
        let carrier = self.carrier.map(|profile| profile.name().as_str());
        Page::Refusal { reason, carrier, retry_after_seconds, request_id: self.request_id.as_str() }
    }

    /// Where the person wanted to go: the target itself, if it can be gone to again.
    pub(super) fn wanted(&self) -> LocalPath {
        match *self.head.method() {
            Method::GET | Method::HEAD => LocalPath::of_request(self.head.path(), self.head.query(), self.room),
            _ => LocalPath::root(),
        }
    }

    /// What a sign-in button is bound to: this carrier and this browser, without its serials.
    pub(super) fn browser(&self) -> Vec<u8> {
        let carrier = self.carrier.map(|c| c.name().as_str()).unwrap_or_default();
        [carrier.as_bytes(), b"\0", self.user_agent.redacted.as_bytes()].concat()
    }
}

/// Whether a browser that tells says that another site made it ask.
pub(super) fn is_cross_site(head: &RawHead) -> bool {
    head.all(&SEC_FETCH_SITE).any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
}

/// Whether a browser fetches ahead of a click that may never come.
pub(super) fn is_prefetch(head: &RawHead) -> bool {
    let ahead = |value: &[u8]| value.get(..8).is_some_and(|word| word.eq_ignore_ascii_case(b"prefetch"));
    PURPOSES.iter().any(|name| head.all(name).any(|value| ahead(value.as_bytes())))
}

/// The first value of a query parameter, decoded; `None` if it is not there or no UTF-8.
pub(super) fn query_value(head: &RawHead, name: &str) -> Option<String> {
    let query = head.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
