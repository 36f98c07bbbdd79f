//! The threads that read: each call sees one snapshot, which holds every write answered before it was asked.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{Access, Held, Place, execute};
use crate::store::StoreError;

/// A queued read: gets a connection or the reason why there is none, says whether the connection may be kept.
type Task = Box<dyn FnOnce(Result<&Connection, StoreError>) -> bool + Send>;

/// The way to the reading threads. Dropping it waits until all that was queued is done.
pub(super) struct Readers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `count` threads; each opens the file when it has something to read.
    pub(super) fn start(count: usize, place: &Place, access: Access) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let mut readers = Self { queue, threads: Vec::with_capacity(count) };
        for number in 0..count {
            let (place, queue) = (place.clone(), Arc::clone(&readers.queue));
            let work = move || read(&place, access, &queue);
            readers.threads.push(Builder::new().name(format!("store-reader-{number}")).spawn(work)?);
        }
        Ok(readers)
    }

    /// Runs `work` against one snapshot.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |conn| {
            let outcome = conn.and_then(work);
            let sound = outcome.is_ok();
            let _ = reply.send(outcome);
            sound
        });
        self.queue.push(task)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more calls; the threads end after those that are queued.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.arrived.notify_all();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// Tasks that were ever queued.
    asked: u64,
    closed: bool,
}

/// Those that were queued before it was made, by their number: a snapshot that begins behind it is none too old for them.
#[derive(Clone, Copy)]
struct Covered(u64);

impl Queue {
    fn push(&self, task: Task) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        state.tasks.push_back(task);
        state.asked += 1;
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next task, once there is one. `None`: there will be no more.
    fn next(&self) -> Option<(Task, Covered)> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some((task, Covered(state.asked)));
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next task, if it is one of the `covered`.
    fn next_of(&self, Covered(covered): Covered) -> Option<Task> {
        let mut state = self.lock();
        let first = state.asked - state.tasks.len() as u64;
        if first < covered { state.tasks.pop_front() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(place: &Place, access: Access, queue: &Queue) {
    let mut held: Option<Held> = None;
    while let Some((task, covered)) = queue.next() {
        let opened = match held.take() {
            Some(held) => Ok(held),
            None => place.connect(access),
        };
        let sound = match &opened {
            Ok(held) => snapshot(held.in_place(), task, || queue.next_of(covered)),
            Err(error) => snapshot(Err(error.clone()), task, || None),
        };
        // One that met an error is opened anew, but where its files left, which may come back.
        held = opened.ok().filter(|held| sound || held.in_place().is_err());
    }
}

/// Does `task` and those that `next` gives in one snapshot, up to the first that fails. Whether none did.
///
/// Many that are asked at once, as sign-ins are behind each commit, share what it takes to begin and to end one.
fn snapshot(conn: Result<&Connection, StoreError>, task: Task, next: impl Fn() -> Option<Task>) -> bool {
    let begun = conn.and_then(|conn| execute(conn, "BEGIN").map(|()| conn).map_err(StoreError::from));
    let mut task = Some(task);
    while let Some(one) = task {
        // A panic is a defect, but it must not take every later read with it.
        if !catch_unwind(AssertUnwindSafe(|| one(begun.clone()))).unwrap_or(false) {
            return false;
        }
        task = next();
    }
    begun.is_ok_and(|conn| execute(conn, "COMMIT").is_ok())
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::sync::mpsc::channel;
    use std::task::Poll;

    use super::super::connection::connect;
    use super::*;

    type Answer = Pin<Box<dyn Future<Output = Result<i64, StoreError>>>>;

    async fn ask(answers: &mut [Answer]) {
        poll_fn(|context| {
            assert!(answers.iter_mut().all(|answer| answer.as_mut().poll(context).is_pending()));
            Poll::Ready(())
        })
        .await;
    }

    fn count(conn: &Connection) -> Result<i64, StoreError> {
        Ok(conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn those_that_were_asked_before_a_snapshot_share_it_and_later_ones_see_what_came_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let writer = connect(&path, Access::Create).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let place = Place::of(&path).unwrap();
        let readers: &'static Readers = Box::leak(Box::new(Readers::start(1, &place, Access::Read).unwrap()));

        // The thread is held up until all of them are queued, and in the first of those again.
        let ((let_go, busy_until), (saw, seen), (go_on, waits)) = (channel::<()>(), channel(), channel());
        let busy: Answer = Box::pin(readers.run(move |_| Ok(busy_until.recv().map_or(0, |()| 0))));
        let first: Answer = Box::pin(readers.run(move |conn| {
            let before = count(conn)?;
            saw.send(()).unwrap();
            waits.recv().unwrap();
            Ok(before)
        }));
        let mut queued = [busy, first, Box::pin(readers.run(count)), Box::pin(readers.run(count))];
        ask(&mut queued).await;
        let_go.send(()).unwrap();
        seen.recv().unwrap();
        writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        let mut later: [Answer; 1] = [Box::pin(readers.run(count))];
        ask(&mut later).await;
        go_on.send(()).unwrap();
        for answer in queued {
            assert_eq!(answer.await, Ok(0));
        }
        for answer in later {
            assert_eq!(answer.await, Ok(1), "an answered write was not seen");
        }
    }

    #[tokio::test]
    async fn one_that_fails_takes_none_of_those_behind_it_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        connect(&path, Access::Create).unwrap().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let place = Place::of(&path).unwrap();
        let readers: &'static Readers = Box::leak(Box::new(Readers::start(1, &place, Access::Read).unwrap()));
        let (let_go, busy_until) = channel::<()>();
        let mut queued: [Answer; 5] = [
            Box::pin(readers.run(move |_| Ok(busy_until.recv().map_or(0, |()| 0)))),
            Box::pin(readers.run(|conn| count(conn).and(Err(StoreError::Closed)))),
            Box::pin(readers.run(count)),
            Box::pin(readers.run(|conn| count(conn).map(|_| panic!("on purpose")))),
            Box::pin(readers.run(count)),
        ];
        ask(&mut queued).await;
        let_go.send(()).unwrap();
        let mut sound = Vec::new();
        for answer in queued {
            sound.push(answer.await.is_ok());
        }
        assert_eq!(sound, [true, false, true, false, true]);
    }
}
