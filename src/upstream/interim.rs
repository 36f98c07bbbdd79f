//! Interim answers (1xx) of a server, taken from what it sends before hyper has it, which drops them.
//!
//! hyper has a callback for them, but that costs every request five allocations, and hardly any request meets one. So where an answer
//! begins, its first bytes are looked at, and nothing more of nearly all.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_util::task::AtomicWaker;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::EMPTY_HEADER;
use tokio::io::{AsyncRead, ReadBuf};

use super::answer;
use crate::edge::Interim;

/// Bytes that the head of an interim answer may have, and fields. With more it is hyper's, which knows what to do with it.
const LONGEST: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;
/// At most so many wait for their request; later ones are dropped.
const MOST: usize = 16;

/// What a connection's server says before its answers, between who reads it and whose request it is. Both are on one thread.
#[derive(Default)]
pub(super) struct Heard {
    stage: AtomicU8,
    is_any: AtomicBool,
    heads: Mutex<Vec<Interim>>,
    /// Who has a request on a connection that somebody else drives.
    user: AtomicWaker,
}

/// No answer is to come, or its first bytes have.
const SETTLED: u8 = 0;
/// A request was handed to the codec. What is read before that writes it belongs to no request, and is the codec's, which refuses it.
const ASKED: u8 = 1;
/// It is written, to the socket or what goes there at the end of the turn: what is read now is its answer, or comes before that. (So
/// is what came in that turn and was not seen, as a whole answer would be.)
const AWAITED: u8 = 2;

impl Heard {
    /// A request is handed to the codec.
    pub(super) fn ask(&self) {
        self.stage.store(ASKED, Relaxed);
    }

    /// Bytes are about to be written.
    fn writes(&self) {
        if self.stage.load(Relaxed) == ASKED {
            self.stage.store(AWAITED, Relaxed);
        }
    }

    /// Has this task woken when there is something to take.
    pub(super) fn wakes(&self, user: &Waker) {
        self.user.register(user);
    }

    /// Whether something came that was not taken yet.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    /// What came since this was called last.
    pub(super) fn take(&self) -> Vec<Interim> {
        self.is_any.store(false, Relaxed);
        std::mem::take(&mut *self.heads())
    }

    fn add(&self, interim: Interim) {
        let heads = &mut *self.heads();
        if heads.len() < MOST {
            heads.push(interim);
            self.is_any.store(true, Relaxed);
            self.user.wake();
        }
    }

    fn heads(&self) -> MutexGuard<'_, Vec<Interim>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears interim answers among what is read of a stream.
pub(super) struct Hearing {
    heard: Arc<Heard>,
    /// What was read and not passed on: the beginning of a head, or what stands behind one.
    kept: Vec<u8>,
}

impl Hearing {
    pub(super) const fn new(heard: Arc<Heard>) -> Self {
        Self { heard, kept: Vec::new() }
    }

    /// The stream is about to be written to.
    pub(super) fn writes(&self) {
        self.heard.writes();
    }

    /// Reads what is no interim answer.
    pub(super) fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        stream: &mut T,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_awaited = self.heard.stage.load(Relaxed) == AWAITED;
            if !is_awaited && !self.kept.is_empty() {
                let length = self.kept.len().min(buf.remaining());
                buf.put_slice(self.kept.get(..length).unwrap_or_default());
                self.let_go(length);
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            if !is_awaited {
                return Poll::Ready(Ok(()));
            }
            // The stream ends where there is nothing; then what came before is hyper's to judge, and the end is there again.
            if read.is_empty() || (self.kept.is_empty() && matches!(judge(read), Judged::Other)) {
                self.heard.stage.store(SETTLED, Relaxed);
                if self.kept.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            self.kept.extend_from_slice(read);
            buf.set_filled(before);
            self.hear();
        }
    }

    /// Takes out the interim answers that what is kept begins with.
    fn hear(&mut self) {
        let mut heard = 0;
        loop {
            let rest = self.kept.get(heard..).unwrap_or_default();
            match judge(rest) {
                Judged::Interim(length, interim) => {
                    heard += length;
                    if let Some(interim) = interim {
                        self.heard.add(interim);
                    }
                }
                Judged::Unknown => break,
                Judged::Other => {
                    self.heard.stage.store(SETTLED, Relaxed);
                    break;
                }
            }
        }
        self.let_go(heard);
    }

    fn let_go(&mut self, length: usize) {
        self.kept.drain(..length);
        if self.kept.is_empty() {
            // An idle connection keeps no memory for it.
            self.kept = Vec::new();
        }
    }
}

/// What bytes begin with, where an answer is to come.
enum Judged {
    /// An interim answer of that length; none that is passed on where it is about the connection (100), or cannot be passed on.
    Interim(usize, Option<Interim>),
    /// More has to come before that is known.
    Unknown,
    /// Anything else: an answer, an upgrade (101), or what hyper refuses.
    Other,
}

/// The beginning of every status line that is of interest (RFC 9112 §4), but for the digit of its version.
const STATUS_LINE: &[u8] = b"HTTP/1.? 1";

fn judge(bytes: &[u8]) -> Judged {
    let is_as = |(byte, expected): (&u8, &u8)| byte == expected || *expected == b'?';
    if !bytes.iter().zip(STATUS_LINE).all(is_as) {
        return Judged::Other;
    }
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length @ ..=LONGEST)) => match parsed.code {
            Some(100) => Judged::Interim(length, None),
            Some(code @ 102..=199) => Judged::Interim(length, interim(code, parsed.headers)),
            _ => Judged::Other,
        },
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => Judged::Unknown,
        Ok(_) | Err(_) => Judged::Other,
    }
}

/// What is passed on of it: of its fields what would be of an answer's.
fn interim(code: u16, parsed: &[httparse::Header<'_>]) -> Option<Interim> {
    let status = StatusCode::from_u16(code).ok()?;
    let mut fields = HeaderMap::new();
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    answer::strip(&mut fields);
    for framing in [CONTENT_LENGTH, TRAILER] {
        fields.remove(framing);
    }
    Some(Interim { status, fields })
}

/// What is passed on of `bytes` that come in pieces of `size` where an answer is to come, into so much `room` at a time, and the
/// status of what was heard.
#[cfg(any(test, fuzzing))]
pub(super) fn passed(mut bytes: &[u8], size: usize, room: usize) -> (Vec<u8>, Vec<u16>) {
    struct Pieces<'a, 'b>(&'b mut &'a [u8], usize);
    impl AsyncRead for Pieces<'_, '_> {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Self(left, size) = self.get_mut();
            let (piece, rest) = left.split_at(left.len().min(*size).min(buf.remaining()));
            buf.put_slice(piece);
            **left = rest;
            Poll::Ready(Ok(()))
        }
    }
    let heard = Arc::new(Heard::default());
    heard.ask();
    heard.writes();
    let mut hearing = Hearing::new(Arc::clone(&heard));
    let (mut all, mut told) = (Vec::new(), Vec::new());
    let cx = &mut Context::from_waker(Waker::noop());
    loop {
        let mut room = vec![0; room.max(1)];
        let mut buf = ReadBuf::new(&mut room);
        let _ = hearing.poll_read(&mut Pieces(&mut bytes, size.max(1)), cx, &mut buf);
        told.extend(heard.take().iter().map(|interim| interim.status.as_u16()));
        if buf.filled().is_empty() {
            return (all, told);
        }
        all.extend_from_slice(buf.filled());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 x\r\n\r\n";

    proptest! {
        #[test]
        fn what_comes_before_an_answer_is_heard_and_the_rest_passed_on(
            before in proptest::collection::vec((100_u16..200).prop_filter("an upgrade", |code| *code != 101), 0..10),
            fields in "([a-z]{1,9}: [ -~]{0,9}\r\n){0,3}",
            answer in prop_oneof![Just(ANSWER.to_owned()), Just(ANSWER.replace("200 OK", "101 x")), "\\PC{0,40}"],
            size in 1..2000_usize,
            room in 1..2000_usize,
        ) {
            prop_assume!(!answer.starts_with("HTTP/1.") || answer.len() > 40);
            let heads: Vec<_> = before.iter().map(|code| format!("HTTP/1.1 {code} x\r\n{fields}\r\n")).collect();
            let heads = heads.concat();
            let (passed_on, told) = passed(format!("{heads}{answer}").as_bytes(), size, room);
            prop_assert_eq!(String::from_utf8_lossy(&passed_on), answer);
            prop_assert_eq!(told, before.into_iter().filter(|code| *code != 100).collect::<Vec<_>>());
        }

        #[test]
        fn of_anything_else_nothing_is_lost(bytes: Vec<u8>, size in 1..200_usize, room in 1..200_usize) {
            let (passed_on, told) = passed(&bytes, size, room);
            prop_assert_eq!(passed_on, bytes);
            prop_assert_eq!(told, Vec::<u16>::new());
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_none_whatever_pieces_it_comes_in() {
        for end in ["", "\r\n\r\n"] {
            let long = format!("HTTP/1.1 103 x\r\nA: {}{end}", "b".repeat(LONGEST));
            for (size, room) in
                [(1, 1), (1, LONGEST), (1000, 2 * LONGEST), (2 * LONGEST, 7), (2 * LONGEST, 2 * LONGEST)]
            {
                assert_eq!(passed(long.as_bytes(), size, room), (long.clone().into_bytes(), Vec::new()));
            }
        }
    }
}
