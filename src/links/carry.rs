//! An answer whose links carry the session.

use encoding_rs::Encoding;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
    REFERRER_POLICY,
};
use http::{Response, StatusCode};
use http_body::Body as _;

use super::body::LinkedBody;
use super::fields;
use super::markup::Page;
use super::plan::LinkPlan;
use super::stream::Stream;
use crate::body::Body;

/// Types of pages that hold links, and whether they are XML.
const PAGES: [(&str, bool); 4] = [
    ("text/html", false),
    ("application/xhtml+xml", true),
    ("application/vnd.wap.xhtml+xml", true),
    ("text/vnd.wap.wml", true),
];

/// Fields about the very bytes of a body (RFC 9110 §8, §13, §14; RFC 9530; RFC 3230).
const ABOUT_BYTES: [HeaderName; 8] = [
    CONTENT_LENGTH,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

pub(super) fn is_about_bytes(name: &HeaderName) -> bool {
    ABOUT_BYTES.contains(name)
}

/// Makes the upstream request of such a session ask for what can be rewritten: whole, uncompressed, and not by the
/// validators of a page whose links held another token.
pub fn ask_plainly(fields: &mut HeaderMap) {
    for name in [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        fields.remove(name);
    }
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// The answer with the session in its links: in `Location`, `Refresh` and `Link`, and in the page as it streams.
///
/// Nothing is stored by anybody on the way or in the browser, and no Referer leaves for other sites where the browser
/// heeds that. A body that is no page, that the upstream compressed in spite of [`ask_plainly`], or that is part of
/// one, passes as it is.
#[must_use]
pub fn carry(answer: Response<Body>, plan: LinkPlan) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    fields::rewrite(&mut head.headers, &plan);
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let silent = head.headers.get(REFERRER_POLICY).is_some_and(|policy| policy == "no-referrer");
    if !silent {
        head.headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    }
    let Some((encoding, xml)) = page_type(&head.headers).filter(|_| is_whole(head.status, &head.headers)) else {
        return Response::from_parts(head, body);
    };
    for name in ABOUT_BYTES {
        head.headers.remove(name);
    }
    if body.is_end_stream() {
        return Response::from_parts(head, body);
    }
    let stream = Stream::new(Page::new(plan, encoding, xml), encoding);
    Response::from_parts(head, Body::Linked(LinkedBody::new(body, stream)))
}

/// The charset that the one Content-Type says, and whether it is XML. `None` for what is no page.
fn page_type(fields: &HeaderMap) -> Option<(Option<&'static Encoding>, bool)> {
    let mut values = fields.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    // Bytes beyond ASCII may stand in a parameter that nobody reads.
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next()?;
    let (_, xml) = PAGES.iter().find(|(name, _)| essence.eq_ignore_ascii_case(name))?;
    let label =
        parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let encoding = label.and_then(|(_, label)| Encoding::for_label(label.trim().trim_matches(['"', '\'']).as_bytes()));
    Some((encoding, *xml))
}

fn is_whole(status: StatusCode, fields: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    status != StatusCode::PARTIAL_CONTENT
        && !fields.contains_key(CONTENT_RANGE)
        && fields.get_all(CONTENT_ENCODING).iter().all(plain)
}
