//! Which names this gateway answers to: the defence against DNS rebinding, checked before anything else.

use http::Version;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::Authority;

use super::head::{HeadError, RawHead};

/// The Host / `:authority` allow-list.
#[derive(Clone, Debug)]
pub struct HostAllowList {
    hosts: Vec<Box<str>>,
}

impl HostAllowList {
    /// Names compared without case, port and one final dot.
    #[must_use]
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self { hosts: hosts.into_iter().map(|h| bare(&h).into()).collect() }
    }

    /// The names, without port and final dot.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(AsRef::as_ref)
    }

    /// Whether the head names exactly one host, and it is ours.
    ///
    /// Over HTTP/2 the authority is the host; a `Host` field beside it must say the same (RFC 9113 §8.3.1). An
    /// absolute-form target over HTTP/1 still needs its `Host` field (RFC 9112 §3.2).
    ///
    /// # Errors
    /// [`HeadError::HostNotAllowed`].
    pub fn check(&self, head: &RawHead) -> Result<(), HeadError> {
        self.judge(head.version(), head.authority(), head.all(&HOST))
    }

    /// As [`Self::check`], before anything else of the head was judged.
    ///
    /// # Errors
    /// [`HeadError::HostNotAllowed`].
    pub fn check_parts(&self, parts: &Parts) -> Result<(), HeadError> {
        self.judge(parts.version, parts.uri.authority().map(Authority::as_str), parts.headers.get_all(HOST).iter())
    }

    fn judge<'h>(
        &self,
        version: Version,
        authority: Option<&str>,
        mut fields: impl Iterator<Item = &'h HeaderValue>,
    ) -> Result<(), HeadError> {
        let field = match (fields.next(), fields.next()) {
            (None, _) => None,
            (Some(one), None) => Some(one.to_str().map_err(|_| HeadError::HostNotAllowed)?),
            (Some(_), Some(_)) => return Err(HeadError::HostNotAllowed),
        };
        let named = match (authority, field) {
            (Some(authority), Some(field)) if bare(authority).eq_ignore_ascii_case(bare(field)) => authority,
            (Some(authority), None) if version == Version::HTTP_2 => authority,
            (None, Some(field)) => field,
            _ => return Err(HeadError::HostNotAllowed),
        };
        if self.allows(named) { Ok(()) } else { Err(HeadError::HostNotAllowed) }
    }

    /// Whether `host`, with or without a port, is ours.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.iter().any(|ours| is_name(ours, host))
    }
}

/// Whether `host` is `name`, perhaps with one final dot and a port. What has user information is no name.
fn is_name(name: &str, host: &str) -> bool {
    let Some((start, rest)) = host.as_bytes().split_at_checked(name.len()) else { return false };
    if name.is_empty() || !start.eq_ignore_ascii_case(name.as_bytes()) {
        return false;
    }
    match rest.strip_prefix(b".").unwrap_or(rest) {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Without a port and one final dot. What has user information keeps its `@` and so matches nothing.
fn bare(host: &str) -> &str {
    let without_port = match host.rsplit_once(':') {
        // An IPv6 literal has colons inside its brackets.
        Some((name, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.strip_suffix('.').unwrap_or(without_port)
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::*;
    use crate::edge::HeadLimits;

    fn check(request: http::request::Builder) -> bool {
        let limits = HeadLimits { head_bytes: 4096, headers: 20, url_bytes: 1024 };
        let head = RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap();
        HostAllowList::new(["admin.example.jp".to_owned(), "[2001:db8::1]".to_owned()]).check(&head).is_ok()
    }

    #[test]
    fn only_our_names_pass() {
        for host in [
            "admin.example.jp",
            "ADMIN.example.JP",
            "admin.example.jp:8080",
            "admin.example.jp.:80",
            "[2001:db8::1]:443",
        ] {
            assert!(check(Request::get("/").header(HOST, host)), "{host}");
        }
        for host in [
            "",
            ".",
            ":80",
            "attacker.example",
            "admin.example.jp.attacker.example",
            "admin.example.jp@attacker.example",
            "attacker.example@admin.example.jp",
            "admin.example.jp..",
            "admin.example.jp:80:80",
            "admin.example.jp, attacker.example",
            "210.153.84.1",
            "[2001:db8::1",
        ] {
            assert!(!check(Request::get("/").header(HOST, host)), "{host}");
        }
    }

    #[test]
    fn missing_and_repeated_hosts_do_not_pass() {
        assert!(!check(Request::get("/")));
        assert!(!check(Request::get("/").header(HOST, "admin.example.jp").header(HOST, "admin.example.jp")));
    }

    #[test]
    fn authority_and_field_must_agree() {
        let h2 = || Request::get("https://admin.example.jp/").version(Version::HTTP_2);
        assert!(check(h2()));
        assert!(check(h2().header(HOST, "admin.example.jp")));
        assert!(!check(h2().header(HOST, "other.example")));
        assert!(!check(Request::get("http://admin.example.jp/")));
        assert!(check(Request::get("http://admin.example.jp/").header(HOST, "admin.example.jp")));
        assert!(!check(Request::get("http://other.example/").header(HOST, "admin.example.jp")));
        assert!(!check(Request::get("http://u@admin.example.jp/").header(HOST, "admin.example.jp")));
    }
}
