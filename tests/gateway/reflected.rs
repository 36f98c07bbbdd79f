//! What a stranger wrote comes back as text or not at all, in every charset that a page is sent in: no quote, no
//! bracket, and no lead byte that makes a browser swallow the quote behind it.

use std::sync::LazyLock;

use encoding_rs::{Encoding, SHIFT_JIS, UTF_8};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use regex::Regex;

use crate::harness::{Carrier, HOST, Harness};
use crate::wire::{RawAnswer, Wire};

/// Lead bytes of `Shift_JIS`, EUC-JP and UTF-8, the bytes that begin nothing, and those that switch a charset.
const LEADS: [&[u8]; 13] = [
    b"\x81",
    b"\x83\x5c",
    b"\x8e",
    b"\x8f\xa1",
    b"\x9f",
    b"\xa1",
    b"\xc3",
    b"\xe0",
    b"\xe3\x81",
    b"\xf0\x9f\x98",
    b"\xfc",
    b"\xff",
    b"\x1b$B",
];
const MARKUP: [&[u8]; 4] =
    [b"\"><script>alert(1)</script>", b"' onfocus='alert(1)", b"\" onclick=\"alert(1)", b"</title><b>"];

/// A browser of each markup and charset that pages are sent in: the older ones of i-mode read CHTML in `Shift_JIS`, the
/// first of them by forms that get.
const BROWSERS: [(Carrier, &str); 4] = [
    (Carrier::SoftBank, "SoftBank/1.0/930SH/SHJ001/SN012345678901234 Browser/NetFront/3.4 Profile/MIDP-2.0"),
    (Carrier::PrivateApn, "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36"),
    (Carrier::Docomo, "DoCoMo/2.0 P903i(c100;TB;W24H12)"),
    (Carrier::Docomo, "DoCoMo/1.0/D501i"),
];

/// Where a request has room for a text: in the head, and in a form's body.
const PLACES: [(&str, &str); 17] = [
    ("GET /{} HTTP/1.1", ""),
    ("GET /?q={} HTTP/1.1", ""),
    ("GET /public/../{} HTTP/1.1", ""),
    ("GET /_sekisho/{} HTTP/1.1", ""),
    ("GET /_sekisho/login?to=/{}&t=x HTTP/1.1", ""),
    ("GET /_sekisho/login?to=/{}&t=TOKEN&guid=ON HTTP/1.1", ""),
    ("GET /_sekisho/login?to=/&t={}&guid=ON HTTP/1.1", ""),
    ("GET / HTTP/1.1\r\nAccept-Language: {}", ""),
    ("GET / HTTP/1.1\r\nAccept-Charset: {}\r\nReferer: {}\r\nCookie: sekisho={}", ""),
    ("GET / HTTP/1.1\r\nX-Request-Id: {}\r\nTraceparent: {}\r\nX-Forwarded-Host: {}", ""),
    ("GET /_sekisho/login?to=/&t=TOKEN&guid=ON HTTP/1.1\r\nX-JPHONE-UID: {}", ""),
    ("GET http://{}/ HTTP/1.1", ""),
    ("{} / HTTP/1.1", ""),
    ("POST /_sekisho/enrol?guid=ON HTTP/1.1", "code=0000-0000-0000&t=ENROL&to=/{}"),
    ("POST /_sekisho/enrol?guid=ON HTTP/1.1", "code={}&t=ENROL&to=/"),
    ("POST /_sekisho/enrol?guid=ON HTTP/1.1", "code=1&t={}&to=/{}"),
    ("POST /_sekisho/me/remove HTTP/1.1", "binding={}&t={}"),
];

/// The charset that the page declares; what is no page of ours (the codec's own refusals have no body) is nobody's.
fn page(answer: &RawAnswer, case: &str) -> Option<String> {
    if answer.body.is_empty() {
        return None;
    }
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("x-content-type-options: nosniff"), "{case}: {head}");
    let charset = head.split_once("content-type: text/html; charset=").unwrap_or_else(|| panic!("{case}: {head}")).1;
    let encoding = Encoding::for_label(charset.split("\r\n").next().unwrap().as_bytes()).unwrap();
    assert!([SHIFT_JIS, UTF_8].contains(&encoding), "{case}");
    let (text, malformed) = encoding.decode_without_bom_handling(&answer.body);
    assert!(!malformed, "{case}: a byte swallows the next");
    assert!(!answer.body.contains(&0x1b), "{case}: a switch of the charset");
    Some(text.into_owned())
}

/// Tags of our templates, with attributes of our templates, in quotes that end; no bracket anywhere else.
fn assert_sound(text: &str, case: &str) {
    static TAG: LazyLock<Regex> = LazyLock::new(|| {
        let attributes = "accesskey|action|autocomplete|class|content|for|format|href|http-equiv|id|inputmode|istyle|lang|\
                          maxlength|method|mode|name|size|type|value|xml:lang|xmlns";
        let names = "a|b|body|br|dd|dl|dt|form|h1|h2|head|html|input|label|li|meta|p|style|title|ul";
        let declaration = "<!DOCTYPE html[^<>]*>";
        Regex::new(&format!(r#"{declaration}|<(?:{names})(?: (?:{attributes})="[^"<>]*")*(?: /)?>|</(?:{names})>"#))
            .unwrap()
    });
    // The style sheet comes before anything that is echoed; CHTML has none.
    let sheet = text.find("<style type=\"text/css\">").zip(text.find("</style>"));
    let (head, body) = sheet.map_or((text, ""), |(start, end)| (&text[..start], &text[end + "</style>".len()..]));
    assert_eq!(sheet.is_none(), text.starts_with("<html>\n<head>"), "{case}: {text}");
    let rest = TAG.replace_all(&format!("{head}{body}"), "").into_owned();
    if let Some(at) = rest.find(['<', '>']) {
        panic!("{case}: {}", rest[at..].chars().take(120).collect::<String>());
    }
}

async fn ask(harness: &Harness, (carrier, user_agent): (Carrier, &str), head: &[u8], body: &[u8]) -> Option<RawAnswer> {
    let handset = harness.handset(carrier, "a");
    let mut request = head.to_vec();
    let has = |name: &str| head.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name.as_bytes()));
    for (name, value) in [
        ("Host", HOST),
        ("User-Agent", user_agent),
        (carrier.header(), handset.identifier.as_deref().unwrap()),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", &body.len().to_string()),
    ] {
        if !has(&format!("\r\n{name}:")) && (!name.starts_with("Content") || !body.is_empty()) {
            request.extend(format!("\r\n{name}: {value}").bytes());
        }
    }
    request.extend(b"\r\n\r\n");
    request.extend(body);
    let mut wire = Wire::connect(handset.source, harness.address()).await;
    wire.try_send(&request).await.then_some(())?;
    Some(wire.answer().await)
}

fn fill(template: &str, value: &[u8], tokens: [&str; 2]) -> Vec<u8> {
    let template = template.replace("TOKEN", tokens[0]).replace("ENROL", tokens[1]);
    template.split("{}").map(str::as_bytes).collect::<Vec<_>>().join(value)
}

/// A fresh token of the sign-in page and one of the enrolment page.
async fn tokens(harness: &Harness, (carrier, user_agent): (Carrier, &str)) -> [String; 2] {
    let mut handset = harness.handset(carrier, "a");
    user_agent.clone_into(&mut handset.user_agent);
    let link = handset.get("/").await.link("/_sekisho/login?");
    let enrol = handset.get(&link).await.hidden("t");
    let link = handset.get("/").await.link("/_sekisho/login?");
    let login = link.split("&t=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    [login, enrol]
}

#[tokio::test]
async fn whatever_is_echoed_stays_text_in_the_charset_of_the_page() {
    let limits = "[limits]\nsign_in = \"100000/1m\"\ncode = \"100000/1m\"\nnetwork = \"1000000/1m\"\n[[upstream]]";
    let harness = Harness::with(|config| config.replacen("[[upstream]]", limits, 1)).await;
    let (mut pages, mut came_back) = (0, 0);
    for browser in BROWSERS {
        for (head, body) in PLACES {
            let alone = MARKUP.iter().map(|markup| markup.to_vec());
            for raw in alone.chain(LEADS.iter().map(|lead| [lead, MARKUP[0]].concat())) {
                let escaped = percent_encode(&raw, NON_ALPHANUMERIC).to_string().into_bytes();
                for value in [&raw, &escaped] {
                    let tokens = if head.contains("TOKEN") || body.contains("ENROL") {
                        tokens(&harness, browser).await
                    } else {
                        Default::default()
                    };
                    let tokens = [&*tokens[0], &*tokens[1]];
                    let case = format!("{browser:?} {head} {body} {}", value.escape_ascii());
                    let (head, body) = (fill(head, value, tokens), fill(body, value, tokens));
                    let Some(answer) = ask(&harness, browser, &head, &body).await else { continue };
                    let Some(text) = page(&answer, &case) else { continue };
                    assert_sound(&text, &case);
                    pages += 1;
                    let echoed =
                        ["alert(1)", "alert%281%29", "alert%25281%2529"].iter().any(|echo| text.contains(echo));
                    came_back += usize::from(echoed);
                }
            }
        }
    }
    // Or nothing was tested.
    assert!(pages > 1600 && came_back > 80, "{pages} pages, {came_back} with it");
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}
