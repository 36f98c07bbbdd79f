//! Which names carry subscriber data, so that what bears them never leaves the gateway.

use http::HeaderValue;

use super::builtin::{PROFILES, RESERVED};
use super::user_agent::without_serials;
use crate::edge::{fold, fold_byte};

/// The identifier fields of all profiles, enabled or not, and what carries a telephone number, IMSI, IMEI, card
/// serial, location, plan or another subscriber datum. Names are compared folded.
pub struct ReservedFields {
    /// Folded names at the index of their length: a field of an ordinary request meets one or two of its own length,
    /// and differs from them in its first bytes.
    by_length: Vec<Vec<Box<[u8]>>>,
    suffixes: Vec<Box<[u8]>>,
    cookies: Vec<Box<[u8]>>,
    query_keys: Vec<Box<[u8]>>,
}

/// The names of the rules, as written: the built-in ones and the identifier fields of the profiles.
fn names<'n>(identifier_fields: impl IntoIterator<Item = &'n str>) -> impl Iterator<Item = &'n str> {
    // A built-in field is reserved even where an operator gave that profile another one.
    let built_in = PROFILES.values().flat_map(|profile| profile.header.iter().chain(&profile.other_headers));
    RESERVED.headers.values().flatten().chain(built_in).map(String::as_str).chain(identifier_fields)
}

/// What a client could forge and [`ReservedFields`] must hold: every name, and one for each suffix. Made from the data
/// and not from the rules, so that the gateway's test of itself misses a rule that was lost.
pub(super) fn forgeable<'n>(identifier_fields: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let suffixed = RESERVED.folded_suffixes.iter().map(|suffix| format!("X-Self-Test-{suffix}"));
    names(identifier_fields).map(str::to_owned).chain(suffixed).collect()
}

impl ReservedFields {
    /// The built-in names and the identifier fields of the profiles.
    pub(super) fn new<'n>(identifier_fields: impl IntoIterator<Item = &'n str>) -> Self {
        let folded = |names: &[String]| names.iter().map(|name| fold(name).into_bytes().into()).collect();
        let mut by_length: Vec<Vec<Box<[u8]>>> = Vec::new();
        for name in names(identifier_fields) {
            let name: Box<[u8]> = fold(name).into_bytes().into();
            if by_length.len() <= name.len() {
                by_length.resize_with(name.len() + 1, Vec::new);
            }
            if let Some(same_length) = by_length.get_mut(name.len())
                && !same_length.contains(&name)
            {
                same_length.push(name);
            }
        }
        Self {
            by_length,
            suffixes: folded(&RESERVED.folded_suffixes),
            cookies: folded(&RESERVED.cookies),
            query_keys: folded(&RESERVED.query_keys),
        }
    }

    /// As if one rule, a name or a suffix, had been lost.
    #[cfg(test)]
    pub(crate) fn lose(&mut self, rule: &str) {
        let rule = fold(rule).into_bytes().into_boxed_slice();
        let rules = self.by_length.iter_mut().chain([&mut self.suffixes]);
        let lost: usize = rules.map(|rules| rules.extract_if(.., |known| *known == rule).count()).sum();
        assert_eq!(lost, 1, "no such rule");
    }

    /// Whether the field is reserved under any spelling. Allocates nothing: it is asked for every field of every
    /// request.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let listed = self.by_length.get(name.len()).is_some_and(|names| any_folds(name, names));
        listed || self.suffixes.iter().any(|suffix| ends_folded(name, suffix))
    }

    /// Whether a cookie of this name carries subscriber data.
    #[must_use]
    pub fn holds_cookie(&self, name: &str) -> bool {
        any_folds(name.as_bytes(), &self.cookies)
    }

    /// Whether a query parameter of this name (percent-decoded) is kept out of logs: a location or an identifier
    /// that the handset or the carrier's gateway put into the URL.
    #[must_use]
    pub fn holds_query_key(&self, name: &str) -> bool {
        any_folds(name.as_bytes(), &self.query_keys)
    }

    /// The User-Agent value without handset and card serials; `None` where it has none.
    #[must_use]
    pub fn redact_user_agent(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let rest = without_serials(value.as_bytes())?;
        // Bytes of a valid value are a valid value; nothing is the safe answer if that ever changed.
        Some(HeaderValue::from_bytes(&rest).unwrap_or_else(|_| HeaderValue::from_static("")))
    }
}

/// Whether `name` folds to `folded` ([`crate::edge::fold`]), without allocating.
pub(super) fn folds_to(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && name.iter().zip(folded).all(|(n, f)| fold_byte(*n) == *f)
}

fn any_folds(name: &[u8], folded: &[Box<[u8]>]) -> bool {
    folded.iter().any(|f| folds_to(name, f))
}

fn ends_folded(name: &[u8], folded: &[u8]) -> bool {
    // From the end: ordinary names differ there at once.
    name.len() >= folded.len() && name.iter().rev().zip(folded.iter().rev()).all(|(n, f)| fold_byte(*n) == *f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifier_fields_and_subscriber_data_are_reserved() {
        let reserved = ReservedFields::new(["x-device-ref"]);
        for name in [
            "X-DCMGUID",
            "x_dcmguid",
            "X.Up.Subno",
            "X-VF-ACR",
            "X-UIDH",
            "X-Device-Ref",
            "x~device~ref",
            "Client-IP",
            "MSISDN",
            "X-Brandnew-MSISDN",
            "Zyx_IMSI",
            "imei",
            "_rapmin",
            "X-Any-Calling-Line-Id",
            "CLI",
            "TM_user-id",
        ] {
            assert!(reserved.holds(name), "{name}");
        }
        for name in [
            "",
            "host",
            "user-agent",
            "accept",
            "accept-language",
            "accept-encoding",
            "cookie",
            "connection",
            "referer",
            "origin",
            "content-type",
            "content-length",
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "sec-fetch-site",
            "x-jphone-msname",
            "x-up-devcap-max-pdu",
            "x-msisdns",
            "client",
            "if-none-match",
            "range",
            "traceparent",
        ] {
            assert!(!reserved.holds(name), "{name}");
        }
    }

    #[test]
    fn whoever_forges_is_told_every_rule_by_name() {
        let told = forgeable(["X-Device-Ref"]);
        for name in ["X-Device-Ref", "X-DCMGUID", "X-UP-SUBNO", "X-JPHONE-UID", "X-MSISDN"] {
            assert!(told.iter().any(|one| one == name), "{name}: {told:?}");
        }
        assert!(told.iter().any(|one| one.starts_with("X-Self-Test-") && one.ends_with("msisdn")), "{told:?}");
        let rules = names(["X-Device-Ref"]).count() + RESERVED.folded_suffixes.len();
        assert!(rules > 20 && told.len() == rules, "{rules} {told:?}");
        let reserved = ReservedFields::new(["X-Device-Ref"]);
        assert!(told.iter().all(|name| reserved.holds(name)), "{told:?}");
    }

    #[test]
    fn cookies_and_query_keys_are_known_in_any_case() {
        let reserved = ReservedFields::new([]);
        assert!(["msisdn", "MSISDN", "X_UP_calling-line-id", "apn"].iter().all(|c| reserved.holds_cookie(c)));
        assert!(["sekisho", "session", ""].iter().all(|c| !reserved.holds_cookie(c)));
        assert!(["lat", "LAT", "areacode", "X-ACC", "uid"].iter().all(|k| reserved.holds_query_key(k)));
        assert!(["guid", "to", "_sk", "page"].iter().all(|k| !reserved.holds_query_key(k)));
    }

    #[test]
    fn only_a_user_agent_with_serials_is_rewritten() {
        let reserved = ReservedFields::new([]);
        for (value, expected) in [
            (&b"DoCoMo/2.0 P903i(c100;TB;ser999999999999999)"[..], Some(&b"DoCoMo/2.0 P903i(c100;TB)"[..])),
            (b"DoCoMo/2.0 P903i(c100;TB)", None),
            (b"\xe9/SN0000000000 \xe9", Some(b"\xe9 \xe9")),
        ] {
            let value = HeaderValue::from_bytes(value).unwrap();
            assert_eq!(reserved.redact_user_agent(&value).as_ref().map(HeaderValue::as_bytes), expected);
        }
    }

    /// A spelling of a reserved name: any case, any separator that a field name may have (RFC 9110 §5.6.2).
    fn respelt() -> impl Strategy<Value = String> {
        let names: Vec<&String> = RESERVED.headers.values().flatten().collect();
        let suffixes: Vec<&String> = RESERVED.folded_suffixes.iter().collect();
        let separator = prop::sample::select(b"!#$%&'*+-.^_`|~".to_vec());
        let name = prop_oneof![
            prop::sample::select(names).prop_map(String::clone),
            ("[a-z0-9-]{0,12}", prop::sample::select(suffixes)).prop_map(|(prefix, suffix)| prefix + suffix),
        ];
        (name, prop::collection::vec((any::<bool>(), separator), 64)).prop_map(|(name, choices)| {
            let spell = |(byte, (upper, separator)): (u8, &(bool, u8))| match byte {
                b if !b.is_ascii_alphanumeric() => char::from(*separator),
                b if *upper => char::from(b.to_ascii_uppercase()),
                b => char::from(b.to_ascii_lowercase()),
            };
            name.bytes().zip(&choices).map(spell).collect()
        })
    }

    proptest! {
        #[test]
        fn no_reserved_name_survives_another_spelling(name in respelt()) {
            prop_assert!(ReservedFields::new([]).holds(&name));
        }

        #[test]
        fn comparing_folded_is_comparing_what_was_folded(a in "[!-~]{0,4}", b in "[!-~]{0,4}") {
            prop_assert_eq!(folds_to(a.as_bytes(), fold(&b).as_bytes()), fold(&a) == fold(&b));
        }
    }
}
