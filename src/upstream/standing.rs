//! What all workers know of one server: how many connections to it are open, how it did lately, who keeps idle ones.
//!
//! It outlives the configuration that it was made of as long as the next one names the same server in the same upstream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::ejection::Ejection;
use super::line::Line;
use super::link::Link;
use super::pool::Server;

/// One server, as all workers see it.
pub(super) struct Standing {
    pub(super) ejection: Ejection,
    /// Who waits for a connection to this server or another one of its upstream.
    pub(super) line: Arc<Line>,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<Server>>>,
}

impl Standing {
    /// Of a server that nothing is known of. `seed`: random.
    pub(super) fn new(line: Arc<Line>, seed: u64) -> Self {
        Self { ejection: Ejection::new(seed), line, open: AtomicUsize::new(0), pools: Mutex::default() }
    }

    /// Connections that are open, or being opened.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Leave to open a connection, where fewer than `most` are.
    pub(super) fn occupy(self: &Arc<Self>, most: usize) -> Option<Slot> {
        let one_more = |open| (open < most).then(|| open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Slot(Arc::clone(self)))
    }

    /// One more worker keeps idle connections to this server.
    pub(super) fn add(&self, pool: &Arc<Server>) {
        let mut pools = self.pools();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// An idle connection of any worker, the one that has been so for longest at that worker. To drop it makes room.
    pub(super) fn spare(&self) -> Option<Box<Link>> {
        self.pools().iter().filter_map(Weak::upgrade).find_map(|pool| pool.take_oldest())
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Weak<Server>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection: free again when this is dropped, which is together with the socket.
pub(super) struct Slot(Arc<Standing>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Self(standing) = self;
        // In this order, and whoever waits says so before it looks: one of the two sees the other.
        standing.open.fetch_sub(1, Ordering::SeqCst);
        if standing.line.waiting() > 0 {
            standing.line.settle();
        }
    }
}
