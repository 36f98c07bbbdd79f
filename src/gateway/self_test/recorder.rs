//! The internal upstream: looks for canaries in everything that reaches it, and notes which requests arrived.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The field that must arrive; its value is the number of the request.
pub(super) const CONTROL: &str = "x-self-test-control";

/// More fields than any request here has: what survives must be counted, not refused.
const ROOM: usize = 1000;

/// What arrived, by number.
#[derive(Default)]
pub(super) struct Seen {
    /// Forged fields.
    pub(super) forged: BTreeSet<usize>,
    /// Requests whose head had its control.
    pub(super) heads: BTreeSet<usize>,
    /// Requests whose trailers had theirs.
    pub(super) trailers: BTreeSet<usize>,
}

/// A running recorder; it ends when dropped.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _end: DropGuard,
}

impl Recorder {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// There is no port or descriptor left.
    pub(super) async fn start(canary: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let end = CancellationToken::new();
        let serving = serve(listener, canary.as_bytes().into(), Arc::clone(&seen));
        let ended = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                () = ended.cancelled() => {}
            }
        });
        Ok(Self { address, seen, _end: end.drop_guard() })
    }

    /// What was seen.
    pub(super) fn stop(self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(listener: TcpListener, canary: Arc<[u8]>, seen: Arc<Mutex<Seen>>) {
    let mut connections = JoinSet::new();
    // It ends with the listener's first error: requests then do not arrive, and the test says so.
    while let Ok((stream, _)) = listener.accept().await {
        let (canary, seen) = (Arc::clone(&canary), Arc::clone(&seen));
        let service = service_fn(move |request| {
            let (canary, seen) = (Arc::clone(&canary), Arc::clone(&seen));
            async move {
                record(request, &canary, &seen).await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut http = http1::Builder::new();
        connections.spawn(http.max_headers(ROOM).serve_connection(TokioIo::new(stream), service));
    }
}

async fn record(request: Request<Incoming>, canary: &[u8], seen: &Mutex<Seen>) {
    let (head, body) = request.into_parts();
    let collected = body.collect().await;
    let trailers = collected.as_ref().ok().and_then(|body| body.trailers()).cloned().unwrap_or_default();
    let body = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let target = head.uri.to_string();
    let values = head.headers.values().chain(trailers.values()).map(http::HeaderValue::as_bytes);
    let forged: Vec<usize> = values.chain([target.as_bytes(), &body]).flat_map(|text| numbers(text, canary)).collect();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.forged.extend(forged);
    seen.heads.extend(control(&head.headers));
    seen.trailers.extend(control(&trailers));
}

fn control(fields: &HeaderMap) -> Option<usize> {
    fields.get(CONTROL)?.to_str().ok()?.parse().ok()
}

/// The numbers behind every canary in `text`: `CANARY-NUMBER.`
fn numbers(text: &[u8], canary: &[u8]) -> Vec<usize> {
    let starts = (0..text.len()).filter(|at| text.get(*at..).is_some_and(|rest| rest.starts_with(canary)));
    let number = |at: usize| {
        let digits = text.get(at + canary.len() + 1..)?.split(|b| *b == b'.').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    starts.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canary_in_a_text_is_found() {
        for (text, expected) in [
            ("", &[][..]),
            ("plain", &[]),
            ("abc-12.", &[12]),
            ("abc-0., abc-7.", &[0, 7]),
            ("for=\"abc-3.\";proto=http", &[3]),
            ("abc", &[]),
        ] {
            assert_eq!(numbers(text.as_bytes(), b"abc"), expected, "{text}");
        }
    }
}
