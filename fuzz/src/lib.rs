//! What each fuzz target does with its bytes: one call into the crate, and what must hold of the answer.
//!
//! A request is written as text, so that corpora can be read and written by hand:
//!
//! ```text
//! 127.0.1.7 http GET /login?guid=ON
//! Host: admin.example.jp
//! X-DCMGUID: 2cXoloo
//! ```
//!
//! The bytes of a value are taken as they are, and what the HTTP codec would refuse is left out: the codec is hyper's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, Method, Request};
use sekisho::admin::fuzz::{if_match as judge_if_match, no_fields};
use sekisho::assertion::AssertionVerifier;
use sekisho::audit::fuzz::is_line as is_audit_line;
use sekisho::audit::{Expected, Verifier};
use sekisho::backup::{ArchiveKey, ArchiveReader, ArchiveWriter};
use sekisho::binding::{AccountId, BindingId, EnrolmentCode, ImportLine, Pin};
use sekisho::carrier::{Carriers, Networks, ProfileSpec, UserAgent};
use sekisho::clock::Timestamp;
use sekisho::config::{Access, Assurance, Config, RouteConfig, Severity};
use sekisho::edge::fuzz::messages;
use sekisho::edge::{Client, HeadLimits, HostAllowList, RawHead, Scheme, TrustedProxies, fold, parse_proxy_header};
use sekisho::entropy::SeededEntropy;
use sekisho::gateway::fuzz::{form_field, local_path as read_to, wanted_path};
use sekisho::links::fuzz::{TOKEN, rewritten};
use sekisho::links::{FormEncoding, UrlTokens, take_token};
use sekisho::logs::fuzz::read as read_sealed;
use sekisho::pages::{Reader, ReaderHints};
use sekisho::receipt::verify;
use sekisho::session::{CookiePresence, LastCookie, SessionCookie, SessionId};
use sekisho::tls::certificate_name;
use sekisho::upstream::fuzz::before_answer;
use sekisho::upstream::{Destination, Routes, StrippedHead};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, headers: 32, url_bytes: 1024 };

/// A docomo, an au and a SoftBank gateway on loopback, as `sekisho dev` has them, and an access point of one's own.
static CARRIERS: LazyLock<Carriers> = LazyLock::new(|| {
    let at = |network: &str| Some(Networks::List(vec![network.to_owned()]));
    let specs = BTreeMap::from([
        ("docomo".to_owned(), ProfileSpec { networks: at("127.0.1.0/24"), ..ProfileSpec::default() }),
        ("au".to_owned(), ProfileSpec { networks: at("127.0.2.0/24"), ..ProfileSpec::default() }),
        ("softbank".to_owned(), ProfileSpec { networks: at("127.0.3.0/24"), ..ProfileSpec::default() }),
        (
            "private-apn".to_owned(),
            ProfileSpec {
                header: Some("X-Device-Ref".to_owned()),
                grammar: Some("^[A-Za-z0-9_-]{22,64}$".to_owned()),
                user_agent: Some("any".to_owned()),
                over_tls: Some("accept".to_owned()),
                networks: at("127.0.4.0/24"),
                ..ProfileSpec::default()
            },
        ),
    ]);
    Carriers::build(&specs).unwrap_or_else(|problems| panic!("{problems:?}")).0
});

/// A head is bounded, and its host is ours only if it is named once.
pub fn head(data: &[u8]) {
    let Some((_, _, head)) = request(data) else { return };
    assert!(head.path().len() <= LIMITS.url_bytes);
    for name in head.names() {
        let folded = fold(name.as_str());
        assert_eq!(fold(&folded), folded);
    }
    let hosts = HostAllowList::new(["admin.example.jp".to_owned()]);
    if hosts.check(&head).is_ok() {
        assert!(hosts.allows(head.host().expect("a host that was checked")));
    }
}

/// A client is never one of our proxies.
pub fn client_addr(data: &[u8]) {
    let Some((peer, scheme, head)) = request(data) else { return };
    let proxies = TrustedProxies::new(vec!["127.0.9.0/24".parse().expect("a network")]);
    if let Ok(client) = proxies.resolve(peer, scheme, &head) {
        assert!(!proxies.trusts(client.address.ip()));
    }
}

/// A PROXY header names the source that stands in it, or none; whatever else the bytes are, they are refused.
pub fn proxy_header(data: &[u8]) {
    let Ok(proxied) = parse_proxy_header(data) else { return };
    if let Some(rest) = data.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let addresses = rest.get(4..).expect("a whole header");
        assert!(match proxied.source.map(|source| source.ip()) {
            Some(IpAddr::V4(source)) => addresses.starts_with(&source.octets()),
            Some(IpAddr::V6(source)) => addresses.starts_with(&source.octets()),
            None => true,
        });
    } else {
        let mut words = data.strip_suffix(b"\r\n").expect("a whole line").split(|b| *b == b' ');
        assert_eq!(words.next(), Some(&b"PROXY"[..]));
        assert_eq!(words.next() == Some(b"UNKNOWN"), proxied.source.is_none());
        let named = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<IpAddr>().ok());
        assert!(proxied.source.is_none_or(|source| Some(source.ip()) == named));
    }
}

/// Whatever pieces they come in, the same is passed on of the bytes of an HTTP/1 connection. Each line of its heads ends by CR and LF,
/// and of each head one line says how long its body is.
pub fn framing(data: &[u8]) {
    let Some(([size, bodies], bytes)) = data.split_first_chunk() else { return };
    let follows = || (0..8).cycle().map(|bit| (bodies >> bit & 1 == 0).then_some(u64::from(*bodies)));
    assert_eq!(messages(bytes, usize::from(*size), follows()), messages(bytes, usize::MAX, follows()));
    let (heads, _) = messages(bytes, usize::from(*size), std::iter::repeat(Some(0)));
    let heads = String::from_utf8_lossy(&heads).to_ascii_lowercase();
    for head in heads.split("\r\n\r\n") {
        // The last line has not ended; of a head that is refused it never does.
        let (lines, last) = head.rsplit_once("\r\n").unwrap_or(("", head));
        assert!(!head.replace("\r\n", "").contains('\n'), "{head}");
        let says = |line: &&str| line.starts_with("content-length:") || line.starts_with("transfer-encoding:");
        assert!(lines.split("\r\n").filter(says).count() < 2, "{lines} and {last}");
    }
}

/// Of what a server sends nothing is lost but interim answers before its answer, whatever pieces it comes in.
pub fn interim(data: &[u8]) {
    let Some(([size, room], bytes)) = data.split_first_chunk() else { return };
    let (passed, told) = before_answer(bytes, usize::from(*size), usize::from(*room));
    assert!(bytes.ends_with(&passed));
    assert!(told.iter().all(|status| (102..200).contains(status)));
    assert!(before_answer(&passed, 1 << 20, 1 << 20).1.is_empty());
    assert_eq!(before_answer(bytes, 1 << 20, 1 << 20), (passed, told));
}

/// An identifier comes from a network of its carrier, and a session of that carrier would see the same one.
pub fn identifier(data: &[u8]) {
    let Some((client, head)) = direct(data) else { return };
    if let Ok(identifier) = CARRIERS.identify(&head, &client) {
        let profile = CARRIERS.match_source(&client).expect("a network of a carrier");
        assert_eq!(profile.name(), identifier.carrier());
        let Ok(Some(presented)) = CARRIERS.presented(&head, identifier.carrier()) else {
            panic!("identified but not presented")
        };
        assert_eq!(presented.expose(), identifier.expose());
    }
}

/// What may be logged of a User-Agent has nothing left to cut out.
pub fn user_agent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let redacted = UserAgent::parse(text).redacted;
    assert_eq!(UserAgent::parse(&redacted).redacted, redacted);
}

/// A session token is what a token looks like, under the name that belongs to the scheme.
pub fn cookie(data: &[u8]) {
    let Some((_, scheme, head)) = request(data) else { return };
    if let CookiePresence::Token(made) = SessionCookie::of(scheme).find(&head, &LastCookie::default()) {
        assert!(made.token().expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
    }
}

/// A configuration is refused with a reason or taken without an error.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_error = |severity| matches!(severity, Severity::Error);
    match Config::parse(text, Path::new("gateway.toml")) {
        Ok((_, findings)) => assert!(!findings.iter().any(|finding| is_error(finding.severity))),
        Err(findings) => assert!(findings.iter().any(|finding| is_error(finding.severity))),
    }
}

/// A line that was taken is taken with spaces around it as well, and not with anything else behind it.
pub fn import_line(data: &[u8]) {
    if ImportLine::read(data, &CARRIERS).is_ok() {
        assert!(ImportLine::read(&[b" \t", data, b"\r"].concat(), &CARRIERS).is_ok());
        assert!(ImportLine::read(&[data, b"{}"].concat(), &CARRIERS).is_err());
    }
}

/// A verdict says yes or names what is wrong, never both; what it says fits a terminal. A receipt that verifies does so
/// with a line's end behind it, and not with anything else.
pub fn receipt(data: &[u8]) {
    let verdict = verify(data, &[]);
    assert_eq!(verdict.ok, verdict.problems.is_empty());
    assert!(verdict.problems.iter().all(|problem| !problem.chars().any(char::is_control)));
    if verdict.ok {
        assert!(data.ends_with(b"\n") || verify(&[data, b"\n"].concat(), &[]).ok);
        assert!(!verify(&[data, b"{}"].concat(), &[]).ok);
    }
}

/// A verb without fields takes nothing or the empty object, declared as JSON. The first line is the content type.
pub fn admin_json(data: &[u8]) {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let (kind, body) = (&data[..end], &data[end + 1..]);
    let Ok(kind) = HeaderValue::from_bytes(kind) else { return };
    let json = kind.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let json = json.eq_ignore_ascii_case(b"application/json");
    let empty = body.iter().filter(|b| !b" \t\r\n".contains(b)).eq(b"{}");
    let expected = match (body.is_empty(), json, empty) {
        (true, ..) | (false, true, true) => Ok(()),
        (false, false, _) => Err("content-type-invalid".to_owned()),
        (false, true, false) => Err("body-malformed".to_owned()),
    };
    assert_eq!(no_fields(kind, body), expected);
}

/// One strong entity tag of the very revision passes, or `*`, or nothing; each line is a value of the field.
pub fn if_match(data: &[u8]) {
    let lines = data.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let Ok(values) = lines.map(HeaderValue::from_bytes).collect::<Result<Vec<_>, _>>() else { return };
    let passes = match &values[..] {
        [] => true,
        [value] => matches!(value.as_bytes().trim_ascii(), b"*" | b"\"7\""),
        _ => false,
    };
    match judge_if_match(values, 7) {
        Ok(()) => assert!(passes),
        Err(reason) => assert!(!passes && ["if-match-invalid", "revision-stale"].contains(&&*reason)),
    }
}

/// A client certificate names one visible ASCII name, or nobody; nothing in it ends the program.
pub fn client_certificate(data: &[u8]) {
    if let Ok(name) = certificate_name(data) {
        let name = name.as_str();
        assert!((1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        assert!(data.windows(name.len()).any(|part| part == name.as_bytes()), "it stands there");
    }
}

/// What the admin API reads out of a path is what stands there, and nobody's number.
pub fn admin_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for segment in text.split('/') {
        if let Ok(account) = AccountId::parse(segment) {
            assert_eq!(account.as_str(), segment);
            assert!(segment.len() <= 64 && segment.is_ascii());
            let digits: Vec<u8> = segment.bytes().filter(u8::is_ascii_alphanumeric).collect();
            let number = digits.iter().all(u8::is_ascii_digit) && (10..=15).contains(&digits.len());
            assert!(!number || digits[0] != b'0');
        }
        // UUIDs have other spellings (RFC 9562 §4); what is written is read again.
        assert!(BindingId::parse(segment).is_none_or(|id| BindingId::parse(&id.to_string()) == Some(id)));
        assert!(SessionId::parse(segment).is_none_or(|id| SessionId::parse(&id.to_string()) == Some(id)));
    }
}

/// A form of plain ASCII reads alike in every charset; no field is longer than what was sent for it.
pub fn form(data: &[u8]) {
    for name in ["code", "to", "t"] {
        let [shift_jis, euc_jp, utf8] = form_field(data, name);
        if data.iter().all(|b| b.is_ascii() && *b != b'%') {
            assert!(shift_jis == euc_jp && euc_jp == utf8);
        }
        // At worst each byte is replaced by U+FFFD, which has three, or is two characters in one.
        assert!([shift_jis, euc_jp, utf8].iter().all(|text| text.len() <= 6 * data.len()));
    }
}

/// Erasing a form's tokens keeps its length, is the same however the body is cut, and leaves nothing to be erased; a token
/// of a first field was there: as it is, or, where a query may escape it, as a query would have it.
pub fn form_body(data: &[u8]) {
    let (size, body) = data.split_first().map_or((1, data), |(size, body)| (usize::from(*size).max(1), body));
    for content_type in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=b"] {
        let Some(encoding) = FormEncoding::of(content_type) else { continue };
        if let Some((token, length)) = encoding.first_token(body) {
            assert!(length <= body.len() && length <= encoding.first_field_length());
            let field = &body[..length];
            let as_it_is = field.windows(token.expose().len()).any(|window| window == token.expose().as_bytes());
            let as_a_query = || {
                let pair = std::str::from_utf8(field).ok().map(|field| field.strip_suffix('&').unwrap_or(field));
                matches!(take_token(pair), (None, UrlTokens::One(Some(found))) if found.expose() == token.expose())
            };
            assert!(as_it_is || as_a_query());
        }
        let erased = |size: usize, body: &[u8]| {
            let (mut eraser, mut bytes) = (encoding.eraser(), body.to_vec());
            bytes.chunks_mut(size).for_each(|piece| eraser.erase(piece));
            bytes
        };
        let once = erased(body.len().max(1), body);
        assert_eq!(once, erased(size, body));
        assert_eq!(once, erased(size, &once));
    }
}

/// A page is the same however it is cut and however often it is rewritten; a token stands in a query or a field of ours;
/// where nothing had to go, taking the tokens out gives the page back.
pub fn links(data: &[u8]) {
    const CHARSETS: [Option<&str>; 6] =
        [None, Some("utf-8"), Some("shift_jis"), Some("euc-jp"), Some("iso-2022-jp"), Some("utf-16le")];
    let Some((first, page)) = data.split_first() else { return };
    let charset = CHARSETS[usize::from(*first) % CHARSETS.len()];
    let xml = *first >= 128;
    let rewritten = |page: &[u8], size| rewritten(page, charset, xml, size);
    let whole = rewritten(page, page.len());
    assert_eq!(rewritten(page, 1), whole);
    assert_eq!(rewritten(page, 2 + usize::from(*first) / CHARSETS.len()), whole);
    if charset == Some("utf-16le") || page.starts_with(b"\xFE\xFF") || page.starts_with(b"\xFF\xFE") {
        return;
    }
    assert_eq!(rewritten(&whole, 7), whole);
    let token = TOKEN.as_bytes();
    // Written by the page itself, perhaps in pieces that a host's ASCII form joins.
    let letters: Vec<u8> = page.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    if contains(&letters, &token[..8]) {
        return;
    }
    for at in (0..whole.len()).filter(|at| whole[*at..].starts_with(token)) {
        let before = &whole[..at];
        assert!(before.ends_with(b"?_sk=") || before.ends_with(b"name=\"_sk\" value=\""));
    }
    // Links of others, keys and fields of ours, a base, what tells others: what goes for them does not come back.
    let mut lower = page.to_ascii_lowercase();
    lower.retain(|b| *b > b' ');
    if contains(&whole, b"/_sekisho/leave")
        || [&b"_s"[..], b"%", b"&#", b"base", b"action", b"ping", b"referrer"].iter().any(|p| contains(&lower, p))
        // The field of a form that a button names by an id of the page's.
        || contains(&whole, format!("{TOKEN}\" form=\"").as_bytes())
    {
        return;
    }
    let own = format!(" action=\"/dir/page?_sk={TOKEN}\"");
    let field = format!("<input type=\"hidden\" name=\"_sk\" value=\"{TOKEN}\"{}>", if xml { " /" } else { "" });
    let (more, only) = (format!("?_sk={TOKEN}&amp;"), format!("?_sk={TOKEN}"));
    let mut stripped = whole;
    for (put, was) in [(own.as_str(), ""), (&field, ""), (&more, "?"), (&only, "")] {
        stripped = replaced(&stripped, put.as_bytes(), was.as_bytes());
    }
    assert_eq!(stripped, page);
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// A target of a sign-in is a path of this host, for a browser that reads it once more than it should as well.
pub fn local_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    // What is named may be as long as any browser's URL, what is wanted leaves room for the rest of the handset's.
    for (target, most) in [(read_to(text), 2048), (wanted_path(path, query), 512 - 24 - 117)] {
        assert!(target.starts_with('/') && !target.starts_with("//") && target.len() <= most);
        assert!(target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#'));
        assert_eq!(read_to(&target), target);
        let path = target.split('?').next().unwrap_or_default();
        let folded = path.to_ascii_lowercase();
        assert!(!folded.contains("//") && !folded.contains("/%2f") && !folded.contains("%5c"));
        assert!(
            !path.starts_with("/_sekisho") || ["/_sekisho/me", "/_sekisho/me/pin", "/_sekisho/notice"].contains(&path)
        );
    }
}

/// Any preferences have an answer.
pub fn reader(data: &[u8]) {
    let Some((_, _, head)) = request(data) else { return };
    let hints = ReaderHints::of(&head);
    let _ = Reader::of(&hints, false, &UserAgent::parse(hints.user_agent()));
}

/// A code is twelve digits, and reads back as it is shown.
pub fn code(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(code) = EnrolmentCode::parse(text) {
        assert!(code.expose().len() == 12 && code.expose().bytes().all(|b| b.is_ascii_digit()));
        let shown = EnrolmentCode::parse(&code.expose_grouped()).expect("a code as we show it");
        assert_eq!(shown.expose(), code.expose());
    }
}

/// A PIN is four to eight digits, and the same in figures of either width.
pub fn pin(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(pin) = Pin::parse(text) {
        let half_width =
            |c: char| char::from_u32(u32::from(c).wrapping_sub(0xfee0)).filter(char::is_ascii_digit).unwrap_or(c);
        let digits: String = text.trim().chars().map(half_width).collect();
        assert!((4..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
        assert!(Pin::parse(&digits).is_some_and(|same| same.is(&pin) && same.is_weak() == pin.is_weak()));
    }
}

/// Nothing below the reserved prefix has a route, under no reading of it.
pub fn route(data: &[u8]) {
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
        let route = |path: &str, access| RouteConfig {
            path: path.to_owned(),
            upstream: 0,
            access,
            assurance: Assurance::Device,
            body_bytes: 1024,
        };
        Routes::new(vec![
            route("/", Access::Session),
            route("/admin", Access::Session),
            route("/static", Access::Public),
            route("/static/login", Access::Login),
        ])
    });
    // As RawHead gives it.
    let Some(path) = std::str::from_utf8(data).ok().filter(|path| path.starts_with('/')) else { return };
    if let Ok(Destination::Route(route)) = ROUTES.find(path) {
        assert!(!path.starts_with("/_sekisho/"));
        assert!(path.starts_with(&route.path));
    }
}

/// Any head can be stripped or is refused.
pub fn strip(data: &[u8]) {
    let Some((_, _, head)) = request(data) else { return };
    let _ = StrippedHead::of(head, CARRIERS.reserved());
}

/// No bytes are an assertion of a key that nobody has.
pub fn assertion(data: &[u8]) {
    // The example key of RFC 7517 appendix A.1; its private half signs nothing here.
    static VERIFIER: LazyLock<AssertionVerifier> = LazyLock::new(|| {
        let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"1",
            "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
        AssertionVerifier::new(jwks, "http://admin.example.jp", "https://console.internal").expect("a JWKS")
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(VERIFIER.verify(text, Timestamp::from_unix_millis(1_800_000_000_000)).is_err());
    let _ = AssertionVerifier::new(text, "http://admin.example.jp", "https://console.internal");
}

/// A request whose peer is its client.
fn direct(data: &[u8]) -> Option<(Client, RawHead)> {
    let (peer, scheme, head) = request(data)?;
    let client = TrustedProxies::new(Vec::new()).resolve(peer, scheme, &head).ok()?;
    Some((client, head))
}

fn request(data: &[u8]) -> Option<(IpAddr, Scheme, RawHead)> {
    let mut lines = data.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let mut words = first.splitn(4, ' ');
    let peer = words.next()?.parse().ok()?;
    let scheme = match words.next()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let mut request = Request::builder().method(Method::from_bytes(words.next()?.as_bytes()).ok()?).uri(words.next()?);
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            request = request.header(name, value);
        }
    }
    let (parts, ()) = request.body(()).ok()?.into_parts();
    Some((peer, scheme, RawHead::read(parts, &LIMITS).ok()?))
}

/// A file of any bytes is judged without a panic, and one that is a whole backup is the one that its content gives.
pub fn backup(data: &[u8]) {
    let key = ArchiveKey::fresh(&SeededEntropy::new(1));
    let Ok(unopened) = ArchiveReader::head(data) else { return };
    let mut again = Vec::new();
    let mut writer = ArchiveWriter::begin(&key, unopened.header(), &mut again);
    let mut reader = unopened.open(&key);
    loop {
        match reader.chunk() {
            Ok(Some(chunk)) => writer.push(&chunk, &mut again).unwrap_or_else(|error| panic!("{error}")),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    writer.finish(&mut again).unwrap_or_else(|error| panic!("{error}"));
    assert!(again == data, "two files of one content");
}

/// An export of any bytes is judged without a panic, and a line that is read is written the same way again.
pub fn audit_export(data: &[u8]) {
    let mut verifier = Verifier::new(Expected::default());
    let mut fit = 0;
    for line in data.split(|byte| *byte == b'\n') {
        verifier.line(line);
        fit += u64::from(str::from_utf8(line).is_ok_and(is_audit_line));
    }
    let verdict = verifier.finish();
    // Two lines at least, its head and its end.
    assert!(!verdict.ok() || fit >= 2);
    assert!(verdict.unverifiable <= verdict.entries);
}

/// A sealed log of any bytes is read without a panic: no line comes out that the file has no room for, and a line of bytes that
/// were never sealed is never one.
pub fn sealed_log(data: &[u8]) {
    let (lines, findings) = read_sealed(data);
    assert!(lines <= data.len());
    // What gave nothing is told, unless there was nothing.
    assert!(lines > 0 || findings > 0 || data.iter().all(|byte| *byte == b'\n') || data.starts_with(b"sekisho-log/1 "));
}
