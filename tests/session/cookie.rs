//! The session cookie and the probe, as a browser gets them and brings them back.

use sekisho::edge::{HeadLimits, RawHead, Scheme};
use sekisho::session::{CookiePresence, LastCookie, SessionCookie, SessionSecret};

const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

fn head(fields: &[&str]) -> RawHead {
    let mut request = http::Request::get("/").header("Host", "x");
    for field in fields {
        request = request.header("Cookie", *field);
    }
    let limits = HeadLimits { head_bytes: 4096, headers: 10, url_bytes: 1024 };
    RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap()
}

/// What a cookie of this secret stands for.
fn token_of(secret: &str) -> String {
    SessionSecret::parse(secret.as_bytes()).unwrap().token().expose().to_owned()
}

/// Whatever its connection brought before.
fn found(scheme: Scheme, fields: &[&str]) -> String {
    let name = if scheme == Scheme::Http { "sekisho" } else { "__Host-sekisho" };
    let [fresh, same, other] = ["", SECRET, OTHER].map(|before| {
        let last = LastCookie::default();
        let _ = SessionCookie::of(scheme).find(&head(&[&format!("{name}={before}")]), &last);
        match SessionCookie::of(scheme).find(&head(fields), &last) {
            CookiePresence::Absent => "absent".to_owned(),
            CookiePresence::Unusable => "unusable".to_owned(),
            CookiePresence::Token(made) if made.token().expose() == token_of(SECRET) => "the token".to_owned(),
            CookiePresence::Token(_) => "another token".to_owned(),
        }
    });
    assert!(fresh == same && fresh == other, "{fields:?}: {fresh}, {same}, {other}");
    fresh
}

#[test]
fn the_cookie_of_a_scheme_is_found_and_no_other() {
    let plain = format!("sekisho={SECRET}");
    let secure = format!("__Host-sekisho={SECRET}");
    let tossed = format!("sekisho={OTHER}");
    for (scheme, fields, expected) in [
        (Scheme::Http, &[&*plain][..], "the token"),
        (Scheme::Https, &[&*secure], "the token"),
        (Scheme::Http, &[&*secure], "absent"),
        (Scheme::Https, &[&*plain], "absent"),
        (Scheme::Http, &[], "absent"),
        (Scheme::Http, &["a=b; sekishox=c; xsekisho=d; Sekisho=e"], "absent"),
        (Scheme::Http, &["a=b", &plain], "the token"),
        (Scheme::Http, &[&format!("a=b;{plain} ; c=d")], "the token"),
        (Scheme::Http, &[&plain, &plain], "the token"),
        (Scheme::Http, &[&format!("{plain}; {plain}")], "the token"),
        (Scheme::Http, &[&plain, &tossed], "unusable"),
        (Scheme::Http, &[&format!("{tossed}; {plain}")], "unusable"),
        (Scheme::Https, &[&secure, &plain, &tossed], "the token"),
        (Scheme::Http, &["sekisho="], "unusable"),
        (Scheme::Http, &["sekisho=short"], "unusable"),
        (Scheme::Http, &[&format!("sekisho=\"{SECRET}\"")], "unusable"),
    ] {
        assert_eq!(found(scheme, fields), expected, "{fields:?}");
    }
}

#[test]
fn a_browser_gets_it_for_this_host_alone_and_loses_it_again() {
    let secret = SessionSecret::parse(SECRET.as_bytes()).unwrap();
    let plain = SessionCookie::of(Scheme::Http).set(&secret).unwrap();
    assert_eq!(plain.to_str().unwrap(), format!("sekisho={SECRET}; HttpOnly; SameSite=Lax; Path=/"));
    let secure = SessionCookie::of(Scheme::Https).set(&secret).unwrap();
    assert_eq!(secure.to_str().unwrap(), format!("__Host-sekisho={SECRET}; HttpOnly; SameSite=Lax; Secure; Path=/"));
    assert!(plain.is_sensitive() && secure.is_sensitive());
    for (scheme, begin) in [(Scheme::Http, "sekisho=; "), (Scheme::Https, "__Host-sekisho=; ")] {
        let cleared = SessionCookie::of(scheme).clear().unwrap();
        let cleared = cleared.to_str().unwrap();
        assert!(cleared.starts_with(begin) && cleared.contains("; Path=/; Max-Age=0; "), "{cleared}");
        assert_eq!(cleared.contains("; Secure"), scheme == Scheme::Https, "{cleared}");
    }
}

#[test]
fn the_probe_says_whether_a_browser_keeps_cookies() {
    for (scheme, name, other) in
        [(Scheme::Http, "skprobe", "__Host-skprobe"), (Scheme::Https, "__Host-skprobe", "skprobe")]
    {
        let cookie = SessionCookie::of(scheme);
        let probe = cookie.probe();
        let probe = probe.to_str().unwrap();
        assert!(probe.starts_with(&format!("{name}=1; ")) && probe.contains("; Max-Age=600"), "{probe}");
        for (field, back) in [
            (format!("{name}=1"), true),
            (format!("a=b; {name}=1"), true),
            // A session that is over came back too: cookies are kept.
            (format!("{}={SECRET}", name.replace("skprobe", "sekisho")), true),
            (format!("{other}=1"), false),
            (format!("x{name}=1"), false),
            (String::new(), false),
        ] {
            assert_eq!(cookie.comes_back(&head(&[&field])), back, "{field}");
        }
    }
}
