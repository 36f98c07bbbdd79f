//! The thread that brings the journal into the file while others write on, so that no sign-in waits for that.
//!
//! SQLite would do it within the commit that makes the journal long. A passive checkpoint of another connection hinders
//! neither readers nor the writer (sqlite.org/wal.html §3.1).

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use super::connection::{Access, Held, Place};
use super::writer::Told;
use crate::store::StoreError;

/// Pages in the journal from which on it is brought into the file, 80 MiB. That syncs twice, and who writes meanwhile waits
/// for both as well: with the thousand pages that SQLite takes for itself it is one sign-in in ten, so that the slowest percent
/// takes two syncs more than the others. A disk takes as long, besides, for one page that stands alone as for many in a row: the
/// later, the more often was each of them written to the journal, and the more stand in a row. Far less than at which the
/// writer does it by itself.
const MANY_PAGES: i64 = 20 << 10;
/// The same while patient work is done that others must not hold up: on another core, beside it.
const MANY_IN_HASTE: i64 = 1000;

/// The way to the thread. Dropping it waits until it has ended.
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    /// Held for a checkpoint: of two at once SQLite refuses one.
    turn: Arc<Mutex<()>>,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(place: Place, told: Arc<Told>) -> io::Result<Self> {
        // One call that waits is as good as many.
        let (wake, calls) = sync_channel(1);
        let turn = Arc::new(Mutex::new(()));
        let (of_thread, told_of) = (Arc::clone(&turn), Arc::clone(&told));
        let work = move || checkpoint(&place, &calls, &of_thread, &told_of);
        let thread = Builder::new().name("store-checkpoint".into()).spawn(work)?;
        Ok(Self { wake: Some(wake), turn, told, thread: Some(thread) })
    }

    /// To be asked after a commit on `conn`.
    pub(super) fn committed(&self, conn: &Connection) {
        // It tells and does nothing (SQLite 3.51). What cannot be told now is told after the next commit.
        let pages = conn
            .prepare_cached("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|mut ask| ask.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)));
        let many = if self.told.burden.is_in_haste() { MANY_IN_HASTE } else { MANY_PAGES };
        if pages.is_ok_and(|pages| pages >= many) {
            self.wake();
        }
    }

    /// To be asked after a commit that failed: where the disk is full, a journal that was brought in is written over and
    /// grows no more.
    pub(super) fn failed(&self) {
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
    }

    /// No checkpoint but the caller's, until the guard is dropped.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who is about to have the journal emptied.
    pub(super) fn ahead(&self, place: &Place) -> Ahead {
        Ahead { place: place.clone(), turn: Arc::clone(&self.turn), told: Arc::clone(&self.told) }
    }
}

/// Brings in what the journal has before it is emptied, while others write on: everybody waits for what is left to do then.
#[derive(Clone)]
pub(super) struct Ahead {
    place: Place,
    turn: Arc<Mutex<()>>,
    told: Arc<Told>,
}

impl Ahead {
    /// Waits for the disk.
    pub(super) fn bring_in(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _load = self.told.burden.checkpoint();
        if let Err(error) = self.place.connect(Access::Write).and_then(|held| bring_in(&held)) {
            // Whoever empties it meets the same, and tells.
            tracing::debug!(%error, "the store's journal was not brought into its file");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        // It panics nowhere; if it did, the writer brings the journal in by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn checkpoint(place: &Place, calls: &Receiver<()>, turn: &Mutex<()>, told: &Told) {
    let mut held: Option<Held> = None;
    serve(calls, turn, || {
        let _load = told.burden.checkpoint();
        let done = match &held {
            Some(held) => bring_in(held),
            None => place.connect(Access::Write).and_then(|new| bring_in(held.insert(new))),
        };
        if let Err(error) = done {
            // Nothing is lost: it stays in the journal. The connection is opened anew, however the medium changed; one whose
            // files left is kept, as they may come back.
            tracing::debug!(%error, "the store's journal was not brought into its file");
            held = held.take().filter(|held| held.in_place().is_err());
        }
    });
}

/// Does it `once` for each call, and for those that came meanwhile.
fn serve(calls: &Receiver<()>, turn: &Mutex<()>, mut once: impl FnMut()) {
    while calls.recv().is_ok() {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        once();
        // Pages count as not brought in until all are: each commit meanwhile asked for this one. Another would sync twice more,
        // for next to nothing.
        while calls.try_recv().is_ok() {}
    }
}

fn bring_in(held: &Held) -> Result<(), StoreError> {
    held.in_place()?.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    held.in_place().map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::connection::connect;
    use super::*;

    #[test]
    fn a_journal_is_brought_in_late_and_early_for_work_that_rests_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let conn = connect(&folder.path().join("t"), Access::Create).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let (wake, calls) = sync_channel(1);
        let told = Arc::<Told>::default();
        let checkpointer =
            Checkpointer { wake: Some(wake), turn: Arc::default(), told: Arc::clone(&told), thread: None };
        let add = |pages: i64| {
            conn.execute("INSERT INTO t VALUES (zeroblob(4096 * ?1))", [pages]).unwrap();
            checkpointer.committed(&conn);
            calls.try_recv().is_ok()
        };
        assert!(!add(2 * MANY_IN_HASTE), "who signs in would wait for its syncs");
        drop(told.burden.work());
        assert!(add(1), "nobody rests");
        told.burden.is_beside_others(true);
        assert!(!add(1));
        assert!(add(MANY_PAGES));
    }

    #[test]
    fn who_asks_while_it_is_done_asks_for_no_other() {
        let (wake, calls) = sync_channel(1);
        wake.send(()).unwrap();
        let (mut meanwhile, mut done) = (Some(wake), 0);
        serve(&calls, &Mutex::default(), || {
            done += 1;
            // The last one: then the thread ends.
            if let Some(wake) = meanwhile.take() {
                wake.send(()).unwrap();
            }
        });
        assert_eq!(done, 1);
    }
}
