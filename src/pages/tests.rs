//! What holds for every page, in every language, charset and markup, by POST and by GET.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use encoding_rs::{EUC_JP, Encoding, SHIFT_JIS, UTF_8};
use proptest::prelude::*;
use regex::Regex;
use serde_json::Value;

use super::*;
use crate::carrier::{Charset, Markup};
use crate::clock::{Day, Timestamp};
use crate::config::{ClientAddressDetail, NoticeConfig};
use crate::refusal::Reason;

#[path = "samples.rs"]
mod samples;

/// What the smallest handsets hold.
const PAGE_BYTES: usize = 5 * 1024;

const LANGUAGES: [Language; 2] = [Language::Japanese, Language::English];
const CHARSETS: [Charset; 3] = [Charset::ShiftJis, Charset::EucJp, Charset::Utf8];
const MARKUPS: [Markup; 3] = [Markup::Chtml, Markup::XhtmlMobile, Markup::Html];

/// A browser that posts.
fn reader(language: Language, charset: Charset, markup: Markup) -> Reader {
    Reader { language, charset, markup, posts: true, json: false }
}

/// Every browser in this language.
fn readers_of(language: Language) -> impl Iterator<Item = Reader> {
    let browsers = CHARSETS.into_iter().flat_map(|charset| MARKUPS.map(|markup| (charset, markup)));
    browsers.flat_map(move |(charset, markup)| {
        [true, false].map(|posts| Reader { posts, ..reader(language, charset, markup) })
    })
}

fn readers() -> impl Iterator<Item = Reader> {
    LANGUAGES.into_iter().flat_map(readers_of)
}

fn encoding(charset: Charset) -> &'static Encoding {
    match charset {
        Charset::ShiftJis => SHIFT_JIS,
        Charset::EucJp => EUC_JP,
        Charset::Utf8 => UTF_8,
    }
}

/// The page as a browser reads it.
fn html(page: &Page<'_>, language: Language, charset: Charset) -> String {
    shown(page, reader(language, charset, Markup::XhtmlMobile))
}

fn shown(page: &Page<'_>, reader: Reader) -> String {
    let rendered = render(page, reader);
    let (text, malformed) = encoding(reader.charset).decode_without_bom_handling(&rendered.body);
    assert!(!malformed);
    text.into_owned()
}

fn json(page: &Page<'_>, language: Language) -> Value {
    let rendered = render(page, Reader { json: true, ..reader(language, Charset::ShiftJis, Markup::Chtml) });
    assert_eq!(rendered.content_type, "application/json");
    serde_json::from_slice(&rendered.body).unwrap()
}

/// Every sample page for every browser.
fn for_each(check: impl Fn(&str, Reader, &str)) {
    samples::each_page(&mut |name, page| {
        for reader in readers() {
            check(&format!("{name} {reader:?}"), reader, &shown(page, reader));
        }
    });
}

/// The values of every occurrence of an attribute.
fn attribute(html: &str, name: &str) -> Vec<String> {
    static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#" ([a-z:-]+)="([^"]*)""#).unwrap());
    ATTRIBUTE.captures_iter(html).filter(|found| &found[1] == name).map(|found| unescape(&found[2])).collect()
}

fn unescape(text: &str) -> String {
    static REFERENCE: LazyLock<Regex> = LazyLock::new(|| Regex::new("&#([0-9]+);").unwrap());
    REFERENCE
        .replace_all(text, |found: &regex::Captures<'_>| char::from_u32(found[1].parse().unwrap()).unwrap().to_string())
        .into_owned()
}

/// The names of the elements, in order; panics where they do not nest as XML asks for, or HTML 3.2 does.
fn elements(name: &str, html: &str) -> Vec<String> {
    const EMPTY: [&str; 3] = ["br", "input", "meta"];
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"<(/?)([a-z0-9]+)((?: [a-z:-]+="[^"<]*")*)( ?/)?>"#).unwrap());
    let html = &html[html.find("<html").unwrap()..];
    let html = html.replace(style::STYLE, "");
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for found in TAG.captures_iter(&html) {
        let element = found[2].to_owned();
        if !found[1].is_empty() {
            assert_eq!(open.pop().as_ref(), Some(&element), "{name}");
            continue;
        }
        all.push(element.clone());
        if found.get(4).is_none() && !EMPTY.contains(&element.as_str()) {
            open.push(element);
        }
    }
    assert!(open.is_empty(), "{name}: {open:?}");
    assert!(!TAG.replace_all(&html, "").contains(['<', '>']), "{name}: markup outside of tags");
    all
}

#[test]
fn every_page_fits_the_smallest_handset() {
    samples::each_page(&mut |name, page| {
        for reader in readers() {
            let bytes = render(page, reader).body.len();
            assert!(bytes <= PAGE_BYTES, "{name} {reader:?}: {bytes} bytes");
        }
    });
}

#[test]
fn the_markup_is_what_old_and_new_browsers_share() {
    const KNOWN: [&str; 20] = [
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "br", "b", "a", "ul", "li", "dl", "dt",
        "dd", "form", "input", "label",
    ];
    for_each(|name, _, html| {
        for element in elements(name, html) {
            assert!(KNOWN.contains(&element.as_str()), "{name}: {element}");
        }
        for absent in ["script", "javascript:", " src=", " style=", " onclick", " target="] {
            assert!(!html.contains(absent), "{name}: {absent}");
        }
    });
}

#[test]
fn each_markup_says_what_it_is_and_holds_nothing_of_another() {
    for_each(|name, reader, html| {
        let (begins, absent): (_, &[&str]) = match reader.markup {
            Markup::Chtml => {
                ("<html>\n", &["<!", "xmlns", " lang=", "<style", "class=", "<label", "viewport", "/>", "-->"])
            }
            Markup::XhtmlMobile => (
                "<!DOCTYPE html PUBLIC \"-//WAPFORUM//DTD XHTML Mobile 1.0//EN\"",
                &["viewport", "autocomplete", "<br>"],
            ),
            Markup::Html => ("<!DOCTYPE html>\n<html lang=", &["xmlns", "istyle", "format=", " mode="]),
        };
        assert!(html.starts_with(begins), "{name}: {html}");
        for part in absent {
            assert!(!html.contains(part), "{name}: {part}");
        }
        if reader.markup == Markup::XhtmlMobile {
            for void in ["br", "input", "meta"] {
                let tag = format!("<{void}");
                let mut tags = html.split(&tag).skip(1);
                assert!(tags.all(|tag| tag.split('>').next().unwrap().ends_with(" /")), "{name}: {void}");
            }
        }
    });
}

#[test]
fn a_browser_that_cannot_post_gets_the_same_forms_by_get() {
    samples::each_page(&mut |name, page| {
        for markup in MARKUPS {
            let posting = reader(Language::English, Charset::Utf8, markup);
            let posted = shown(page, posting);
            let got = shown(page, Reader { posts: false, ..posting });
            let forms = posted.matches("<form ").count();
            assert_eq!(posted.matches("<form method=\"post\"").count(), forms, "{name}");
            assert_eq!(got.matches("<form method=\"get\"").count(), forms, "{name}");
            // The query of a form's URL is replaced by its fields.
            assert_eq!(attribute(&posted, "action"), attribute(&got, "action"), "{name}");
            let queries = attribute(&posted, "action").iter().filter(|action| action.ends_with("?guid=ON")).count();
            assert_eq!(got.matches("name=\"guid\" value=\"ON\"").count(), queries, "{name}");
        }
    });
}

#[test]
fn nothing_is_linked_but_our_own_paths_and_the_contact() {
    for_each(|name, _, html| {
        for url in attribute(html, "href").iter().chain(&attribute(html, "action")) {
            // The one page that is there for it leads to another site.
            let leaves = name.starts_with("leave") && url.starts_with("https://www.example.com/");
            assert!(url.starts_with('/') || url == "https://example.jp/contact" || leaves, "{name}: {url}");
        }
    });
}

#[test]
fn every_action_has_a_key_of_its_own_and_shows_it() {
    for_each(|name, _, html| {
        let mut keys = attribute(html, "accesskey");
        let actions = ["<a ", "type=\"submit\""].map(|action| html.matches(action).count());
        assert_eq!(keys.len(), actions.iter().sum::<usize>(), "{name}: an action without a key");
        assert!(keys.iter().all(|key| html.matches(&format!("[{key}] ")).count() == 1), "{name}: {keys:?}");
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{name}: {keys:?}");
        assert!(count > 0 || name.contains("host-not-allowed"), "{name} leads nowhere");
    });
}

#[test]
fn the_page_names_the_charset_and_language_that_it_is_sent_in() {
    samples::each_page(&mut |name, page| {
        for language in LANGUAGES {
            for reader in readers_of(language) {
                let rendered = render(page, reader);
                let content_type = rendered.content_type.to_str().unwrap();
                assert_eq!(content_type, format!("text/html; charset={}", reader.charset.as_str()));
                assert_eq!(rendered.language, language.tag());
                let html = shown(page, reader);
                assert!(attribute(&html, "content").iter().any(|value| value == content_type), "{name}");
                match reader.markup {
                    Markup::Chtml => assert!(attribute(&html, "lang").is_empty()),
                    Markup::XhtmlMobile => assert_eq!(attribute(&html, "xml:lang"), [language.tag()]),
                    Markup::Html => assert_eq!(attribute(&html, "lang"), [language.tag()]),
                }
            }
            let as_utf8 = html(page, language, Charset::ShiftJis).replace("Shift_JIS", "UTF-8");
            assert_eq!(
                as_utf8,
                html(page, language, Charset::Utf8),
                "{name}: the charset changed more than the octets"
            );
        }
    });
}

#[test]
fn the_policy_allows_the_style_sheet_of_every_page_and_no_other() {
    let policy = content_security_policy(&[]);
    for_each(|name, reader, html| {
        if reader.markup == Markup::Chtml {
            return;
        }
        let sheet = html.split_once("<style type=\"text/css\">").unwrap().1.split_once("</style>").unwrap().0;
        let hash = ring::digest::digest(&ring::digest::SHA256, sheet.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        let source = format!("style-src 'sha256-{hash}';");
        assert!(policy.to_str().unwrap().contains(&source), "{name}");
        assert_eq!(html.matches("<style").count(), 1, "{name}");
    });
}

#[test]
fn every_reason_says_what_happened_and_what_to_do_in_both_languages() {
    for reason in Reason::ALL {
        for language in LANGUAGES {
            let page = Page::Refusal { reason: *reason, carrier: None, retry_after_seconds: None, request_id: "r-17" };
            let html = unescape(&html(&page, language, Charset::ShiftJis));
            let texts = catalogue::Texts::of(language).refusal_for(*reason);
            for text in [&texts.title, &texts.happened, &texts.action] {
                assert!(html.contains(text.as_str()), "{reason:?} {language:?}: {text}");
            }
            assert!(html.contains("r-17"));
            let error = &json(&page, language)["error"];
            assert_eq!(error["reason"], reason.as_str());
            assert!(error["message"].as_str().unwrap().starts_with(&texts.happened));
        }
    }
}

#[test]
fn the_sign_in_page_has_one_button_and_says_why_it_came_back() {
    let notice = NoticeConfig {
        controller: "<KK>".to_owned(),
        contact: "javascript:alert(1)".to_owned(),
        revision: String::new(),
    };
    let login_url = "/_sekisho/login?to=%2F&t=abc&guid=ON";
    let chtml = reader(Language::Japanese, Charset::ShiftJis, Markup::Chtml);
    let page =
        |because| Page::SignIn { login_url, because, carrier: Some("docomo"), retention_days: 400, notice: &notice };
    let first = html(&page(None), Language::Japanese, Charset::ShiftJis);
    assert_eq!(attribute(&first, "href"), [login_url, "/_sekisho/notice"]);
    assert_eq!(attribute(&first, "href"), attribute(&shown(&page(None), chtml), "href"));
    assert!(first.contains("iモードID") && first.contains("400日"));
    assert!(
        first.contains("&#60;KK&#62;") && first.contains("javascript:alert"),
        "a contact that is no URL stays text"
    );
    let expired = html(&page(Some(Reason::SessionExpired)), Language::English, Charset::Utf8);
    assert!(expired.contains(&catalogue::Texts::of(Language::English).refusal_for(Reason::SessionExpired).happened));
    assert_eq!(json(&page(None), Language::English)["error"]["reason"], "sign-in-required");
    assert_eq!(json(&page(Some(Reason::SessionExpired)), Language::English)["error"]["reason"], "session-expired");
}

#[test]
fn the_code_field_opens_in_digits() {
    let page = Page::Enrol { action: "/_sekisho/enrol?guid=ON", form_token: "tok", to: "/a?b=\"c", because: None };
    let handset: &[&str] = &[" istyle=\"4\"", " format=\"*N\"", " mode=\"numeric\"", " inputmode=\"numeric\""];
    let smartphone: &[&str] = &[" inputmode=\"numeric\"", " autocomplete=\"one-time-code\""];
    for (markup, digits) in [(Markup::Chtml, handset), (Markup::XhtmlMobile, handset), (Markup::Html, smartphone)] {
        let html = shown(&page, reader(Language::Japanese, Charset::ShiftJis, markup));
        let field = html.split("<input").find(|field| field.contains("name=\"code\"")).unwrap();
        let field = field.split('>').next().unwrap();
        for attribute in digits.iter().chain(&[" size=\"14\"", " maxlength=\"14\""]) {
            assert!(field.contains(attribute), "{markup:?}: {attribute} in {field}");
        }
        assert_eq!(
            attribute(&html, "name").into_iter().filter(|n| n != "viewport").collect::<Vec<_>>(),
            ["code", "t", "to"]
        );
        assert_eq!(attribute(&html, "value")[..2], ["tok", "/a?b=\"c"]);
    }
    assert_eq!(json(&page, Language::Japanese)["error"]["reason"], "not-bound");
}

#[test]
fn advice_comes_with_a_missing_identifier_and_a_wait_with_a_rate_limit() {
    let page = |reason, carrier, wait| Page::Refusal { reason, carrier, retry_after_seconds: wait, request_id: "r" };
    let say = |page: &Page<'_>| html(page, Language::English, Charset::Utf8);
    let missing = say(&page(Reason::MissingIdentifier, Some("au"), None));
    assert!(missing.contains("EZ番号通知") && !missing.contains("iモードID通知"));
    assert!(say(&page(Reason::MissingIdentifier, None, None)).contains("iモードID通知"));
    assert!(!say(&page(Reason::UntrustedNetwork, None, None)).contains("iモードID通知"));
    for (seconds, words) in [(1, "1 second."), (60, "1 minute."), (61, "2 minutes."), (7200, "2 hours.")] {
        assert!(say(&page(Reason::RateLimited, None, Some(seconds))).contains(words), "{words}");
    }
    assert!(!say(&page(Reason::RateLimited, None, Some(u64::MAX))).is_empty());
}

#[test]
fn a_long_self_service_page_says_what_it_leaves_out_and_the_document_leaves_out_nothing() {
    samples::each_page(&mut |name, page| {
        if name == "me-full" {
            let html = html(page, Language::English, Charset::Utf8);
            assert_eq!(html.matches("action=\"/_sekisho/me/remove\"").count(), 3);
            assert_eq!((html.matches("And 6 more").count(), html.matches("And 7 more").count()), (1, 1));
            let document = json(page, Language::English);
            assert_eq!(document["bindings"].as_array().unwrap().len(), 9);
            assert_eq!(document["sessions"][0]["created_at"], "2026-11-24T14:21:57.042Z");
        }
    });
}

#[test]
fn the_notice_document_holds_the_facts() {
    samples::each_page(&mut |name, page| {
        if name == "notice" {
            let document = &json(page, Language::English)["notice"];
            assert_eq!(document["controller"], "Example KK");
            assert_eq!(document["reads"][0]["header"], "X-DCMGUID");
            assert_eq!(document["session_idle_seconds"], 1800);
        }
    });
}

/// Any text, and often the characters that end things, or whose second octet in `Shift_JIS` is one of those.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(
            prop::sample::select(vec![
                "\"", "'", "<", ">", "&", "\\", "{to}", "{days}", "-->", "</p>", "</style>", "表", "ソ", "予", "ｱ",
                "~", "¥", "‾", "\u{80}", "\u{A0}", "\u{FFFD}", "\u{0}", "\u{1b}$B", "\u{E63E}", "😀", "é", "〜", "%22",
                "&#34;",
            ]),
            0..24
        )
        .prop_map(|parts| parts.concat()),
    ]
}

/// Every kind of page with `text` wherever a page shows or gives back a text of someone else's.
fn pages_that_hold(text: &str, reader: Reader) -> Vec<String> {
    let notice =
        NoticeConfig { controller: text.to_owned(), contact: format!("https://{text}"), revision: text.to_owned() };
    let told = NoticeDocument::of(NoticeFacts {
        controller: text.to_owned(),
        contact: format!("https://{text}"),
        revision: text.to_owned(),
        reads: vec![ReadField { carrier: text.to_owned(), header: text.to_owned() }],
        retention_days: 1,
        session_idle_seconds: 0,
        session_absolute_seconds: 0,
        client_address: ClientAddressDetail::Full,
    });
    let day = Day::from_unix_days(1);
    let bindings = [MeBinding {
        id: text.to_owned(),
        carrier: text.to_owned(),
        bound_on: day,
        last_used_on: day,
        label: Some(text.to_owned()),
        told: Some(text.to_owned()),
        this: false,
    }];
    let earlier = [NoticeRevision { id: 1, revision: text.to_owned(), from: day }];
    let section =
        NoticeSection { heading: text.to_owned(), lines: vec![text.to_owned(); 2], items: vec![text.to_owned()] };
    let notice_news = NoticeNews { revision: text.to_owned(), from: day, changes: vec![section] };
    let at = Timestamp::from_unix_millis(0);
    let sessions =
        [MeSession { id: text.to_owned(), carrier: text.to_owned(), created_at: at, last_seen_at: at, this: false }];
    let news = [News { kind: NewsKind::HandsetBound, carrier: text.to_owned(), day }];
    [
        Page::SignIn { login_url: text, because: None, carrier: Some(text), retention_days: 1, notice: &notice },
        Page::Enrol { action: text, form_token: text, to: text, because: None },
        Page::Refusal { reason: Reason::NoRoute, carrier: Some(text), retry_after_seconds: None, request_id: text },
        Page::Notice(NoticePage { told: &told, former: Some((day, day)), earlier: &earlier }),
        Page::Me(Me {
            account: text,
            bindings: &bindings,
            sessions: &sessions,
            form_token: text,
            retention_days: 1,
            pin_set_on: None,
            told: Some(text),
            done: None,
        }),
        Page::Add { action: text, form_token: text, asks_pin: true, because: None, code_url: text },
        Page::Added { code: text, expires_at: at, url: text },
        Page::Remove { action: text, form_token: text, binding: &bindings[0] },
        Page::Pin { action: text, form_token: text, to: text, because: None, code_url: text, set: true },
        Page::MePin { action: text, form_token: text, state: PinState::Forgotten, because: None, code_url: text },
        Page::News { news: &news, notice: Some(&notice_news), to: text },
        Page::Logout { form_token: text },
    ]
    .map(|page| shown(&page, reader))
    .into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_of_a_stranger_becomes_markup(text in hostile()) {
        for reader in readers_of(Language::Japanese).filter(|reader| reader.posts) {
            for (theirs, harmless) in pages_that_hold(&text, reader).iter().zip(pages_that_hold("x", reader)) {
                prop_assert_eq!(elements("theirs", theirs), elements("harmless", &harmless));
            }
        }
        // A form's URL is ours, but for its query, which becomes fields.
        let by_get = Reader { posts: false, ..reader(Language::Japanese, Charset::ShiftJis, Markup::Chtml) };
        for page in pages_that_hold(&text, by_get) {
            elements("by GET", &page);
        }
    }

    #[test]
    fn a_form_gives_back_what_it_was_given(to in hostile()) {
        let page = Page::Enrol { action: "/", form_token: "tok", to: &to, because: None };
        let readable: String =
            to.chars().map(|c| if c.is_control() && c != '\n' { '\u{FFFD}' } else { c }).collect();
        let given_back = |charset| attribute(&html(&page, Language::English, charset), "value").swap_remove(1);
        let by_chtml = shown(&page, reader(Language::English, Charset::Utf8, Markup::Chtml));
        prop_assert_eq!(&attribute(&by_chtml, "value")[1], &readable);
        prop_assert_eq!(given_back(Charset::Utf8), readable.clone());
        // The two characters that the encoding folds into ASCII (WHATWG Encoding §12.3.2), into harmless ones.
        let folded = readable.replace('¥', "\\").replace('‾', "~").replace('−', "－");
        prop_assert_eq!(given_back(Charset::ShiftJis), folded);
    }
}
