//! After an upgrade: bytes in both directions, unread.

use std::pin::Pin;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_io_timeout::TimeoutStream;

use super::pool::Outstanding;

/// How long each side may take nothing of what the other one sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) client: Duration,
    pub(super) upstream: Duration,
}

/// Copies until both sides have closed, one fails or takes nothing for too long, or `end` comes; then both connections are gone.
///
/// A side that closes only its writing half still receives the rest, as some protocols rely on. One may be silent for as long as
/// it likes.
pub(super) async fn splice(
    client: OnUpgrade,
    upstream: OnUpgrade,
    patience: Patience,
    end: impl Future<Output = ()>,
    _counted: Outstanding,
) {
    let copied = async {
        // A side that never upgrades has closed its connection; the other is closed with it.
        if let Ok((client, upstream)) = tokio::try_join!(client, upstream) {
            let (mut client, mut upstream) = (taking(client, patience.client), taking(upstream, patience.upstream));
            if let Err(error) = copy_bidirectional(&mut client, &mut upstream).await {
                tracing::debug!(%error, "an upgraded connection ended");
            }
        }
    };
    tokio::select! {
        () = end => {}
        () = copied => {}
    }
}

fn taking(side: Upgraded, patience: Duration) -> Pin<Box<TimeoutStream<TokioIo<Upgraded>>>> {
    let mut side = TimeoutStream::new(TokioIo::new(side));
    side.set_write_timeout(Some(patience));
    Box::pin(side)
}
