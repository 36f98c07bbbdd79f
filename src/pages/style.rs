//! The one style sheet, and the policy that allows it and nothing else.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA256, digest};

use crate::config::Origin;

/// The one inline style sheet. It begins and ends as an SGML comment, which style sheets skip (CSS Syntax §5.3)
/// and which keeps browsers that know no `style` element from printing it.
pub(super) const STYLE: &str = include_str!("templates/style.css");

static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, STYLE.as_bytes()))));

/// The CSP of the gateway's own pages: the one style sheet by its hash, forms to ourselves, nothing else.
///
/// `also` are further own origins that forms may post to, for pages whose form goes to `plain_url`. An origin
/// whose host would not keep to its place in the header is left out.
///
/// # Panics
/// Never: only octets that a header value may hold get into it.
#[must_use]
pub fn content_security_policy(also: &[Origin]) -> HeaderValue {
    let mut policy = format!(
        "default-src 'none'; style-src {}; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
        *STYLE_SOURCE
    );
    for origin in also.iter().map(Origin::to_string).filter(|text| text.bytes().all(in_source)) {
        policy.push(' ');
        policy.push_str(&origin);
    }
    HeaderValue::try_from(policy).expect("base64, and octets that `in_source` passed, are visible ASCII")
}

/// What an origin of ours is made of; neither `;` nor `,` nor a space, which would begin something new.
const fn in_source(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b':' | b'/' | b'[' | b']' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str) -> Origin {
        Origin { https: false, host: host.to_owned(), port: Some(8080) }
    }

    #[test]
    fn the_policy_opens_nothing_but_the_style_sheet_and_our_own_forms() {
        let policy = content_security_policy(&[]);
        let policy = policy.to_str().unwrap();
        for directive in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"] {
            assert!(policy.split("; ").any(|d| d == directive), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn further_origins_go_to_form_action_and_cannot_add_directives() {
        let policy = content_security_policy(&[origin("plain.example.jp"), origin("x; script-src *"), origin("日本")]);
        let policy = policy.to_str().unwrap();
        assert!(policy.ends_with("form-action 'self' http://plain.example.jp:8080"), "{policy}");
        assert!(!policy.contains("script-src"));
    }
}
