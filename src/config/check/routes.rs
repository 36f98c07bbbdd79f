//! `[[route]]`.

use super::limits::BODY;
use super::values::Context;
use crate::config::raw::{self, Table};
use crate::config::types::{Access, Assurance, LimitsConfig, RouteConfig, UpstreamConfig};

const RESERVED: &str = "/_sekisho";

pub(super) fn check(
    raw: Option<Vec<Table<raw::Route>>>,
    upstreams: &[UpstreamConfig],
    limits: &LimitsConfig,
    cx: &mut Context,
) -> Vec<RouteConfig> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() && !cx.report.names("route") {
        cx.report.warning(
            "route",
            "no route: every path is answered 404; write [[route]] with path = \"/\" and upstream = \"…\"",
        );
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut routes = Vec::new();
    let (mut by_handset_alone, mut asks_for_more) = (None, false);
    for (index, Table(raw)) in raw.into_iter().enumerate() {
        let key = format!("route[{index}]");
        let path_key = format!("{key}.path");
        if raw.path.is_none() {
            cx.report.missing(&path_key, "is missing; write a prefix of whole segments, such as \"/\"");
        }
        let path = cx.read(&path_key, raw.path.as_deref(), prefix);
        if let Some(path) = &path {
            if let Some((other, _)) = seen.iter().find(|(_, other)| other == path) {
                let line = cx.report.line(other);
                cx.report.error(&path_key, format_args!("{path:?} is already routed on line {line}"));
            }
            seen.push((path_key, path.clone()));
        }
        let upstream = known_upstream(&format!("{key}.upstream"), raw.upstream.as_deref(), upstreams, cx);
        let access = match raw.access {
            Some(raw::Access::Public) => Access::Public,
            Some(raw::Access::Login) => Access::Login,
            Some(raw::Access::Session) | None => Access::Session,
        };
        let assurance = match raw.assurance {
            Some(raw::Assurance::DevicePin) => Assurance::DevicePin,
            Some(raw::Assurance::Device) | None => Assurance::Device,
        };
        if assurance == Assurance::DevicePin && access != Access::Session {
            cx.report.error(
                &format!("{key}.assurance"),
                "\"device+pin\" needs access = \"session\": who need not sign in has no PIN to type",
            );
        }
        asks_for_more |= assurance == Assurance::DevicePin;
        if access == Access::Session && by_handset_alone.is_none() {
            by_handset_alone = Some(format!("{key}.assurance"));
        }
        let body_bytes = cx.size(&format!("{key}.body"), raw.body.as_deref(), limits.body_bytes, BODY);
        let route = |(path, upstream)| RouteConfig { path, upstream, access, body_bytes, assurance };
        routes.extend(path.zip(upstream).map(route));
    }
    if let Some(key) = by_handset_alone.filter(|_| !asks_for_more) {
        // ASVS 5.0 V6.3.3.
        cx.report.warning(
            &key,
            "no route asks for more than the handset, and that is one weak factor; write \"device+pin\" where a stranger with \
             the handset, or with its identifier, could do harm",
        );
    }
    routes
}

fn known_upstream(key: &str, written: Option<&str>, upstreams: &[UpstreamConfig], cx: &mut Context) -> Option<usize> {
    let names: Vec<_> = upstreams.iter().map(|u| u.name.as_str()).filter(|name| !name.is_empty()).collect();
    let known =
        if names.is_empty() { "there is no [[upstream]]".to_owned() } else { format!("known: {}", names.join(", ")) };
    let Some(written) = written else {
        cx.report.missing(key, format_args!("is missing; {known}"));
        return None;
    };
    let found = upstreams.iter().position(|upstream| !upstream.name.is_empty() && upstream.name == written);
    // A broken name of an upstream was reported where it stands.
    if found.is_none() && !cx.report.names("upstream") {
        cx.report.error(key, format_args!("no upstream has this name; {known}"));
    }
    found
}

/// A prefix that every reader reads alike: no dot segment, nothing encoded, no parameter, no empty segment.
fn prefix(path: &str) -> Result<String, &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("must begin with /") };
    if path.bytes().any(|b| matches!(b, b'%' | b';' | b'?' | b'#' | b'\\') || !b.is_ascii_graphic()) {
        return Err("must be plain: no % encoding, no ; ? # or \\, no space, ASCII only");
    }
    if rest.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("must not hold . or .. segments");
    }
    if !rest.is_empty() && rest.split('/').any(str::is_empty) {
        return Err("must not hold an empty segment or end with /; \"/admin\" covers /admin and all below it");
    }
    if path == RESERVED || path.strip_prefix(RESERVED).is_some_and(|below| below.starts_with('/')) {
        return Err("is reserved: nothing at or below /_sekisho reaches an upstream");
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn prefixes() {
        for path in ["/", "/admin", "/a/b.c", "/~x", "/...", "/_sekishox", "/a/_sekisho"] {
            assert!(prefix(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "admin",
            "/admin/",
            "//",
            "/a//b",
            "/a/./b",
            "/..",
            "/%61",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a b",
            "/é",
            "/_sekisho",
            "/_sekisho/login",
        ] {
            assert!(prefix(path).is_err(), "{path}");
        }
    }
}
