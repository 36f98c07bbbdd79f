//! Spans that did not get to their collector: counted at once, and told in the log, of each collector every 30 seconds at most.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::config::CollectorUrl;
use crate::telemetry::{Metrics, SpanOutcome};

/// How often it is told that a collector does not get spans.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// What is counted, and what is not told yet.
pub(super) struct Losses {
    metrics: Arc<Metrics>,
    /// One for each collector of which something was said in the last 30 seconds, or is to be said.
    by_collector: Mutex<Vec<Untold>>,
    /// Something is to be told where nothing was.
    news: Notify,
}

/// What is to be told of one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Untold {
    collector: CollectorUrl,
    /// The last one, in words of ours: what a collector says may hold anything.
    problem: Option<String>,
    queue_full: u64,
    not_taken: u64,
    said: Option<Instant>,
}

impl Losses {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, by_collector: Mutex::default(), news: Notify::new() }
    }

    pub(super) fn sent(&self, spans: u64) {
        self.metrics.spans(SpanOutcome::Sent, spans);
    }

    /// More waited than may.
    pub(super) fn queue_full(&self, collector: &CollectorUrl, spans: u64) {
        self.metrics.spans(SpanOutcome::QueueFull, spans);
        self.note(collector, |untold| {
            untold.queue_full += spans;
            // Why they wait, if that is known, says more.
            untold.problem.get_or_insert_with(|| "more spans wait than may".to_owned());
        });
    }

    pub(super) fn not_taken(&self, collector: &CollectorUrl, spans: u64, problem: &dyn Display) {
        self.metrics.spans(SpanOutcome::NotTaken, spans);
        self.note(collector, |untold| {
            untold.not_taken += spans;
            untold.problem = Some(problem.to_string());
        });
    }

    /// Nothing is lost yet.
    pub(super) fn problem(&self, collector: &CollectorUrl, problem: &dyn Display) {
        self.note(collector, |untold| untold.problem = Some(problem.to_string()));
    }

    /// Tells what may be told, as long as it is polled.
    pub(super) async fn keep_telling(&self) {
        loop {
            let news = self.news.notified();
            match self.tell(false) {
                None => news.await,
                Some(due) => tokio::select! {
                    () = news => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    /// Tells what may be told by now, or everything. Gives back when there is more.
    pub(super) fn tell(&self, everything: bool) -> Option<Instant> {
        let (lines, due) = self.take(Instant::now(), everything);
        for Untold { collector, problem, queue_full, not_taken, .. } in lines {
            let problem = problem.unwrap_or_default();
            tracing::warn!(
                %collector, problem, queue_full, not_taken,
                "the collector does not get every span; requests are served all the same"
            );
        }
        due
    }

    fn take(&self, now: Instant, everything: bool) -> (Vec<Untold>, Option<Instant>) {
        let (mut lines, mut due) = (Vec::new(), None::<Instant>);
        self.by_collector().retain_mut(|untold| {
            let again = untold.said.map(|said| said + SAY_AGAIN);
            let may_be_told = again.is_none_or(|again| again <= now);
            if untold.problem.is_none() {
                return !may_be_told;
            }
            if may_be_told || everything {
                let said = Untold { said: Some(now), ..Untold::none(&untold.collector) };
                lines.push(std::mem::replace(untold, said));
            } else {
                due = [due, again].into_iter().flatten().min();
            }
            true
        });
        (lines, due)
    }

    fn note(&self, collector: &CollectorUrl, note: impl FnOnce(&mut Untold)) {
        let is_news = {
            let mut all = self.by_collector();
            let at = all.iter().position(|untold| untold.collector == *collector).unwrap_or_else(|| {
                all.push(Untold::none(collector));
                all.len() - 1
            });
            let Some(untold) = all.get_mut(at) else { return };
            let is_news = untold.problem.is_none();
            note(untold);
            is_news
        };
        if is_news {
            self.news.notify_one();
        }
    }

    /// Nothing panics while it holds this, so what poison would protect is whole.
    fn by_collector(&self) -> MutexGuard<'_, Vec<Untold>> {
        self.by_collector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Untold {
    fn none(collector: &CollectorUrl) -> Self {
        Self { collector: collector.clone(), problem: None, queue_full: 0, not_taken: 0, said: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn collector(origin: &str) -> CollectorUrl {
        CollectorUrl { origin: Origin::parse(origin).unwrap(), path: String::new() }
    }

    #[test]
    fn of_each_collector_everything_is_told_and_no_more_often_than_may() {
        let (losses, one, two) =
            (Losses::new(Arc::new(Metrics::new())), collector("http://127.0.0.1:1"), collector("http://127.0.0.1:2"));
        let told = |(lines, due): (Vec<Untold>, Option<Instant>)| {
            let line = |u: Untold| (u.collector.origin.effective_port(), u.problem.unwrap(), u.queue_full, u.not_taken);
            (lines.into_iter().map(line).collect::<Vec<_>>(), due)
        };
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(told(losses.take(begin, true)), (vec![], None));
        losses.queue_full(&one, 3);
        assert_eq!(told(losses.take(begin, false)), (vec![(1, "more spans wait than may".to_owned(), 3, 0)], None));
        losses.queue_full(&one, 4);
        losses.not_taken(&one, 5, &"answered 400");
        losses.queue_full(&one, 1);
        losses.problem(&two, &"no answer in time");
        // The other's problem is no reason to be silent about this one.
        assert_eq!(
            told(losses.take(later(1), false)),
            (vec![(2, "no answer in time".to_owned(), 0, 0)], Some(later(30)))
        );
        losses.not_taken(&two, 1, &"answered 400");
        assert_eq!(told(losses.take(later(29), false)), (vec![], Some(later(30))));
        assert_eq!(told(losses.take(later(30), false)), (vec![(1, "answered 400".to_owned(), 5, 5)], Some(later(31))));
        // At the end everything.
        assert_eq!(told(losses.take(later(30), true)), (vec![(2, "answered 400".to_owned(), 0, 1)], None));
        // What nothing is to be told of is forgotten.
        assert_eq!(told(losses.take(later(60), false)), (vec![], None));
        assert!(losses.by_collector().is_empty());
    }
}
