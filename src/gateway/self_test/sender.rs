//! The clients: HTTP/1.1 written by hand, because a library would not misspell, and HTTP/2.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::forged::Case;
use super::recorder::CONTROL;
use super::{CLIENT, Protocol, Stage, Way, limits};
use crate::edge::serve_stream;

const HOST: &str = "self-test.invalid";
/// Bytes between client and server before one of them waits.
const BUFFER: usize = 64 * 1024;

/// Why the requests could not be sent.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] http::Error),
}

/// Sends all on one connection, one behind the other, and waits until all are answered.
pub(super) async fn http1<'c>(
    stage: Arc<Stage>,
    cases: impl Iterator<Item = (usize, &'c Case)>,
) -> Result<(), SendError> {
    let mut text: String = cases.map(|(number, case)| written(number, case)).collect();
    let _ = write!(text, "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"); // a String takes every write
    let connection = connect(stage, Protocol::Http1);
    let (mut reader, mut writer) = split(connection);
    let mut answers = Vec::new();
    let (sent, read) = tokio::join!(writer.write_all(text.as_bytes()), reader.read_to_end(&mut answers));
    read?;
    sent?;
    Ok(())
}

fn written(number: usize, case: &Case) -> String {
    let fields = case.fields.iter().fold(String::new(), |mut fields, (name, value)| {
        let _ = write!(fields, "{name}: {value}\r\n"); // a String takes every write
        fields
    });
    let names = || case.fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{CONTROL}: {number}\r\n");
    match case.way {
        Way::Head => format!("{head}Content-Length: 0\r\n{fields}\r\n"),
        Way::Connection => format!("{head}Content-Length: 0\r\nConnection: {}\r\n{fields}\r\n", names()),
        Way::Trailer => format!(
            "{head}TE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: {CONTROL}, {}\r\n\r\n\
             1\r\nx\r\n0\r\n{CONTROL}: {number}\r\n{fields}\r\n",
            names()
        ),
    }
}

/// Sends all on one connection, one after the other.
pub(super) async fn http2<'c>(
    stage: Arc<Stage>,
    cases: impl Iterator<Item = (usize, &'c Case)>,
) -> Result<(), SendError> {
    let io = TokioIo::new(connect(stage, Protocol::Http2));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    for (number, case) in cases {
        sender.ready().await?;
        sender.send_request(composed(number, case)?).await?.into_body().collect().await?;
    }
    Ok(())
}

type AnyBody = BoxBody<Bytes, std::convert::Infallible>;

fn composed(number: usize, case: &Case) -> Result<Request<AnyBody>, http::Error> {
    let mut fields = HeaderMap::new();
    for (name, value) in &case.fields {
        fields.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    let request = Request::post(format!("http://{HOST}/")).header(CONTROL, number);
    if case.way != Way::Trailer {
        let mut request = request.body(Empty::new().boxed())?;
        request.headers_mut().extend(fields);
        return Ok(request);
    }
    let names: Vec<&str> = [CONTROL].into_iter().chain(fields.keys().map(HeaderName::as_str)).collect();
    let request = request.header("te", "trailers").header("trailer", names.join(", "));
    fields.insert(CONTROL, HeaderValue::from(number));
    // Of unknown length: trailers go on only behind a body that is sent in chunks.
    let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(fields)].map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    request.body(body.boxed())
}

/// A connection that a listener's own code serves; HTTP/2 as after its TLS handshake.
fn connect(stage: Arc<Stage>, protocol: Protocol) -> DuplexStream {
    let (client, server) = duplex(BUFFER);
    tokio::spawn(async move { serve_stream(stage, server, protocol == Protocol::Http2, CLIENT, &limits()).await });
    client
}
