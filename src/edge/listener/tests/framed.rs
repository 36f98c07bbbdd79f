//! What is looked at before hyper has it ends where hyper says: the same bytes, once through a listener and once to hyper alone.

use std::convert::Infallible;
use std::sync::Mutex;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use proptest::prelude::*;
use tokio::io::DuplexStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::edge::listener::activity::Protocol;
use crate::edge::listener::connection::Server;
use crate::edge::{Answers, Scheme};

/// Notes the requests whose bodies came to an end.
#[derive(Default)]
struct Recorder(Mutex<Vec<(String, Bytes)>>);

impl Recorder {
    async fn record(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if let Ok(body) = body.collect().await {
            self.0.lock().unwrap().push((head.uri.to_string(), body.to_bytes()));
        }
        Response::new(Body::empty())
    }
}

impl Handler for Recorder {
    type Kept = ();

    fn handle(self: &Arc<Self>, _: Connection, (): &(), request: Request<Incoming>) -> impl Answers + Send + use<> {
        let this = Arc::clone(self);
        async move { this.record(request).await }
    }
}

/// Sends these pieces, and hears what comes of it.
async fn send(mut client: DuplexStream, pieces: Vec<Vec<u8>>) {
    let sending = async {
        for piece in pieces {
            // It may have ended.
            let _ = client.write_all(&piece).await;
            tokio::task::yield_now().await;
        }
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    // Where more is waited for, there is none.
    let _ = timeout(seconds(1000), sending).await;
}

/// What a handler gets of these pieces, of hyper alone or of a listener.
fn recorded(pieces: &[Vec<u8>], alone: bool) -> Vec<(String, Bytes)> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (recorder, (client, stream)) = (Arc::<Recorder>::default(), tokio::io::duplex(64 * 1024));
        let its = Arc::clone(&recorder);
        let serving = async move {
            if alone {
                let service = service_fn(|request| async {
                    Ok::<_, Infallible>(its.record(request).await.map(|_| Empty::<Bytes>::new()))
                });
                let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service).await;
            } else {
                let connection =
                    Connection { peer: ([127, 0, 0, 1], 1).into(), scheme: Scheme::Http, serves: Serves::Handset };
                let (server, closing) = (Server::new(its, None), CancellationToken::new());
                server.serve(stream, Protocol::Http1, connection, &limits(), &closing, None).await;
            }
        };
        tokio::select! {
            () = send(client, pieces.to_vec()) => {}
            ((), ()) = async { tokio::join!(serving, std::future::pending()) } => {}
        }
        let requests = recorder.0.lock().unwrap();
        requests.clone()
    })
}

fn chunk() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let data = prop::collection::vec(prop::sample::select(b"\r\n05;aGET".to_vec()), 1..20);
    let style = prop::sample::select(vec!["", ";a", ";a=\"\t\"", " ", "\t;x", " \t "]);
    (data, style, 0..3_usize, any::<bool>()).prop_map(|(data, style, zeros, upper)| {
        let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
        let mut text = format!("{}{size}{style}\r\n", "0".repeat(zeros)).into_bytes();
        text.extend_from_slice(&data);
        text.extend_from_slice(b"\r\n");
        (text, data)
    })
}

proptest! {
    #[test]
    fn a_chunked_body_ends_where_hyper_ends_it(
        chunks in prop::collection::vec(chunk(), 0..5),
        last in prop::sample::select(vec!["0", "000", "0;a", "0 "]),
        trailers in prop::sample::select(vec!["", "X: a\r\n", "X: a\r\nY:\r\n"]),
        change in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(b"\r\n0;5 x".to_vec()), 0..3_u8)),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let body: Vec<u8> = chunks.iter().flat_map(|(_, data)| data.clone()).collect();
        let head = b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut bytes = head.to_vec();
        bytes.extend(chunks.iter().flat_map(|(text, _)| text));
        bytes.extend_from_slice(format!("{last}\r\n{trailers}\r\n").as_bytes());
        if let Some((at, byte, how)) = &change {
            let at = head.len() + at.index(bytes.len() - head.len());
            match how {
                0 => bytes[at] = *byte,
                1 => bytes.insert(at, *byte),
                _ => { bytes.remove(at); }
            }
        }
        bytes.extend_from_slice(b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<Vec<u8>> = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
        let (ours, alone) = (recorded(&pieces, false), recorded(&pieces, true));
        // hyper reads some on that we refuse, and nothing otherwise than we do.
        prop_assert!(alone.starts_with(&ours), "{ours:?}, alone {alone:?}");
        if change.is_none() {
            prop_assert_eq!(ours, [("/first".to_owned(), body.into()), ("/second".to_owned(), Bytes::new())]);
        }
    }
}
