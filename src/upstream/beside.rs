//! Requests that may open a connection where this machine has no file left: they wait beside the line, since what those in it
//! wait for is no help, and what helps is no other worker's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::line::{Full, LOOK_AGAIN};
use super::pool::Place;
use super::servers::Servers;

/// How often each of a few looks for a connection that is idle. Nobody tells it, so that nothing is asked of those that can
/// open one.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(20);

/// About so many look within that time: where more wait each looks the less often, but as often as the first in the line.
const LOOK_AT_ONCE: usize = 256;

/// How often to say that none can be opened.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Who waits beside the line of one upstream.
#[derive(Default)]
pub(super) struct Beside {
    waiting: AtomicUsize,
    tried: Seldom,
    said: Seldom,
}

impl Beside {
    /// So many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether it is time to say that none can be opened.
    pub(super) fn is_news(&self) -> bool {
        self.said.is_due(Instant::now(), SAY_AGAIN)
    }

    /// Waits for a connection of this worker to one of `servers`, which are those of this line, until `end`; or leave to try to
    /// open one anew, as one of all who wait does now and then.
    pub(super) async fn wait(&self, upstream: &str, servers: &Arc<Servers>, end: Instant) -> Result<Place, Full> {
        let place = self.wait_for_idle(servers, end).await;
        place.inspect_err(|Full| servers.line.turn_away(upstream))
    }

    /// How long each waits before it looks again.
    fn pause(&self) -> Duration {
        let times = 1 + self.waiting() / LOOK_AT_ONCE;
        LOOK_FOR_IDLE.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX)).min(LOOK_AGAIN)
    }

    async fn wait_for_idle(&self, servers: &Servers, end: Instant) -> Result<Place, Full> {
        let _counted = Counted::of(&self.waiting, servers.queue.length)?;
        // The first time was just now.
        self.tried.is_due(Instant::now(), LOOK_AGAIN);
        loop {
            let now = Instant::now();
            let place = servers.idle_place(now).or_else(|| {
                let may_try = now < end && servers.line.waiting() == 0 && self.tried.is_due(now, LOOK_AGAIN);
                may_try.then(|| servers.any_place(now)).flatten()
            });
            match place {
                Some(place) => return Ok(place),
                None if now >= end => return Err(Full),
                None => sleep_until(end.min(now + self.pause())).await,
            }
        }
    }
}

/// What is done once in a while, whoever does it.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether the last time is so long ago; then this is the next one.
    fn is_due(&self, now: Instant, every: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now >= last + every);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// One who waits, until it is dropped.
struct Counted<'c>(&'c AtomicUsize);

impl<'c> Counted<'c> {
    fn of(waiting: &'c AtomicUsize, most: usize) -> Result<Self, Full> {
        if waiting.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(Self(waiting));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        Err(Full)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};

    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;
    use crate::upstream::tests::pools::{PATIENCE, ends, granted, open, settle, small, workers};

    /// A request that was let open a connection, and could not.
    fn unable(servers: &Arc<Servers>) -> JoinHandle<Result<Place, Full>> {
        let servers = Arc::clone(servers);
        let end = Instant::now() + PATIENCE;
        tokio::spawn(async move { servers.line.beside.wait("console", &servers, end).await })
    }

    /// What it gets after a while, in which it looks now and then.
    async fn in_time(waiting: JoinHandle<Result<Place, Full>>) -> Place {
        settle().await;
        advance(LOOK_FOR_IDLE).await;
        granted(waiting).await
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_can_be_opened_one_that_is_open_is_waited_for() {
        let [servers] = workers(&small(10, 2));
        let used = open(&servers).await.unwrap();
        let first = unable(&servers);
        settle().await;
        assert!(!first.is_finished(), "leave to open one is no help");
        assert_eq!((servers.line.waiting(), servers.line.beside.waiting()), (0, 1));
        let other_end = ends(used);
        let Place::Idle(lease) = in_time(first).await else { panic!("a connection was free") };
        let waiting = [unable(&servers), unable(&servers)];
        settle().await;
        assert!(unable(&servers).await.unwrap().is_err(), "no more than fit into the line");
        for _ in 0..=LOOK_AGAIN.as_millis() / LOOK_FOR_IDLE.as_millis() {
            advance(LOOK_FOR_IDLE).await;
            settle().await;
        }
        assert_eq!(waiting.iter().filter(|waiting| waiting.is_finished()).count(), 1, "one tries again");
        let late = servers.line.beside.wait("console", &servers, Instant::now()).await;
        assert!(late.is_err());
        let _other_end = ends((lease, other_end));
        for waiting in waiting {
            let place = waiting.await.unwrap().unwrap();
            drop(place);
        }
        assert_eq!((servers.line.beside.waiting(), servers.line.turned_away()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_look_no_more_often_than_some() {
        let [servers] = workers(&small(1, 4 * LOOK_AT_ONCE));
        let _used = open(&servers).await.unwrap();
        let looks = Arc::new(AtomicUsize::new(0));
        let end = Instant::now() + PATIENCE;
        for _ in 0..4 * LOOK_AT_ONCE {
            let (servers, looks) = (Arc::clone(&servers), Arc::clone(&looks));
            tokio::spawn(async move {
                let mut waiting = std::pin::pin!(servers.line.beside.wait("console", &servers, end));
                let counted = poll_fn(|context| {
                    looks.fetch_add(1, Ordering::Relaxed);
                    waiting.as_mut().poll(context)
                });
                counted.await.map(drop)
            });
        }
        while servers.line.beside.waiting() < 4 * LOOK_AT_ONCE {
            settle().await;
        }
        looks.store(0, Ordering::Relaxed);
        for _ in 0..10 {
            advance(LOOK_FOR_IDLE).await;
            for _ in 0..4 * LOOK_AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
        let looks = looks.load(Ordering::Relaxed);
        assert!((LOOK_AT_ONCE..=12 * LOOK_AT_ONCE).contains(&looks), "{looks}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_open_none_takes_nothing_from_who_can() {
        let [one, other] = workers(&small(2, 3));
        let used = open(&one).await.unwrap();
        let unable = unable(&other);
        settle().await;
        let _other_end = ends(used);
        assert!(one.idle_place(Instant::now()).is_some(), "another worker's stays open");
        assert!(matches!(other.place(Instant::now()), Ok(Place::Vacant(_))));
        assert!(!unable.is_finished());
        let [idle, _used] = [open(&other).await, open(&one).await];
        assert!(idle.is_some(), "there is room");
        unable.abort();
    }
}
