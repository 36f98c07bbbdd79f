//! The one thread that writes: every waiting call in one transaction, each in a savepoint of its own.

use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{Access, connect, execute};
use crate::store::StoreError;

/// Most calls in one transaction: bounds how long the first waits for the last.
const MAX_BATCH: usize = 256;

/// The way to the writing thread. Dropping it waits until all that was queued is done.
pub(super) struct Writer {
    queue: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(super) fn start(path: PathBuf, conn: Connection) -> io::Result<Self> {
        let (queue, messages) = channel();
        let work = move || write(&path, conn, &messages);
        let thread = Builder::new().name("store-writer".into()).spawn(work)?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// A writer that refuses every call, for a store that is only looked at.
    pub(super) fn absent() -> Self {
        Self { queue: channel().0, thread: None }
    }

    /// Runs `work` in a transaction; answers once that is committed. An error undoes the work of this call alone.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { work: Some(work), outcome: None, reply };
        self.queue.send(Message::Job(Box::new(call))).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Ends the thread after all that was queued before, with the journal folded into the file.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Close(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        // An error of either means that the thread has ended, which is what is wanted.
        let _ = self.queue.send(Message::Close(reply));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// A queued call, whatever it returns.
trait Job: Send {
    /// Does the work in a savepoint. An error means that the whole transaction is lost.
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Answers, after the transaction ended with `batch`.
    fn settle(self: Box<Self>, batch: &Result<(), StoreError>);
}

struct Call<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
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

    fn settle(self: Box<Self>, batch: &Result<(), StoreError>) {
        let answer = match batch {
            Ok(()) => self.outcome.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have gone; the effect stands all the same.
        let _ = self.reply.send(answer);
    }
}

fn write(path: &Path, conn: Connection, messages: &Receiver<Message>) {
    let mut conn = Some(conn);
    while let Ok(first) = messages.recv() {
        let mut batch = Vec::new();
        let mut close = None;
        for message in iter::once(first).chain(messages.try_iter().take(MAX_BATCH - 1)) {
            match message {
                Message::Job(job) => batch.push(job),
                Message::Close(reply) => {
                    close = Some(reply);
                    break;
                }
            }
        }
        if !batch.is_empty() {
            // A panic is a defect, but it must not take every later sign-in with it.
            let result = catch_unwind(AssertUnwindSafe(|| commit(path, &mut conn, &mut batch)))
                .unwrap_or_else(|_| Err(StoreError::Unavailable("the writing thread panicked".into())));
            if result.is_err() {
                // Closing it rolls back. The next batch opens the file anew, however the medium changed meanwhile.
                conn = None;
            }
            for job in batch {
                job.settle(&result);
            }
        }
        if let Some(reply) = close {
            let _ = reply.send(conn.map_or(Ok(()), finish));
            return;
        }
    }
}

fn commit(path: &Path, conn: &mut Option<Connection>, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(connect(path, Access::Write)?),
    };
    execute(conn, "BEGIN IMMEDIATE")?;
    for job in batch {
        job.run(conn)?;
    }
    execute(conn, "COMMIT")?;
    Ok(())
}

fn finish(conn: Connection) -> Result<(), StoreError> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| error.into())
}
