//! Actors that run one step at a time, in the order that a seed gives.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// Where an actor stops until it is its turn again.
#[derive(Clone, Default)]
pub(crate) struct Turn(Rc<Cell<bool>>);

impl Turn {
    /// Ends a step.
    pub(crate) async fn ends(&self) {
        let mut first = true;
        poll_fn(|_| {
            if std::mem::take(&mut first) {
                self.0.set(true);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// Somebody who does something in steps. Dropping it is a crash between two of them.
pub(crate) struct Actor {
    turn: Turn,
    work: Pin<Box<dyn Future<Output = ()>>>,
    /// Whether it moves records or keys, and so may crash.
    pub(crate) moves: bool,
}

impl Actor {
    pub(crate) fn new<F: Future<Output = ()> + 'static>(moves: bool, work: impl FnOnce(Turn) -> F) -> Self {
        let turn = Turn::default();
        Self { work: Box::pin(work(turn.clone())), turn, moves }
    }

    /// Does one step, with all that it waits for. Whether that was the last.
    pub(crate) async fn step(&mut self) -> bool {
        poll_fn(|context| match self.work.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.turn.0.take() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// `SplitMix64`: a stream of choices that a seed gives.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % u64::try_from(sides).unwrap()).unwrap()
    }
}
