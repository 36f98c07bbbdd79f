//! The servers of an upstream, as one worker sees them: which one is next, and what becomes of those that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::ejection::ROUND;
use super::health::{Common, ServerHealth};
use super::line::Line;
use super::link::Link;
use super::pool::{Place, Server};
use super::standing::Standing;
use crate::config::{UpstreamConfig, UpstreamQueue, UpstreamServer};

/// Longest time that an idle connection is kept, whatever the configuration says: below the keep-alive of common
/// servers (nginx 75 s, `HAProxy` and Tomcat 60 s), so that they seldom close one that is being taken.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// The servers of one upstream.
pub(super) struct Servers {
    all: Vec<Arc<Server>>,
    health: Arc<[Arc<ServerHealth>]>,
    pub(super) line: Arc<Line>,
    pub(super) queue: UpstreamQueue,
    /// Connections that each of them may have.
    connections: usize,
    turn: AtomicUsize,
}

/// Why there is no place for a request at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Every server fails its probes.
    NoneHealthy,
    /// Every server that gets requests has as many connections as it may, or others wait already.
    Full,
}

impl Servers {
    /// `common` was made of the same configuration. A server that `former` has too is taken from there with its connections
    /// and its requests under way.
    pub(super) fn new(config: &UpstreamConfig, common: Common, former: Option<&Self>) -> Self {
        let Common { health, standings, line } = common;
        let keep = config.timeout.idle.min(MAX_IDLE_TIME);
        // By its standing too: where this worker passed over a configuration without the server, all is known anew.
        let known = |address: &UpstreamServer, standing: &Arc<Standing>| {
            let same = |server: &&Arc<Server>| server.address == *address && Arc::ptr_eq(&server.standing, standing);
            former.and_then(|former| former.all.iter().find(same))
        };
        let all = config.servers.iter().zip(&*standings).map(|(address, standing)| match known(address, standing) {
            Some(server) => {
                server.keep_for(keep);
                Arc::clone(server)
            }
            None => Server::new(address.clone(), Arc::clone(standing), keep),
        });
        let all: Vec<_> = all.collect();
        let turn = former.map_or(all.len(), |former| former.turn.load(Ordering::Relaxed));
        if former.is_none() {
            // Not every worker begins with the first one.
            let first = line.add_worker();
            for (index, server) in all.iter().enumerate() {
                server.chosen_at(index.wrapping_add(first) % all.len());
            }
        }
        let turn = AtomicUsize::new(turn);
        Self { all, health, line, queue: config.queue, connections: config.connections, turn }
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// A place for a request that is sent `now`: at the server with the least outstanding requests, or, where it is full, at
    /// another. Never before those who wait.
    pub(super) fn place(&self, now: Instant) -> Result<Place, NoPlace> {
        let index = self.pick(now).ok_or(NoPlace::NoneHealthy)?;
        if self.line.waiting() > 0 {
            return Err(NoPlace::Full);
        }
        self.place_at(index, now).or_else(|| self.any_place(now)).ok_or(NoPlace::Full)
    }

    /// A place at whichever server has one.
    pub(super) fn any_place(&self, now: Instant) -> Option<Place> {
        let mut usable: Vec<_> =
            self.usable(now).filter_map(|index| Some((self.all.get(index)?.load(), index))).collect();
        usable.sort_unstable();
        usable.into_iter().find_map(|(_, index)| self.place_at(index, now))
    }

    /// An idle connection of this worker to whichever server has one.
    pub(super) fn idle_place(&self, now: Instant) -> Option<Place> {
        self.usable(now).filter_map(|index| self.all.get(index)).find_map(|server| {
            let place = server.idle_place(now)?;
            server.standing.ejection.asked(now);
            Some(place)
        })
    }

    /// Whether requests go to `server` now.
    pub(super) fn may_use(&self, server: &Arc<Server>, now: Instant) -> bool {
        self.usable(now).filter_map(|index| self.all.get(index)).any(|known| Arc::ptr_eq(known, server))
    }

    /// An idle connection of any worker that takes room from those who wait.
    pub(super) fn spare(&self, now: Instant) -> Option<Box<Link>> {
        self.usable(now).filter_map(|index| self.all.get(index)).find_map(|server| server.standing.spare())
    }

    /// A request that was sent at `asked_at` got no sound answer of `server`; `outright`: it never reached it. For how long
    /// the server is passed over from now on, if it is.
    pub(super) fn failed(&self, server: &Server, asked_at: Instant, outright: bool) -> Option<Duration> {
        // Where there is no other it cannot be passed over.
        if self.len() == 1 {
            return None;
        }
        let mut others = self.well(Instant::now()).filter_map(|index| self.all.get(index)).map(|other| &other.standing);
        let ejection = &server.standing.ejection;
        if others.any(|other| !Arc::ptr_eq(other, &server.standing) && other.ejection.is_proved()) {
            ejection.failed(asked_at, outright)
        } else {
            ejection.failed_like_all(asked_at, outright)
        }
    }

    /// The server with the least outstanding requests, of several the one that was chosen longest ago. One that is ejected
    /// only where all are that do not fail their probes: the one of them that was so first.
    fn pick(&self, now: Instant) -> Option<usize> {
        if let [health] = &*self.health {
            return (!health.is_down()).then_some(0);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let round = turn / self.len().max(1) % ROUND;
        let load = |index: &usize| self.all.get(*index).map(|server| server.load());
        let in_turn = |index: &usize| round < self.share(*index, now);
        // Where all that are well came back just now, their share is all there is.
        let best = self.well(now).filter(in_turn).min_by_key(load).or_else(|| self.well(now).min_by_key(load));
        let best = best.or_else(|| self.longest_ejected());
        if let Some(server) = best.and_then(|index| self.all.get(index)) {
            server.chosen_at(turn);
        }
        best
    }

    /// Those that requests may go to: all that are well, or else the one that was ejected longest ago.
    fn usable(&self, now: Instant) -> impl Iterator<Item = usize> {
        let none_is_well = self.well(now).next().is_none();
        self.well(now).chain(none_is_well.then(|| self.longest_ejected()).flatten())
    }

    fn place_at(&self, index: usize, now: Instant) -> Option<Place> {
        // Of a server that came back, as many as it has requests: the others' surplus must not all go there.
        // Where no other gets more, it is all there is.
        let most = || {
            let share = self.share(index, now);
            let gets_less = self.well(now).any(|other| self.share(other, now) > share);
            if gets_less { (self.connections * share / ROUND).max(1) } else { self.connections }
        };
        let server = self.all.get(index)?;
        let place = server.place(now, most)?;
        server.standing.ejection.asked(now);
        Some(place)
    }

    /// Of [`ROUND`] requests that a server which is well could get, those that it gets `now`.
    fn share(&self, index: usize, now: Instant) -> usize {
        let probed = self.health.get(index).map_or(ROUND, |health| health.share(now));
        self.all.get(index).map_or(0, |server| server.standing.ejection.share(now).min(probed))
    }

    fn well(&self, now: Instant) -> impl Iterator<Item = usize> {
        self.up().filter(move |index| self.all.get(*index).is_some_and(|server| !server.standing.ejection.rests(now)))
    }

    /// Of those that are up, the one that was ejected longest ago.
    fn longest_ejected(&self) -> Option<usize> {
        self.up().min_by_key(|index| self.all.get(*index).map(|server| server.standing.ejection.ejected_at()))
    }

    /// Those that do not fail their probes.
    fn up(&self) -> impl Iterator<Item = usize> {
        self.health.iter().enumerate().filter(|(_, health)| !health.is_down()).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::upstream::Health;
    use crate::upstream::ejection::SLOW_RETURN;
    use crate::upstream::tests::pools::{KEEP, config, open, port, workers};

    const SECOND: Duration = Duration::from_secs(1);

    /// Where the next `N` requests go, each over before the next comes.
    fn next<const N: usize>(servers: &Servers) -> [u16; N] {
        std::array::from_fn(|_| port(&servers.all[servers.pick(Instant::now()).unwrap()]))
    }

    fn asked_of(servers: &Servers, server: u16) -> usize {
        next::<600>(servers).into_iter().filter(|port| *port == server).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_with_the_least_to_do_is_next() {
        let [servers] = workers(&config(0..3));
        let mut in_turn: [u16; 3] = next(&servers);
        in_turn.sort_unstable();
        assert_eq!(in_turn, [0, 1, 2]);
        let busy = [servers.all[0].begin(), servers.all[1].begin()];
        assert_eq!(next(&servers), [2, 2, 2]);
        drop(busy);
        servers.failed(&servers.all[2], Instant::now(), true);
        assert_eq!([0, 1, 2].map(|server| asked_of(&servers, server)), [300, 300, 0], "nobody gets the share of two");
    }

    #[tokio::test(start_paused = true)]
    async fn not_every_worker_begins_with_the_same_server() {
        let workers: [_; 3] = workers(&config(0..3));
        let mut first = workers.each_ref().map(|servers| next::<1>(servers)[0]);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_workers_pass_a_server_over_that_one_of_them_found_out() {
        let [one, other] = workers(&config(0..2));
        for _ in 0..3 {
            assert!(asked_of(&other, 0) > 0);
            one.failed(&one.all[0], Instant::now(), false);
        }
        assert_eq!([&one, &other].map(|servers| asked_of(servers, 0)), [0, 0]);
        advance(2 * SECOND).await;
        one.failed(&one.all[1], Instant::now(), true);
        assert_eq!(next(&other), [0, 0, 0], "all are ejected: the one that was longest ago");
        advance(2 * SECOND).await;
        one.failed(&one.all[0], Instant::now(), false);
        assert_eq!(next(&other), [1, 1, 1], "and another where that was a mistake");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_back_gets_a_share_that_grows() {
        let [servers] = workers(&config(0..2));
        let length = servers.failed(&servers.all[0], Instant::now(), true).unwrap();
        advance(length).await;
        let mut used = Vec::new();
        while used.len() < 40 {
            used.push(open(&servers).await.unwrap());
        }
        let tried = used.iter().filter(|(lease, _)| port(lease.outstanding.server()) == 0).count();
        assert_eq!(tried, 1, "until that one is answered");
        drop(used);
        servers.all[0].standing.ejection.answered(Instant::now());
        let mut share = 0;
        for (after, least, most) in
            [(0, 25, 65), (SLOW_RETURN.as_secs() / 2, 150, 210), (SLOW_RETURN.as_secs() / 2, 300, 300)]
        {
            advance(SECOND * u32::try_from(after).unwrap()).await;
            let now = asked_of(&servers, 0);
            assert!((least..=most).contains(&now) && now > share, "{now} of 600");
            share = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_surplus_does_not_all_go_to_a_server_that_is_back() {
        let mut config = config(0..2);
        config.connections = 20;
        let [servers] = workers(&config);
        let length = servers.failed(&servers.all[0], Instant::now(), true).unwrap();
        advance(length).await;
        servers.all[0].standing.ejection.answered(Instant::now());
        let mut used = Vec::new();
        while let Some(one) = open(&servers).await {
            used.push(one);
        }
        let open = |servers: &Servers| [0, 1].map(|index| servers.all[index].standing.open());
        assert_eq!(open(&servers), [2, 20]);
        advance(SLOW_RETURN).await;
        while let Some(one) = super::super::tests::pools::open(&servers).await {
            used.push(one);
        }
        assert_eq!(open(&servers), [20, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_back_gets_all_where_no_other_gets_more() {
        let mut config = config(0..2);
        config.connections = 20;
        let [servers] = workers(&config);
        let length = servers.all.iter().filter_map(|server| servers.failed(server, Instant::now(), true)).max();
        advance(length.unwrap()).await;
        let mut used = Vec::new();
        for server in &servers.all {
            server.standing.ejection.answered(Instant::now());
        }
        while let Some(one) = open(&servers).await {
            used.push(one);
        }
        assert!(used.len() >= 20, "{}", used.len());
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_of_all_each_is_tried_again_soon() {
        let [servers] = workers(&config(0..2));
        let end = Instant::now() + 600 * SECOND;
        while Instant::now() < end {
            let next = servers.pick(Instant::now()).unwrap();
            servers.all[next].standing.ejection.asked(Instant::now());
            servers.failed(&servers.all[next], Instant::now(), true);
            advance(SECOND / 2).await;
        }
        for server in &servers.all {
            let until = server.standing.ejection.until(Instant::now());
            assert!(until.is_none_or(|until| until < Instant::now() + 7 * SECOND), "{until:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_server_is_never_passed_over() {
        let [servers] = workers(&config(0..1));
        for _ in 0..10 {
            assert_eq!(servers.failed(&servers.all[0], Instant::now(), true), None);
        }
        assert_eq!(next(&servers), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_passed_over_a_configuration_counts_as_the_others_do() {
        let [with, without] = [config(0..2), config(1..2)];
        let new =
            |config: &UpstreamConfig, former: Option<&Health>| Health::new(std::slice::from_ref(config), former, 1);
        let first = new(&with, None);
        let former = Servers::new(&with, first.of(0), None);
        let second = new(&without, Some(&first));
        let third = new(&with, Some(&second));
        let next = Arc::new(Servers::new(&with, third.of(0), Some(&former)));
        let [(_first, _other_end), _second] = [open(&next).await.unwrap(), open(&next).await.unwrap()];
        assert_eq!(third.servers(0).iter().map(|now| now.connections).collect::<Vec<_>>(), [1, 1]);
        assert!(Arc::ptr_eq(&next.line, &next.all[0].standing.line), "where its requests wait");
        assert!(Arc::ptr_eq(&next.all[1], &former.all[1]), "what was there all along is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_keeps_its_connections_and_what_is_known_of_it() {
        let before = config(0..2);
        let health = Health::new(std::slice::from_ref(&before), None, 1);
        let former = Arc::new(Servers::new(&before, health.of(0), None));
        let used = [open(&former).await.unwrap(), open(&former).await.unwrap(), open(&former).await.unwrap()];
        let busy = used.map(|(lease, other_end)| {
            if port(lease.outstanding.server()) == 1 {
                Ok((lease, other_end))
            } else {
                Err((lease.give_back(), other_end))
            }
        });
        let busy_before = former.all[1].load().0;
        assert_eq!(busy_before, busy.iter().filter(|lease| lease.is_ok()).count());
        former.failed(&former.all[1], Instant::now(), true);

        let mut after = config(1..3);
        after.timeout.idle = KEEP / 2;
        let health = Health::new(std::slice::from_ref(&after), Some(&health), 1);
        let next = Servers::new(&after, health.of(0), Some(&former));
        assert_eq!([port(&next.all[0]), port(&next.all[1])], [1, 2]);
        assert_eq!(next.all[0].load().0, busy_before);
        assert_eq!(
            health.servers(0).iter().map(|now| (now.ejected, now.connections)).collect::<Vec<_>>(),
            [(true, busy_before), (false, 0)]
        );
        assert_eq!(asked_of(&next, 2), 600);
        let [stranger] = {
            // Another worker, or this one with connections that it may not keep.
            [Servers::new(&after, health.of(0), None)]
        };
        assert!(!Arc::ptr_eq(&stranger.all[0], &former.all[1]));
        assert_eq!(asked_of(&stranger, 2), 600, "which is not about connections");
    }
}
