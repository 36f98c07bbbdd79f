//! Path -> destination, under every reading in which software differs; pure.
//!
//! Between us and the code that finally serves a path stand servers, frameworks and file systems that decode, fold
//! and cut it differently. A path is matched as sent and in every form that these steps can make of it, in any
//! order. Where the forms fall on different destinations nobody can say whose rules apply, so it is refused;
//! otherwise it is forwarded as sent.

use std::sync::Arc;

use crate::config::RouteConfig;

/// The gateway's own prefix; nothing below it reaches an upstream.
pub const RESERVED_PREFIX: &str = "/_sekisho";

/// Forms of one path that are looked at; an honest path has a handful.
const MAX_READINGS: usize = 64;
/// Bytes of all readings together; more means a path that was made to cost time.
const MAX_READ_BYTES: usize = 128 * 1024;

/// The routes, longest prefix first.
pub struct Routes {
    routes: Vec<Prefix>,
}

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'r> {
    /// `/_sekisho` or below.
    Gateway,
    /// An upstream, and who gets through to it.
    Route(&'r Arc<RouteConfig>),
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// Readers of the path would differ on its route, or some would leave the root.
    #[error("path-ambiguous")]
    Ambiguous,
    /// No route holds it.
    #[error("no-route")]
    NoRoute,
}

struct Prefix {
    /// Without the final slash, so that `/` is empty.
    path: Box<[u8]>,
    route: Arc<RouteConfig>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Gateway,
    Route(usize),
}

impl Routes {
    /// The routes of the configuration, in any order. A final slash of a prefix has no meaning.
    #[must_use]
    pub fn new(routes: Vec<RouteConfig>) -> Self {
        let prefix = |route: RouteConfig| {
            let path = route.path.trim_end_matches('/').as_bytes().into();
            Prefix { path, route: Arc::new(route) }
        };
        let mut routes: Vec<_> = routes.into_iter().map(prefix).collect();
        routes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
        Self { routes }
    }

    /// The destination of a path as sent: the longest prefix of whole segments, case-sensitive.
    ///
    /// # Errors
    /// [`RouteRefusal::Ambiguous`] where readings differ, climb past the root or meet NUL; [`RouteRefusal::NoRoute`].
    pub fn find(&self, path: &str) -> Result<Destination<'_>, RouteRefusal> {
        let path = path.as_bytes();
        let found = if has_one_reading(path) { self.longest(path) } else { self.under_every_reading(path)? };
        match found {
            Found::Nothing => Err(RouteRefusal::NoRoute),
            Found::Gateway => Ok(Destination::Gateway),
            Found::Route(index) => {
                self.routes.get(index).map(|prefix| Destination::Route(&prefix.route)).ok_or(RouteRefusal::NoRoute)
            }
        }
    }

    fn longest(&self, path: &[u8]) -> Found {
        if holds(RESERVED_PREFIX.as_bytes(), path) {
            return Found::Gateway;
        }
        self.routes.iter().position(|prefix| holds(&prefix.path, path)).map_or(Found::Nothing, Found::Route)
    }

    fn under_every_reading(&self, path: &[u8]) -> Result<Found, RouteRefusal> {
        let found = self.longest(path);
        let mut readings = vec![path.to_vec()];
        let (mut next, mut bytes) = (0, 0);
        while let Some(reading) = readings.get(next) {
            next += 1;
            bytes += reading.len();
            if bytes > MAX_READ_BYTES || reading.contains(&0) || self.longest(reading) != found {
                return Err(RouteRefusal::Ambiguous);
            }
            let further = [
                decoded(reading, |_| true),
                decoded(reading, |byte| !matches!(byte, b'/' | b'\\')),
                backslashes_as_slashes(reading),
                overlong_as_ascii(reading),
                without_parameters(reading),
                without_query(reading),
                without_empty_segments(reading),
                without_dot_segments(reading).ok_or(RouteRefusal::Ambiguous)?,
            ];
            for reading in further {
                if !readings.contains(&reading) {
                    if readings.len() == MAX_READINGS {
                        return Err(RouteRefusal::Ambiguous);
                    }
                    readings.push(reading);
                }
            }
        }
        Ok(found)
    }
}

/// Whether no step below would change the path.
fn has_one_reading(path: &[u8]) -> bool {
    let mut before = 0;
    !path.iter().any(|&byte| {
        let after_slash = std::mem::replace(&mut before, byte) == b'/';
        matches!(byte, b'%' | b'\\' | b';' | b'?' | b'#' | 0) || (after_slash && matches!(byte, b'/' | b'.'))
    })
}

fn holds(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// Percent-decodes once; escapes of bytes that `wanted` declines, and what is no escape, stay as they are.
fn decoded(path: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%'
            && let [high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
            && wanted(high * 16 + low)
        {
            out.push(high * 16 + low);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn backslashes_as_slashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect()
}

/// Lax decoders take the overlong UTF-8 forms of `.`, `/` and `\` for these (RFC 3629 §10). In `Shift_JIS` the same
/// bytes are half-width kana, so they are one more reading and not refused as such.
fn overlong_as_ascii(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        let ascii = match (byte, after.first()) {
            (0xC0, Some(0xAE)) => Some(b'.'),
            (0xC0, Some(0xAF)) => Some(b'/'),
            (0xC1, Some(0x9C)) => Some(b'\\'),
            _ => None,
        };
        out.push(ascii.unwrap_or(*byte));
        rest = after.get(usize::from(ascii.is_some())..).unwrap_or_default();
    }
    out
}

/// Cuts `;` and what follows it from each segment (RFC 3986 §3.3; servlet containers).
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let kept =
        path.split(|byte| *byte == b'/').map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or(segment));
    kept.collect::<Vec<_>>().join(&b'/')
}

/// What remains for software that parses a decoded path as a target again.
fn without_query(path: &[u8]) -> Vec<u8> {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or(path).to_vec()
}

fn without_empty_segments(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    out
}

/// RFC 3986 §5.2.4, but `None` where that would silently stop at the root.
fn without_dot_segments(path: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                kept.pop()?;
            }
            other => {
                kept.push(other);
                continue;
            }
        }
        if is_last {
            kept.push(b"");
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Access, Assurance};

    fn routes(paths: &[&str]) -> Routes {
        let route = |(upstream, path): (usize, &&str)| RouteConfig {
            path: (*path).to_owned(),
            upstream,
            access: Access::Session,
            assurance: Assurance::Device,
            body_bytes: 1024,
        };
        Routes::new(paths.iter().enumerate().map(route).collect())
    }

    fn console() -> Routes {
        routes(&["/", "/admin/", "/admin/users", "/files", "/café", "/a/b"])
    }

    fn find(routes: &Routes, path: &str) -> String {
        match routes.find(path) {
            Ok(Destination::Gateway) => "gateway".to_owned(),
            Ok(Destination::Route(route)) => route.path.clone(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn paths_lead_where_every_reader_agrees() {
        const AMBIGUOUS: &str = "path-ambiguous";
        let routes = console();
        for (path, expected) in [
            // Whole segments, longest first, case-sensitive.
            ("/", "/"),
            ("/index.html", "/"),
            ("/admin", "/admin/"),
            ("/admin/", "/admin/"),
            ("/admin/x", "/admin/"),
            ("/adminx", "/"),
            ("/admi", "/"),
            ("/Admin", "/"),
            ("/x/admin", "/"),
            ("/admin/users", "/admin/users"),
            ("/admin/users/", "/admin/users"),
            ("/admin/users/7", "/admin/users"),
            ("/admin/usersx", "/admin/"),
            ("/admin-users", "/"),
            ("/a", "/"),
            ("/a/b", "/a/b"),
            ("/a/bc", "/"),
            ("/caf\u{e9}", "/café"),
            ("/_sekisho", "gateway"),
            ("/_sekisho/login", "gateway"),
            ("/_sekishox", "/"),
            ("/_SEKISHO/login", "/"),
            ("/.well-known/x", "/"),
            ("/...", "/"),
            ("/admin/x.y", "/admin/"),
            ("/admin/.x", "/admin/"),
            // Readings that differ without changing the destination are forwarded as sent.
            ("/files/a%20b", "/files"),
            ("/files/a%2fb", "/files"),
            ("/files/a%252fb", "/files"),
            ("/files/a%5cb", "/files"),
            ("/files/a\\b", "/files"),
            ("/files/a;v=1", "/files"),
            ("/files//a", "/files"),
            ("/files/./a", "/files"),
            ("/files/a/../b", "/files"),
            ("/files/a%2f..%2fb", "/files"),
            ("/files/100%", "/files"),
            ("/files/100%zz", "/files"),
            ("/files/C%23%3f", "/files"),
            ("/x;y/z", "/"),
            ("/_sekisho/a%20b", "gateway"),
            ("/_sekisho/a/../b", "gateway"),
            // Percent-encoding, once, twice and more.
            ("/%61dmin", AMBIGUOUS),
            ("/%2561dmin", AMBIGUOUS),
            ("/%252561dmin", AMBIGUOUS),
            ("/admin%2fusers", AMBIGUOUS),
            ("/admin%2Fusers", AMBIGUOUS),
            ("/admin%252fusers", AMBIGUOUS),
            ("/admin/%75sers", AMBIGUOUS),
            ("/%5fsekisho/login", AMBIGUOUS),
            ("/%255fsekisho/login", AMBIGUOUS),
            ("/_sekisho%2flogin", AMBIGUOUS),
            ("/caf%C3%A9", AMBIGUOUS),
            // Backslashes.
            ("/admin\\x", AMBIGUOUS),
            ("/admin%5cx", AMBIGUOUS),
            ("/admin%255cx", AMBIGUOUS),
            ("/\\admin", AMBIGUOUS),
            ("/a\\b", AMBIGUOUS),
            // Dot segments.
            ("/./admin", AMBIGUOUS),
            ("/%2e/admin", AMBIGUOUS),
            ("/x/../admin", AMBIGUOUS),
            ("/x/%2e%2e/admin", AMBIGUOUS),
            ("/x/.%2E/admin", AMBIGUOUS),
            ("/x/%252e%252e/admin", AMBIGUOUS),
            ("/x%2f..%2fadmin", AMBIGUOUS),
            ("/x%2fy/%2e%2e/admin", AMBIGUOUS),
            ("/x/..\\admin", AMBIGUOUS),
            ("/x/..%5cadmin", AMBIGUOUS),
            ("/admin/..", AMBIGUOUS),
            ("/admin/../", AMBIGUOUS),
            ("/admin/../files", AMBIGUOUS),
            ("/_sekisho/../admin", AMBIGUOUS),
            ("/files/../_sekisho/me", AMBIGUOUS),
            // Parameters.
            ("/admin;x", AMBIGUOUS),
            ("/admin;x/users", AMBIGUOUS),
            ("/admin%3bx", AMBIGUOUS),
            ("/;x/admin", AMBIGUOUS),
            ("/x/..;/admin", AMBIGUOUS),
            ("/x/..;y=1/admin", AMBIGUOUS),
            ("/x/%2e%2e%3b/admin", AMBIGUOUS),
            ("/_sekisho;x/login", AMBIGUOUS),
            // Decoded, then parsed as a target again.
            ("/admin%3fx", AMBIGUOUS),
            ("/admin%23x", AMBIGUOUS),
            // Empty segments.
            ("//admin", AMBIGUOUS),
            ("/a//b", AMBIGUOUS),
            ("/%2fadmin", AMBIGUOUS),
            ("//_sekisho/login", AMBIGUOUS),
            ("/x//../admin", AMBIGUOUS),
            ("/;//admin", AMBIGUOUS),
            // Past the root, and NUL, wherever they lead.
            ("/..", AMBIGUOUS),
            ("/../", AMBIGUOUS),
            ("/../x", AMBIGUOUS),
            ("/x/../..", AMBIGUOUS),
            ("/x//../..", AMBIGUOUS),
            ("/x/..;/..", AMBIGUOUS),
            ("/x/%2e%2e/%2e%2e", AMBIGUOUS),
            ("/..%2fx", AMBIGUOUS),
            ("/..\\x", AMBIGUOUS),
            ("/files/a%00", AMBIGUOUS),
            ("/files/a%2500", AMBIGUOUS),
            ("/%00", AMBIGUOUS),
        ] {
            assert_eq!(find(&routes, path), expected, "{path}");
        }
    }

    #[test]
    fn one_route_for_all_leaves_only_the_root_and_the_gateway_to_tell_apart() {
        let routes = routes(&["/"]);
        for path in ["//x", "/x/../y", "/%61", "/a;b//c%2f./d", "/x\\y", "/%25252525"] {
            assert_eq!(find(&routes, path), "/", "{path}");
        }
        for path in ["/..", "/x/../../y", "/%00", "/x/../_sekisho", "/_sekisho/.."] {
            assert_eq!(find(&routes, path), "path-ambiguous", "{path}");
        }
    }

    #[test]
    fn what_no_route_holds_is_refused() {
        let routes = routes(&["/admin"]);
        for (path, expected) in [
            ("/", "no-route"),
            ("*", "no-route"),
            ("", "no-route"),
            ("/x%20y", "no-route"),
            ("/_sekisho/notice", "gateway"),
            ("/x/../admin", "path-ambiguous"),
            ("/%61dmin", "path-ambiguous"),
            ("/x/../..", "path-ambiguous"),
        ] {
            assert_eq!(find(&routes, path), expected, "{path}");
        }
    }

    #[test]
    fn readings_are_bounded() {
        let layered = format!("/{}41", "%25".repeat(100));
        assert_eq!(find(&routes(&["/"]), &layered), "/");
        let nested = format!("/%{}41", "25".repeat(100));
        assert_eq!(find(&routes(&["/"]), &nested), "path-ambiguous");
    }

    fn paths() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "//", ".", "..", ";", "%", "\\", "%2f", "%5c", "%2e", "%252e", "%3b", "%61", "%25", "admin", "users",
            "files", "_sekisho", "x", "%00", "é",
        ]);
        prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn a_path_of_one_reading_matches_as_under_every_reading(path in "(/[a-z_]{0,9}(\\.[a-z]{1,3})?){1,4}") {
            let routes = console();
            if has_one_reading(path.as_bytes()) {
                let slow = routes.under_every_reading(path.as_bytes());
                prop_assert!(slow == Ok(routes.longest(path.as_bytes())));
            }
        }

        #[test]
        fn what_is_forwarded_reads_alike_after_each_step(path in paths()) {
            let routes = console();
            let found = find(&routes, &path);
            prop_assume!(found != "path-ambiguous");
            let path = path.as_bytes();
            for step in [
                decoded(path, |_| true),
                decoded(&decoded(path, |_| true), |_| true),
                backslashes_as_slashes(path),
                without_parameters(path),
                without_empty_segments(path),
                without_dot_segments(path).unwrap(),
                without_dot_segments(&without_empty_segments(&decoded(path, |_| true))).unwrap(),
                without_dot_segments(&without_parameters(&backslashes_as_slashes(&decoded(path, |_| true)))).unwrap(),
            ] {
                let Ok(step) = String::from_utf8(step) else { continue };
                prop_assert_eq!(find(&routes, &step), found.as_str(), "{}", step);
            }
        }

        #[test]
        fn any_text_gets_an_answer(path in any::<String>()) {
            let _ = console().find(&path);
        }
    }
}
