//! Where the messages of an HTTP/1 connection begin and end, and that nobody can see another end.
//!
//! hyper reads what is sent, but more leniently than a gateway may, and knows no setting for that: lines may end by LF alone (RFC 9112
//! §2.2 allows it), and where a request has a length and is chunked as well, the chunks win and the length is forgotten (§6.3
//! allows it, and warns of it). So the bytes are looked at before hyper has them. It is given one message at a time, so that
//! each head is seen from its first byte on; how long a body is, hyper itself says.

use memchr::memchr_iter;

/// Octets of a line that are kept where it comes in pieces: as many as its name needs to be known.
const START: usize = b"transfer-encoding:".len();

/// What follows a head, as hyper understood it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// So many octets.
    Octets(u64),
    /// Chunks (RFC 9112 §7.1).
    Chunks,
    /// Nothing: it refused the request.
    Nothing,
}

/// What is to be done with bytes of a stream, from their first on. More are looked at only where all were passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// So many are nobody's.
    pub(super) skip: usize,
    /// So many behind them are to be passed on now; the rest belongs to the next message.
    pub(super) pass: usize,
    /// Whether the last of them must not be passed on as it is, since hyper would not mind it.
    pub(super) spoil: bool,
}

/// How far a connection's messages have been passed on.
#[derive(Debug)]
pub(super) struct Framing(Part);

#[derive(Debug)]
enum Part {
    /// A head is to come. Empty lines before it are nobody's (RFC 9112 §2.2).
    Between {
        cr: bool,
    },
    Head(Line),
    /// Behind a whole head.
    Behind,
    Octets(u64),
    Chunks(Chunks),
    Anything,
    Refused,
}

/// A line of a head, as far as it came before.
#[derive(Debug, Default)]
struct Line {
    start: [u8; START],
    /// How many of these there are.
    len: usize,
    /// Whether CR is the last that came of it.
    cr: bool,
    /// Whether a line of this head said how long its body is.
    is_framed: bool,
}

/// Where in a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug)]
enum Chunks {
    /// Before a size.
    Starts,
    Size(u64),
    /// Behind a size, in blanks that some send there.
    Blank(u64),
    Extension(u64),
    /// Before the LF behind a size.
    Begins(u64),
    Data(u64),
    /// Behind all of the data, before CR, and before LF.
    Ends {
        cr: bool,
    },
    /// In a line of trailers, of which nothing or something came.
    Trailers {
        is_empty: bool,
        cr: bool,
    },
}

impl Framing {
    pub(super) const fn of_http1() -> Self {
        Self(Part::Between { cr: false })
    }

    /// Of a stream whose bytes are none of its business.
    pub(super) const fn of_anything() -> Self {
        Self(Part::Anything)
    }

    /// Looks at the bytes that follow those that were passed; `follows` says what hyper made of the last head.
    pub(super) fn look(&mut self, bytes: &[u8], follows: impl FnOnce() -> Follows) -> Verdict {
        if matches!(self.0, Part::Behind) {
            self.0 = match follows() {
                Follows::Octets(0) => Part::Between { cr: false },
                Follows::Octets(count) => Part::Octets(count),
                Follows::Chunks => Part::Chunks(Chunks::Starts),
                Follows::Nothing => Part::Refused,
            };
        }
        let mut skip = 0;
        if let Part::Between { cr } = &mut self.0 {
            loop {
                match bytes.get(skip) {
                    None => return Verdict { skip, pass: 0, spoil: false },
                    Some(b'\r') if !*cr => *cr = true,
                    Some(b'\n') if *cr => *cr = false,
                    Some(byte) if *cr || *byte == b'\n' => return self.refuse(skip, 1, true),
                    Some(_) => break,
                }
                skip += 1;
            }
            self.0 = Part::Head(Line::default());
        }
        let bytes = bytes.get(skip..).unwrap_or_default();
        let pass = match &mut self.0 {
            Part::Head(line) => match line.look(bytes) {
                Ok(None) => bytes.len(),
                Ok(Some(end)) => {
                    self.0 = Part::Behind;
                    end
                }
                Err(pass) => return self.refuse(skip, pass, true),
            },
            Part::Octets(left) => {
                let pass = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= pass as u64;
                if *left == 0 {
                    self.0 = Part::Between { cr: false };
                }
                pass
            }
            Part::Chunks(chunks) => match chunks.look(bytes) {
                Ok(None) => bytes.len(),
                Ok(Some(end)) => {
                    self.0 = Part::Between { cr: false };
                    end
                }
                // What is no chunk hyper refuses itself; lines of trailers it reads as those of a head.
                Err(pass) => {
                    let spoil = matches!(chunks, Chunks::Trailers { .. });
                    return self.refuse(skip, pass, spoil);
                }
            },
            Part::Anything => bytes.len(),
            Part::Refused | Part::Between { .. } | Part::Behind => 0,
        };
        Verdict { skip, pass, spoil: false }
    }

    /// Whether what follows those that were passed belongs to a body; behind a head that is hyper's to say.
    pub(super) const fn is_in_body(&self, behind_head: bool) -> bool {
        match self.0 {
            Part::Octets(_) | Part::Chunks(_) => true,
            Part::Behind => behind_head,
            Part::Between { .. } | Part::Head(_) | Part::Anything | Part::Refused => false,
        }
    }

    /// Whether nothing is passed any more.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.0, Part::Refused)
    }

    fn refuse(&mut self, skip: usize, pass: usize, spoil: bool) -> Verdict {
        self.0 = Part::Refused;
        Verdict { skip, pass, spoil }
    }
}

impl Line {
    /// Where the head ends in these bytes, if it does; or how many of them to pass for one that must be refused.
    fn look(&mut self, bytes: &[u8]) -> Result<Option<usize>, usize> {
        let mut from = 0;
        for lf in memchr_iter(b'\n', bytes) {
            let part = bytes.get(from..lf).unwrap_or_default();
            from = lf + 1;
            let (line, cr) = if self.len == 0 {
                (part, part.last() == Some(&b'\r'))
            } else {
                self.add(part);
                (self.start.get(..self.len).unwrap_or_default(), self.cr)
            };
            if !cr {
                return Err(from);
            }
            if line == b"\r" {
                return Ok(Some(from));
            }
            if says_how_long(line) {
                if self.is_framed {
                    return Err(from);
                }
                self.is_framed = true;
            }
            self.len = 0;
        }
        self.add(bytes.get(from..).unwrap_or_default());
        Ok(None)
    }

    fn add(&mut self, part: &[u8]) {
        let Some(last) = part.last() else { return };
        self.cr = *last == b'\r';
        for (kept, byte) in self.start.iter_mut().skip(self.len).zip(part) {
            *kept = *byte;
        }
        self.len = (self.len + part.len()).min(START);
    }
}

/// Whether it is a field that says how long the body is. One that is misspelt is refused by hyper.
fn says_how_long(line: &[u8]) -> bool {
    let name: &[u8] = match line.first() {
        Some(b'c' | b'C') => b"content-length:",
        Some(b't' | b'T') => b"transfer-encoding:",
        _ => return false,
    };
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

impl Chunks {
    /// Where the body ends in these bytes, if it does; or how many of them to pass for one that hyper refuses.
    fn look(&mut self, bytes: &[u8]) -> Result<Option<usize>, usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Self::Data(left) = *self {
                let some = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                let left = left - some as u64;
                *self = if left == 0 { Self::Ends { cr: false } } else { Self::Data(left) };
                at += some;
                continue;
            }
            at += 1;
            match self.next(*byte) {
                Some(Next::Goes(next)) => *self = next,
                Some(Next::Over) => return Ok(Some(at)),
                None => return Err(at),
            }
        }
        Ok(None)
    }

    /// Behind another byte: another place, the end, or none if there is no such body.
    fn next(self, byte: u8) -> Option<Next> {
        let next = match self {
            Self::Starts => Self::Size(digit(byte)?),
            Self::Size(size) => match digit(byte) {
                Some(digit) => Self::Size(size.checked_mul(16)? | digit),
                None => Self::behind(size, byte)?,
            },
            Self::Blank(size) => Self::behind(size, byte)?,
            Self::Extension(size) => match byte {
                b'\r' => Self::Begins(size),
                b'\n' => return None,
                _ => self,
            },
            Self::Begins(size) => match (byte, size) {
                (b'\n', 0) => Self::Trailers { is_empty: true, cr: false },
                (b'\n', size) => Self::Data(size),
                _ => return None,
            },
            // It is passed as a whole, above.
            Self::Data(_) => return None,
            Self::Ends { cr } => match (byte, cr) {
                (b'\r', false) => Self::Ends { cr: true },
                (b'\n', true) => Self::Starts,
                _ => return None,
            },
            Self::Trailers { is_empty, cr } => match (byte, cr) {
                (b'\n', true) if is_empty => return Some(Next::Over),
                (b'\n', true) => Self::Trailers { is_empty: true, cr: false },
                (b'\n', false) | (_, true) => return None,
                (b'\r', false) => Self::Trailers { is_empty, cr: true },
                (_, false) => Self::Trailers { is_empty: false, cr: false },
            },
        };
        Some(Next::Goes(next))
    }

    fn behind(size: u64, byte: u8) -> Option<Self> {
        match byte {
            b'\r' => Some(Self::Begins(size)),
            b';' => Some(Self::Extension(size)),
            b' ' | b'\t' => Some(Self::Blank(size)),
            _ => None,
        }
    }
}

enum Next {
    Goes(Chunks),
    Over,
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// What is passed on of `bytes` that come in pieces of `size`, where `follows` says what hyper makes of each head in turn, and
/// whether they were refused at the end of that.
#[cfg(any(test, fuzzing))]
pub(super) fn passed(bytes: &[u8], size: usize, mut follows: impl FnMut() -> Follows) -> (Vec<u8>, bool) {
    let (mut framing, mut all) = (Framing::of_http1(), Vec::new());
    for mut piece in bytes.chunks(size.max(1)) {
        while !piece.is_empty() {
            let Verdict { skip, pass, spoil } = framing.look(piece, &mut follows);
            let (_, done) = piece.split_at(skip);
            let (done, rest) = done.split_at(pass);
            all.extend_from_slice(done);
            if spoil {
                all.pop();
            }
            if framing.is_refused() {
                return (all, true);
            }
            piece = rest;
        }
    }
    (all, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// What is passed on of this, whatever pieces it comes in.
    fn all_passed(text: &str, follows: &[Follows]) -> (String, bool) {
        let of_size = |size| {
            let mut follows = follows.iter().copied();
            passed(text.as_bytes(), size, || follows.next().expect("so many heads"))
        };
        let whole = of_size(text.len());
        for size in 1..text.len() {
            assert_eq!(of_size(size), whole, "{text:?} in pieces of {size}");
        }
        (String::from_utf8(whole.0).unwrap(), whole.1)
    }

    #[test]
    fn a_message_ends_where_hyper_says() {
        use Follows::{Chunks, Nothing, Octets};
        let chunks = "5\r\nhello\r\n00a;x=\"y\"\r\n\r\n\n0123456\r\n0 \t;\r\nX: a\r\nY:b\r\n\r\n";
        for (bodies, follows) in [
            ("", Octets(0)),
            ("\r\n\r\n\n\r\n", Octets(7)),
            ("\r\n", Octets(2)),
            ("0\r\n\r\n", Chunks),
            (chunks, Chunks),
        ] {
            // With an empty line before the next head, which is nobody's.
            let all = format!("\r\n{HEAD}{bodies}\r\n\r\n{HEAD}");
            assert_eq!(all_passed(&all, &[follows]), (format!("{HEAD}{bodies}{HEAD}"), false));
        }
        let rest = "\nX\r\r\n\n";
        assert_eq!(all_passed(&format!("{HEAD}{rest}"), &[Nothing]), (HEAD.to_owned(), true));
    }

    #[test]
    fn every_line_of_a_head_ends_by_cr_and_lf() {
        for head in HEAD.match_indices("\r\n").map(|(at, _)| at) {
            let (before, behind) = (&HEAD[..head], &HEAD[head + 2..]);
            assert_eq!(all_passed(&format!("{before}\n{behind}"), &[]), (before.to_owned(), true));
        }
        for before in ["\n", "\r\n\n", "\rG", "\r\r"] {
            assert_eq!(all_passed(&format!("{before}{HEAD}"), &[]), (String::new(), true), "{before:?}");
        }
        // What else stands in it hyper judges.
        let odd = "\0\r\r \r:\r\n\r\r\n \r\n\r\n";
        assert_eq!(all_passed(odd, &[]), (odd.to_owned(), false));
    }

    #[test]
    fn a_head_says_once_how_long_its_body_is() {
        let length = "content-LENGTH: 5\r\n";
        for line in [length, "Transfer-Encoding: chunked\r\n", "TRANSFER-ENCODING:\r\n", "Content-Length:\r\n"] {
            let once = format!("POST / HTTP/1.1\r\nA: b\r\n{line}C: d\r\n");
            let again = format!("{once}{length}");
            assert_eq!(all_passed(&format!("{once}\r\n"), &[]), (format!("{once}\r\n"), false));
            assert_eq!(all_passed(&format!("{again}\r\n"), &[]), (again[..again.len() - 1].to_owned(), true));
            // The next head has one of its own.
            let twice = format!("{once}\r\n").repeat(2);
            assert_eq!(all_passed(&twice, &[Follows::Octets(0)]), (twice, false));
        }
        for other in
            ["X-Content-Length: 5\r\n", "Content-Lengths: 5\r\n", "Content-Length : 5\r\n", "Transfer-Encoding"]
        {
            let head = format!("POST / HTTP/1.1\r\n{length}{other}{other}");
            assert_eq!(all_passed(&head, &[]), (head, false));
        }
    }

    #[test]
    fn nothing_is_passed_behind_what_is_no_chunk() {
        for (chunks, wrong) in [
            ("", "\r"),
            ("", "x"),
            ("", ";"),
            ("5", "x"),
            ("5", "\n"),
            ("5;a", "\n"),
            ("5 ", "5"),
            ("5\r", "h"),
            ("5\r\nhello", "!"),
            ("5\r\nhello\r", "\r"),
            ("ffffffffffffffff", "f"),
            ("0\r\n\r", "\r"),
            ("0\r\nX: a\r", "b"),
        ] {
            let seen = format!("{HEAD}{chunks}{wrong}");
            let passed = if chunks.starts_with("0\r\n") { format!("{HEAD}{chunks}") } else { seen.clone() };
            assert_eq!(all_passed(&format!("{seen}rest"), &[Follows::Chunks]), (passed, true), "{chunks:?} {wrong:?}");
        }
        for trailers in ["X: a", "X", ""] {
            let chunks = format!("{HEAD}0\r\n{trailers}");
            assert_eq!(all_passed(&format!("{chunks}\nrest"), &[Follows::Chunks]), (chunks, true));
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "\r\n", "\r\n\r\n", "\r", "\n", "5", "0", ";", " ", "hello", "Content-Length: 5", "transfer-encoding:", "X: a", "c", "t",
                ]),
                0..40,
            ),
            follows in prop::collection::vec(0..4_u64, 40),
            size in 1..40_usize,
        ) {
            let of_size = |size| {
                let mut follows = follows.iter().map(|n| if *n == 3 { Follows::Chunks } else { Follows::Octets(*n) });
                passed(parts.concat().as_bytes(), size, || follows.next().unwrap_or(Follows::Nothing))
            };
            prop_assert_eq!(of_size(size), of_size(usize::MAX));
        }
    }
}
