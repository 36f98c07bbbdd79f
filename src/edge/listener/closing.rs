//! That a connection is to close, noticed at each of its polls and asked for once.
//!
//! A cancellation that is waited for takes two locks whenever it is polled, and a connection is polled several times a
//! request. So it is polled once, by a waker of our own that leaves a note; from then on only the note is looked at.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio_util::sync::WaitForCancellationFuture;

/// Ready once, when its cancellation has fired.
pub(super) struct Closing<'a, 'p> {
    /// `None` once it fired.
    fired: Option<Pin<&'p mut WaitForCancellationFuture<'a>>>,
    /// What it was polled with last.
    bell: Option<Arc<Bell>>,
}

/// Wakes a task, and leaves a note that it did.
struct Bell {
    rang: AtomicBool,
    task: Waker,
}

impl<'a, 'p> Closing<'a, 'p> {
    pub(super) const fn new(fired: Pin<&'p mut WaitForCancellationFuture<'a>>) -> Self {
        Self { fired: Some(fired), bell: None }
    }

    /// To be polled at each poll of the connection: a connection that was woken for this sees it then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(fired) = &mut self.fired else { return Poll::Pending };
        if self.bell.as_ref().is_some_and(|bell| bell.is_silent_for(cx.waker())) {
            return Poll::Pending;
        }
        // Another bell each time, so that none is made silent while it is rung.
        let bell = Arc::new(Bell { rang: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = Waker::from(Arc::clone(&bell));
        self.bell = Some(bell);
        ready!(fired.as_mut().poll(&mut Context::from_waker(&waker)));
        (self.fired, self.bell) = (None, None);
        Poll::Ready(())
    }
}

impl Bell {
    /// Whether it will wake `task` and has not yet.
    fn is_silent_for(&self, task: &Waker) -> bool {
        self.task.will_wake(task) && !self.rang.load(Ordering::Acquire)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The note first: the task looks at it when it wakes.
        self.rang.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A task of which only is known whether it was woken.
    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl Task {
        fn was_woken(&self) -> bool {
            self.0.swap(false, Ordering::Relaxed)
        }
    }

    #[test]
    fn it_is_told_once_to_the_task_that_asked_last() {
        let token = CancellationToken::new();
        let cancelled = pin!(token.cancelled());
        let mut closing = Closing::new(cancelled);
        let tasks = [Arc::new(Task::default()), Arc::new(Task::default())];
        let [first, last] = tasks.each_ref().map(|task| Waker::from(Arc::clone(task)));
        for waker in [&first, &first, &last, &last] {
            assert!(closing.poll(&mut Context::from_waker(waker)).is_pending());
        }
        token.cancel();
        assert_eq!(tasks.each_ref().map(|task| task.was_woken()), [false, true]);
        assert!(closing.poll(&mut Context::from_waker(&last)).is_ready());
        assert!(closing.poll(&mut Context::from_waker(&last)).is_pending());
    }

    #[test]
    fn one_that_fired_before_anybody_asked_is_told_at_once() {
        let token = CancellationToken::new();
        token.cancel();
        let cancelled = pin!(token.cancelled());
        assert!(Closing::new(cancelled).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_bell_that_rings_for_nothing_is_hung_again() {
        let token = CancellationToken::new();
        let cancelled = pin!(token.cancelled());
        let mut closing = Closing::new(cancelled);
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        assert!(closing.poll(&mut cx).is_pending());
        closing.bell.as_ref().unwrap().wake_by_ref();
        assert!(task.was_woken() && closing.poll(&mut cx).is_pending());
        token.cancel();
        assert!(task.was_woken() && closing.poll(&mut cx).is_ready());
    }
}
