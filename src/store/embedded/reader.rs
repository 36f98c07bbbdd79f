//! The threads that read: each call sees one snapshot, which holds every write answered before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{Access, Held, Place, execute};
use crate::store::StoreError;

/// A queued read: gets a connection or the reason why there is none, says whether the connection may be kept.
type Task = Box<dyn FnOnce(Result<&Connection, StoreError>) -> bool + Send>;

/// The way to the reading threads. Dropping it waits until all that was queued is done.
pub(super) struct Readers {
    queue: Mutex<Option<Sender<Task>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `count` threads; each opens the file when it has something to read.
    pub(super) fn start(count: usize, place: &Place, access: Access) -> io::Result<Self> {
        let (queue, tasks) = channel();
        let tasks = Arc::new(Mutex::new(tasks));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (place, tasks) = (place.clone(), Arc::clone(&tasks));
            let work = move || read(&place, access, &tasks);
            threads.push(Builder::new().name(format!("store-reader-{number}")).spawn(work)?);
        }
        Ok(Self { queue: Mutex::new(Some(queue)), threads })
    }

    /// Runs `work` against one snapshot.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |conn| {
            let outcome = conn.and_then(|conn| snapshot(conn, work));
            let sound = outcome.is_ok();
            let _ = reply.send(outcome);
            sound
        });
        self.send(task)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more calls; the threads end after those that are queued.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn send(&self, task: Task) -> Result<(), StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().and_then(|queue| queue.send(task).ok()).ok_or(StoreError::Closed)
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

fn read(place: &Place, access: Access, tasks: &Mutex<Receiver<Task>>) {
    let mut held: Option<Held> = None;
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        let sound = catch_unwind(AssertUnwindSafe(|| match &held {
            Some(held) => task(held.in_place()),
            None => match place.connect(access) {
                Ok(opened) => task(held.insert(opened).in_place()),
                Err(error) => task(Err(error)),
            },
        }));
        if !sound.unwrap_or(false) && held.as_ref().is_some_and(|held| held.in_place().is_ok()) {
            held = None;
        }
    }
}

fn snapshot<T>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    execute(conn, "BEGIN")?;
    let outcome = work(conn)?;
    execute(conn, "COMMIT")?;
    Ok(outcome)
}
