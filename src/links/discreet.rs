//! What an answer may not make a browser, or a cache, tell others of the page's URL.

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, EXPIRES, Entry,
    HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
};

/// Fields that some browsers start the relative links of a page from (RFC 2557 §4.2, RFC 2068 §14.11).
pub(super) const BASES: [HeaderName; 2] = [CONTENT_LOCATION, HeaderName::from_static("content-base")];

/// Fields by which answers are kept in spite of `Cache-Control`, and by which browsers report the URLs of pages to whom the
/// console names (RFC 9213, Reporting API, Network Error Logging, CSP 3 §5).
const INDISCREET: [HeaderName; 7] = [
    EXPIRES,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
    HeaderName::from_static("nel"),
    CONTENT_SECURITY_POLICY_REPORT_ONLY,
];

/// What no page may be allowed to tell in a Referer: its query.
pub(super) const REFERRERS: &str = "same-origin";

/// Has nobody keep the answer, and no browser send its URL to other sites.
pub(super) fn keep(fields: &mut HeaderMap) {
    for name in INDISCREET {
        fields.remove(name);
    }
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut policies = fields.get_all(REFERRER_POLICY).iter().peekable();
    if policies.peek().is_none() || policies.any(|policy| !is_silent(policy.as_bytes())) {
        fields.insert(REFERRER_POLICY, HeaderValue::from_static(REFERRERS));
    }
    if let Entry::Occupied(mut policies) = fields.entry(CONTENT_SECURITY_POLICY) {
        for policy in policies.iter_mut() {
            if let Some(unreported) = without_reports(policy.as_bytes()) {
                // Of bytes that stood in a value.
                *policy =
                    HeaderValue::from_bytes(&unreported).unwrap_or(HeaderValue::from_static("default-src 'none'"));
            }
        }
    }
}

/// Whether a policy lets no URL of the page be told to anybody else (Referrer Policy §3, and what it was called before).
pub(super) fn is_silent(policy: &[u8]) -> bool {
    let policy = policy.trim_ascii();
    [&b"no-referrer"[..], b"never", b"same-origin"].iter().any(|silent| policy.eq_ignore_ascii_case(silent))
}

/// The policies without the directives that have breaches reported; `None` where there are none.
fn without_reports(policies: &[u8]) -> Option<Vec<u8>> {
    let reports = |directive: &&[u8]| {
        let name = directive.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        [&b"report-uri"[..], b"report-to"].iter().any(|reports| name.eq_ignore_ascii_case(reports))
    };
    if !policies.split(|b| matches!(b, b',' | b';')).any(|directive| reports(&directive)) {
        return None;
    }
    let policies = policies.split(|b| *b == b',').map(|policy| {
        let kept: Vec<_> = policy.split(|b| *b == b';').filter(|directive| !reports(directive)).collect();
        kept.join(&b';')
    });
    Some(policies.collect::<Vec<_>>().join(&b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        fields.for_each(|(name, value)| _ = map.append(name, value));
        keep(&mut map);
        let mut kept: Vec<String> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        kept.sort();
        kept
    }

    #[test]
    fn nobody_keeps_an_answer_or_is_told_of_its_url() {
        let silent = ["cache-control: no-store", "referrer-policy: same-origin"];
        for fields in [
            &[][..],
            &[
                ("cache-control", "public"),
                ("cache-control", "max-age=9"),
                ("expires", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ],
            &[("cdn-cache-control", "max-age=9"), ("surrogate-control", "max-age=9")],
            &[("report-to", "{}"), ("reporting-endpoints", "a=\"http://evil.example/\""), ("nel", "{}")],
            &[("content-security-policy-report-only", "default-src 'self'; report-uri http://evil.example/")],
            &[("referrer-policy", "unsafe-url")],
            &[("referrer-policy", "no-referrer, unsafe-url")],
            &[("referrer-policy", "no-referrer"), ("referrer-policy", "unsafe-url")],
            &[("referrer-policy", "")],
        ] {
            assert_eq!(kept(fields), silent, "{fields:?}");
        }
        assert_eq!(
            kept(&[("referrer-policy", "No-Referrer")])[1],
            "referrer-policy: No-Referrer",
            "a stricter one stays"
        );
    }

    #[test]
    fn a_policy_is_kept_without_its_reports() {
        for (policy, expected) in [
            ("default-src 'self'; img-src *", "default-src 'self'; img-src *"),
            ("default-src 'self'; Report-URI http://evil.example/a; img-src *", "default-src 'self'; img-src *"),
            ("default-src 'self';report-to x, report-uri /y;img-src *", "default-src 'self',img-src *"),
            ("\treport-uri\t/x", ""),
            ("report-urix /x", "report-urix /x"),
        ] {
            let fields = kept(&[("content-security-policy", policy)]);
            assert_eq!(fields[1], format!("content-security-policy: {expected}"), "{policy}");
        }
    }
}
