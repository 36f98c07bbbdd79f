//! Sent forms: bounded, urlencoded, in the charset that the page was sent in; by POST, and by GET from browsers that
//! cannot post.

use std::time::Duration;

use http::header::{ORIGIN, REFERER};
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::Gateway;
use super::arrival::is_form;
use super::visit::{Visit, is_cross_site, is_prefetch, query_value};
use crate::carrier::Charset;
use crate::edge::{ClientBody, RawHead};
use crate::refusal::Reason;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Our forms have a code, a token and a path.
const MAX_BYTES: usize = 4096;

/// The fields of one of our forms. Wiped on drop: an enrolment code may be among them.
pub(super) struct Form {
    fields: Vec<(String, Zeroizing<String>)>,
}

impl Form {
    /// Whether the request is one of our forms, sent by GET, by a browser that cannot post: the pages of any other
    /// browser have no such form. A field `mark` tells it from a link to the page of the form.
    pub(super) fn comes_by_get(visit: &Visit<'_>, mark: &str) -> bool {
        *visit.head.method() == Method::GET && !visit.reader.posts && query_value(visit.head, mark).is_some()
    }

    /// Reads a form that was sent to us from one of our own pages. What changes something by GET has to be a click,
    /// too: a page elsewhere can make a browser ask for an image.
    ///
    /// # Errors
    /// [`Reason::ForeignOrigin`], [`Reason::MalformedRequest`], [`Reason::BodyTooLarge`].
    pub(super) async fn read(gateway: &Gateway, visit: &Visit<'_>, body: ClientBody) -> Result<Self, Reason> {
        gateway.own_origin(visit)?;
        if *visit.head.method() == Method::GET {
            if !gateway.is_own_click(visit) {
                return Err(Reason::ForeignOrigin);
            }
            return Ok(Self::parse(visit.head.query().unwrap_or_default().as_bytes(), visit.reader.charset));
        }
        if !is_form(visit.head) {
            return Err(Reason::MalformedRequest);
        }
        let collected = collect(body, gateway.config.limits.timeouts.body_idle).await?;
        Ok(Self::parse(&collected, visit.reader.charset))
    }

    pub(super) fn parse(body: &[u8], charset: Charset) -> Self {
        let encoding = match charset {
            Charset::ShiftJis => encoding_rs::SHIFT_JIS,
            Charset::EucJp => encoding_rs::EUC_JP,
            Charset::Utf8 => encoding_rs::UTF_8,
        };
        let text = |raw: &[u8]| {
            let spaced: Zeroizing<Vec<u8>> =
                Zeroizing::new(raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect());
            let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode(&spaced).collect());
            Zeroizing::new(encoding.decode_without_bom_handling(&bytes).0.into_owned())
        };
        let fields = body
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let mut parts = pair.splitn(2, |b| *b == b'=');
                let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                (text(name).to_string(), text(value))
            })
            .collect();
        Self { fields }
    }

    /// The first field of that name; empty if there is none.
    pub(super) fn field(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The same, where an empty one says something else than none.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Gateway {
    /// Whether a state-changing request comes from one of our own pages, as far as its browser tells.
    ///
    /// `Origin: null`, another port and a repeated field are foreign (RFC 6454 §7); a browser that sends neither
    /// `Origin` nor `Sec-Fetch-Site` is held by the form token alone.
    ///
    /// # Errors
    /// [`Reason::ForeignOrigin`].
    pub(super) fn own_origin(&self, visit: &Visit<'_>) -> Result<(), Reason> {
        if self.is_from_elsewhere(visit.head) { Err(Reason::ForeignOrigin) } else { Ok(()) }
    }

    /// Whether the request's browser tells that another site's page made it.
    pub(super) fn is_from_elsewhere(&self, head: &RawHead) -> bool {
        self.has_foreign_origin(head) || is_cross_site(head)
    }

    /// Whether a browser says that another site's page asks.
    pub(super) fn has_foreign_origin(&self, head: &RawHead) -> bool {
        head.all(&ORIGIN).any(|origin| !self.is_own_origin(origin.as_bytes()))
    }

    /// Whether the request is a person's click on one of our own pages, as far as its browser tells: a page elsewhere
    /// can make a browser ask for an image or a frame, or follow a link of its own.
    pub(super) fn is_own_click(&self, visit: &Visit<'_>) -> bool {
        let navigation = visit.head.all(&SEC_FETCH_DEST).all(|dest| dest.as_bytes().eq_ignore_ascii_case(b"document"));
        let from_elsewhere = |referer: &HeaderValue| {
            let uri: Option<Uri> = referer.to_str().ok().and_then(|text| text.parse().ok());
            !uri.and_then(|uri| uri.host().map(|host| self.config.gateway.hosts.allows(host))).unwrap_or(false)
        };
        navigation
            && !is_cross_site(visit.head)
            && !is_prefetch(visit.head)
            && !visit.head.all(&REFERER).any(from_elsewhere)
    }

    /// Whether `origin` is `public_url` or `plain_url`.
    pub(super) fn is_own_origin(&self, origin: &[u8]) -> bool {
        self.own_origins.iter().any(|own| own.as_bytes() == origin)
    }
}

/// All of a small body; `idle` is the time that its sender may be silent.
async fn collect(body: ClientBody, idle: Duration) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let mut body = Limited::new(body, MAX_BYTES);
    // Sized beforehand: growing would leave unwiped copies behind.
    let mut collected = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    loop {
        match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => return Ok(collected),
            Ok(Some(Ok(frame))) => collected.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(error))) if error.is::<http_body_util::LengthLimitError>() => return Err(Reason::BodyTooLarge),
            Ok(Some(Err(_))) => return Err(Reason::MalformedRequest),
            Err(_) => return Err(Reason::RequestTimeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_the_charset_of_the_page() {
        let form = Form::parse(b"code=%82%50%82%51&to=%2Fa%3Fb&t=x+y&t=second&&empty", Charset::ShiftJis);
        assert_eq!(form.field("code"), "１２");
        assert_eq!(form.field("to"), "/a?b");
        assert_eq!(form.field("t"), "x y");
        assert_eq!(form.field("empty"), "");
        assert_eq!(form.field("absent"), "");
        assert_eq!(Form::parse("code=１".as_bytes(), Charset::Utf8).field("code"), "１");
    }
}
