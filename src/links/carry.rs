//! An answer whose links carry the session.

use encoding_rs::Encoding;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Response, StatusCode};
use http_body::Body as _;

use super::body::LinkedBody;
use super::markup::Page;
use super::plan::LinkPlan;
use super::stream::Stream;
use super::{discreet, fields};
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
/// heeds that. A body that is no page, that is to be kept as a file (no token belongs in one), that is part of a page,
/// or that the upstream compressed in spite of [`ask_plainly`], passes as it is.
#[must_use]
pub fn carry(answer: Response<Body>, plan: LinkPlan) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    fields::rewrite(&mut head.headers, &plan);
    discreet::keep(&mut head.headers);
    let Some((encoding, xml)) = page_type(&head.headers).filter(|_| is_shown_whole(head.status, &head.headers)) else {
        return Response::from_parts(head, body);
    };
    for name in ABOUT_BYTES.into_iter().chain(discreet::BASES) {
        head.headers.remove(name);
    }
    if body.is_end_stream() {
        return Response::from_parts(head, body);
    }
    let stream = Stream::new(Page::new(plan, encoding, xml), encoding);
    Response::from_parts(head, Body::Linked(Box::new(LinkedBody::new(Box::new(body), stream))))
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

/// Whether the body is the whole page, as itself, to be shown.
fn is_shown_whole(status: StatusCode, fields: &HeaderMap) -> bool {
    let file = |value: &HeaderValue| {
        value.as_bytes().trim_ascii_start().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"attachment"))
    };
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    status != StatusCode::PARTIAL_CONTENT
        && !fields.contains_key(CONTENT_RANGE)
        && !fields.get_all(CONTENT_DISPOSITION).iter().any(file)
        && fields.get_all(CONTENT_ENCODING).iter().all(plain)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::links::testing::{TOKEN, plan};

    /// Fields (`name: value`, sorted) and body of an answer with these fields and a page with a link.
    fn carried(status: u16, fields: &[(&str, &str)]) -> (Vec<String>, String) {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        let (head, body) = carry(answer.body(Body::full("<a href=/a>")).unwrap(), plan(None)).into_parts();
        let mut seen: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        seen.sort();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        (seen, String::from_utf8(body.into()).unwrap().replace(TOKEN, "T"))
    }

    #[test]
    fn what_was_said_of_the_old_bytes_goes() {
        let (fields, body) = carried(
            200,
            &[
                ("content-type", "text/html; charset=Shift_JIS"),
                ("content-length", "11"),
                ("etag", "\"x\""),
                ("last-modified", "Wed, 25 Nov 2026 12:00:00 GMT"),
                ("accept-ranges", "bytes"),
                ("content-md5", "x"),
                ("digest", "x"),
                ("content-digest", "x"),
                ("repr-digest", "x"),
                ("content-location", "http://evil.example/"),
                ("cache-control", "public, max-age=60"),
                ("x-console", "1"),
            ],
        );
        assert_eq!(body, "<a href=/a?_sk=T>");
        assert_eq!(
            fields,
            [
                "cache-control: no-store",
                "content-type: text/html; charset=Shift_JIS",
                "referrer-policy: same-origin",
                "x-console: 1"
            ]
        );
    }

    #[test]
    fn pages_are_rewritten_and_nothing_else() {
        for page in [
            "text/html",
            "Text/HTML ;charset=\"euc-jp\"",
            "application/xhtml+xml",
            "application/vnd.wap.xhtml+xml;charset=shift_jis",
            "text/vnd.wap.wml",
            "text/html;charset=unheard-of",
        ] {
            assert_eq!(carried(200, &[("content-type", page)]).1, "<a href=/a?_sk=T>", "{page}");
            assert_eq!(
                carried(404, &[("content-type", page), ("content-encoding", "identity")]).1,
                "<a href=/a?_sk=T>"
            );
        }
        for other in
            ["text/plain", "text/htmlx", "application/json", "text/css", "image/gif", "application/octet-stream", ""]
        {
            let (fields, body) = carried(200, &[("content-type", other), ("etag", "x"), ("content-length", "11")]);
            assert_eq!(body, "<a href=/a>", "{other}");
            assert!(fields.contains(&"etag: x".to_owned()) && fields.contains(&"cache-control: no-store".to_owned()));
        }
        for (status, fields) in [
            (200, &[("content-type", "text/html"), ("content-encoding", "gzip"), ("etag", "x")][..]),
            (206, &[("content-type", "text/html"), ("content-range", "bytes 0-10/20"), ("etag", "x")]),
            (200, &[("content-type", "text/html"), ("content-type", "text/html"), ("etag", "x")]),
            (
                200,
                &[("content-type", "text/html"), ("content-disposition", "Attachment; filename=a.html"), ("etag", "x")],
            ),
            (200, &[("etag", "x")]),
        ] {
            let (seen, body) = carried(status, fields);
            assert_eq!(body, "<a href=/a>", "{fields:?}");
            assert!(seen.contains(&"etag: x".to_owned()));
        }
    }

    #[test]
    fn an_answer_without_a_body_has_none_and_the_head_of_one_with_it() {
        let answer = |body| {
            let answer = Response::builder().header("content-type", "text/html").header("content-length", "11");
            carry(answer.header("location", "/a").body(body).unwrap(), plan(None))
        };
        let (head, page) = (answer(Body::empty()), answer(Body::full("<a href=/a>")));
        assert_eq!(head.headers(), page.headers());
        assert!(head.body().is_end_stream() && !page.body().is_end_stream());
        assert_eq!(head.headers()["location"], format!("/a?_sk={TOKEN}").as_str());
    }

    #[test]
    fn the_upstream_is_asked_for_the_whole_page_as_it_is() {
        let mut fields = HeaderMap::new();
        for name in ["range", "if-range", "if-none-match", "if-modified-since", "accept-encoding", "if-match", "accept"]
        {
            fields.insert(name, HeaderValue::from_static("x"));
        }
        fields.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        ask_plainly(&mut fields);
        let mut left: Vec<_> = fields.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["accept-encoding: identity", "accept: x", "if-match: x"]);
    }
}
