//! Which elements hold links, and what each gets: decided tag by tag while the page passes.

use encoding_rs::Encoding;
use percent_encoding::percent_decode_str;
use url::Url;

use super::change::{Change, Written};
use super::discreet::{REFERRERS, is_silent};
use super::forms::{Begun, Form, Forms};
use super::plan::{LinkPlan, Way};
use super::query::TOKEN_KEY;
use super::refresh;
use super::text::{Reading, pieces};

/// An attribute of a start tag: its name in lower case, and where its value stands in the tag; `None` without one.
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) value: Option<(usize, usize)>,
}

/// A start tag as its author wrote it.
pub(super) struct Tag<'a> {
    /// Element name in lower case; `/form` for the end of a form.
    pub(super) name: &'a str,
    /// The byte of the page before the tag.
    pub(super) before: Option<u8>,
    /// The whole tag, from `<` to `>`.
    pub(super) raw: &'a [u8],
    /// Where the name ends in it.
    pub(super) name_end: usize,
    pub(super) attributes: &'a [Attribute],
}

/// Start tags that [`Page::tag`] wants to see, as selectors of the masked page. Of elements that are many and seldom
/// hold a link those with the attribute.
pub(super) const TAGS: [&str; 24] = [
    "a",
    "area[href]",
    "base[href]",
    "bgsound[src]",
    "body[background]",
    "button",
    "card",
    "embed[src]",
    "frame[src]",
    "go[href]",
    "img",
    "input",
    "isindex[action]",
    // And forms, of which these are the ends.
    "link",
    "param",
    "meta",
    "object[data]",
    "option[onpick]",
    "script[src]",
    "xcript[src]",
    "table[background]",
    "td[background]",
    "template",
    "xframe[src]",
];

/// What is known of the page so far.
pub(super) struct Page {
    plan: LinkPlan,
    base: Base,
    /// Whether a relative link got the token: from then on no base may move it to another site.
    relative: bool,
    reading: Reading,
    /// Whether it is read as XML: a void element ends in `/>`.
    xml: bool,
    forms: Forms,
}

/// Where relative links start from.
enum Base {
    /// The page; `None` where its URL is none, so that nothing relative is ours.
    Page(Option<Url>),
    /// A base element of ours.
    Ours(Url),
    /// One that leads to another site.
    Elsewhere(Url),
}

impl Base {
    const fn url(&self) -> Option<&Url> {
        match self {
            Self::Page(page) => page.as_ref(),
            Self::Ours(base) | Self::Elsewhere(base) => Some(base),
        }
    }
}

/// What a link of another site becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Off {
    /// A link to the leave page.
    Leave,
    /// Itself: a picture cannot pass a page.
    Stays,
}

impl Page {
    /// `said` is the charset by field or byte order mark.
    pub(super) fn new(plan: LinkPlan, said: Option<&'static Encoding>, xml: bool) -> Self {
        Self {
            base: Base::Page(plan.page_url()),
            plan,
            relative: false,
            reading: said.map_or(Reading::Unsaid, Reading::As),
            xml,
            forms: Forms::new(),
        }
    }

    /// From here on the page is read by `encoding`, and no meta element changes that.
    pub(super) fn settle(&mut self, encoding: &'static Encoding) {
        self.reading = Reading::As(encoding);
    }

    /// Whether it is read as XML.
    pub(super) const fn is_xml(&self) -> bool {
        self.xml
    }

    /// The same page, its characters in UTF-8.
    pub(super) fn in_utf_8(mut self) -> Self {
        self.settle(encoding_rs::UTF_8);
        self
    }

    /// The changes to a start tag, in the order of their places, from its first byte.
    pub(super) fn tag(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        let mut changes = match tag.name {
            "a" => {
                // In SVG (SVG 1.1 §17.1).
                let mut changes = self.link(tag, "href", Off::Leave);
                changes.extend(self.link(tag, "xlink:href", Off::Leave));
                changes
            }
            "area" | "go" => self.link(tag, "href", Off::Leave),
            // What is followed without a click, or by a choice (WML 1.3 §9.5, §11.5).
            "card" | "template" | "option" if self.xml => {
                let names = ["ontimer", "onenterforward", "onenterbackward", "onpick"];
                names.iter().flat_map(|name| self.link(tag, name, Off::Leave)).collect()
            }
            "frame" | "iframe" => self.link(tag, "src", Off::Leave),
            "img" | "embed" | "bgsound" | "script" => self.link(tag, "src", Off::Stays),
            "object" => self.link(tag, "data", Off::Stays),
            "body" | "table" | "td" => self.link(tag, "background", Off::Stays),
            "link" if has_word(tag, "rel", "stylesheet") => self.link(tag, "href", Off::Stays),
            "button" => self.button(tag),
            // What is typed replaces the whole query (HTML 4.01 §17.8): a token has no place.
            "isindex" => self.off_site(tag, "action"),
            "input" => self.input(tag),
            "form" => self.form(tag),
            "/form" => {
                self.forms.end();
                Vec::new()
            }
            "meta" => self.meta(tag),
            "base" => self.base(tag),
            _ => Vec::new(),
        };
        changes.extend(discretion(tag));
        changes.sort_by_key(|change| change.at);
        changes
    }

    /// The link in an attribute.
    fn link(&mut self, tag: &Tag<'_>, name: &str, off: Off) -> Vec<Change> {
        let Some((start, end)) = value_of(tag, name) else { return Vec::new() };
        let raw = tag.raw.get(start..end).unwrap_or_default();
        let Some(pieces) = pieces(raw, self.reading, true) else { return Vec::new() };
        let written = Written { raw, pieces: &pieces, end: raw.len(), reading: self.reading, ampersand: "&amp;" };
        moved(self.url(&written, off), start)
    }

    /// The same of a link that takes no token: only one of another site changes.
    fn off_site(&self, tag: &Tag<'_>, name: &str) -> Vec<Change> {
        let Some((start, end)) = value_of(tag, name) else { return Vec::new() };
        let raw = tag.raw.get(start..end).unwrap_or_default();
        let Some(pieces) = pieces(raw, self.reading, true) else { return Vec::new() };
        let written = Written { raw, pieces: &pieces, end: raw.len(), reading: self.reading, ampersand: "&amp;" };
        match written.way(&self.plan, self.base.url()) {
            Way::Off(target) => moved(written.replaced(escaped(&self.leave(&target))), start),
            Way::Ours | Way::Neither => Vec::new(),
        }
    }

    /// A button, and where it sends its form. A form that has the token in a field sends it there too, so that it may
    /// go nowhere that a token may not.
    fn button(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        let named = attribute(tag, "form", self.reading);
        let mut changes = self.field_for_get(tag, named.as_deref());
        let form = self.forms.of(named.as_deref());
        let action = value_of(tag, "formaction").filter(|_| form.may_have_field());
        match action {
            Some((start, end)) if self.leads_nowhere(tag.raw.get(start..end).unwrap_or_default()) => {
                let put = if is_quoted(tag, start) { "" } else { "\"\"" };
                changes.push(Change { at: start, gone: end - start, put: put.to_owned() });
            }
            _ if form == Form::Field => changes.extend(self.off_site(tag, "formaction")),
            _ => changes.extend(self.link(tag, "formaction", Off::Leave)),
        }
        changes
    }

    /// Of a form that posts, a button that gets drops the query and with it the token: the form gets it in a field,
    /// before that button.
    fn field_for_get(&mut self, tag: &Tag<'_>, named: Option<&str>) -> Vec<Change> {
        // A `<` that stands for itself must not meet what is put before the tag.
        let stands = tag.before == Some(b'<') || self.plan.asks() || !is(tag, "formmethod", "get");
        if stands || !self.forms.takes_field_for_get(named) {
            return Vec::new();
        }
        vec![Change { at: 0, gone: 0, put: self.fields(named) }]
    }

    /// Hidden fields with the token and the carrier's query, of the form around them or of the one of that id.
    fn fields(&self, form: Option<&str>) -> String {
        self.plan.fields().map(|(key, value)| self.hidden(key, value, form)).collect()
    }

    /// Whether a link is neither ours to every browser nor another site's.
    fn leads_nowhere(&self, raw: &[u8]) -> bool {
        let Some(pieces) = pieces(raw, self.reading, true) else { return true };
        let written = Written { raw, pieces: &pieces, end: raw.len(), reading: self.reading, ampersand: "&amp;" };
        let neither = || written.way(&self.plan, self.base.url()) == Way::Neither;
        !raw.trim_ascii().is_empty() && neither() && !self.is_leave_page(&written)
    }

    fn is_leave_page(&self, written: &Written<'_>) -> bool {
        written.resolved(self.base.url()).is_some_and(|url| self.plan.is_leave_page(&url))
    }

    fn url(&mut self, written: &Written<'_>, off: Off) -> Vec<Change> {
        match written.way(&self.plan, self.base.url()) {
            Way::Ours => {
                // An absolute link resolves without a base; any other depends on what comes.
                self.relative |= !written.is_absolute();
                written.with_token(&self.plan)
            }
            Way::Off(target) if off == Off::Leave => written.replaced(escaped(&self.leave(&target))),
            Way::Off(_) | Way::Neither => Vec::new(),
        }
    }

    /// The leave page for `target`, in full where the page has a base.
    fn leave(&self, target: &Url) -> String {
        self.plan.leave(target, !matches!(self.base, Base::Page(_)))
    }

    fn input(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        // Ours stand at the start of the form; another, of the author's or of an earlier pass, would double them.
        let name = attribute(tag, "name", self.reading).unwrap_or_default();
        // Whatever its case: a query with both would hold two.
        let ours = |(key, _): (&str, &str)| name.eq_ignore_ascii_case(key);
        if name.eq_ignore_ascii_case(TOKEN_KEY)
            || (self.forms.of(None) == Form::Field && is(tag, "type", "hidden") && self.plan.fields().any(ours))
        {
            // A `<` that stands for itself must not meet what follows the tag.
            let put = if tag.before == Some(b'<') { " " } else { "" };
            return vec![Change { at: 0, gone: tag.raw.len(), put: put.to_owned() }];
        }
        let mut changes = self.button(tag);
        if is(tag, "type", "image") {
            changes.extend(self.link(tag, "src", Off::Stays));
        }
        changes
    }

    /// A form that posts has the token in its action. Of one that gets, browsers drop the action's query, so that the
    /// token is a field (HTML §4.10.21.3, mutate action URL).
    fn form(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        let (mut changes, form) = self.action_of(tag);
        let id = attribute(tag, "id", self.reading);
        let put = match self.forms.begin(form, id.as_deref()) {
            Begun::WithFields => self.fields(None),
            Begun::AsItIs => return changes,
        };
        changes.push(Change { at: tag.raw.len(), gone: 0, put });
        changes
    }

    /// What is changed in a form's tag, and where the form has the token then. Its fields are not among the changes.
    fn action_of(&mut self, tag: &Tag<'_>) -> (Vec<Change>, Form) {
        if is(tag, "method", "dialog") {
            return (Vec::new(), Form::Stray);
        }
        // The field comes first in its body, where it is looked for; not in one of another type.
        let fields = self.plan.has_fields_alone()
            && !["multipart/form-data", "text/plain"].iter().any(|t| is(tag, "enctype", t));
        let posts = is(tag, "method", "post") && !fields;
        let ours = if posts { Form::Url } else { Form::Field };
        let action = value_of(tag, "action")
            .filter(|(start, end)| tag.raw.get(*start..*end).is_some_and(|raw| !raw.trim_ascii().is_empty()));
        let Some((start, end)) = action else {
            // The page's own URL, to some browsers the base's: for a form that posts it is written out, with the token.
            if matches!(self.base, Base::Elsewhere(_)) {
                return (Vec::new(), Form::Stray);
            }
            self.relative = true;
            if !posts {
                return (Vec::new(), ours);
            }
            let own = escaped(&self.plan.local(self.plan.page()));
            let changes = match value_of(tag, "action") {
                Some((start, end)) if is_quoted(tag, start) => vec![Change { at: start, gone: end - start, put: own }],
                Some(_) => Vec::new(),
                None if tag.attributes.iter().any(|a| a.name == "action") => Vec::new(),
                None => vec![Change { at: tag.name_end, gone: 0, put: format!(" action=\"{own}\"") }],
            };
            return (changes, ours);
        };
        let raw = tag.raw.get(start..end).unwrap_or_default();
        let Some(pieces) = pieces(raw, self.reading, true) else { return (Vec::new(), Form::Stray) };
        let written = Written { raw, pieces: &pieces, end: raw.len(), reading: self.reading, ampersand: "&amp;" };
        match written.way(&self.plan, self.base.url()) {
            Way::Ours => {
                self.relative |= !written.is_absolute();
                let changes = if posts { moved(written.with_token(&self.plan), start) } else { Vec::new() };
                (changes, ours)
            }
            Way::Off(target) if posts => {
                (moved(written.replaced(escaped(&self.leave(&target))), start), Form::Elsewhere)
            }
            Way::Off(target) => {
                let leave = self.leave(&target);
                let (path, query) = leave.split_once('?').unwrap_or((&leave, ""));
                let mut changes = moved(written.replaced(path.to_owned()), start);
                let fields: Vec<(String, String)> = query
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(key, value)| (key.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()))
                    .collect();
                let fields: String = fields.iter().map(|(key, value)| self.hidden(key, value, None)).collect();
                changes.push(Change { at: tag.raw.len(), gone: 0, put: fields });
                (changes, Form::Elsewhere)
            }
            Way::Neither if self.is_leave_page(&written) => (Vec::new(), Form::Elsewhere),
            Way::Neither => (Vec::new(), Form::Stray),
        }
    }

    /// A hidden field, of the form around it or of the one of that id.
    fn hidden(&self, name: &str, value: &str, form: Option<&str>) -> String {
        let form = form.map_or_else(String::new, |id| format!(" form=\"{}\"", escaped(id)));
        let end = if self.xml { " />" } else { ">" };
        format!("<input type=\"hidden\" name=\"{}\" value=\"{}\"{form}{end}", escaped(name), escaped(value))
    }

    fn meta(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        if is(tag, "name", "referrer") {
            return silenced(tag, "content");
        }
        let content = value_of(tag, "content");
        let bytes = content.and_then(|(start, end)| tag.raw.get(start..end)).unwrap_or_default();
        if matches!(self.reading, Reading::Unsaid) {
            let label = value_of(tag, "charset").and_then(|(start, end)| tag.raw.get(start..end));
            let label = label.or_else(|| is(tag, "http-equiv", "content-type").then(|| charset_in(bytes)).flatten());
            if let Some(encoding) = label.and_then(Encoding::for_label) {
                // A page that could be read this far is in none of the wide encodings (HTML §13.2.3.3).
                let wide = encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE;
                self.settle(if wide { encoding_rs::UTF_8 } else { encoding });
            }
        }
        let Some((start, _)) = content.filter(|_| is(tag, "http-equiv", "refresh")) else { return Vec::new() };
        let Some(all) = pieces(bytes, self.reading, true) else { return Vec::new() };
        let Some(range) = refresh::url_of(&all) else { return Vec::new() };
        let end = all.get(range.end).map_or(bytes.len(), |piece| piece.start);
        let url = all.get(range).unwrap_or_default();
        let written = Written { raw: bytes, pieces: url, end, reading: self.reading, ampersand: "&amp;" };
        moved(self.url(&written, Off::Leave), start)
    }

    /// The first base moves all relative links of a page, those before it too (HTML §4.2.3); some browsers do not see
    /// it, or see another one. A first one that leads to another site is followed as long as no relative link has the
    /// token; any other is emptied.
    fn base(&mut self, tag: &Tag<'_>) -> Vec<Change> {
        let Some((start, end)) = value_of(tag, "href") else { return Vec::new() };
        let raw = tag.raw.get(start..end).unwrap_or_default();
        let emptied = || {
            let put = if is_quoted(tag, start) { "" } else { "\"\"" };
            vec![Change { at: start, gone: end - start, put: put.to_owned() }]
        };
        let Some(pieces) = pieces(raw, self.reading, true) else { return emptied() };
        let written = Written { raw, pieces: &pieces, end: raw.len(), reading: self.reading, ampersand: "&amp;" };
        let page = self.plan.page_url();
        let first = matches!(self.base, Base::Page(_));
        match written.way(&self.plan, page.as_ref()) {
            Way::Ours => {
                if let Some(url) = written.resolved(page.as_ref()).filter(|_| first) {
                    self.base = Base::Ours(url);
                }
                Vec::new()
            }
            Way::Off(target) if first && !self.relative => {
                self.base = Base::Elsewhere(target);
                Vec::new()
            }
            Way::Neither if raw.trim_ascii().is_empty() => Vec::new(),
            Way::Off(_) | Way::Neither => emptied(),
        }
    }
}

/// What a tag has a browser tell others of the page's URL: by a Referer, or by a call when its link is followed (HTML
/// §4.6.6, `Ping-From`).
fn discretion(tag: &Tag<'_>) -> Vec<Change> {
    let mut changes = silenced(tag, "referrerpolicy");
    if let Some((start, end)) = value_of(tag, "ping").filter(|_| matches!(tag.name, "a" | "area")) {
        let put = if is_quoted(tag, start) { "" } else { "\"\"" };
        changes.push(Change { at: start, gone: end - start, put: put.to_owned() });
    }
    changes
}

/// A referrer policy that tells no query to other sites.
fn silenced(tag: &Tag<'_>, name: &str) -> Vec<Change> {
    let Some((start, end)) = value_of(tag, name) else { return Vec::new() };
    let policy = tag.raw.get(start..end).unwrap_or_default();
    // Without one the page's own is followed.
    if policy.trim_ascii().is_empty() || is_silent(policy) {
        return Vec::new();
    }
    vec![Change { at: start, gone: end - start, put: REFERRERS.to_owned() }]
}

/// The changes of a value, from the start of its tag.
fn moved(mut changes: Vec<Change>, by: usize) -> Vec<Change> {
    for change in &mut changes {
        change.at += by;
    }
    changes
}

/// Where the value of the first attribute of that name stands; browsers drop the others.
fn value_of(tag: &Tag<'_>, name: &str) -> Option<(usize, usize)> {
    tag.attributes.iter().find(|attribute| attribute.name == name)?.value
}

fn attribute(tag: &Tag<'_>, name: &str, reading: Reading) -> Option<String> {
    let (start, end) = value_of(tag, name)?;
    let raw = tag.raw.get(start..end)?;
    Some(super::text::text(raw, &pieces(raw, reading, true)?))
}

fn is(tag: &Tag<'_>, name: &str, value: &str) -> bool {
    attribute(tag, name, Reading::Unsaid).is_some_and(|written| written.eq_ignore_ascii_case(value))
}

fn has_word(tag: &Tag<'_>, name: &str, word: &str) -> bool {
    attribute(tag, name, Reading::Unsaid)
        .is_some_and(|written| written.split_ascii_whitespace().any(|w| w.eq_ignore_ascii_case(word)))
}

fn is_quoted(tag: &Tag<'_>, value_start: usize) -> bool {
    let before = value_start.checked_sub(1).and_then(|at| tag.raw.get(at));
    matches!(before, Some(b'"' | b'\''))
}

/// The label after `charset=` (HTML, algorithm for extracting a character encoding from a meta element).
fn charset_in(content: &[u8]) -> Option<&[u8]> {
    let at = content.windows(7).position(|w| w.eq_ignore_ascii_case(b"charset"))?;
    let value = content.get(at + 7..)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    let end = value.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b';' | b'"' | b'\''));
    value.get(..end.unwrap_or(value.len()))
}

/// As an attribute's value in any quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
