//! `Page` + `Reader` -> octets and their type.
//!
//! One source serves every markup: it is written as XHTML Mobile Profile; what HTML says otherwise stands beside it, and
//! what CHTML lacks is taken out afterwards. Every text is escaped by the template engine while it still is Unicode, and
//! only the whole page is turned into octets. So no lead byte of `Shift_JIS` can swallow a quote that ends an attribute,
//! and a character that `Shift_JIS` lacks becomes a numeric reference.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use encoding_rs::{EUC_JP, SHIFT_JIS};
use http::HeaderValue;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::catalogue::{RefusalTexts, Texts, fill};
use super::notice::{NoticeDocument, NoticeSection};
use super::page::{
    AGAIN_FIELD, BINDING_FIELD, CODE_FIELD, DataAct, FORM_TOKEN_FIELD, LABEL_FIELD, MeBinding, MeDone, News, NewsKind,
    NoticeNews, NoticePage, NoticeRevision, OLD_PIN_FIELD, PIN_FIELD, Page, PinState, REMOVE_FIELD, SURE_FIELD,
    TO_FIELD,
};
use super::reader::{Language, Reader};
use super::style::STYLE;
use crate::carrier::{Charset, Markup};
use crate::clock::Timestamp;
use crate::refusal::Reason;

/// How many handsets and how many sessions the self-service page lists, so that it stays within 5 KiB with a session in
/// every link. The others come up once some of these are removed or ended; the JSON document lists all.
const ROWS: usize = 3;
const SESSION_ROWS: usize = 2;

/// How many handsets the page of names lists: those with a key from 2 to 6.
const NAMED: usize = 5;

/// How much of what has changed in the notice is told beside other news, in octets of UTF-8; of more, the headings.
const TOLD: usize = 2000;

/// A page as it is sent.
pub struct Rendered {
    /// `Content-Type`.
    pub content_type: HeaderValue,
    /// The octets.
    pub body: Bytes,
    /// `Content-Language`.
    pub language: &'static str,
}

/// Renders a page; for a [`Reader`] who asked for JSON, a refusal as `{"error":{"reason","message"}}` and
/// anything else as a small document.
#[must_use]
pub fn render(page: &Page<'_>, reader: Reader) -> Rendered {
    let language = reader.language.tag();
    if reader.json || matches!(page, Page::Document(_)) {
        return Rendered {
            content_type: HeaderValue::from_static("application/json"),
            body: Bytes::from(document(page, reader.language).to_string()),
            language,
        };
    }
    let html = without_controls(Source { t: Texts::of(reader.language), reader, page }.to_string());
    let html = if reader.markup == Markup::Chtml { as_chtml(&html) } else { html };
    let (content_type, body) = match reader.charset {
        Charset::Utf8 => ("text/html; charset=UTF-8", html.into_bytes()),
        Charset::ShiftJis => ("text/html; charset=Shift_JIS", SHIFT_JIS.encode(&html).0.into_owned()),
        Charset::EucJp => ("text/html; charset=EUC-JP", EUC_JP.encode(&html).0.into_owned()),
    };
    Rendered { content_type: HeaderValue::from_static(content_type), body: Bytes::from(body), language }
}

/// Control characters have no business in a page (XML 1.0 §2.2), and U+0080 is a lone octet in `Shift_JIS`.
fn without_controls(html: String) -> String {
    let unwanted = |c: char| c.is_control() && c != '\n';
    if html.contains(unwanted) { html.replace(unwanted, "\u{FFFD}") } else { html }
}

/// Takes out what is said for style sheets and for XML. No text can be hit: in every one of them quotes and angle
/// brackets are numeric references.
fn as_chtml(xhtml: &str) -> String {
    static CLASS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#" class="[a-z]"| /?(>)"#).expect("the pattern is valid"));
    CLASS.replace_all(xhtml, "$1").into_owned()
}

/// A form: its fields are in the template, what its URL says is here.
struct FormTag<'a> {
    method: &'static str,
    action: &'a str,
    /// Of a form by GET, which replaces the query of its URL by its fields (HTML 4.01 §17.13.3).
    query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Template)]
#[template(path = "layout.html")]
struct Source<'a> {
    t: &'static Texts,
    reader: Reader,
    page: &'a Page<'a>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the template engine passes arguments by reference")]
impl Source<'_> {
    fn title(&self) -> &str {
        match self.page {
            Page::SignIn { .. } => &self.t.sign_in.title,
            Page::Enrol { .. } => &self.t.enrol.title,
            Page::Refusal { reason, .. } => &self.said(reason).title,
            Page::Notice(_) => &self.t.notice.title,
            Page::Me(_) => &self.t.me.title,
            Page::Add { .. } | Page::Added { .. } => &self.t.add.title,
            Page::Remove { .. } => &self.t.remove.title,
            Page::Pin { .. } => &self.t.pin.title,
            Page::MePin { .. } => &self.t.me_pin.title,
            Page::News { .. } => &self.t.news.title,
            Page::Data(_) => &self.t.data.title,
            Page::Label { .. } => &self.t.label.title,
            Page::Confirm { act: DataAct::Erase, .. } => &self.t.erase.title,
            Page::Confirm { act: DataAct::Stop, .. } => &self.t.stop.title,
            Page::Acted { act: DataAct::Erase, .. } => &self.t.erase.done,
            Page::Acted { act: DataAct::Stop, .. } => &self.t.stop.done,
            // Never rendered as a page.
            Page::Document(_) => "",
            Page::Logout { .. } => &self.t.logout.title,
            Page::SignedOut => &self.t.signed_out.title,
            Page::Leave { .. } => &self.t.leave.title,
        }
    }

    fn is_html(&self) -> bool {
        self.reader.markup == Markup::Html
    }

    fn is_chtml(&self) -> bool {
        self.reader.markup == Markup::Chtml
    }

    fn form<'a>(&self, url: &'a str) -> FormTag<'a> {
        if self.reader.posts {
            return FormTag { method: "post", action: url, query: Vec::new() };
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        FormTag { method: "get", action: url, query: form_urlencoded::parse(query.as_bytes()).collect() }
    }

    fn said(&self, reason: &Reason) -> &RefusalTexts {
        self.t.refusal_for(*reason)
    }

    fn fill(text: &str, placeholder: &str, value: impl Display) -> String {
        fill(text, placeholder, value)
    }

    /// Whether backups may still hold what was erased: some are named, or the ledger did not tell.
    fn in_backups(certificate: Option<&Map<String, Value>>) -> bool {
        let named = certificate.and_then(|certificate| certificate.get("backups"));
        named.is_some_and(|named| named.as_array().is_none_or(|backups| !backups.is_empty()))
    }

    fn days(&self, days: &u32) -> String {
        self.t.span(Duration::from_secs(u64::from(*days) * 86_400))
    }

    /// A wait as people say it: over a minute, whole minutes, rounded up.
    fn wait(&self, seconds: &u64) -> String {
        let seconds = if *seconds > 60 { seconds.div_ceil(60).saturating_mul(60) } else { *seconds };
        self.t.span(Duration::from_secs(seconds))
    }

    /// To the minute, UTC.
    fn minute(at: &Timestamp) -> String {
        at.rfc3339().chars().take("2026-11-24T14:21".len()).map(|c| if c == 'T' { ' ' } else { c }).collect()
    }

    /// Whether to show a contact as a link; any other scheme, `javascript:` included, stays text.
    fn is_link(contact: &str) -> bool {
        contact.starts_with("https://") || contact.starts_with("http://")
    }

    /// One piece of news, in words.
    fn told(&self, news: &News) -> String {
        let text = match news.kind {
            NewsKind::HandsetBound => &self.t.news.handset_bound,
            NewsKind::WrongPins => &self.t.news.wrong_pins,
            NewsKind::WrongCodes => &self.t.news.wrong_codes,
        };
        fill(&fill(text, "{carrier}", self.t.carrier(&news.carrier)), "{day}", news.day)
    }

    fn sections<'n>(&self, told: &'n NoticeDocument) -> &'n [NoticeSection] {
        told.sections(self.reader.language)
    }

    /// Changes of the notice that are told whole: the first that fit.
    fn whole(changes: &[NoticeSection]) -> &[NoticeSection] {
        changes.split_at_checked(fitting(changes)).map_or(changes, |(whole, _)| whole)
    }

    /// Those of which the page has the heading.
    fn rest(changes: &[NoticeSection]) -> &[NoticeSection] {
        changes.split_at_checked(fitting(changes)).map_or(&[], |(_, rest)| rest)
    }
}

/// How many changes, from the first, are told in [`TOLD`] octets.
fn fitting(changes: &[NoticeSection]) -> usize {
    let mut told = 0_usize;
    let fits = |section: &&NoticeSection| {
        told += section.lines.iter().chain(&section.items).map(String::len).sum::<usize>();
        told <= TOLD
    };
    changes.iter().take_while(fits).count()
}

fn document(page: &Page<'_>, language: Language) -> Value {
    let error = |reason| json!({ "error": { "reason": Reason::as_str(reason), "message": message(reason, language) } });
    match page {
        Page::SignIn { because, .. } => error(because.unwrap_or(Reason::SignInRequired)),
        Page::Enrol { because, .. } => error(because.unwrap_or(Reason::NotBound)),
        Page::Refusal { reason, request_id, .. } => {
            json!({ "error": {
                "reason": reason.as_str(), "message": message(*reason, language), "request_id": request_id,
            } })
        }
        Page::Notice(page) => notice_document(page),
        Page::Me(me) => json!({
            "account": me.account,
            "has_pin": me.pin_set_on.is_some(),
            "pin_set_on": me.pin_set_on.map(|day| day.to_string()),
            "retention_days": me.retention_days,
            "notice_revision": me.told,
            "bindings": me.bindings.iter().map(binding_document).collect::<Vec<_>>(),
            "sessions": me.sessions.iter().map(|s| json!({
                "id": s.id, "carrier": s.carrier, "this": s.this,
                "created_at": s.created_at.rfc3339(), "last_seen_at": s.last_seen_at.rfc3339(),
            })).collect::<Vec<_>>(),
        }),
        Page::Add { asks_pin, because: None, .. } => json!({ "added": false, "asks_pin": asks_pin }),
        Page::Added { code, expires_at, url } => {
            json!({ "code": code, "expires_at": expires_at.rfc3339(), "url": url })
        }
        Page::Remove { binding, .. } => json!({ "removed": false, "binding": binding_document(binding) }),
        Page::Pin { because, .. } => error(because.unwrap_or(Reason::PinRequired)),
        Page::MePin { because: Some(reason), .. }
        | Page::Label { because: Some(reason), .. }
        | Page::Add { because: Some(reason), .. } => error(*reason),
        Page::MePin { state, .. } => json!({
            "has_pin": *state != PinState::None,
            "pin_set_on": if let PinState::Set(day) = state { Some(day.to_string()) } else { None },
        }),
        Page::News { news, notice, .. } => json!({
            "news": news.iter().map(news_document).collect::<Vec<_>>(),
            "notice": notice.map(changed_notice),
        }),
        Page::Data(data) => json!({
            "handsets": data.handsets.iter().map(binding_document).collect::<Vec<_>>(), "held": data.held,
        }),
        Page::Label { binding, because: None, .. } => json!({ "binding": binding_document(binding) }),
        Page::Confirm { act: DataAct::Erase, .. } => json!({ "erased": false }),
        Page::Confirm { act: DataAct::Stop, .. } => json!({ "stopped": false }),
        Page::Acted { act: DataAct::Erase, certificate, .. } => json!({ "erased": true, "certificate": certificate }),
        Page::Acted { act: DataAct::Stop, .. } => json!({ "stopped": true }),
        Page::Document(document) => (*document).clone(),
        Page::Logout { .. } => json!({ "signed_out": false }),
        Page::SignedOut => json!({ "signed_out": true }),
        Page::Leave { url, host } => json!({ "url": url, "host": host }),
    }
}

fn notice_document(page: &NoticePage<'_>) -> Value {
    let earlier =
        |one: &NoticeRevision| json!({ "id": one.id, "revision": one.revision, "from": one.from.to_string() });
    let former = page.former.map(|(from, until)| json!({ "from": from.to_string(), "until": until.to_string() }));
    json!({
        "notice": page.told.facts,
        "former": former,
        "earlier": page.earlier.iter().map(earlier).collect::<Vec<_>>(),
    })
}

fn news_document(news: &News) -> Value {
    json!({
        "kind": match news.kind {
            NewsKind::HandsetBound => "handset-bound",
            NewsKind::WrongPins => "wrong-pins",
            NewsKind::WrongCodes => "wrong-codes",
        },
        "carrier": Some(&news.carrier).filter(|carrier| !carrier.is_empty()),
        "day": news.day.to_string(),
    })
}

fn changed_notice(notice: &NoticeNews) -> Value {
    json!({ "revision": notice.revision, "from": notice.from.to_string(), "changes": notice.changes })
}

fn binding_document(binding: &MeBinding) -> Value {
    json!({
        "id": binding.id, "carrier": binding.carrier, "this": binding.this,
        "bound_on": binding.bound_on.to_string(), "last_used_on": binding.last_used_on.to_string(),
        "label": binding.label, "notice_revision": binding.told,
    })
}

fn message(reason: Reason, language: Language) -> String {
    let texts = Texts::of(language).refusal_for(reason);
    match language {
        Language::Japanese => format!("{}{}", texts.happened, texts.action),
        Language::English => format!("{} {}", texts.happened, texts.action),
    }
}
