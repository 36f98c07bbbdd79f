//! What waits for the writing thread: calls that somebody waits for, and behind them all those that can wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long nobody must have asked before what can wait has its turn: a sign-in asks twice in a row.
const QUIET: Duration = Duration::from_millis(1);
/// How long it waits for that, at most.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Two queues, one of which goes first.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    /// How many are in `first`, for who only wants to know whether any are.
    waiting: AtomicUsize,
}

struct State<T> {
    first: VecDeque<T>,
    patient: VecDeque<(Instant, T)>,
    /// When the last of `first` was served.
    served: Instant,
    /// Whether some of `first` are being served.
    serving: bool,
    closed: bool,
}

/// Whose turn it is.
pub(super) enum Turn<T> {
    /// Somebody waits for it.
    First(T),
    /// Nobody waits for anything else.
    Patient(T),
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let (first, patient) = (VecDeque::new(), VecDeque::new());
        let state = Mutex::new(State { first, patient, served: Instant::now(), serving: false, closed: false });
        Self { state, arrived: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// Puts it behind those that somebody waits for. Gives it back where the queue is closed.
    pub(super) fn push(&self, one: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(one);
        }
        state.first.push_back(one);
        self.waiting.store(state.first.len(), Ordering::Relaxed);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts it behind everything. Gives it back where the queue is closed.
    pub(super) fn push_patient(&self, one: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(one);
        }
        state.patient.push_back((Instant::now(), one));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Whether somebody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes the next one that somebody waits for, if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        self.take(&mut self.lock())
    }

    /// The next one, once there is one. Whoever asks has served what was taken before. What can wait has its turn when nobody
    /// asked for a moment, or when it has waited for too long: it is never kept out by many.
    pub(super) fn next(&self) -> Turn<T> {
        let mut state = self.lock();
        if std::mem::take(&mut state.serving) {
            state.served = Instant::now();
        }
        loop {
            let latest = state.patient.front().map(|(since, _)| *since + LONGEST_WAIT);
            let now = Instant::now();
            if latest.is_none_or(|latest| now < latest)
                && let Some(one) = self.take(&mut state)
            {
                return Turn::First(one);
            }
            let Some(latest) = latest else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = (state.served + QUIET).min(latest).saturating_duration_since(now);
            if left.is_zero()
                && let Some((_, one)) = state.patient.pop_front()
            {
                return Turn::Patient(one);
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more. What is left comes back, and is never done.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        self.waiting.store(0, Ordering::Relaxed);
        let first = std::mem::take(&mut state.first);
        let patient = std::mem::take(&mut state.patient);
        first.into_iter().chain(patient.into_iter().map(|(_, one)| one)).collect()
    }

    fn take(&self, state: &mut State<T>) -> Option<T> {
        let one = state.first.pop_front()?;
        self.waiting.store(state.first.len(), Ordering::Relaxed);
        state.serving = true;
        Some(one)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop(queue: &Queue<u8>) -> (bool, u8) {
        match queue.next() {
            Turn::First(one) => (true, one),
            Turn::Patient(one) => (false, one),
        }
    }

    #[test]
    fn what_can_wait_comes_behind_all_that_is_waited_for() {
        let queue = Queue::new();
        queue.push_patient(1).unwrap();
        queue.push(2).unwrap();
        queue.push(3).unwrap();
        assert!(queue.is_waited_for());
        assert_eq!([pop(&queue), pop(&queue), pop(&queue)], [(true, 2), (true, 3), (false, 1)]);
        assert!(!queue.is_waited_for());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_kept_out_for_ever_by_many() {
        let queue = Queue::new();
        queue.push_patient(1).unwrap();
        (2..5).for_each(|one| queue.push(one).unwrap());
        assert_eq!(pop(&queue), (true, 2));
        tokio::time::advance(LONGEST_WAIT).await;
        assert_eq!([pop(&queue), pop(&queue), pop(&queue)], [(false, 1), (true, 3), (true, 4)]);
    }

    #[test]
    fn a_closed_one_gives_back_what_is_left_and_takes_no_more() {
        let queue = Queue::new();
        queue.push_patient(1).unwrap();
        queue.push(2).unwrap();
        assert_eq!(queue.close(), [2, 1]);
        assert_eq!((queue.push(3), queue.push_patient(4)), (Err(3), Err(4)));
        assert!(!queue.is_waited_for());
    }
}
