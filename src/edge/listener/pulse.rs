//! Whether a worker's loop still turns: it is asked, and must answer.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Asks every worker.
pub(super) struct Pulse {
    workers: Vec<mpsc::Sender<oneshot::Sender<()>>>,
}

/// One worker's side of it.
pub(super) struct Heart(mpsc::Receiver<oneshot::Sender<()>>);

impl Pulse {
    /// With no worker yet.
    pub(super) const fn new() -> Self {
        Self { workers: Vec::new() }
    }

    /// What the next worker answers with.
    pub(super) fn add(&mut self) -> Heart {
        let (asks, questions) = mpsc::channel(1);
        self.workers.push(asks);
        Heart(questions)
    }

    /// The workers that do not answer within `patience`, by their index.
    pub(super) async fn silent(&self, patience: Duration) -> Vec<usize> {
        let ask = async |worker: &mpsc::Sender<_>| {
            let answered = async {
                let (reply, answer) = oneshot::channel();
                // The last question may still wait in the queue.
                worker.send(reply).await.is_ok() && answer.await.is_ok()
            };
            timeout(patience, answered).await.unwrap_or(false)
        };
        let answers = join_all(self.workers.iter().map(ask)).await;
        answers.into_iter().enumerate().filter_map(|(index, answered)| (!answered).then_some(index)).collect()
    }
}

impl Heart {
    /// Answers for as long as it is polled.
    pub(super) async fn beat(mut self) {
        while let Some(question) = self.0.recv().await {
            // Who asked may have lost patience.
            let _ = question.send(());
        }
        std::future::pending::<()>().await;
    }
}
