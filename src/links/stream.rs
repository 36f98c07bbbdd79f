//! A page that is rewritten while it passes.
//!
//! `lol_html` says where start tags and their attributes stand; it changes nothing. The page's own bytes wait until the
//! parser has passed them, at most a tag of [`MOST_MEMORY`], and leave with the changes that were found. So all that
//! is not changed is the upstream's, byte for byte, in whatever charset. Where the parser gives up, a tag being too
//! long, the rest of the page passes as it is.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, X_USER_DEFINED};
use lol_html::html_content::Element;
use lol_html::send::{ElementContentHandlers, HtmlRewriter, SendHandlerTypes, Settings};
use lol_html::{AsciiCompatibleEncoding, MemorySettings, Selector};

use super::change::Change;
use super::markup::{Attribute, Page, TAGS, Tag};
use super::mask::{Mask, Runs};

/// What the parser may hold of one page, in bytes: the longest tag that is looked into, and the open elements.
const MOST_MEMORY: usize = 256 * 1024;
/// What it holds from the start: most tags fit.
const FIRST_MEMORY: usize = 1024;
/// The longest page in UTF-16 that is rewritten, in bytes: it is held whole.
const MOST_WIDE: usize = 1024 * 1024;

/// The tags that are looked at; parsed once.
static SELECTORS: LazyLock<Vec<Selector>> =
    LazyLock::new(|| TAGS.iter().filter_map(|name| name.parse().ok()).collect());

type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// A page on its way.
pub(super) enum Stream {
    /// Its first bytes, which may be a byte order mark.
    Start { page: Box<Page>, said: Option<&'static Encoding>, held: Vec<u8> },
    /// Read and changed as it comes.
    Parsed(Box<Parsed>),
    /// UTF-16, held whole.
    Wide { page: Box<Page>, encoding: &'static Encoding, held: Vec<u8> },
    /// Passed as it is.
    Raw,
}

impl Stream {
    /// `said` is the charset of the Content-Type.
    pub(super) fn new(page: Page, said: Option<&'static Encoding>) -> Self {
        Self::Start { page: Box::new(page), said, held: Vec::new() }
    }

    /// What leaves after these bytes came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        match std::mem::replace(self, Self::Raw) {
            Self::Raw => bytes.to_vec(),
            Self::Parsed(mut parsed) => {
                let out = parsed.push(bytes);
                *self = Self::Parsed(parsed);
                out
            }
            Self::Wide { page, encoding, mut held } => {
                held.extend_from_slice(bytes);
                if held.len() > MOST_WIDE {
                    return held;
                }
                *self = Self::Wide { page, encoding, held };
                Vec::new()
            }
            Self::Start { page, said, mut held } => {
                held.extend_from_slice(bytes);
                if may_be_mark(&held) {
                    *self = Self::Start { page, said, held };
                    return Vec::new();
                }
                *self = Self::begun(page, said, &held);
                self.push(&held)
            }
        }
    }

    /// What leaves at the end of the page.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        match std::mem::replace(self, Self::Raw) {
            Self::Raw => Vec::new(),
            Self::Parsed(parsed) => parsed.finish(),
            Self::Wide { page, encoding, held } => wide(*page, encoding, held),
            Self::Start { page, said, held } => {
                let mut begun = Self::begun(page, said, &held);
                let mut out = begun.push(&held);
                out.extend(begun.finish());
                out
            }
        }
    }

    /// A byte order mark outdoes the field (Encoding Standard §6).
    fn begun(mut page: Box<Page>, said: Option<&'static Encoding>, start: &[u8]) -> Self {
        let marked = Encoding::for_bom(start).map(|(encoding, _)| encoding);
        if let Some(encoding) = marked {
            page.settle(encoding);
        }
        match marked.or(said) {
            Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => {
                Self::Wide { page, encoding, held: Vec::new() }
            }
            // Not a charset that a page can be read in (Encoding Standard §14.1).
            Some(encoding) if encoding == encoding_rs::REPLACEMENT => Self::Raw,
            encoding => Self::Parsed(Box::new(Parsed::new(*page, runs(encoding)))),
        }
    }
}

fn may_be_mark(start: &[u8]) -> bool {
    [&b"\xEF\xBB\xBF"[..], b"\xFF\xFE", b"\xFE\xFF"]
        .iter()
        .any(|mark| start.len() < mark.len() && mark.starts_with(start))
}

fn runs(encoding: Option<&'static Encoding>) -> Runs {
    match encoding {
        None => Runs::All,
        Some(encoding) if encoding == encoding_rs::ISO_2022_JP => Runs::All,
        Some(encoding) if encoding == encoding_rs::SHIFT_JIS || encoding == encoding_rs::EUC_JP => Runs::Emoji,
        Some(_) => Runs::None,
    }
}

/// A page in UTF-16, rewritten as UTF-8 and written back; as it was, where that would lose anything.
fn wide(page: Page, encoding: &'static Encoding, held: Vec<u8>) -> Vec<u8> {
    let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(&held) else { return held };
    let mut parsed = Parsed::new(page.in_utf_8(), Runs::None);
    let mut out = parsed.push(text.as_bytes());
    out.extend(parsed.finish());
    let Ok(text) = String::from_utf8(out) else { return held };
    let unit = |unit: u16| if encoding == UTF_16BE { unit.to_be_bytes() } else { unit.to_le_bytes() };
    text.encode_utf16().flat_map(unit).collect()
}

/// The parser, and the bytes that it has not passed yet.
pub(super) struct Parsed {
    /// `None`: it gave up.
    parser: Option<HtmlRewriter<'static, Sink>>,
    mask: Mask,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    page: Page,
    /// Bytes of the page from `released` on.
    pending: Vec<u8>,
    /// How many bytes of the page have left.
    released: usize,
    /// The last of them.
    last: Option<u8>,
    /// How many bytes the parser has passed.
    passed: usize,
    /// What is to be done to pending bytes, by their place in the page.
    changes: VecDeque<Change>,
}

impl Parsed {
    fn new(page: Page, runs: Runs) -> Self {
        let mask = Mask::new(runs, page.is_xml());
        let shared = Shared { page, pending: Vec::new(), released: 0, last: None, passed: 0, changes: VecDeque::new() };
        let shared = Arc::new(Mutex::new(shared));
        let mut settings = Settings::new_send()
            .with_encoding(AsciiCompatibleEncoding::new(X_USER_DEFINED).unwrap_or_else(AsciiCompatibleEncoding::utf_8))
            .with_strict(false)
            .with_adjust_charset_on_meta_tag(false)
            .with_memory_settings(
                MemorySettings::new()
                    .with_max_allowed_memory_usage(MOST_MEMORY)
                    .with_preallocated_parsing_buffer_size(FIRST_MEMORY),
            );
        for selector in SELECTORS.iter() {
            let shared = Arc::clone(&shared);
            let handler = move |element: &mut Element<'_, '_, SendHandlerTypes>| {
                lock(&shared).tag(element);
                Ok(())
            };
            settings = settings.append_element_content_handler((
                Cow::Borrowed(selector),
                ElementContentHandlers::default().element(handler),
            ));
        }
        let passed = Arc::clone(&shared);
        let sink: Sink = Box::new(move |bytes: &[u8]| lock(&passed).passed += bytes.len());
        Self { parser: Some(HtmlRewriter::new(settings, sink)), mask, shared }
    }

    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        lock(&self.shared).pending.extend_from_slice(bytes);
        let masked = self.mask.next(bytes);
        if let Some(parser) = &mut self.parser
            && parser.write(&masked).is_err()
        {
            self.parser = None;
        }
        let mut shared = lock(&self.shared);
        if self.parser.is_none() {
            shared.passed = shared.released + shared.pending.len();
        }
        shared.release()
    }

    fn finish(mut self) -> Vec<u8> {
        let masked = self.mask.end();
        if let Some(mut parser) = self.parser.take()
            && parser.write(&masked).is_ok()
        {
            // What it could not make sense of leaves as it is, like everything else.
            let _ = parser.end();
        }
        let mut shared = lock(&self.shared);
        shared.passed = shared.released + shared.pending.len();
        shared.release()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn tag(&mut self, element: &Element<'_, '_, SendHandlerTypes>) {
        let place = element.source_location().bytes();
        let (Some(start), Some(end)) = (place.start.checked_sub(self.released), place.end.checked_sub(self.released))
        else {
            return;
        };
        let Some(raw) = self.pending.get(start..end) else { return };
        let before = start.checked_sub(1).map_or(self.last, |at| self.pending.get(at).copied());
        // The end of a form is shown as a start tag.
        let slash = usize::from(raw.get(1) == Some(&b'/'));
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'/' | b'>');
        let length = raw.iter().skip(1 + slash).position(ends);
        let name_end = length.map_or(raw.len(), |length| 1 + slash + length);
        let name = String::from_utf8_lossy(raw.get(1..name_end).unwrap_or_default()).to_ascii_lowercase();
        let attributes: Vec<Attribute> = element
            .attributes()
            .iter()
            .map(|attribute| {
                let value = attribute.value_source_location().map(|value| value.bytes());
                let value =
                    value.and_then(|v| Some((v.start.checked_sub(place.start)?, v.end.checked_sub(place.start)?)));
                Attribute { name: attribute.name(), value }
            })
            .collect();
        let changes = self.page.tag(&Tag { name: &name, before, raw, name_end, attributes: &attributes });
        self.changes.extend(changes.into_iter().map(|change| Change { at: change.at + place.start, ..change }));
    }

    /// What the parser has passed, changed.
    fn release(&mut self) -> Vec<u8> {
        let count = self.passed.saturating_sub(self.released).min(self.pending.len());
        let end = self.released + count;
        let mut out = Vec::with_capacity(count + 64 * self.changes.len());
        let mut at = 0;
        while let Some(change) = self.changes.pop_front_if(|change| change.at + change.gone <= end) {
            let place = change.at.saturating_sub(self.released);
            out.extend_from_slice(self.pending.get(at..place).unwrap_or_default());
            out.extend_from_slice(change.put.as_bytes());
            at = place + change.gone;
        }
        out.extend_from_slice(self.pending.get(at..count).unwrap_or_default());
        self.last = self.pending.get(..count).and_then(|left| left.last().copied()).or(self.last);
        self.pending.drain(..count);
        self.released = end;
        out
    }
}
