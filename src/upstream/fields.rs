//! Which fields speak for somebody, and which query keys are the gateway's; pure.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use crate::edge::{is_gateways_own, write_address};

/// Removes the fields of these names; one pass over a head costs less than asking it for each name that may be there.
/// Gives back how many names it were.
pub(super) fn remove_where(fields: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) -> usize {
    // Most heads hold one at most, which needs no list.
    let Some(first) = fields.keys().find(|name| doomed(name)).cloned() else { return 0 };
    fields.remove(first);
    let others: Vec<_> = fields.keys().filter(|name| doomed(name)).cloned().collect();
    for name in &others {
        fields.remove(name);
    }
    1 + others.len()
}

/// Query keys of sessions without cookies and of carriers that must be asked for an identifier.
const QUERY_KEYS: [&str; 2] = ["_sk", "guid"];

/// What the paths of the gateway's own pages begin with.
const OWN_PAGES: &[u8] = b"/_sekisho/";

/// The options of `Connection` fields.
pub(super) fn options<'f>(lists: impl Iterator<Item = &'f HeaderValue>) -> impl Iterator<Item = &'f [u8]> {
    lists.flat_map(|list| list.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii).filter(|o| !o.is_empty())
}

/// Whether a folded name says who somebody is, or where they come from, to this gateway's upstreams or to the
/// usual consumers of its peers.
pub(super) fn is_identity(folded: &str) -> bool {
    // Most names of an ordinary request end here.
    if !matches!(folded.as_bytes().first(), Some(b'c' | b'f' | b'p' | b'r' | b's' | b't' | b'x')) {
        return false;
    }
    is_gateways_own(folded)
        || matches!(
            folded,
            "forwarded"
                | "fastly-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "client-ip"
                | "true-client-ip"
                | "proxy" // becomes HTTP_PROXY in CGI (CVE-2016-5385)
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-forwarded"
                | "x-jwt-assertion"
                | "x-real-ip"
                | "x-rewrite-url"
                | "x-user-info"
                | "x-userinfo"
        )
        || [
            "cf-access-",
            "remote-",
            "ssl-client-",
            "tailscale-user-",
            "x-amzn-oidc-",
            "x-auth-request-",
            "x-authentik-",
            "x-client-cert",
            "x-consumer-",
            "x-envoy-",
            "x-forwarded-",
            "x-goog-authenticated-user-",
            "x-goog-iap-",
            "x-ms-client-principal",
            "x-original-", // -url and -uri override the path in some frameworks
            "x-pomerium-",
            "x-remote-",
            "x-sekisho-",
            "x-ssl-client-",
            "x-vouch-",
            "x-webauth-",
        ]
        .iter()
        .any(|prefix| folded.starts_with(prefix))
}

/// Whether a folded name is a standard field that the gateway sets, reads or relies on.
pub(super) fn is_relied_on(folded: &str) -> bool {
    matches!(
        folded,
        "authorization"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "cookie"
            | "expect"
            | "host"
            | "keep-alive"
            | "origin"
            | "proxy-authorization"
            | "proxy-connection"
            | "referer"
            | "sec-fetch-site"
            | "te"
            | "traceparent"
            | "tracestate"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "user-agent"
            | "x-request-id"
    )
}

/// The URL of a page that led here without what the gateway's own query keys, or forms, say in it: a page of ours that
/// was asked for by a form has the form's token and perhaps an enrolment code in its URL. `None` where there is nothing.
pub(super) fn without_own_query(url: &[u8]) -> Option<Vec<u8>> {
    let question = url.iter().position(|b| *b == b'?')?;
    let before = url.get(..question)?;
    if before.windows(OWN_PAGES.len()).any(|part| part == OWN_PAGES) {
        return Some(before.to_vec());
    }
    without_query_keys(url)
}

/// The target or URL without the gateway's query keys, however their letters are written; all other bytes stay.
/// `None` where there is none of them.
pub(super) fn without_query_keys(url: &[u8]) -> Option<Vec<u8>> {
    let question = url.iter().position(|b| *b == b'?')?;
    let (before, query) = url.split_at(question);
    let end = query.iter().position(|b| *b == b'#').unwrap_or(query.len());
    let (query, fragment) = query.split_at(end);
    let pairs = || query.strip_prefix(b"?").unwrap_or(query).split(|b| *b == b'&');
    if !pairs().any(is_gateway_pair) {
        return None;
    }
    let kept: Vec<_> = pairs().filter(|pair| !is_gateway_pair(pair)).collect();
    let mut out = before.to_vec();
    if !kept.is_empty() {
        out.push(b'?');
        out.extend(kept.join(&b'&'));
    }
    out.extend_from_slice(fragment);
    Some(out)
}

fn is_gateway_pair(pair: &[u8]) -> bool {
    let key = pair.split(|b| *b == b'=').next().unwrap_or(pair);
    let decoded = percent_decode(key).map(|b| b.to_ascii_lowercase());
    QUERY_KEYS.iter().any(|ours| decoded.clone().eq(ours.bytes()))
}

/// The address as text.
pub(super) fn address(ip: IpAddr) -> Option<HeaderValue> {
    let mut text = [0; "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len()];
    let mut room = text.as_mut_slice();
    write_address(&mut room, ip).ok()?;
    let left = room.len();
    HeaderValue::from_bytes(text.get(..text.len() - left)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_room() {
        for text in
            ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:255.255.255.255"]
        {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(ip).unwrap(), ip.to_string(), "{text}");
        }
    }
}
