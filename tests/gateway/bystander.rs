//! A normal client beside a fault: signed in, asking all the time on connections that stay, over HTTP/1.1 and HTTP/2. It must
//! not notice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST as HOST_FIELD;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sekisho::config::Serves;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Carrier, HOST, Handset, Harness, NoAnswer};
use crate::recorder::RecordingUpstream;
use crate::wire::{TestTls, connect, soon, tls_connect};

/// Nobody else in the tests comes from there: what is limited for one address is not limited for this one.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 4, 77));
/// How long one thinks before the next request.
const THINKS: Duration = Duration::from_millis(10);
/// No request takes so long, on a machine that does other things as well.
const NOTICED: Duration = Duration::from_secs(3);
/// What its console says.
const CALM: &str = "calm";

/// Where a normal client finds its console, and the certificate of the listener that it uses.
pub(crate) struct Bystander {
    console: RecordingUpstream,
    pub(crate) tls: TestTls,
}

impl Bystander {
    pub(crate) async fn new() -> Self {
        let console = RecordingUpstream::start().await;
        console.answer(|_| Response::new(Full::new(Bytes::from_static(CALM.as_bytes()))));
        Self { console, tls: TestTls::new() }
    }

    /// Added to a configuration: its console, the way there for who is signed in, and a listener over TLS, the last.
    pub(crate) fn beside(&self, config: &str) -> String {
        let upstream = format!(
            "[[upstream]]\nname = \"calm\"\nservers = [\"http://{}\"]\naudience = \"https://calm.internal\"\n",
            self.console.address
        );
        let route = "[[route]]\npath = \"/calm\"\nupstream = \"calm\"\naccess = \"session\"\n";
        self.tls.listening(&format!("{config}\n{upstream}{route}"))
    }

    /// Signs in at a gateway with such a configuration, and begins to ask.
    pub(crate) async fn watch(&self, harness: &Harness) -> Watch {
        let listeners = harness.running.listeners();
        let over_tls = listeners.iter().rfind(|listener| listener.serves == Serves::Handset && listener.tls).unwrap();
        let places = [Some(harness.address()), Some(over_tls.address)];
        self.watch_at(places, async |account| harness.code(account).await).await
    }

    /// The same, where the plain listener is not for everybody.
    pub(crate) async fn watch_over_tls(&self, harness: &Harness) -> Watch {
        let listeners = harness.running.listeners();
        let over_tls = listeners.iter().rfind(|listener| listener.serves == Serves::Handset && listener.tls).unwrap();
        self.watch_at([None, Some(over_tls.address)], async |account| harness.code(account).await).await
    }

    /// The same at a plain listener and one over TLS, where there is one; `code` issues a code for an account.
    pub(crate) async fn watch_at(
        &self,
        [plain, over_tls]: [Option<SocketAddr>; 2],
        code: impl AsyncFn(&str) -> String,
    ) -> Watch {
        let plain = plain.map(|address| (address, None, "x"));
        let http1 = plain.or(over_tls.map(|address| (address, Some(self.tls.http1()), "x")));
        let http2 = over_tls.map(|address| (address, Some(self.tls.http2()), "y"));
        let stop = CancellationToken::new();
        let mut people = Vec::new();
        for (address, tls, tail) in [http1, http2].into_iter().flatten() {
            let mut handset = Handset::new(address, Carrier::PrivateApn, tail);
            (handset.source, handset.tls) = (SOURCE, tls);
            let code = code(&format!("bystander-{tail}")).await;
            let entered = handset.enrol("/calm", &code).await;
            assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
            let (tells, told) = watch::channel(Ok(0));
            let task = AbortOnDropHandle::new(tokio::spawn(asks(handset, tells, stop.clone())));
            people.push(Person { told, task });
        }
        Watch { stop, people }
    }
}

/// A normal client that asks.
#[must_use = "whether it noticed anything has to be asked"]
pub(crate) struct Watch {
    stop: CancellationToken,
    people: Vec<Person>,
}

/// How many answers came as usual; or what came instead.
type Told = Result<usize, String>;

/// One of its connections.
struct Person {
    told: watch::Receiver<Told>,
    task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Waits for another answer on each connection; none was missing so far.
    pub(crate) async fn goes_on(&self, case: &str) {
        for person in &self.people {
            let mut told = person.told.clone();
            let wanted = told.borrow().as_ref().map_or(0, |answered| answered + 1);
            let more = |told: &Told| told.as_ref().map_or(true, |answered| *answered >= wanted);
            if let Err(noticed) = soon(told.wait_for(more)).await.expect("it was not stopped").as_ref() {
                panic!("{case}: a normal client noticed it: {noticed}");
            }
        }
    }

    /// Ends it: every request was answered as usual and in time, those after the fault too, on the connections of the beginning.
    pub(crate) async fn noticed_nothing(self) {
        self.goes_on("afterwards").await;
        self.stop.cancel();
        for person in self.people {
            soon(person.task).await.unwrap();
            assert!(person.told.borrow().is_ok(), "a normal client noticed it: {:?}", person.told.borrow());
        }
    }
}

/// A connection that stays.
enum Asking {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Asking {
    /// The connection of a handset, and what drives it.
    async fn connect(handset: &Handset) -> (Self, AbortOnDropHandle<hyper::Result<()>>) {
        let driven = |task| AbortOnDropHandle::new(task);
        let Some(tls) = &handset.tls else {
            let stream = TokioIo::new(connect(handset.source, handset.gateway).await);
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            return (Self::Http1(sender), driven(tokio::spawn(connection)));
        };
        let stream = tls_connect(handset.source, handset.gateway, tls).await;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = handshake.await.unwrap();
            (Self::Http2(sender), driven(tokio::spawn(connection)))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            (Self::Http1(sender), driven(tokio::spawn(connection)))
        }
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => {
                let host = request.headers_mut().remove(HOST_FIELD).unwrap_or_else(|| HOST.parse().unwrap());
                let target = format!("https://{}{}", host.to_str().unwrap(), request.uri());
                *request.uri_mut() = target.parse::<Uri>().unwrap();
                sender.send_request(request).await
            }
        }
    }

    const fn protocol(&self) -> &'static str {
        match self {
            Self::Http1(_) => "HTTP/1.1",
            Self::Http2(_) => "HTTP/2",
        }
    }
}

/// Asks until it is stopped, or until an answer is another than usual.
async fn asks(handset: Handset, tells: watch::Sender<Told>, stop: CancellationToken) {
    let (mut asking, _driver) = Asking::connect(&handset).await;
    let mut pace = interval(THINKS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let as_usual = (StatusCode::OK, Bytes::from_static(CALM.as_bytes()));
    for answered in 1.. {
        pace.tick().await;
        if stop.is_cancelled() {
            return;
        }
        let protocol = asking.protocol();
        let noticed = match timeout(NOTICED, ask(&handset, &mut asking)).await {
            Ok(Ok(answer)) if answer == as_usual => {
                tells.send_modify(|told| *told = Ok(answered));
                continue;
            }
            Ok(Ok((status, body))) => format!("{protocol}: {status} {}", String::from_utf8_lossy(&body)),
            Ok(Err(error)) => format!("{protocol}: {error:?}"),
            Err(_) => format!("{protocol}: no answer within {NOTICED:?}"),
        };
        tells.send_modify(|told| *told = Err(format!("{noticed}, after {} answers", answered - 1)));
        return;
    }
}

async fn ask(handset: &Handset, asking: &mut Asking) -> Result<(StatusCode, Bytes), NoAnswer> {
    let request = handset.request(Method::GET, "/calm/x", &[], Bytes::new());
    let (head, body) = asking.send(request).await?.into_parts();
    Ok((head.status, body.collect().await?.to_bytes()))
}
