//! What the parser is shown instead of the page: as long, byte for byte, without what it would misread.
//!
//! The parser reads a page as a browser of today with script does. Two things are otherwise on a handset. Elements
//! for browsers that cannot do something (`noscript`, `noframes`, `noembed`, `iframe`) hold markup, not text. And
//! 7-bit runs after an escape, ISO-2022-JP or SoftBank's emoji, hold characters, not markup, whatever `<` is in them.
//! Two more are otherwise in XML, which the parser does not know: `<script/>` holds nothing, where HTML takes the rest
//! of the page for its text, and a CDATA section holds text.
//! And the end of a form, which the parser tells of only where the markup is well formed, is shown as a start tag. Both
//! are elements without content, so that forms that never end pile up nowhere.
//! The parser's offsets are the page's, which is what it is asked for; its bytes are not used.

/// Which 7-bit runs the page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// None: the field says an encoding in which an escape is nothing.
    None,
    /// SoftBank's emoji, `ESC $ [EFGOPQ] … SI`, as in `Shift_JIS`.
    Emoji,
    /// These and those of ISO-2022-JP.
    All,
}

/// What is shown as another tag of the same length, by what follows the `<`.
const SHOWN_AS: [(&[u8], &[u8]); 10] = [
    // Their content must not be taken for text.
    (b"noscript", b"xoscript"),
    (b"/noscript", b"/xoscript"),
    (b"noframes", b"xoframes"),
    (b"/noframes", b"/xoframes"),
    (b"noembed", b"xoembed"),
    (b"/noembed", b"/xoembed"),
    (b"iframe", b"xframe"),
    (b"/iframe", b"/xframe"),
    // Void elements (HTML §13.1.2).
    (b"form", b"link"),
    (b"/form", b"param"),
];
/// Element names whose content is text to the parser, so that in XML one without content must not look like them.
const EMPTY_ELEMENTS: [&[u8]; 4] = [b"script", b"style", b"textarea", b"title"];
/// The longest tag of these, in bytes, that is held to see whether it ends in `/>`.
const MAX_TAG: usize = 2048;
/// Starts character data (XML 1.0 §2.7).
const CDATA: &[u8] = b"<![CDATA[";
/// Square brackets after which an angle bracket ends it.
const DATA_ENDS: usize = 2;
/// What their first letter becomes.
const LETTER: u8 = b'x';

/// Starts an escape sequence (ECMA-35).
pub(super) const ESC: u8 = 0x1B;
const SI: u8 = 0x0F;

/// Makes the masked page, piece by piece.
pub(super) struct Mask {
    runs: Runs,
    xml: bool,
    state: State,
    within: Within,
    /// The start of a tag or an escape that is not decided yet.
    held: Vec<u8>,
}

/// Where in the tag of an element that may be empty, which is held to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// In none.
    Nothing,
    Tag,
    Quotes(u8),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Markup,
    /// In the two-byte or kana set of ISO-2022-JP, until the next escape.
    Japanese,
    /// In a run of emoji, until its end or the end of the line.
    Emoji,
    /// In character data, after so many square brackets.
    Data(usize),
}

impl Mask {
    /// `xml`: the page is read as XML.
    pub(super) const fn new(runs: Runs, xml: bool) -> Self {
        Self { runs, xml, state: State::Markup, within: Within::Nothing, held: Vec::new() }
    }

    /// The masked bytes of what is decided; the last few may wait for the next call.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.held.len());
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if self.held.is_empty() && self.state == State::Markup {
                let plain = rest.iter().position(|b| matches!(b, b'<' | &ESC)).unwrap_or(rest.len());
                if plain > 0 {
                    let (plain, others) = rest.split_at(plain);
                    out.extend_from_slice(plain);
                    rest = others;
                    continue;
                }
            }
            self.byte(*first, &mut out);
            rest = after;
        }
        out
    }

    /// What still waits, when nothing follows.
    pub(super) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.within != Within::Nothing && !self.within_tag(byte, out) {
            return;
        }
        if !self.held.is_empty() {
            self.held.push(byte);
            match self.judge() {
                Judged::Open => return,
                Judged::Tag => {
                    self.within = Within::Tag;
                    return;
                }
                Judged::Data => {
                    out.append(&mut self.held);
                    self.state = State::Data(0);
                    return;
                }
                Judged::Element(shown) => {
                    out.push(b'<');
                    out.extend_from_slice(shown);
                    self.held.clear();
                    return;
                }
                Judged::Run(state) => {
                    out.append(&mut self.held);
                    self.state = state;
                    return;
                }
                Judged::Nothing => {
                    // The last byte may start another one; the others are what they are.
                    self.held.pop();
                    let held = std::mem::take(&mut self.held);
                    out.extend(held.into_iter().map(|b| self.masked(b)));
                }
            }
        }
        let starts = byte == ESC && self.runs != Runs::None && !matches!(self.state, State::Data(_))
            || byte == b'<' && self.state == State::Markup;
        if starts {
            self.held.push(byte);
            return;
        }
        out.push(self.masked(byte));
        match self.state {
            State::Emoji if ends_emoji(byte) => self.state = State::Markup,
            State::Data(seen) => self.state = after_data(seen, byte),
            State::Markup | State::Japanese | State::Emoji => {}
        }
    }

    /// One byte of the tag that is held; whether it was given up, so that the byte is to be looked at as any other.
    fn within_tag(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        if byte == ESC && self.runs != Runs::None || self.held.len() >= MAX_TAG {
            self.within = Within::Nothing;
            out.append(&mut self.held);
            return true;
        }
        self.held.push(byte);
        match (byte, self.within) {
            (b'"' | b'\'', Within::Tag) => self.within = Within::Quotes(byte),
            (b'>', Within::Tag) => {
                self.within = Within::Nothing;
                if self.held.ends_with(b"/>")
                    && let Some(letter) = self.held.get_mut(1)
                {
                    *letter = LETTER;
                }
                out.append(&mut self.held);
            }
            (_, Within::Quotes(quote)) if byte == quote => self.within = Within::Tag,
            _ => {}
        }
        false
    }

    /// In a run a byte with the high bit, which is no markup. White space too: a value that ended within a run, and is
    /// replaced, would take the start of the run along and leave its end.
    const fn masked(&self, byte: u8) -> u8 {
        match self.state {
            State::Emoji if ends_emoji(byte) => byte,
            // Its end is left: the parser takes the section for one, or for a comment up to its first bracket.
            State::Data(seen) if byte == b']' || byte == b'>' && seen == DATA_ENDS => byte,
            State::Japanese | State::Emoji | State::Data(_) => byte | 0x80,
            State::Markup => byte,
        }
    }

    fn judge(&self) -> Judged {
        match self.held.as_slice() {
            [ESC, rest @ ..] => self.escape(rest),
            [b'<', b'!', ..] if self.xml => match CDATA.strip_prefix(self.held.as_slice()) {
                Some([]) => Judged::Data,
                Some(_) => Judged::Open,
                None => Judged::Nothing,
            },
            [b'<', name @ ..] => {
                let judged = element(name);
                if self.xml && matches!(judged, Judged::Nothing) { empty(name) } else { judged }
            }
            _ => Judged::Nothing,
        }
    }

    fn escape(&self, rest: &[u8]) -> Judged {
        let japanese = self.runs == Runs::All;
        match rest {
            [b'$'] => Judged::Open,
            [b'(' | b'$', b'('] | [b'('] if japanese => Judged::Open,
            [b'$', b'E' | b'F' | b'G' | b'O' | b'P' | b'Q'] => Judged::Run(State::Emoji),
            [b'$', b'@' | b'B'] | [b'$', b'(', b'D'] | [b'(', b'I'] if japanese => Judged::Run(State::Japanese),
            [b'(', b'B' | b'J'] if japanese => Judged::Run(State::Markup),
            _ => Judged::Nothing,
        }
    }
}

/// Whether the byte ends a run of emoji: its own end, or a line's, where the end was forgotten.
const fn ends_emoji(byte: u8) -> bool {
    matches!(byte, SI | b'\n' | b'\r')
}

enum Judged {
    /// More bytes decide.
    Open,
    /// The start of one of the elements; what is shown after its `<`.
    Element(&'static [u8]),
    /// The start of a tag whose end decides.
    Tag,
    /// The start of character data.
    Data,
    /// An escape: what follows it.
    Run(State),
    Nothing,
}

fn element(name: &[u8]) -> Judged {
    let fits = |(written, _): &&(&[u8], &[u8])| {
        written.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    match SHOWN_AS.iter().find(fits) {
        Some((written, shown)) if written.len() == name.len() => Judged::Element(shown),
        Some(_) => Judged::Open,
        None => Judged::Nothing,
    }
}

/// A name that begins, or is, one of those that may be empty. Longer ones are other elements.
fn empty(name: &[u8]) -> Judged {
    let begins = |element: &&[u8]| element.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let is = |element: &&[u8]| name.get(..element.len()).is_some_and(|start| start.eq_ignore_ascii_case(element));
    match name.last() {
        _ if EMPTY_ELEMENTS.iter().any(begins) => Judged::Open,
        Some(b'/' | b' ' | b'\t' | b'\n' | b'\r')
            if EMPTY_ELEMENTS.iter().any(|e| is(e) && e.len() + 1 == name.len()) =>
        {
            Judged::Tag
        }
        _ => Judged::Nothing,
    }
}

/// What a byte of character data leads to.
const fn after_data(seen: usize, byte: u8) -> State {
    match (seen, byte) {
        (DATA_ENDS, b'>') => State::Markup,
        (DATA_ENDS, b']') => State::Data(DATA_ENDS),
        (_, b']') => State::Data(seen + 1),
        _ => State::Data(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(runs: Runs, page: &[u8], size: usize) -> Vec<u8> {
        masked(runs, false, page, size)
    }

    fn masked(runs: Runs, xml: bool, page: &[u8], size: usize) -> Vec<u8> {
        let mut mask = Mask::new(runs, xml);
        let mut out: Vec<u8> = page.chunks(size).flat_map(|chunk| mask.next(chunk)).collect();
        out.extend(mask.end());
        out
    }

    #[test]
    fn what_would_be_misread_is_masked() {
        for (runs, page, masked) in [
            (Runs::None, &b"<noscript><a></NoScript>"[..], &b"<xoscript><a></xoscript>"[..]),
            (Runs::None, b"<FORM ></form><formx></ form><for</fo", b"<link ><param><linkx></ form><for</fo"),
            (Runs::None, b"<iframe src=x></iframe", b"<xframe src=x></xframe"),
            (Runs::None, b"<<noframes</<noembed>", b"<<xoframes</<xoembed>"),
            (Runs::None, b"<no<nos<noscrip>", b"<no<nos<noscrip>"),
            (Runs::None, b"\x1B$B<a\x1B(B<a", b"\x1B$B<a\x1B(B<a"),
            (Runs::All, b"<a>\x1B$B<a\">\x1B(B<a>", b"<a>\x1B$B\xBC\xE1\xA2\xBE\x1B(B<a>"),
            (Runs::All, b"\x1B$B< \n>\x1B(B ", b"\x1B$B\xBC\xA0\x8A\xBE\x1B(B "),
            (Runs::All, b"\x1B(I1<\x1B(J<", b"\x1B(I\xB1\xBC\x1B(J<"),
            (Runs::Emoji, b"\x1B$B<a\x1B(B<a", b"\x1B$B<a\x1B(B<a"),
            (Runs::Emoji, b"\x1B$G<a>\x0F<a>", b"\x1B$G\xBC\xE1\xBE\x0F<a>"),
            (Runs::Emoji, b"\x1B$G<a\n<a>", b"\x1B$G\xBC\xE1\n<a>"),
            (Runs::All, b"\x1B<iframe", b"\x1B<xframe"),
        ] {
            for size in [1, 2, 3, 5, 100] {
                assert_eq!(mask(runs, page, size), masked, "{:?} by {size}", String::from_utf8_lossy(page));
            }
        }
    }

    #[test]
    fn what_html_would_misread_in_xml_is_masked() {
        for (page, expected) in [
            (&b"<script/><a>"[..], &b"<xcript/><a>"[..]),
            (b"<Script src=\"/>\" /><a>", b"<xcript src=\"/>\" /><a>"),
            (b"<title\n/><style/><textarea name='>'/>", b"<xitle\n/><xtyle/><xextarea name='>'/>"),
            (b"<script src=x></script><script>", b"<script src=x></script><script>"),
            (b"<scripts/><scrip/><titled/><s/><", b"<scripts/><scrip/><titled/><s/><"),
            (b"<iframe src=x/>", b"<xframe src=x/>"),
            (b"<![CDATA[<a>]>]]]>]]><a>", b"<![CDATA[\xBC\xE1\xBE]\xBE]]]>]]><a>"),
            (b"<![CDATA[<a\x1B$B>]]><a>", b"<![CDATA[\xBC\xE1\x9B\xA4\xC2\xBE]]><a>"),
            (b"<!-- --><![CDATA", b"<!-- --><![CDATA"),
            (b"<script a=\x1B$B\">\x1B(B/><a>", b"<script a=\x1B$B\xA2\xBE\x1B(B/><a>"),
        ] {
            for size in [1, 2, 3, 5, 100] {
                let got = masked(Runs::All, true, page, size);
                assert_eq!(got, expected, "{:?} by {size}", String::from_utf8_lossy(&got));
            }
            assert_eq!(mask(Runs::All, b"<script/><![CDATA[<a>", 4), b"<script/><![CDATA[<a>", "not in HTML");
        }
        let long = [&b"<script "[..], &b"x".repeat(MAX_TAG), b"/><a>"].concat();
        assert_eq!(masked(Runs::None, true, &long, 7), long, "it is not held for ever");
    }

    proptest! {
        #[test]
        fn the_masked_page_is_as_long_and_the_same_however_it_is_cut(
            page in "(<|/|noscript|iframe|form|script|title|<!\\[CDATA\\[|\\]|\"|no|\u{1b}|\\$|\\(|B|G|I|a|\n|\u{f}|>){0,40}",
            size in 1_usize..9,
            xml in proptest::bool::ANY,
        ) {
            for runs in [Runs::None, Runs::Emoji, Runs::All] {
                let whole = masked(runs, xml, page.as_bytes(), page.len().max(1));
                prop_assert_eq!(whole.len(), page.len());
                prop_assert_eq!(masked(runs, xml, page.as_bytes(), size), whole);
            }
        }
    }
}
