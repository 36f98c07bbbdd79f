//! What a verb is asked with beside its path: one JSON object, read whole, strictly, and within bounds.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::refused::Refused;

/// Bytes of a request's document; the longest that means something is far shorter.
pub(super) const MOST_BYTES: usize = 64 << 10;
/// How long it may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The document of a verb that takes none: nothing, or `{}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

/// The document that a request brought. The last argument of a handler that changes something: one that would pass over
/// what it was sent could do something else than its caller meant.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        document(&head.headers, &read(body).await?).map(Self)
    }
}

/// The bytes of a body. One that is announced too large is not waited for.
pub(super) async fn read(body: Body) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > MOST_BYTES as u64 {
        return Err(Refused::BodyTooLarge);
    }
    let whole = timeout(PATIENCE, Limited::new(body, MOST_BYTES).collect()).await.map_err(|_| Refused::BodyTooSlow)?;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refused::BodyTooLarge
        } else {
            Refused::BodyMalformed { line: 0, column: 0 }
        }
    })
}

/// Reads a request document: one JSON object (RFC 8259), each field known and there once. No body is the empty object.
///
/// # Errors
/// [`Refused`], which says where and never repeats what stands there.
pub(super) fn document<T: DeserializeOwned>(fields: &HeaderMap, body: &[u8]) -> Result<T, Refused> {
    let body = if body.is_empty() { b"{}" } else { declared_json(fields).map(|()| body)? };
    // serde reads an array as a struct, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refused::BodyMalformed { line: 1, column: 1 });
    }
    serde_json::from_slice(body).map_err(|error| Refused::BodyMalformed { line: error.line(), column: error.column() })
}

fn declared_json(fields: &HeaderMap) -> Result<(), Refused> {
    let mut kinds = fields.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return Err(Refused::BodyNotJson) };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") { Ok(()) } else { Err(Refused::BodyNotJson) }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::HeaderValue;

    use super::*;

    /// Two fields, as a verb to come may have them.
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Two {
        name: String,
        #[serde(default)]
        count: u32,
    }

    fn declared(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    fn reason<T: DeserializeOwned>(fields: &HeaderMap, body: &[u8]) -> Option<String> {
        document::<T>(fields, body).err().map(|refused| refused.document().error.reason)
    }

    #[test]
    fn an_object_of_known_fields_is_read_and_nothing_else() {
        let json = declared("application/json");
        let read = document::<Two>(&json, b" {\"name\": \"a\", \"count\": 3} \r\n").unwrap();
        assert_eq!(read, Two { name: "a".to_owned(), count: 3 });
        let deep = format!("{{\"name\":{}", "[".repeat(10_000));
        for body in [
            &b""[..],
            b" ",
            b"{}",
            b"null",
            b"true",
            b"7",
            b"\"name\"",
            b"[\"a\",3]",
            b"{\"name\":\"a\"",
            b"{\"name\":\"a\"}}",
            b"{\"name\":\"a\"} {\"name\":\"a\"}",
            b"{\"name\":\"a\",}",
            b"{'name':'a'}",
            b"{\"name\":7}",
            b"{\"name\":null}",
            b"{\"name\":\"a\",\"more\":1}",
            b"{\"Name\":\"a\"}",
            b"{\"name\":\"a\",\"name\":\"b\"}",
            b"{\"name\":\"a\",\"count\":-1}",
            b"{\"name\":\"a\",\"count\":1.5}",
            b"{\"name\":\"a\",\"count\":4294967296}",
            b"{\"name\":\"a\",\"count\":1e999}",
            b"{\"name\":\"\xff\"}",
            b"{\"name\":\"\\ud800\"}",
            b"{\"name\":\"\\udc00\\ud800\"}",
            b"{\"name\":\"a\0\"}",
            b"{\"name\":\"a\"}\0",
            b"\xef\xbb\xbf{\"name\":\"a\"}",
            deep.as_bytes(),
        ] {
            let reason = reason::<Two>(&json, body);
            assert_eq!(reason.as_deref(), Some("body-malformed"), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_body_says_that_it_is_json_once() {
        for kind in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;"] {
            assert_eq!(reason::<NoFields>(&declared(kind), b"{}"), None, "{kind}");
        }
        let mut twice = declared("application/json");
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for fields in [
            HeaderMap::new(),
            declared("text/plain"),
            declared("application/x-www-form-urlencoded"),
            declared("application/jsonp"),
            declared("application/json, text/plain"),
            twice,
        ] {
            assert_eq!(reason::<NoFields>(&fields, b"{}").as_deref(), Some("content-type-invalid"), "{fields:?}");
            assert_eq!(reason::<NoFields>(&fields, b""), None, "{fields:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_whole_in_time_and_within_its_bound() {
        assert_eq!(read(Body::from(vec![b' '; MOST_BYTES])).await.unwrap().len(), MOST_BYTES);
        assert!(matches!(read(Body::from(vec![b' '; MOST_BYTES + 1])).await, Err(Refused::BodyTooLarge)));
        let broken = stream::iter([Ok(Bytes::from_static(b"{}")), Err(std::io::Error::other("it broke off"))]);
        assert!(matches!(read(Body::from_stream(broken)).await, Err(Refused::BodyMalformed { .. })));
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(read(silent).await, Err(Refused::BodyTooSlow)));
    }
}
