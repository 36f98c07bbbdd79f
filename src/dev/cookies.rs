//! A handset's cookies for the one site that it can reach.

use cookie::{Cookie, CookieJar};
use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

/// What a handset's browser keeps until it is switched off.
///
/// One host and the path `/` are all that exists here, so neither is looked at (RFC 6265 §5.4 is far wider).
#[derive(Default)]
pub(super) struct Cookies(CookieJar);

impl Cookies {
    /// Takes what an answer sets or removes.
    pub(super) fn take(&mut self, fields: &HeaderMap) {
        let set = fields.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in set.filter_map(|text| Cookie::parse(text.to_owned()).ok()) {
            let over = cookie.max_age().is_some_and(|age| !age.is_positive());
            if over {
                self.0.force_remove(cookie.name());
            } else {
                self.0.add_original(cookie);
            }
        }
    }

    /// The `Cookie` field, if there is a cookie.
    pub(super) fn field(&self) -> Option<HeaderValue> {
        let pairs: Vec<String> = self.0.iter().map(|cookie| cookie.stripped().to_string()).collect();
        if pairs.is_empty() { None } else { HeaderValue::try_from(pairs.join("; ")).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(set: &str) -> HeaderMap {
        HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_str(set).unwrap())])
    }

    #[test]
    fn a_cookie_stays_until_it_is_taken_away() {
        let mut cookies = Cookies::default();
        assert_eq!(cookies.field(), None);
        cookies.take(&answer("sekisho=abc; Path=/; HttpOnly; SameSite=Lax"));
        assert_eq!(cookies.field().unwrap(), "sekisho=abc");
        cookies.take(&answer("sekisho=def; Path=/"));
        assert_eq!(cookies.field().unwrap(), "sekisho=def");
        cookies.take(&answer("sekisho=; Path=/; Max-Age=0; Expires=Tue, 25 Nov 2025 00:00:00 GMT"));
        assert_eq!(cookies.field(), None);
    }
}
