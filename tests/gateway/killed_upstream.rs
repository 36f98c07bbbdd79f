//! A server of an upstream that dies under load: what never reached it goes to the other one, what may have is answered 502 and
//! sent to nobody again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::sync::oneshot;

use crate::bystander::Bystander;
use crate::harness::{HOST, Harness, try_exchange};
use crate::recorder::{Received, RecordingUpstream};
use crate::wire::soon;

/// Who ask at the same time, each one request after the other.
const CLIENTS: u8 = 12;

/// A server on a thread of its own. When that ends the kernel closes what it had open, as after a kill.
struct Mortal {
    server: RecordingUpstream,
    dies: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Mortal {
    async fn start() -> Self {
        let (tell, told) = oneshot::channel();
        let (dies, end) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                assert!(tell.send(RecordingUpstream::start().await).is_ok());
                let _ = end.await;
            });
        });
        Self { server: told.await.unwrap(), dies, thread }
    }

    /// What it had received when it died.
    fn kill(self) -> Vec<Received> {
        self.dies.send(()).unwrap();
        self.thread.join().unwrap();
        self.server.received()
    }
}

/// Asks for one thing after the other, none twice: each with its status.
async fn asks(
    source: IpAddr,
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<(String, StatusCode)> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let target = format!("/mortal/{source}/{}", seen.len());
        let request = if seen.len().is_multiple_of(2) { Request::get(&target) } else { Request::post(&target) };
        let body = if seen.len().is_multiple_of(2) { Bytes::new() } else { Bytes::from_static(b"order") };
        let request = request.header("Host", HOST).body(Full::new(body)).unwrap();
        let answer = soon(try_exchange(source, to, request)).await.expect("the gateway answers whatever happens");
        seen.push((target, answer.status));
        answered.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

#[tokio::test]
async fn what_may_have_reached_a_server_that_dies_is_sent_to_no_other() {
    let (first, second) = (Mortal::start().await, Mortal::start().await);
    let calm = Bystander::new().await;
    let harness = Harness::with(|config| {
        let servers = format!("[\"http://{}\", \"http://{}\"]", first.server.address, second.server.address);
        let upstream = format!("[[upstream]]\nname = \"mortal\"\nservers = {servers}\naudience = \"https://mortal\"\n");
        let route = "[[route]]\npath = \"/mortal\"\nupstream = \"mortal\"\naccess = \"public\"\n";
        calm.beside(&format!("{config}\n{upstream}{route}"))
    })
    .await;
    let watch = calm.watch(&harness).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let begin = |last: u8| {
        let source = [127, 0, 4, last].into();
        tokio::spawn(asks(source, harness.address(), Arc::clone(&stop), Arc::clone(&answered)))
    };
    let clients: Vec<_> = (100..100 + CLIENTS).map(begin).collect();
    let so_many_more = async |more: usize| {
        let wanted = answered.load(Ordering::Relaxed) + more;
        soon(async {
            while answered.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };

    so_many_more(200).await;
    let by_first = first.kill();
    so_many_more(400).await;
    stop.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for client in clients {
        let of_one = soon(client).await.unwrap();
        assert!(of_one.iter().rev().take(5).all(|(_, status)| *status == StatusCode::OK), "{of_one:?}");
        seen.extend(of_one);
    }
    let by_second = second.kill();
    assert!(!by_first.is_empty() && !by_second.is_empty());
    let lost = seen.iter().filter(|(_, status)| *status != StatusCode::OK).count();
    // Those that were with it, and as many whose connection was found closed once they were written.
    assert!(lost <= 2 * usize::from(CLIENTS), "{lost} of {} were lost", seen.len());
    for (target, status) in seen {
        let received = by_first.iter().chain(&by_second).filter(|received| received.target == target).count();
        match status {
            StatusCode::OK => assert_eq!(received, 1, "{target}"),
            StatusCode::BAD_GATEWAY => {
                assert!(by_second.iter().all(|received| received.target != target), "{target} was sent twice");
            }
            other => panic!("{target}: {other}"),
        }
    }
    watch.noticed_nothing().await;
    harness.finish().await;
}
