//! Who waits in a line, in order.
//!
//! Those of one worker and configuration all wait for the same. They are kept together, so that no step takes longer for how
//! many wait: it looks at the first of each worker, and at no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::pool::Place;
use super::servers::Servers;

/// Where a place is sent to.
pub(super) type Grant = oneshot::Sender<Place>;

/// All who wait.
#[derive(Default)]
pub(super) struct Queue {
    groups: Vec<Group>,
    next: u64,
    overtaken: u32,
}

/// Those who wait for one of these servers, by number; never empty. Each holds them itself, so that they are not dropped here.
struct Group {
    servers: Arc<Servers>,
    waiting: BTreeMap<u64, Grant>,
}

impl Group {
    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }
}

impl Queue {
    /// So many wait.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.waiting.len()).sum()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How often the first was overtaken since it is the first.
    pub(super) const fn overtaken(&self) -> u32 {
        self.overtaken
    }

    /// One more, behind all others. Returns its number.
    pub(super) fn enter(&mut self, servers: &Arc<Servers>, grant: Grant) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(group) = self.groups.iter_mut().find(|group| Arc::ptr_eq(&group.servers, servers)) {
            group.waiting.insert(number, grant);
        } else {
            let waiting = BTreeMap::from([(number, grant)]);
            self.groups.push(Group { servers: Arc::clone(servers), waiting });
        }
        number
    }

    /// The first of all, and what it waits for.
    pub(super) fn first(&self) -> Option<(u64, Arc<Servers>)> {
        self.first_of(|_| true)
    }

    /// The first of those who wait for servers that `fit`.
    pub(super) fn first_of(&self, fit: impl Fn(&Arc<Servers>) -> bool) -> Option<(u64, Arc<Servers>)> {
        let fitting = self.groups.iter().filter(|group| fit(&group.servers));
        let first = fitting.filter_map(|group| Some((group.first()?, group))).min_by_key(|(number, _)| *number);
        first.map(|(number, group)| (number, Arc::clone(&group.servers)))
    }

    /// Whether it is the first of all.
    pub(super) fn is_first(&self, number: u64) -> bool {
        self.groups.iter().filter_map(Group::first).min() == Some(number)
    }

    /// Takes one out, who gets what would have been for others before it.
    pub(super) fn overtake(&mut self, servers: &Arc<Servers>, number: u64) -> Option<Grant> {
        self.overtaken += u32::from(!self.is_first(number));
        self.remove(servers, number)
    }

    /// Takes one out; `None` where it is not there any more.
    pub(super) fn remove(&mut self, servers: &Arc<Servers>, number: u64) -> Option<Grant> {
        if self.is_first(number) {
            self.overtaken = 0;
        }
        let at = self.groups.iter().position(|group| Arc::ptr_eq(&group.servers, servers))?;
        let group = self.groups.get_mut(at)?;
        let grant = group.waiting.remove(&number);
        if group.waiting.is_empty() {
            self.groups.swap_remove(at);
        }
        grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::pools::{config, workers};

    #[test]
    fn all_are_in_one_order_whoever_they_wait_for() {
        let [one, other] = workers(&config(0..2));
        let mut queue = Queue::default();
        let numbers = [&one, &other, &other, &one].map(|servers| queue.enter(servers, oneshot::channel().0));
        let first = |queue: &Queue| queue.first().map(|(number, _)| number);
        let first_of = |queue: &Queue, of: &Arc<Servers>| {
            queue.first_of(|servers| Arc::ptr_eq(servers, of)).map(|(number, _)| number)
        };
        assert_eq!((queue.len(), first(&queue), first_of(&queue, &other)), (4, Some(numbers[0]), Some(numbers[1])));
        assert!(queue.overtake(&other, numbers[1]).is_some() && queue.overtake(&other, numbers[1]).is_none());
        assert_eq!((queue.overtaken(), first_of(&queue, &other)), (2, Some(numbers[2])));
        assert!(queue.remove(&one, numbers[0]).is_some());
        assert_eq!((queue.overtaken(), first(&queue)), (0, Some(numbers[2])), "another one is the first");
        assert!(queue.is_first(numbers[2]) && !queue.is_first(numbers[3]));
        assert!(queue.overtake(&other, numbers[2]).is_some() && first_of(&queue, &other).is_none());
        assert_eq!((queue.overtaken(), queue.len()), (0, 1), "it was its turn");
        assert!(queue.remove(&one, numbers[3]).is_some() && queue.is_empty());
    }
}
