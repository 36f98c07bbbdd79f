//! Connections that end before their first request, or by one that cannot be read: counted each, told of now and then. Anybody can open as many as the
//! wire takes, and a log line for each would be a way to fill a disk.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How often the log says so, for each cause and worker.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Why a connection ended without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Its peer is none of the proxies whose PROXY header is believed.
    UntrustedProxy,
    /// A trusted proxy sent no PROXY header, a broken one, or not in time.
    ProxyHeader,
    /// There was no TLS handshake, or not in time.
    TlsHandshake,
    /// As many as `limits.connections` were open.
    Connections,
    /// As many as one address may have were open from it.
    ConnectionsPerAddress,
    /// What came over HTTP/1, first or behind other requests, is no head, or too long for one: refused by 400, 414 or 431.
    Unreadable,
}

impl TurnedAway {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::UntrustedProxy,
        Self::ProxyHeader,
        Self::TlsHandshake,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Unreadable,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UntrustedProxy => "untrusted-proxy",
            Self::ProxyHeader => "proxy-header",
            Self::TlsHandshake => "tls-handshake",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections-per-address",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What one worker said of them, and when.
pub(super) struct Complaints {
    since: Instant,
    causes: [Cause; TurnedAway::ALL.len()],
}

#[derive(Default)]
struct Cause {
    /// Milliseconds after `since` before which nothing is said.
    quiet_until: AtomicU64,
    unsaid: AtomicU64,
}

impl Complaints {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), causes: Default::default() }
    }

    /// Says that a connection was turned away, and how many were since the last time, unless it was just said.
    pub(super) fn say(&self, why: TurnedAway, error: &dyn fmt::Display) {
        if let Some(count) = self.due(why) {
            tracing::info!(why = why.as_str(), %error, count, "connections ended without a request that can be read");
        }
    }

    /// How many to tell of, if it is time.
    fn due(&self, why: TurnedAway) -> Option<u64> {
        let cause = self.causes.get(why as usize)?;
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let count = cause.unsaid.fetch_add(1, Relaxed) + 1;
        if now < cause.quiet_until.load(Relaxed) {
            return None;
        }
        // All of a worker's connections are tasks of one thread.
        let pause = u64::try_from(SAY_AGAIN.as_millis()).unwrap_or(u64::MAX);
        cause.quiet_until.store(now.saturating_add(pause), Relaxed);
        cause.unsaid.store(0, Relaxed);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_cause_is_told_of_twice_a_minute_at_most_and_none_is_forgotten() {
        let complaints = Complaints::new();
        assert_eq!(complaints.due(TurnedAway::TlsHandshake), Some(1));
        assert_eq!(complaints.due(TurnedAway::TlsHandshake), None);
        assert_eq!(complaints.due(TurnedAway::UntrustedProxy), Some(1));
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(complaints.due(TurnedAway::TlsHandshake), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(complaints.due(TurnedAway::TlsHandshake), Some(3));
        assert_eq!(complaints.due(TurnedAway::TlsHandshake), None);
    }

    #[test]
    fn the_order_is_that_of_the_causes() {
        for (index, why) in TurnedAway::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
    }
}
