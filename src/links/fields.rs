//! Links in the head of an answer: `Location`, `Refresh`, `Link`.

use http::header::{HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, REFRESH};
use url::Url;

use super::change::{Change, Written, apply};
use super::plan::{LinkPlan, Way};
use super::refresh;
use super::text::{Piece, Reading, pieces};

/// Rewrites the links of a head: those that are followed by themselves, and those that load what a page needs.
pub(super) fn rewrite(fields: &mut HeaderMap, plan: &LinkPlan) {
    let base = plan.page_url();
    let base = base.as_ref();
    each(fields, &LOCATION, |raw, pieces| followed(&whole(raw, pieces), plan, base));
    each(fields, &REFRESH, |raw, pieces| {
        let Some(range) = refresh::url_of(pieces) else { return Vec::new() };
        let end = pieces.get(range.end).map_or(raw.len(), |piece| piece.start);
        let url = pieces.get(range).unwrap_or_default();
        followed(&Written { end, ..whole(raw, url) }, plan, base)
    });
    each(fields, &LINK, |raw, pieces| {
        let mut changes = Vec::new();
        for url in targets(pieces) {
            let end = url.last().map_or(0, |piece| piece.end);
            let written = Written { end, ..whole(raw, url) };
            // Others are loaded, not followed; the leave page is no style sheet.
            if written.way(plan, base) == Way::Ours {
                changes.extend(written.with_token(plan));
            }
        }
        changes
    });
}

fn whole<'a>(raw: &'a [u8], pieces: &'a [Piece]) -> Written<'a> {
    Written { raw, pieces, end: raw.len(), reading: Reading::Unsaid, ampersand: "&" }
}

fn followed(written: &Written<'_>, plan: &LinkPlan, base: Option<&Url>) -> Vec<Change> {
    match written.way(plan, base) {
        Way::Ours => written.with_token(plan),
        // In full: handsets of this age follow no other redirect.
        Way::Off(target) => written.replaced(plan.leave(&target, true)),
        Way::Neither => Vec::new(),
    }
}

/// The targets of a `Link` field, between their angle brackets (RFC 8288 §3).
fn targets(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut found = Vec::new();
    let (mut open, mut quoted, mut escaped) = (None, false, false);
    for (index, piece) in pieces.iter().enumerate() {
        match (piece.character, open) {
            (Some('>'), Some(start)) => {
                found.push(pieces.get(start..index).unwrap_or_default());
                open = None;
            }
            (Some('\\'), None) if quoted && !escaped => {
                escaped = true;
                continue;
            }
            (Some('"'), None) if !escaped => quoted = !quoted,
            (Some('<'), None) if !quoted => open = Some(index + 1),
            _ => {}
        }
        escaped = false;
    }
    found
}

/// Every value of a field, rewritten.
fn each(fields: &mut HeaderMap, name: &HeaderName, of: impl Fn(&[u8], &[Piece]) -> Vec<Change>) {
    let http::header::Entry::Occupied(mut values) = fields.entry(name) else { return };
    for value in values.iter_mut() {
        let raw = value.as_bytes();
        let Some(pieces) = pieces(raw, Reading::Unsaid, false) else { continue };
        let changes = of(raw, &pieces);
        if changes.is_empty() {
            continue;
        }
        // Made of a value and of visible ASCII, so it is one again.
        if let Ok(changed) = HeaderValue::from_bytes(&apply(raw, &changes)) {
            *value = changed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::testing::{TOKEN, plan};

    fn rewritten(name: &HeaderName, value: &str) -> String {
        let mut fields = HeaderMap::new();
        fields.insert(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        rewrite(&mut fields, &plan(Some(("guid", "ON"))));
        let value = String::from_utf8_lossy(fields[name].as_bytes()).replace(TOKEN, "T");
        assert_eq!(value.contains("/_sekisho/leave?s="), value.contains("&u=http"));
        value
    }

    #[test]
    fn a_redirect_carries_the_token_or_passes_the_leave_page() {
        for (location, expected) in [
            ("/a", "/a?guid=ON&_sk=T"),
            ("a?b=1&c#d", "a?guid=ON&_sk=T&b=1&c#d"),
            ("http://admin.example.jp/a?guid=ON", "http://admin.example.jp/a?guid=ON&_sk=T"),
            ("/a?_sk=old&x", "/a?guid=ON&_sk=T&x"),
            ("/a?x&_sk=old&_sk=older", "/a?guid=ON&_sk=T&x"),
            ("mailto:a@b.example", "mailto:a@b.example"),
            ("#top", "#top"),
            ("/\\evil.example", "LEAVE"),
            ("//evil.example/", "LEAVE"),
            ("/あ", "/あ?guid=ON&_sk=T"),
        ] {
            let got = rewritten(&LOCATION, location);
            if expected == "LEAVE" {
                assert!(
                    got.starts_with("http://admin.example.jp/_sekisho/leave?s=") && !got.contains("=T"),
                    "{location} {got}"
                );
            } else {
                assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn refresh_and_link_carry_it_too() {
        assert_eq!(rewritten(&REFRESH, "5; url='/a'"), "5; url='/a?guid=ON&_sk=T'");
        assert_eq!(rewritten(&REFRESH, "5"), "5");
        assert!(
            rewritten(&REFRESH, "0;url=http://evil.example/")
                .starts_with("0;url=http://admin.example.jp/_sekisho/leave?")
        );
        assert_eq!(
            rewritten(
                &LINK,
                "</a.css>; rel=stylesheet; title=\"<b>\\\"<c>\", <http://evil.example/x>; rel=next, <d?e>"
            ),
            "</a.css?guid=ON&_sk=T>; rel=stylesheet; title=\"<b>\\\"<c>\", <http://evil.example/x>; rel=next, \
             <d?guid=ON&_sk=T&e>"
        );
    }
}
