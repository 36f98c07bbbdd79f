//! What is said before an answer, and where its making ends.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::edge::listener::activity::{Activity, Protocol};
use crate::edge::listener::connection::Server;
use crate::edge::listener::watched::Watched;
use crate::edge::{Before, Interim, Scheme};

const LONG: Duration = Duration::from_secs(10);

/// Notes whether what it answers with went while it unwound.
#[derive(Default)]
struct Falls {
    has_unwound: Arc<AtomicBool>,
}

struct Falling(Arc<AtomicBool>);

impl Answers for Falling {
    fn poll_answer(self: Pin<&mut Self>, _: &mut Context<'_>, _: &Before<'_>) -> Poll<Response<Body>> {
        panic!("a handler may panic")
    }
}

impl Drop for Falling {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Relaxed);
    }
}

impl Handler for Falls {
    type Kept = ();

    fn handle(self: &Arc<Self>, _: Connection, (): &(), _: Request<Incoming>) -> impl Answers + Send + use<> {
        Falling(Arc::clone(&self.has_unwound))
    }
}

/// What tells of its end, as its line in a log does, knows why that was.
#[tokio::test]
async fn what_panics_goes_while_it_unwinds() {
    let (falls, (mut client, stream)) = (Arc::<Falls>::default(), tokio::io::duplex(1024));
    let its = Arc::clone(&falls);
    let connection = Connection { peer: ([127, 0, 0, 1], 1).into(), scheme: Scheme::Http, serves: Serves::Handset };
    tokio::spawn(async move {
        let (server, closing) = (Server::new(its, None), CancellationToken::new());
        server.serve(stream, Protocol::Http1, connection, &limits(), &closing, None).await;
    });
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    timeout(LONG, client.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!((&status, falls.has_unwound.load(Relaxed)), (b"HTTP/1.1 500", true));
}

#[tokio::test]
async fn nothing_comes_within_what_is_said_before_an_answer() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let ((near, mut far), activity) = (tokio::io::duplex(5), Activity::new(Protocol::Http1));
    let mut stream = Watched::new(near, Arc::clone(&activity), None);
    let before = Before::new(Some(&activity));
    let fields = HeaderMap::from_iter([(header::LINK, "</a.css>".parse().unwrap())]);
    before.say(&Interim { status: StatusCode::EARLY_HINTS, fields });
    assert!(Pin::new(&mut stream).poll_flush(&mut Context::from_waker(Waker::noop())).is_pending(), "it has begun");
    before.say(&Interim { status: StatusCode::PROCESSING, fields: HeaderMap::new() });
    let expected = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let mut read = vec![0; expected.len()];
    let (written, came) =
        timeout(LONG, async { tokio::join!(stream.write_all(CONTINUE), far.read_exact(&mut read)) }).await.unwrap();
    written.unwrap();
    came.unwrap();
    assert_eq!(String::from_utf8(read).unwrap().as_bytes(), expected);
}

#[tokio::test]
async fn to_who_does_not_read_no_more_is_said_than_a_buffer_holds() {
    let activity = Activity::new(Protocol::Http1);
    let before = Before::new(Some(&activity));
    let fields = HeaderMap::from_iter([(header::LINK, "x".repeat(1000).parse().unwrap())]);
    let interim = Interim { status: StatusCode::EARLY_HINTS, fields };
    (0..100).for_each(|_| before.say(&interim));
    let (near, mut far) = tokio::io::duplex(1024 * 1024);
    let mut stream = Watched::new(near, activity, None);
    stream.flush().await.unwrap();
    drop(stream);
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert!((15_000..=16 * 1024).contains(&read.len()) && read.ends_with(b"x\r\n\r\n"), "{}", read.len());
}
