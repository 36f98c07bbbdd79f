//! Interim answers (1xx): what a client is told before its answer.
//!
//! A proxy passes on those of its upstream, whatever they say (RFC 9110 §15.2). hyper sends clients none but 100 and 101, so over
//! HTTP/1.1 they are written where the stream is flushed: hyper flushes it whenever it was polled and holds nothing back, and
//! the answer they precede is held back until they have gone. Over HTTP/2 hyper leaves no such place, and they are dropped.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Response, StatusCode};
use tokio::io::AsyncWrite;

use super::activity::Activity;
use crate::body::Body;

/// Bytes of them that wait for a client at most: to one that does not read they are no help, and what is dropped is only advice.
const MOST: usize = 16 * 1024;

/// The head of an interim answer, without anything of its connection. It has no body.
#[derive(Debug)]
pub struct Interim {
    /// Any of 1xx but 100 and 101, which are about a connection.
    pub status: StatusCode,
    /// Its fields, none of which frames a body (RFC 9112 §6.1, §6.2).
    pub fields: HeaderMap,
}

/// Takes what is to be said to a client before its answer.
pub struct Before<'a> {
    /// Where it waits, if the client understands it.
    said_by: Option<&'a Activity>,
}

/// An answer that is being made.
pub trait Answers {
    /// The answer, once it is there. What is said `before` reaches the client first, and may be said until then.
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>, before: &Before<'_>) -> Poll<Response<Body>>;
}

/// Says nothing before.
impl<F: Future<Output = Response<Body>>> Answers for F {
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &Before<'_>) -> Poll<Response<Body>> {
        self.poll(cx)
    }
}

impl<'a> Before<'a> {
    /// For a client by whose connection they are written, or for one that none may be sent to.
    pub(super) const fn new(said_by: Option<&'a Activity>) -> Self {
        Self { said_by }
    }

    /// For a client that is told nothing but its answer.
    #[must_use]
    pub const fn nobody() -> Self {
        Self { said_by: None }
    }

    /// Says this, if it can be.
    pub fn say(&self, interim: &Interim) {
        if let Some(activity) = self.said_by {
            activity.unsaid.add(interim);
        }
    }
}

/// What a client has still to be told before its answer goes.
#[derive(Default)]
pub(super) struct Unsaid {
    /// Most connections never have any, and see that by this.
    is_any: AtomicBool,
    heads: Mutex<Heads>,
}

/// Heads as they are written.
#[derive(Default)]
struct Heads {
    bytes: Vec<u8>,
    /// How many of these are written.
    written: usize,
}

impl Unsaid {
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    /// Whether the client has a part of them, behind which nothing else may come than the rest.
    pub(super) fn is_begun(&self) -> bool {
        self.is_any() && self.heads().written > 0
    }

    fn add(&self, Interim { status, fields }: &Interim) {
        let bytes = &mut self.heads().bytes;
        let before = bytes.len();
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(status.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        bytes.extend_from_slice(b"\r\n");
        for (name, value) in fields {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        if bytes.len() > MOST {
            bytes.truncate(before);
        }
        self.is_any.store(!bytes.is_empty(), Relaxed);
    }

    /// Writes some of them to their client's stream, until there are none.
    pub(super) fn poll_write_to<T: AsyncWrite + Unpin>(
        &self,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let heads = &mut *self.heads();
        let left = heads.bytes.get(heads.written..).unwrap_or_default();
        let written = ready!(Pin::new(stream).poll_write(cx, left))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        heads.written += written;
        if heads.written == heads.bytes.len() {
            *heads = Heads::default();
            self.is_any.store(false, Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Of one thread, so never waited for.
    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
