//! The session cookie and the probe, as a browser gets them and brings them back.

use sekisho::edge::{HeadLimits, RawHead, Scheme};
use sekisho::session::{CookiePresence, SessionCookie, SessionToken};

const TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

fn head(fields: &[&str]) -> RawHead {
    let mut request = http::Request::get("/").header("Host", "x");
    for field in fields {
        request = request.header("Cookie", *field);
    }
    let limits = HeadLimits { head_bytes: 4096, headers: 10, url_bytes: 1024 };
    RawHead::read(request.body(()).unwrap().into_parts().0, &limits).unwrap()
}

fn found(scheme: Scheme, fields: &[&str]) -> String {
    match SessionCookie::of(scheme).find(&head(fields)) {
        CookiePresence::Absent => "absent".to_owned(),
        CookiePresence::Unusable => "unusable".to_owned(),
        CookiePresence::Token(token) => token.expose().to_owned(),
    }
}

#[test]
fn the_cookie_of_a_scheme_is_found_and_no_other() {
    let plain = format!("sekisho={TOKEN}");
    let secure = format!("__Host-sekisho={TOKEN}");
    let tossed = format!("sekisho={OTHER}");
    for (scheme, fields, expected) in [
        (Scheme::Http, &[&*plain][..], TOKEN),
        (Scheme::Https, &[&*secure], TOKEN),
        (Scheme::Http, &[&*secure], "absent"),
        (Scheme::Https, &[&*plain], "absent"),
        (Scheme::Http, &[], "absent"),
        (Scheme::Http, &["a=b; sekishox=c; xsekisho=d; Sekisho=e"], "absent"),
        (Scheme::Http, &["a=b", &plain], TOKEN),
        (Scheme::Http, &[&format!("a=b;{plain} ; c=d")], TOKEN),
        (Scheme::Http, &[&plain, &plain], TOKEN),
        (Scheme::Http, &[&format!("{plain}; {plain}")], TOKEN),
        (Scheme::Http, &[&plain, &tossed], "unusable"),
        (Scheme::Http, &[&format!("{tossed}; {plain}")], "unusable"),
        (Scheme::Https, &[&secure, &plain, &tossed], TOKEN),
        (Scheme::Http, &["sekisho="], "unusable"),
        (Scheme::Http, &["sekisho=short"], "unusable"),
        (Scheme::Http, &[&format!("sekisho=\"{TOKEN}\"")], "unusable"),
    ] {
        assert_eq!(found(scheme, fields), expected, "{fields:?}");
    }
}

#[test]
fn a_browser_gets_it_for_this_host_alone_and_loses_it_again() {
    let token = SessionToken::parse(TOKEN.as_bytes()).unwrap();
    let plain = SessionCookie::of(Scheme::Http).set(&token).unwrap();
    assert_eq!(plain.to_str().unwrap(), format!("sekisho={TOKEN}; HttpOnly; SameSite=Lax; Path=/"));
    let secure = SessionCookie::of(Scheme::Https).set(&token).unwrap();
    assert_eq!(secure.to_str().unwrap(), format!("__Host-sekisho={TOKEN}; HttpOnly; SameSite=Lax; Secure; Path=/"));
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
            (format!("{name}=2"), false),
            (format!("{name}=11"), false),
            (format!("{other}=1"), false),
            (format!("x{name}=1"), false),
            (String::new(), false),
        ] {
            assert_eq!(cookie.probe_came_back(&head(&[&field])), back, "{field}");
        }
    }
}
