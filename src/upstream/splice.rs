//! After an upgrade: bytes in both directions, unread.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::pool::Outstanding;

/// Copies until both sides have closed, one fails, or `end` comes; then both connections are gone.
///
/// A side that closes only its writing half still receives the rest, as some protocols rely on.
pub(super) async fn splice(
    client: OnUpgrade,
    upstream: OnUpgrade,
    end: impl Future<Output = ()>,
    _counted: Outstanding,
) {
    let copied = async {
        // A side that never upgrades has closed its connection; the other is closed with it.
        if let Ok((client, upstream)) = tokio::try_join!(client, upstream) {
            let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
        }
    };
    tokio::select! {
        () = end => {}
        () = copied => {}
    }
}
