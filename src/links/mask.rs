//! What the parser is shown instead of the page: as long, byte for byte, without what it would misread.
//!
//! The parser reads a page as a browser of today with script does. Two things are otherwise on a handset. Elements
//! for browsers that cannot do something (`noscript`, `noframes`, `noembed`, `iframe`) hold markup, not text. And
//! 7-bit runs after an escape, ISO-2022-JP or SoftBank's emoji, hold characters, not markup, whatever `<` is in them.
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

/// Element names whose content the parser must not take for text.
const TEXT_ELEMENTS: [&[u8]; 4] = [b"noscript", b"noframes", b"noembed", b"iframe"];
/// What their first letter becomes.
const LETTER: u8 = b'x';

/// Starts an escape sequence (ECMA-35).
pub(super) const ESC: u8 = 0x1B;
const SI: u8 = 0x0F;

/// Makes the masked page, piece by piece.
pub(super) struct Mask {
    runs: Runs,
    state: State,
    /// The start of a tag or an escape that is not decided yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Markup,
    /// In the two-byte or kana set of ISO-2022-JP, until the next escape.
    Japanese,
    /// In a run of emoji, until its end or the end of the line.
    Emoji,
}

impl Mask {
    pub(super) const fn new(runs: Runs) -> Self {
        Self { runs, state: State::Markup, held: Vec::new() }
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
        if !self.held.is_empty() {
            self.held.push(byte);
            match self.judge() {
                Judged::Open => return,
                Judged::Element(at) => {
                    if let Some(letter) = self.held.get_mut(at) {
                        *letter = LETTER;
                    }
                    out.append(&mut self.held);
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
        let starts = byte == ESC && self.runs != Runs::None || byte == b'<' && self.state == State::Markup;
        if starts {
            self.held.push(byte);
            return;
        }
        out.push(self.masked(byte));
        if self.state == State::Emoji && ends_emoji(byte) {
            self.state = State::Markup;
        }
    }

    /// In a run a byte with the high bit, which is no markup. White space too: a value that ended within a run, and is
    /// replaced, would take the start of the run along and leave its end.
    const fn masked(&self, byte: u8) -> u8 {
        match self.state {
            State::Emoji if ends_emoji(byte) => byte,
            State::Japanese | State::Emoji => byte | 0x80,
            State::Markup => byte,
        }
    }

    fn judge(&self) -> Judged {
        match self.held.as_slice() {
            [ESC, rest @ ..] => self.escape(rest),
            [b'<', b'/', name @ ..] => element(name, 2),
            [b'<', name @ ..] => element(name, 1),
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
    /// The start of one of the elements; its name begins there.
    Element(usize),
    /// An escape: what follows it.
    Run(State),
    Nothing,
}

fn element(name: &[u8], at: usize) -> Judged {
    let fits = |element: &&[u8]| element.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    match TEXT_ELEMENTS.iter().copied().find(fits) {
        Some(element) if element.len() == name.len() => Judged::Element(at),
        Some(_) => Judged::Open,
        None if name.is_empty() => Judged::Open,
        None => Judged::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(runs: Runs, page: &[u8], size: usize) -> Vec<u8> {
        let mut mask = Mask::new(runs);
        let mut out: Vec<u8> = page.chunks(size).flat_map(|chunk| mask.next(chunk)).collect();
        out.extend(mask.end());
        out
    }

    #[test]
    fn what_would_be_misread_is_masked() {
        for (runs, page, masked) in [
            (Runs::None, &b"<noscript><a></NoScript>"[..], &b"<xoscript><a></xoScript>"[..]),
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

    proptest! {
        #[test]
        fn the_masked_page_is_as_long_and_the_same_however_it_is_cut(
            page in "(<|/|noscript|iframe|no|\u{1b}|\\$|\\(|B|G|I|a|\n|\u{f}|>){0,40}",
            size in 1_usize..9,
        ) {
            for runs in [Runs::None, Runs::Emoji, Runs::All] {
                let whole = mask(runs, page.as_bytes(), page.len().max(1));
                prop_assert_eq!(whole.len(), page.len());
                prop_assert_eq!(mask(runs, page.as_bytes(), size), whole);
            }
        }
    }
}
