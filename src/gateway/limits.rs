//! How often one handset, account or network may try: GCRA over the injected clock.
//!
//! Handsets are refused beyond their rate, and sign-ins to an account; PINs of an account are only slowed, or one of its
//! handsets could lock out the others. A network is only slowed, too: one carrier gateway stands for
//! thousands of handsets, so nobody may lock the others out. Its tries take turns, so that many at once are no way
//! around the rate.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use ring::hmac;

use crate::binding::AccountId;
use crate::carrier::RawIdentifier;
use crate::clock::Clock;
use crate::config::{LimitsConfig, Rate};
use crate::edge::{ClientAddr, counted_as};
use crate::entropy::{Entropy, random};

/// The longest that a network or account beyond its rate is made to wait for each try.
const LONGEST_SLOWDOWN: Duration = Duration::from_secs(5);

/// Stands for a handset in the limiters: keyed under a key of this process alone, so it means nothing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandsetKey([u8; 16]);

/// Too often; a right try may come again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooOften {
    /// When the next try will be heard.
    pub retry_after: Duration,
}

/// The limiters of sign-in, enrolment and PINs.
pub(super) struct Limits {
    key: hmac::Key,
    rates: Rates,
    sign_in_by_handset: Arc<Limiter<HandsetKey>>,
    sign_in_by_account: Arc<Limiter<AccountId>>,
    code_by_handset: Arc<Limiter<HandsetKey>>,
    code_by_account: Arc<Limiter<AccountId>>,
    pin_by_account: Arc<Turns<AccountId>>,
    by_network: Arc<Turns<IpNet>>,
    /// By [`counted_as`].
    requests_by_address: Option<Arc<Limiter<IpAddr>>>,
}

/// What the limiters were made for.
#[derive(Clone, Copy)]
struct Rates {
    sign_in: Rate,
    code: Rate,
    pin: Rate,
    network: Rate,
    requests: Option<Rate>,
}

impl Limits {
    /// Limiters at rest.
    #[must_use]
    pub(super) fn new(limits: &LimitsConfig, clock: &Arc<dyn Clock>, entropy: &dyn Entropy) -> Self {
        let LimitsConfig { sign_in, code, pin, network, requests, .. } = *limits;
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>(entropy)),
            rates: Rates { sign_in, code, pin, network, requests },
            sign_in_by_handset: Arc::new(Limiter::new(sign_in, clock)),
            sign_in_by_account: Arc::new(Limiter::new(sign_in, clock)),
            code_by_handset: Arc::new(Limiter::new(code, clock)),
            code_by_account: Arc::new(Limiter::new(code, clock)),
            pin_by_account: Arc::new(Turns::new(pin, clock)),
            by_network: Arc::new(Turns::new(network, clock)),
            requests_by_address: requests.map(|rate| Arc::new(Limiter::new(rate, clock))),
        }
    }

    /// The limiters of another configuration, which know handsets by the same key. Those whose rate stays the same remember
    /// what was tried; others begin at rest.
    #[must_use]
    pub(super) fn under(&self, limits: &LimitsConfig, clock: &Arc<dyn Clock>) -> Self {
        fn kept<T>(same: bool, former: &Arc<T>, new: impl FnOnce() -> T) -> Arc<T> {
            if same { Arc::clone(former) } else { Arc::new(new()) }
        }
        let LimitsConfig { sign_in, code, pin, network, requests, .. } = *limits;
        let (former, same_sign_in) = (self.rates, self.rates.sign_in == sign_in);
        let requests_by_address = match (&self.requests_by_address, requests) {
            (Some(limiter), Some(_)) if former.requests == requests => Some(Arc::clone(limiter)),
            (_, rate) => rate.map(|rate| Arc::new(Limiter::new(rate, clock))),
        };
        Self {
            key: self.key.clone(),
            rates: Rates { sign_in, code, pin, network, requests },
            sign_in_by_handset: kept(same_sign_in, &self.sign_in_by_handset, || Limiter::new(sign_in, clock)),
            sign_in_by_account: kept(same_sign_in, &self.sign_in_by_account, || Limiter::new(sign_in, clock)),
            code_by_handset: kept(former.code == code, &self.code_by_handset, || Limiter::new(code, clock)),
            code_by_account: kept(former.code == code, &self.code_by_account, || Limiter::new(code, clock)),
            pin_by_account: kept(former.pin == pin, &self.pin_by_account, || Turns::new(pin, clock)),
            by_network: kept(former.network == network, &self.by_network, || Turns::new(network, clock)),
            requests_by_address,
        }
    }

    /// What stands for this handset in the limiters and in the form tokens made for it.
    #[must_use]
    pub(super) fn handset_key(&self, identifier: &RawIdentifier) -> HandsetKey {
        let mut context = hmac::Context::with_key(&self.key);
        let carrier = identifier.carrier().as_str().as_bytes();
        context.update(&(carrier.len() as u64).to_be_bytes());
        context.update(carrier);
        context.update(identifier.expose());
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        HandsetKey(out)
    }

    /// A sign-in of this handset.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(super) fn sign_in(&self, handset: HandsetKey) -> Result<(), TooOften> {
        self.sign_in_by_handset.check(&handset)
    }

    /// A sign-in to this account, whose handset was recognised.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(super) fn sign_in_to(&self, account: &AccountId) -> Result<(), TooOften> {
        self.sign_in_by_account.check(account)
    }

    /// A typed code of this handset.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(super) fn code(&self, handset: HandsetKey) -> Result<(), TooOften> {
        self.code_by_handset.check(&handset)
    }

    /// A code that a person asks for, to add a handset to this account.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(super) fn code_for(&self, account: &AccountId) -> Result<(), TooOften> {
        self.code_by_account.check(account)
    }

    /// Any request from this address, which no carrier's gateway has: thousands of handsets stand behind one of those.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(super) fn request(&self, client: ClientAddr) -> Result<(), TooOften> {
        self.requests_by_address.as_ref().map_or(Ok(()), |limiter| limiter.check(&counted_as(client.ip())))
    }

    /// How long a try from this network has to wait before it is looked at; zero within the rate.
    #[must_use]
    pub(super) fn slowdown(&self, client: ClientAddr) -> Duration {
        self.by_network.wait(client.network())
    }

    /// How long a PIN that was typed for this account has to wait before it is looked at. How often its handset may try
    /// is kept in the store ([`PinPace`](crate::store::PinPace)), so that a restart gives nobody fresh tries.
    #[must_use]
    pub(super) fn pin_slowdown(&self, account: &AccountId) -> Duration {
        self.pin_by_account.wait(account.clone())
    }

    /// Forgets keys that are back at rest, so that chosen keys do not fill the memory.
    pub(super) fn sweep(&self) {
        self.sign_in_by_handset.sweep();
        self.sign_in_by_account.sweep();
        self.code_by_handset.sweep();
        self.code_by_account.sweep();
        self.pin_by_account.sweep();
        self.by_network.sweep();
        if let Some(requests) = &self.requests_by_address {
            requests.sweep();
        }
    }
}

impl HandsetKey {
    /// The bytes, to bind a form token to the handset it was made for.
    #[must_use]
    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

struct Limiter<K: Hash + Eq + Clone> {
    inner: RateLimiter<K, DashMapStateStore<K>, Monotonic, NoOpMiddleware<Duration>>,
    clock: Monotonic,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(rate: Rate, clock: &Arc<dyn Clock>) -> Self {
        let burst = std::num::NonZeroU32::new(rate.count).unwrap_or(std::num::NonZeroU32::MIN);
        let quota = Quota::with_period(rate.period / burst.get())
            .unwrap_or_else(|| Quota::per_second(burst))
            .allow_burst(burst);
        let clock = Monotonic(Arc::clone(clock));
        Self { inner: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()), clock }
    }

    fn check(&self, key: &K) -> Result<(), TooOften> {
        self.inner.check_key(key).map_err(|not| TooOften { retry_after: not.wait_time_from(self.clock.now()) })
    }

    fn sweep(&self) {
        self.inner.retain_recent();
        self.inner.shrink_to_fit();
    }
}

/// Hands out turns at a rate: as [`Limiter`], but a try beyond the rate takes the next free turn instead of none,
/// which governor cannot do.
struct Turns<K: Hash + Eq> {
    /// When the last turn of a network or account that was handed out is over, in monotonic time.
    taken_until: DashMap<K, Duration>,
    interval: Duration,
    burst: Duration,
    clock: Arc<dyn Clock>,
}

impl<K: Hash + Eq> Turns<K> {
    fn new(rate: Rate, clock: &Arc<dyn Clock>) -> Self {
        let interval = rate.period / rate.count.max(1);
        let burst = interval.saturating_mul(rate.count);
        Self { taken_until: DashMap::new(), interval, burst, clock: Arc::clone(clock) }
    }

    /// The time until its turn, [`LONGEST_SLOWDOWN`] at most.
    fn wait(&self, key: K) -> Duration {
        let now = self.clock.monotonic();
        let mut taken_until = self.taken_until.entry(key).or_insert(now);
        let turn_over = (*taken_until).max(now) + self.interval;
        // Turns beyond the longest wait are not kept: a flood is forgotten as soon as the last of it was heard.
        *taken_until = turn_over.min(now + self.burst + LONGEST_SLOWDOWN);
        turn_over.saturating_sub(self.burst + now).min(LONGEST_SLOWDOWN)
    }

    fn sweep(&self) {
        let now = self.clock.monotonic();
        self.taken_until.retain(|_, until| *until > now);
        self.taken_until.shrink_to_fit();
    }
}

/// The injected clock, as governor asks for it. Monotonic: a clock that is set back must not lock anybody out.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl GovernorClock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn another_configuration_forgets_what_was_tried_only_where_its_rate_is_another() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000)));
        let rate = |count| Rate { count, period: Duration::from_mins(1) };
        let long = Duration::from_mins(1);
        let mut config = LimitsConfig {
            sign_in: rate(1),
            code: rate(1),
            pin: rate(1),
            network: rate(1),
            head_bytes: 1024,
            headers: 10,
            body_bytes: 1024,
            url_bytes: 1024,
            connections: None,
            connections_per_address: 1,
            requests: Some(rate(1)),
            timeouts: crate::config::ClientTimeouts {
                handshake: long,
                head: long,
                body_idle: long,
                write_idle: long,
                keep_alive: long,
            },
        };
        let first = Limits::new(&config, &clock, &crate::entropy::SeededEntropy::new(1));
        let handset = HandsetKey([7; 16]);
        assert_eq!((first.sign_in(handset), first.code(handset)), (Ok(()), Ok(())));
        config.code = rate(2);
        let second = first.under(&config, &clock);
        assert!(second.sign_in(handset).is_err() && first.sign_in(handset).is_err());
        assert_eq!((second.code(handset), second.code(handset)), (Ok(()), Ok(())));
        assert!(second.code(handset).is_err());

        let address: IpAddr = "203.0.113.1".parse().unwrap();
        let asks = |limits: &Limits| limits.requests_by_address.as_ref().map(|limiter| limiter.check(&address).is_ok());
        assert_eq!((asks(&first), asks(&second)), (Some(true), Some(false)), "the same rate goes on");
        config.requests = Some(rate(2));
        let third = second.under(&config, &clock);
        assert_eq!((asks(&third), asks(&third), asks(&third)), (Some(true), Some(true), Some(false)));
        config.requests = None;
        assert_eq!(asks(&third.under(&config, &clock)), None);
    }

    #[test]
    fn a_burst_passes_and_time_gives_it_back() {
        let manual = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as Arc<dyn Clock>;
        let by_key = Limiter::new(Rate { count: 3, period: Duration::from_mins(1) }, &clock);
        for _ in 0..3 {
            assert_eq!(by_key.check(&"a"), Ok(()));
        }
        assert_eq!(by_key.check(&"a"), Err(TooOften { retry_after: Duration::from_secs(20) }));
        assert_eq!(by_key.check(&"b"), Ok(()), "another key is not touched");
        manual.advance(Duration::from_secs(20));
        assert_eq!(by_key.check(&"a"), Ok(()));
        assert!(by_key.check(&"a").is_err());
    }

    #[test]
    fn sprayed_keys_are_forgotten_at_rest_and_no_try_comes_back_with_it() {
        let manual = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as Arc<dyn Clock>;
        let by_key = Limiter::new(Rate { count: 2, period: Duration::from_mins(1) }, &clock);
        for key in 0..20_000 {
            assert_eq!(by_key.check(&key), Ok(()));
        }
        assert_eq!((by_key.check(&7), by_key.check(&7).is_err()), (Ok(()), true));
        by_key.sweep();
        assert_eq!(by_key.inner.len(), 20_000);
        manual.advance(Duration::from_secs(31));
        by_key.sweep();
        assert_eq!((by_key.check(&7), by_key.check(&7).is_err()), (Ok(()), true), "sweeping gives nothing back");
        manual.advance(Duration::from_mins(2));
        by_key.sweep();
        assert!(by_key.inner.is_empty());
    }

    #[test]
    fn a_network_takes_turns_and_waits_at_most_so_long() {
        let manual = Arc::new(ManualClock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as Arc<dyn Clock>;
        let turns = Turns::new(Rate { count: 2, period: Duration::from_secs(2) }, &clock);
        let (a, b): (IpNet, IpNet) = ("192.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap());
        for seconds in [0, 0, 1, 2, 3, 4, 5, 5, 5] {
            assert_eq!(turns.wait(a), Duration::from_secs(seconds));
        }
        assert_eq!(turns.wait(b), Duration::ZERO, "another network is not touched");
        manual.advance(Duration::from_secs(4));
        assert_eq!(turns.wait(a), Duration::from_secs(2), "turns pass with time");
        manual.advance(Duration::from_secs(10));
        turns.sweep();
        assert!(turns.taken_until.is_empty());
        assert_eq!(turns.wait(a), Duration::ZERO);
    }
}
