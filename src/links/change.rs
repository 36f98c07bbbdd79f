//! One URL's change: bytes taken out, bytes put in, all others left as the author wrote them.

use url::Url;

use super::mask::ESC;
use super::plan::{LinkPlan, Way, scheme};
use super::text::{Piece, Reading, text};

/// Bytes of a page that are replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Where, in bytes from the start of the value or the page.
    pub(super) at: usize,
    /// How many bytes go.
    pub(super) gone: usize,
    /// What comes.
    pub(super) put: String,
}

/// A URL in its place.
pub(super) struct Written<'a> {
    /// The bytes of the value that it stands in, an attribute's or a field's.
    pub(super) raw: &'a [u8],
    /// The URL's characters there.
    pub(super) pieces: &'a [Piece],
    /// Where the bytes end that may be the URL's.
    pub(super) end: usize,
    /// How they are read.
    pub(super) reading: Reading,
    /// `&amp;` in markup, `&` in a field.
    pub(super) ampersand: &'static str,
}

impl Written<'_> {
    /// Where the URL leads from `base`.
    pub(super) fn way(&self, plan: &LinkPlan, base: Option<&Url>) -> Way {
        let before_query = self.pieces.iter().take_while(|p| !matches!(p.character, Some('?' | '#')));
        // What readers take for different characters, or swallow the next one with, makes another URL of it.
        if before_query.into_iter().any(|p| p.character.is_none()) {
            return Way::Neither;
        }
        plan.way(base, &text(self.raw, self.pieces), self.reading.encoding(self.raw))
    }

    /// Whether it names its site itself, so that no base moves it.
    pub(super) fn is_absolute(&self) -> bool {
        scheme(text(self.raw, self.pieces).trim_start_matches(|c: char| c <= ' ')).is_some()
    }

    /// The URL that it stands for, from `base`.
    pub(super) fn resolved(&self, base: Option<&Url>) -> Option<Url> {
        Url::options().base_url(base).parse(&text(self.raw, self.pieces)).ok()
    }

    /// The token and the carrier's query at the start of the query, and those that stand there gone.
    ///
    /// At the start: bytes that a reader may swallow, or a query that is cut, come after it.
    pub(super) fn with_token(&self, plan: &LinkPlan) -> Vec<Change> {
        let trailing = self.pieces.iter().rev().take_while(|p| p.character.is_some_and(|c| c <= ' ')).count();
        let pieces = self.pieces.get(..self.pieces.len() - trailing).unwrap_or_default();
        let start_of = |index: usize| self.pieces.get(index).map_or(self.end, |piece| piece.start);
        let end_of = |index: usize| self.pieces.get(index).map_or(self.end, |piece| piece.end);
        let is = |wanted: char| move |piece: &Piece| piece.character == Some(wanted);
        let fragment = pieces.iter().position(is('#')).unwrap_or(pieces.len());
        let before = pieces.get(..fragment).unwrap_or_default();
        let Some(question) = before.iter().position(is('?')) else {
            return vec![Change { at: start_of(fragment), gone: 0, put: format!("?{}", plan.added(self.ampersand)) }];
        };
        let mut changes = Vec::new();
        let mut kept = false;
        let mut from = question + 1;
        loop {
            let rest = before.get(from..).unwrap_or_default();
            let length = rest.iter().position(is('&'));
            let to = from + length.unwrap_or(rest.len());
            let mut pair = text(self.raw, before.get(from..to).unwrap_or_default());
            // Browsers drop these, some everywhere, some at the end of a URL, where another pair may have been last.
            pair.retain(|c| c > ' ');
            if plan.replaces(&pair) {
                // With the ampersand before it where a pair stays there, otherwise with the one that follows.
                let (start, end) = match length {
                    _ if kept => (start_of(from - 1), start_of(to)),
                    Some(_) => (start_of(from), end_of(to)),
                    None => (start_of(from), start_of(to)),
                };
                // An escape that went would change how the page behind it is read.
                if self.raw.get(start..end).unwrap_or_default().contains(&ESC) {
                    return Vec::new();
                }
                changes.push(Change { at: start, gone: end - start, put: String::new() });
            } else {
                kept = true;
            }
            if length.is_none() {
                break;
            }
            from = to + 1;
        }
        let follows = if kept { self.ampersand } else { "" };
        let put = format!("{}{follows}", plan.added(self.ampersand));
        // At once after the `?`: an escape before the next character belongs to that.
        changes.insert(0, Change { at: end_of(question), gone: 0, put });
        changes
    }

    /// The whole URL replaced.
    pub(super) fn replaced(&self, put: String) -> Vec<Change> {
        let start = self.pieces.first().map_or(self.end, |piece| piece.start);
        vec![Change { at: start, gone: self.end.saturating_sub(start), put }]
    }
}

/// `raw` with the changes, which stand in the order of their places.
pub(super) fn apply(raw: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 64);
    let mut at = 0;
    for change in changes {
        out.extend_from_slice(raw.get(at..change.at).unwrap_or_default());
        out.extend_from_slice(change.put.as_bytes());
        at = change.at + change.gone;
    }
    out.extend_from_slice(raw.get(at..).unwrap_or_default());
    out
}
