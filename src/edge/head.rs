//! The request head as it came: bounded, its grammar sound, its repeats visible.

use std::mem::take;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};
use memchr::memchr;
use thiserror::Error;

use super::present::Present;

/// Bounds of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of request line and header fields together.
    pub head_bytes: usize,
    /// Header fields.
    pub headers: usize,
    /// Bytes of the request target.
    pub url_bytes: usize,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// More bytes or fields than [`HeadLimits`] allow.
    #[error("request-head-too-large")]
    TooLarge,
    /// The target is longer than [`HeadLimits::url_bytes`].
    #[error("url-too-long")]
    UrlTooLong,
    /// No request target that a gateway can serve, or a target that contradicts itself.
    #[error("malformed-request")]
    Malformed,
    /// Host or `:authority` is missing, repeated, contradictory, or not one of ours.
    #[error("host-not-allowed")]
    HostNotAllowed,
}

/// A request head whose size is bounded and whose repeated fields are still visible.
///
/// Its `HeaderMap` is never handed out: a stage asks for the fields that it knows, and only
/// `upstream` ends the head by taking what may be kept.
pub struct RawHead {
    method: Method,
    version: Version,
    uri: Uri,
    headers: HeaderMap,
    present: Present,
}

impl RawHead {
    /// Reads a head that the HTTP codec accepted.
    ///
    /// # Errors
    /// [`HeadError::TooLarge`], [`HeadError::UrlTooLong`], [`HeadError::Malformed`].
    pub fn read(mut parts: Parts, limits: &HeadLimits) -> Result<Self, HeadError> {
        Self::take(&mut parts, limits)
    }

    /// As [`RawHead::read`], but a head that is refused stays where it was, for whoever chooses how the refusal looks.
    ///
    /// # Errors
    /// As [`RawHead::read`].
    pub fn take(parts: &mut Parts, limits: &HeadLimits) -> Result<Self, HeadError> {
        let Parts { method, uri, version, headers, .. } = parts;
        if headers.len() > limits.headers {
            return Err(HeadError::TooLarge);
        }
        let path = uri.path();
        let query = uri.query();
        let target_bytes = path.len() + query.map_or(0, |q| q.len() + 1);
        if target_bytes > limits.url_bytes {
            return Err(HeadError::UrlTooLong);
        }
        let (mut field_bytes, mut codings, mut framed, mut present) = (0, 0, true, Present::default());
        for (name, value) in headers.iter() {
            present = present.and(Present::kind(name));
            // Field and line separators (": " and CRLF) count as they were sent in HTTP/1.
            field_bytes += name.as_str().len() + value.len() + 4;
            if name == TRANSFER_ENCODING {
                codings += 1;
                framed &= value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
        }
        if target_bytes + field_bytes > limits.head_bytes {
            return Err(HeadError::TooLarge);
        }
        // Another coding below `chunked` would be lost on the way, and software behind us may count otherwise what is there
        // twice (RFC 9112 §6.1).
        if codings > 1 || !framed {
            return Err(HeadError::Malformed);
        }
        if !path.starts_with('/') && path != "*" {
            return Err(HeadError::Malformed);
        }
        Ok(Self { method: take(method), version: *version, uri: take(uri), headers: take(headers), present })
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The protocol version it came by.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The path exactly as sent, beginning with `/` (or `*`).
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The query exactly as sent, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Puts another query in the place of the one that was sent.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] if that makes no target; then there is none at all any more.
    pub fn set_query(&mut self, query: Option<&str>) -> Result<(), HeadError> {
        let target = match query {
            Some(query) => format!("{}?{query}", self.path()),
            None => self.path().to_owned(),
        };
        let mut parts = take(&mut self.uri).into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| HeadError::Malformed)?);
        self.uri = Uri::from_parts(parts).map_err(|_| HeadError::Malformed)?;
        Ok(())
    }

    /// The target's authority: HTTP/2 `:authority`, or that of an absolute-form target.
    #[must_use]
    pub(super) fn authority(&self) -> Option<&str> {
        self.uri.authority().map(http::uri::Authority::as_str)
    }

    /// Which fields there are.
    pub(crate) const fn present(&self) -> Present {
        self.present
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.headers.get_all(name).iter()
    }

    /// The value of a field that occurs exactly once.
    #[must_use]
    pub fn single(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    /// The text of a field that occurs exactly once and is visible ASCII.
    #[must_use]
    pub fn text(&self, name: &HeaderName) -> Option<&str> {
        self.single(name).and_then(|value| value.to_str().ok())
    }

    /// The distinct field names, lower case.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.keys()
    }

    /// The `Host` field or the authority as sent, once [`super::HostAllowList::check`] has passed it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.authority().or_else(|| self.text(&HOST))
    }

    /// The same as the value of a field; the field's own where it was one.
    #[must_use]
    pub fn host_value(&self) -> Option<HeaderValue> {
        match self.authority() {
            Some(authority) => HeaderValue::from_str(authority).ok(),
            None => self.single(&HOST).cloned(),
        }
    }

    /// Whether its target names the host, whatever its fields say.
    pub(crate) fn has_authority(&self) -> bool {
        self.uri.authority().is_some()
    }

    /// Ends the head, for the upstream stage alone, which takes out what must not pass.
    pub(crate) fn into_parts(self) -> (Method, Uri, HeaderMap) {
        (self.method, self.uri, self.headers)
    }
}

/// The pairs of a `Cookie` field, with the spaces around them: found many bytes at a time, as these fields are long.
pub(crate) fn cookie_pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let field = rest?;
        let (pair, behind) = match memchr(b';', field) {
            Some(end) => (field.get(..end)?, field.get(end + 1..)),
            None => (field, None),
        };
        rest = behind;
        Some(pair)
    })
}

/// A field name folded: lower case, every byte outside a-z 0-9 as `-`.
///
/// Two names that fold alike may be read as one field by some software behind us, so reserved names are
/// compared in this form.
#[must_use]
pub fn fold(name: &str) -> String {
    name.bytes().map(|b| char::from(fold_byte(b))).collect()
}

/// One byte of [`fold`], for comparisons that must not allocate.
#[must_use]
pub const fn fold_byte(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        b @ (b'a'..=b'z' | b'0'..=b'9') => b,
        _ => b'-',
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 256, headers: 4, url_bytes: 64 };

    fn read(request: http::request::Builder) -> Result<RawHead, HeadError> {
        RawHead::read(request.body(()).unwrap().into_parts().0, &LIMITS)
    }

    #[test]
    fn bounds_are_kept() {
        assert!(read(Request::get("/a?b").header("x", "1")).is_ok());
        assert_eq!(read(Request::get(format!("/{}", "a".repeat(64)))).err(), Some(HeadError::UrlTooLong));
        assert_eq!(read(Request::get("/").header("x", "v".repeat(300))).err(), Some(HeadError::TooLarge));
        let many = (0..5).fold(Request::get("/"), |r, i| r.header("x", i));
        assert_eq!(read(many).err(), Some(HeadError::TooLarge));
    }

    #[test]
    fn repeats_stay_visible() {
        let head = read(Request::get("/").header("X-A", "1").header("x-a", "2").header("x-b", "3")).unwrap();
        let name = HeaderName::from_static("x-a");
        assert_eq!(head.all(&name).count(), 2);
        assert!(head.single(&name).is_none());
        assert_eq!(head.text(&HeaderName::from_static("x-b")), Some("3"));
    }

    #[test]
    fn a_query_is_replaced_and_nothing_else() {
        for (target, query, left) in [
            ("/a%2Fb?x=%20&y", Some("y"), "/a%2Fb?y"),
            ("/a?x", None, "/a"),
            ("/?x", Some(""), "/?"),
            ("http://admin.example.jp/a?x", Some("z=1&z"), "http://admin.example.jp/a?z=1&z"),
        ] {
            let mut head = read(Request::get(target).header("x-a", "1")).unwrap();
            head.set_query(query).unwrap();
            let (_, uri, headers) = head.into_parts();
            assert_eq!((uri.to_string().as_str(), headers.len()), (left, 1));
        }
    }

    #[test]
    fn names_fold() {
        for (name, folded) in [("X_UP_SUBNO", "x-up-subno"), ("X.Up~Subno", "x-up-subno"), ("é", "--"), ("", "")] {
            assert_eq!(fold(name), folded);
        }
    }
}
