//! What is forged: names, spellings, and the requests they are sent in.

use std::collections::BTreeSet;

use super::{Protocol, Survivor, Way};
use crate::assertion::ASSERTION_FIELD;
use crate::privacy::Canary;

/// Fields that say who somebody is or where they come from, to this gateway's upstreams or to those of its peers. A
/// list of its own, not the one that strips: a rule that is lost there is missed here.
pub(super) const IDENTITY: [&str; 48] = [
    "Sekisho-Bind",
    "Sekisho-Anything",
    "X-Sekisho-Anything",
    "X-Jwt-Assertion",
    "X-Pomerium-Jwt-Assertion",
    "X-Pomerium-Claim-Email",
    "X-Goog-IAP-JWT-Assertion",
    "X-Goog-Authenticated-User-Email",
    "Cf-Access-Jwt-Assertion",
    "Cf-Access-Authenticated-User-Email",
    "X-Amzn-Oidc-Data",
    "X-Amzn-Oidc-Identity",
    "X-Ms-Client-Principal-Name",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Authentik-Username",
    "X-Consumer-Username",
    "X-Envoy-External-Address",
    "X-Vouch-User",
    "X-WebAuth-User",
    "X-Userinfo",
    "X-User-Info",
    "Tailscale-User-Login",
    "Remote-User",
    "Remote-Groups",
    "X-Remote-User",
    "X-Remote-Group",
    "Ssl-Client-S-Dn",
    "X-Ssl-Client-Cert",
    "X-Client-Cert",
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "Cf-Connecting-IP",
    "Cf-Connecting-IPv6",
    "Fastly-Client-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "Proxy",
];

/// Forged fields in one request.
const BATCH: usize = 150;
/// More than any request here has.
pub(super) const MOST_FIELDS: usize = 400;

/// One request.
pub(super) struct Case {
    pub(super) protocol: Protocol,
    pub(super) way: Way,
    /// Spelling and value; `Host` and the like are not among them.
    pub(super) fields: Vec<(String, String)>,
}

/// All requests of one test.
pub(super) struct Forgeries {
    /// Begins every forged value; drawn anew each time, so it is in nothing else.
    pub(super) canary: String,
    pub(super) cases: Vec<Case>,
    /// By the number in their value.
    sent: Vec<Survivor>,
}

impl Forgeries {
    /// Of `names` and of what is [`IDENTITY`].
    pub(super) fn of(names: &[String], canary: &Canary) -> Self {
        let mut all = Self { canary: canary.as_str().to_owned(), cases: Vec::new(), sent: Vec::new() };
        let assertion = ASSERTION_FIELD;
        let ours = IDENTITY.into_iter().chain([assertion.as_str()]);
        let names: BTreeSet<&str> = ours.chain(names.iter().map(String::as_str)).collect();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let spelt: BTreeSet<String> = names.iter().flat_map(|name| spellings(name, protocol)).collect();
            // Each one twice: a rule that takes out the first of two is none.
            let twice: Vec<&String> = spelt.iter().flat_map(|spelling| [spelling, spelling]).collect();
            for batch in twice.chunks(BATCH) {
                all.add(protocol, Way::Head, batch.iter().copied());
                all.add(protocol, Way::Trailer, batch.iter().copied());
            }
        }
        for name in names {
            // HTTP/2 has no `Connection` (RFC 9113 §8.2.2).
            all.add(Protocol::Http1, Way::Connection, spellings(name, Protocol::Http1).iter());
        }
        all
    }

    /// What bears this number.
    pub(super) fn survivor(&self, number: usize) -> Option<Survivor> {
        self.sent.get(number).cloned()
    }

    fn add<'s>(&mut self, protocol: Protocol, way: Way, spellings: impl Iterator<Item = &'s String>) {
        let mut fields = Vec::new();
        for spelling in spellings {
            fields.push((spelling.clone(), format!("{}-{}.", self.canary, self.sent.len())));
            self.sent.push(Survivor { spelling: spelling.clone(), way, protocol });
        }
        self.cases.push(Case { protocol, way, fields });
    }
}

/// The name in the cases and with the separators that software behind us may read as `-`. HTTP/2 has no capitals.
fn spellings(name: &str, protocol: Protocol) -> BTreeSet<String> {
    let separated = |by: char| name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { by }).collect::<String>();
    let written = [name.to_owned(), separated('-'), separated('_'), separated('.')];
    let cases = |name: String| match protocol {
        Protocol::Http1 => vec![name.to_ascii_lowercase(), name.to_ascii_uppercase(), name],
        Protocol::Http2 => vec![name.to_ascii_lowercase()],
    };
    written.into_iter().flat_map(cases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_name_is_spelt_in_every_way() {
        let all = spellings("X-Up_Subno", Protocol::Http1);
        for spelling in
            ["X-Up_Subno", "x-up-subno", "X-UP-SUBNO", "X_UP_SUBNO", "x_up_subno", "X.Up.Subno", "x.up.subno"]
        {
            assert!(all.contains(spelling), "{spelling}");
        }
        let all: Vec<String> = spellings("X-Up", Protocol::Http2).into_iter().collect();
        assert_eq!(all, ["x-up", "x.up", "x_up"]);
    }

    #[test]
    fn every_spelling_goes_every_way_twice() {
        let forgeries = Forgeries::of(&["X-Own".to_owned()], &Canary::fresh(&SeededEntropy::new(1)));
        for (spelling, way, protocol, times) in [
            ("X-Own", Way::Head, Protocol::Http1, 2),
            ("X_OWN", Way::Trailer, Protocol::Http1, 2),
            ("x.own", Way::Connection, Protocol::Http1, 1),
            ("x_own", Way::Head, Protocol::Http2, 2),
            ("x.own", Way::Trailer, Protocol::Http2, 2),
            ("SEKISHO_JWT_ASSERTION", Way::Head, Protocol::Http1, 2),
        ] {
            let one = Survivor { spelling: spelling.to_owned(), way, protocol };
            assert_eq!(forgeries.sent.iter().filter(|sent| **sent == one).count(), times, "{one:?}");
        }
        assert!(forgeries.cases.iter().all(|case| case.fields.len() * 2 < MOST_FIELDS));
    }
}
