//! The one thread that writes: every waiting call in one transaction, each in a savepoint of its own; and between those,
//! a slice at a time, work that nobody waits for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::anew::write_anew;
use super::burden::Burden;
use super::checkpointer::{Ahead, Checkpointer};
use super::connection::{Access, Held, Place, Syncs, execute};
use super::queue::{Queue, Turn};
use crate::store::StoreError;

/// Most calls in one transaction: bounds how long the first waits for the last.
const MAX_BATCH: usize = 256;

/// What a store tells of each write that somebody waits for: first that it waits, then that it does no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEvent {
    /// It was asked for.
    Waits,
    /// It was answered, so long after it was asked for: its commit reached the disk, or it failed.
    Answered(Duration),
}

/// Hears of every write. Called by whoever asks and by the thread that writes, so it must be quick.
pub(super) type WriteObserver = Box<dyn Fn(WriteEvent) + Send + Sync>;

/// The way to the writing thread. Dropping it waits until all that was queued is done.
pub(super) struct Writer {
    told: Arc<Told>,
    queue: Arc<Queue<Message>>,
    /// None where there is no store to write to.
    place: Option<Box<Place>>,
    ahead: Option<Box<Ahead>>,
    thread: Option<JoinHandle<()>>,
}

/// Who hears of the writes.
#[derive(Default)]
pub(super) struct Told {
    pub(super) observer: OnceLock<WriteObserver>,
    pub(super) burden: Burden,
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(super) fn start(place: Place, conn: Held) -> io::Result<Self> {
        let (told, queue) = (Arc::<Told>::default(), Arc::new(Queue::new()));
        let checkpointer = Checkpointer::start(place.clone(), Arc::clone(&told))?;
        let of_thread = Arc::clone(&queue);
        let to_sync = Some(Box::new(place.clone()));
        let ahead = Some(Box::new(checkpointer.ahead(&place)));
        let thread = Thread { place, conn: Some(conn), queue: of_thread, checkpointer, told: Arc::clone(&told) };
        let thread = Builder::new().name("store-writer".into()).spawn(move || thread.run())?;
        Ok(Self { told, queue, place: to_sync, ahead, thread: Some(thread) })
    }

    /// A writer that refuses every call, for a store that is only looked at.
    pub(super) fn absent() -> Self {
        let queue = Arc::new(Queue::new());
        queue.close();
        Self { told: Arc::default(), queue, place: None, ahead: None, thread: None }
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Runs `work` in a transaction; answers once that is on the disk. An error undoes the work of this call alone.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Some(Waiting::begin(&self.told));
        let call = Call { work: Some(work), outcome: None, waiting, reply };
        self.queue.push(Message::Job(Box::new(call))).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Runs `work`, which nobody waits for, when nobody waits for anything else, in a transaction of its own. `work` is to
    /// come to an end once [`Writer::is_waited_for`].
    ///
    /// It answers once that survives the end of this process, not that of the machine: [`Writer::sync`] is to follow.
    pub(super) async fn run_patiently<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { work: Some(work), outcome: None, waiting: None, reply };
        self.queue.push_patient(Message::Job(Box::new(call))).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits until all that was answered before is on the disk. Neither the writing thread nor anybody else waits with it.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        let Some(place) = self.place.clone() else { return Err(StoreError::Closed) };
        let _load = self.told.burden.work();
        let synced = tokio::task::spawn_blocking(move || place.sync());
        // Only the end of the runtime ends it early.
        synced.await.unwrap_or(Err(StoreError::Closed))
    }

    /// For work that nobody waits for, which asks it now and then: whether somebody waits for it to end.
    pub(super) fn is_waited_for(&self) -> impl Fn() -> bool + Send + 'static {
        let queue = Arc::clone(&self.queue);
        move || queue.is_waited_for()
    }

    /// Folds the journal into the file and empties it, after all that was queued before: what was erased is then in
    /// neither. Waits for reads that hold an older snapshot.
    pub(super) async fn fold(&self) -> Result<(), StoreError> {
        self.bring_in().await;
        let (reply, answer) = oneshot::channel();
        self.queue.push(Message::Fold(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes the file anew from what is in it, and folds the journal. Overwriting what is erased (`secure_delete`) leaves
    /// copies that were made while pages were split and merged; these go only so. Everybody who writes waits for it.
    pub(super) async fn rewrite(&self) -> Result<(), StoreError> {
        self.bring_in().await;
        let (reply, answer) = oneshot::channel();
        self.queue.push(Message::Rewrite(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn bring_in(&self) {
        if let Some(ahead) = self.ahead.clone() {
            // Only the end of the runtime ends it early.
            let _ = tokio::task::spawn_blocking(move || ahead.bring_in()).await;
        }
    }

    /// Ends the thread after all that was queued before, with the journal folded into the file.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Message::Close(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        // An error of either means that the thread has ended, which is what is wanted.
        let _ = self.queue.push(Message::Close(reply));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

enum Message {
    Job(Box<dyn Job>),
    Fold(oneshot::Sender<Result<(), StoreError>>),
    Rewrite(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// A queued call, whatever it returns.
trait Job: Send {
    /// Does the work in a savepoint. An error means that the whole transaction is lost.
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Does the work in a transaction that is its own. An error means that SQLite ended it.
    fn run_alone(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Answers, after the transaction ended with `batch`.
    fn settle(self: Box<Self>, batch: &Result<(), StoreError>);
}

struct Call<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    /// Before the reply, also when both are dropped: who has the answer may look at the numbers.
    waiting: Option<Waiting>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

/// A write that was asked for and not answered yet. Its end is told on drop, so that every beginning has one.
struct Waiting {
    since: Instant,
    told: Arc<Told>,
}

impl Waiting {
    fn begin(told: &Arc<Told>) -> Self {
        if let Some(tell) = told.observer.get() {
            tell(WriteEvent::Waits);
        }
        Self { since: Instant::now(), told: Arc::clone(told) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.told.burden.answered(self.since);
        let took = self.since.elapsed();
        if let Some(tell) = self.told.observer.get() {
            tell(WriteEvent::Answered(took));
        }
    }
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        execute(conn, "SAVEPOINT job")?;
        let outcome = work(conn);
        if let Err(error) = &outcome {
            // A full disk and the like end the transaction itself, and with it what earlier calls did in it.
            if conn.is_autocommit() {
                return Err(error.clone());
            }
            execute(conn, "ROLLBACK TO job")?;
        }
        execute(conn, "RELEASE job")?;
        self.outcome = Some(outcome);
        Ok(())
    }

    fn run_alone(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // No savepoint: for that SQLite keeps a copy of every page that changes.
        execute(conn, "BEGIN IMMEDIATE")?;
        let outcome = work(conn);
        match &outcome {
            Ok(_) => execute(conn, "COMMIT")?,
            Err(error) if conn.is_autocommit() => return Err(error.clone()),
            Err(_) => execute(conn, "ROLLBACK")?,
        }
        self.outcome = Some(outcome);
        Ok(())
    }

    fn settle(self: Box<Self>, batch: &Result<(), StoreError>) {
        let answer = match batch {
            Ok(()) => self.outcome.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error.clone()),
        };
        drop(self.waiting);
        // Whoever asked may have gone; the effect stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// What the writing thread has.
struct Thread {
    place: Place,
    conn: Option<Held>,
    queue: Arc<Queue<Message>>,
    checkpointer: Checkpointer,
    told: Arc<Told>,
}

impl Thread {
    fn run(mut self) {
        // What was taken from the queue, and belongs behind the transaction before it.
        let mut next = None;
        loop {
            let turn = next.take().map_or_else(|| self.queue.next(), Turn::First);
            match turn {
                Turn::First(Message::Job(job)) => {
                    let mut batch = vec![job];
                    let result = self.attempt(|thread| thread.commit(&mut batch, &mut next));
                    for job in batch {
                        job.settle(&result);
                    }
                }
                Turn::Patient(Message::Job(mut job)) => {
                    let told = Arc::clone(&self.told);
                    let load = told.burden.work();
                    let result = self.attempt(|thread| thread.commit_alone(&mut *job));
                    drop(load);
                    job.settle(&result);
                }
                Turn::First(Message::Fold(reply)) | Turn::Patient(Message::Fold(reply)) => {
                    let _ = reply.send(self.empty(fold));
                }
                Turn::First(Message::Rewrite(reply)) | Turn::Patient(Message::Rewrite(reply)) => {
                    let _ = reply.send(self.empty(|conn| {
                        // Where somebody reads it, each try would leave another copy of the store in the journal.
                        fold(conn)?;
                        let written = write_anew(conn);
                        // Also where the disk got full on the way: the journal has what was left of it, for nothing.
                        let folded = fold(conn);
                        written.and(folded)
                    }));
                }
                Turn::First(Message::Close(reply)) | Turn::Patient(Message::Close(reply)) => {
                    let Self { conn, queue, checkpointer, .. } = self;
                    // Their callers hear that it is closed.
                    drop(queue.close());
                    // The last connection to close takes the journal with it.
                    drop(checkpointer);
                    let _ = reply.send(conn.map_or(Ok(()), |held| finish(held.into_inner())));
                    return;
                }
            }
        }
    }

    /// Does `work`, after which the journal is empty.
    fn empty(&mut self, work: impl FnOnce(&Connection) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let burden = &self.told.burden;
        let (_turn, _load) = (self.checkpointer.turn(), burden.emptying());
        let emptied = connected(&self.place, &mut self.conn).and_then(|held| work(held.in_place()?));
        if emptied.is_ok() {
            burden.emptied();
        }
        emptied
    }

    /// Does `work`, a transaction, and cleans up where it fails.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        // A panic is a defect, but it must not take every later sign-in with it.
        let result = catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the writing thread panicked".into())));
        match &self.conn {
            Some(held) if result.is_ok() => self.checkpointer.committed(held.connection()),
            Some(held) if held.in_place().is_err() => held.roll_back(),
            // Closing it rolls back. The next batch opens the file anew, however the medium changed meanwhile.
            _ => {
                self.conn = None;
                self.checkpointer.failed();
            }
        }
        result
    }

    /// Does what is in `batch`, and what is queued by the time that it is done, in one transaction. Something else that is
    /// met in the queue is put into `next`.
    fn commit(&mut self, batch: &mut Vec<Box<dyn Job>>, next: &mut Option<Message>) -> Result<(), StoreError> {
        let held = connected(&self.place, &mut self.conn)?;
        held.sync(Syncs::EachCommit)?;
        let conn = held.in_place()?;
        execute(conn, "BEGIN IMMEDIATE")?;
        for job in batch.iter_mut() {
            job.run(conn)?;
        }
        while batch.len() < MAX_BATCH
            && let Some(message) = self.queue.try_next()
        {
            match message {
                Message::Job(job) => {
                    batch.push(job);
                    if let Some(job) = batch.last_mut() {
                        job.run(conn)?;
                    }
                }
                other @ (Message::Fold(_) | Message::Rewrite(_) | Message::Close(_)) => {
                    *next = Some(other);
                    break;
                }
            }
        }
        execute(conn, "COMMIT")?;
        // Nothing is acknowledged that went into files which left meanwhile.
        held.in_place().map(drop)
    }

    /// Does one that nobody waits for, without waiting for the disk: who comes meanwhile does not either.
    fn commit_alone(&mut self, job: &mut dyn Job) -> Result<(), StoreError> {
        let held = connected(&self.place, &mut self.conn)?;
        held.sync(Syncs::Checkpoints)?;
        let conn = held.in_place()?;
        job.run_alone(conn)?;
        held.in_place().map(drop)
    }
}

fn connected<'h>(place: &Place, held: &'h mut Option<Held>) -> Result<&'h mut Held, StoreError> {
    Ok(match held {
        Some(held) => held,
        None => held.insert(place.connect(Access::Write)?),
    })
}

/// Folds the journal into the file and empties it.
pub(super) fn fold(conn: &Connection) -> Result<(), StoreError> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(StoreError::Unavailable("its journal is being read and was not emptied".into())) } else { Ok(()) }
}

fn finish(conn: Connection) -> Result<(), StoreError> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| error.into())
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::mpsc::channel;
    use std::task::Poll;

    use super::*;
    use crate::store::embedded::connection::connect;

    type Work = fn(&Connection) -> Result<(), StoreError>;
    type Answer = Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

    /// Runs all `jobs` in one transaction: an outside writer keeps the first waiting until the last is queued.
    async fn in_one_batch(path: &Path, jobs: Vec<Work>) -> Vec<Result<(), StoreError>> {
        let writer: &'static Writer = Box::leak(Box::new(start(path)));
        let outside = connect(path, Access::Write).unwrap();
        outside.execute_batch("BEGIN IMMEDIATE").unwrap();
        let first: Answer = Box::pin(writer.run(|_| Ok(())));
        let mut calls: Vec<Answer> = vec![first];
        calls.extend(jobs.into_iter().map(|job| Box::pin(writer.run(job)) as Answer));
        poll_fn(|context| {
            assert!(calls.iter_mut().all(|call| call.as_mut().poll(context).is_pending()));
            Poll::Ready(())
        })
        .await;
        outside.execute_batch("COMMIT").unwrap();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await);
        }
        answers.split_off(1)
    }

    fn start(path: &Path) -> Writer {
        let conn = connect(path, Access::Create).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x UNIQUE)").unwrap();
        let place = Place::of(path).unwrap();
        let held = place.hold(conn).unwrap();
        Writer::start(place, held).unwrap()
    }

    fn add(conn: &Connection, value: u32) -> Result<(), StoreError> {
        Ok(conn.execute("INSERT INTO t VALUES (?1)", [value]).map(drop)?)
    }

    fn rows(path: &Path) -> Vec<u32> {
        let conn = connect(path, Access::Read).unwrap();
        let mut select = conn.prepare("SELECT x FROM t ORDER BY x").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn a_failing_call_undoes_its_own_work_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let answers = in_one_batch(
            &path,
            vec![
                |conn| add(conn, 1),
                |conn| add(conn, 2).and_then(|()| add(conn, 1)),
                |conn| add(conn, 3).and(Err(StoreError::Closed)),
                |conn| add(conn, 4),
            ],
        )
        .await;
        assert_eq!(rows(&path), [1, 4]);
        let sound: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(sound, [true, false, false, true]);
    }

    #[tokio::test]
    async fn a_lost_transaction_fails_every_call_in_it_and_none_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let lost = |conn: &Connection| {
            conn.execute_batch("ROLLBACK")?;
            Err(StoreError::Unavailable("full".into()))
        };
        let answers = in_one_batch(&path, vec![|conn| add(conn, 1), lost, |conn| add(conn, 2)]).await;
        assert_eq!(rows(&path), [2]);
        let full = || Err(StoreError::Unavailable("full".into()));
        assert_eq!(answers, [full(), full(), Ok(())]);
    }

    #[tokio::test]
    async fn every_write_is_told_when_it_waits_and_when_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let writer = start(&folder.path().join("t"));
        let (tell, told) = channel();
        assert!(writer.told().observer.set(Box::new(move |event| tell.send(event).unwrap())).is_ok());
        let outcomes = [
            writer.run(|conn| add(conn, 1)).await.is_ok(),
            writer.run(|conn| add(conn, 1)).await.is_ok(),
            writer.run::<(), _>(|_| panic!("on purpose")).await.is_ok(),
            writer.close().await.is_ok(),
            writer.run(|conn| add(conn, 2)).await.is_ok(),
        ];
        assert_eq!(outcomes, [true, false, false, true, false]);
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.len(), 8, "{told:?}");
        for pair in told.chunks(2) {
            assert!(matches!(pair, [WriteEvent::Waits, WriteEvent::Answered(_)]), "{told:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_done_and_synced_or_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let writer = start(&path);
        writer.run_patiently(|conn| add(conn, 1)).await.unwrap();
        assert!(writer.run_patiently(|conn| add(conn, 2).and_then(|()| add(conn, 1))).await.is_err());
        // The failure closed nothing: the journal is still there.
        writer.sync().await.unwrap();
        assert_eq!(rows(&path), [1]);
        std::fs::rename(folder.path().join("t-wal"), folder.path().join("away")).unwrap();
        assert!(matches!(writer.sync().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(writer.run_patiently(|conn| add(conn, 3)).await, Err(StoreError::Unavailable(_))));
        std::fs::rename(folder.path().join("away"), folder.path().join("t-wal")).unwrap();
        writer.run(|conn| add(conn, 4)).await.unwrap();
        assert_eq!(rows(&path), [1, 4]);
        assert_eq!(Writer::absent().sync().await, Err(StoreError::Closed));
    }

    #[tokio::test]
    async fn a_panic_fails_its_batch_and_the_next_call_works() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let writer = start(&path);
        let panicked = writer.run::<(), _>(|conn| add(conn, 1).map(|()| panic!("on purpose"))).await;
        assert!(matches!(panicked, Err(StoreError::Unavailable(_))));
        writer.run(|conn| add(conn, 2)).await.unwrap();
        assert_eq!(rows(&path), [2]);
    }

    /// Pages that are split and merged keep copies of what they held, which overwriting does not reach.
    #[tokio::test]
    async fn a_file_that_is_written_anew_has_nothing_of_what_was_erased() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let writer = start(&path);
        let name = |number: u32| format!("erased-{number:06}");
        let work = move |conn: &Connection| {
            execute(conn, "CREATE TABLE people (seq INTEGER PRIMARY KEY, name TEXT UNIQUE, more TEXT)")?;
            let mut there: Vec<u32> = Vec::new();
            // Any order will do that is not sorted.
            let mut dice: u64 = 1;
            for number in 0..20_000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(dice >> 33).unwrap();
                if at % 5 < 3 || there.is_empty() {
                    let more = "y".repeat(at % 121);
                    conn.prepare_cached("INSERT INTO people VALUES (?1, ?2, ?3)")?.execute((
                        number,
                        name(number),
                        more,
                    ))?;
                    there.push(number);
                } else {
                    let gone = there.swap_remove(at / 5 % there.len());
                    conn.prepare_cached("DELETE FROM people WHERE seq = ?1")?.execute([gone])?;
                }
            }
            Ok(there)
        };
        let there = writer.run(work).await.unwrap();
        writer.fold().await.unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut found = std::collections::BTreeSet::new();
        let names = |bytes: &[u8], found: &mut std::collections::BTreeSet<String>| {
            for (at, _) in bytes.windows(7).enumerate().filter(|(_, window)| window == b"erased-") {
                found.extend(bytes.get(at..at + 13).map(|name| String::from_utf8_lossy(name).into_owned()));
            }
            for number in &there {
                found.remove(&name(*number));
            }
        };
        names(&bytes, &mut found);
        assert!(!found.is_empty(), "nothing is left by overwriting alone any more");
        writer.rewrite().await.unwrap();
        found.clear();
        names(&std::fs::read(&path).unwrap(), &mut found);
        assert!(found.is_empty(), "{found:?}");
        writer.close().await.unwrap();
    }
}
