//! How many connections may be open at once: in all, and from one address.
//!
//! Counted when a connection comes and when it is gone, upgraded ones included, so that a request on an open connection
//! touches nothing that cores share. A connection too many is closed before anything of it is read.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::turned_away::TurnedAway;
use crate::edge::{TrustedProxies, counted_as};

/// How many connections may be open.
pub struct ConnectionLimits {
    /// In all.
    pub all: usize,
    /// From one IPv4 address or one IPv6 /64, unless many clients stand behind it.
    pub per_address: usize,
    /// Connections of these carry requests of others: no limit of an address holds for them.
    pub proxies: TrustedProxies,
    /// Whether many clients stand behind an address, as behind a carrier's gateway: it may have half of all, so that
    /// nobody there shuts everybody out.
    pub is_shared: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Counts the connections of some listeners, whichever core has them.
pub struct Admission {
    limits: ArcSwap<ConnectionLimits>,
    open: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl Admission {
    /// With nobody in.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits: ArcSwap::from_pointee(limits), open: AtomicUsize::new(0), by_address: DashMap::new() })
    }

    /// From now on connections are held to `limits`. Those that are open stay, however many they are.
    pub fn replace(&self, limits: ConnectionLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection of `peer` until the seat is dropped.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Full> {
        // Made before anything is known, so that its end takes back whatever was counted.
        let mut seat = Seat { admission: Arc::clone(self), address: None };
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limits.load().all {
            return Err(Full::Connections);
        }
        seat.count(peer)?;
        Ok(seat)
    }

    fn most_of(&self, address: IpAddr) -> Option<usize> {
        let limits = self.limits.load();
        if limits.proxies.trusts(address) {
            None
        } else if (limits.is_shared)(address) {
            Some((limits.all / 2).max(1))
        } else {
            Some(limits.per_address)
        }
    }
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many as `limits.connections` are open.
    Connections,
    /// As many as one address may have are open from this one.
    Address,
}

impl From<Full> for TurnedAway {
    fn from(full: Full) -> Self {
        match full {
            Full::Connections => Self::Connections,
            Full::Address => Self::ConnectionsPerAddress,
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "as many connections as limits.connections allows are open",
            Self::Address => "as many connections as one address may have are open from it",
        })
    }
}

/// One open connection.
pub(super) struct Seat {
    admission: Arc<Admission>,
    /// Under which address it is counted.
    address: Option<IpAddr>,
}

impl Seat {
    /// A trusted proxy said whose connection this is: it counts as that one's from now on.
    pub(super) fn is_for(&mut self, source: IpAddr) -> Result<(), Full> {
        self.leave_address();
        self.count(source)
    }

    fn count(&mut self, address: IpAddr) -> Result<(), Full> {
        let Some(most) = self.admission.most_of(address) else { return Ok(()) };
        let address = counted_as(address);
        let mut open = self.admission.by_address.entry(address).or_default();
        if *open >= most {
            return Err(Full::Address);
        }
        *open += 1;
        drop(open);
        self.address = Some(address);
        Ok(())
    }

    fn leave_address(&mut self) {
        let Some(address) = self.address.take() else { return };
        if let Entry::Occupied(mut open) = self.admission.by_address.entry(address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave_address();
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `127.0.2.0/24` is a carrier's, `192.0.2.0/24` are proxies.
    fn admission(all: usize, per_address: usize) -> Arc<Admission> {
        let proxies = TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let carrier: ipnet::IpNet = "127.0.2.0/24".parse().unwrap();
        let is_shared = Box::new(move |address: IpAddr| carrier.contains(&address.to_canonical()));
        Admission::new(ConnectionLimits { all, per_address, proxies, is_shared })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_too_many_is_turned_away_until_one_leaves() {
        let admission = admission(3, 2);
        let first = admission.enter(ip("203.0.113.1")).unwrap();
        let second = admission.enter(ip("203.0.113.1")).unwrap();
        assert_eq!(admission.enter(ip("203.0.113.1")).err(), Some(Full::Address));
        let _other = admission.enter(ip("203.0.113.2")).unwrap();
        assert_eq!(admission.enter(ip("203.0.113.3")).err(), Some(Full::Connections));
        drop(second);
        assert_eq!(admission.open(), 2);
        let again = admission.enter(ip("203.0.113.1")).unwrap();
        drop((first, again));
        assert_eq!(admission.open(), 1);
        assert_eq!(admission.by_address.len(), 1, "who left is forgotten");
    }

    #[test]
    fn an_ipv6_network_and_both_spellings_of_an_ipv4_address_are_one() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:203.0.113.1", "203.0.113.1", true),
            ("203.0.113.1", "203.0.113.2", false),
        ] {
            let admission = admission(10, 1);
            let _one = admission.enter(ip(one)).unwrap();
            assert_eq!(admission.enter(ip(other)).is_err(), same, "{one} and {other}");
        }
    }

    #[test]
    fn a_carriers_gateway_may_have_half_and_a_proxy_all() {
        for carrier in ["127.0.2.5", "::ffff:127.0.2.5"] {
            let admission = admission(8, 1);
            let seats: Vec<_> = (0..4).map(|_| admission.enter(ip(carrier)).unwrap()).collect();
            assert_eq!(admission.enter(ip(carrier)).err(), Some(Full::Address), "{carrier}");
            assert_eq!(admission.open(), seats.len());
        }
        let admission = admission(8, 1);
        let _seats: Vec<_> = (0..8).map(|_| admission.enter(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(admission.enter(ip("192.0.2.1")).err(), Some(Full::Connections));
    }

    #[test]
    fn who_comes_by_a_proxy_is_counted_by_the_address_that_it_tells() {
        let admission = admission(8, 1);
        let mut first = admission.enter(ip("192.0.2.1")).unwrap();
        first.is_for(ip("203.0.113.1")).unwrap();
        let mut second = admission.enter(ip("192.0.2.1")).unwrap();
        assert_eq!(second.is_for(ip("203.0.113.1")), Err(Full::Address));
        drop(second);
        assert_eq!(admission.enter(ip("203.0.113.1")).err(), Some(Full::Address), "by whatever way it comes");
        first.is_for(ip("203.0.113.9")).unwrap();
        assert!(admission.enter(ip("203.0.113.1")).is_ok());
    }

    #[test]
    fn other_limits_hold_for_whoever_comes_and_turn_nobody_out() {
        let counted = admission(8, 2);
        let limits = |all, per_address| {
            let proxies = TrustedProxies::new(vec![]);
            ConnectionLimits { all, per_address, proxies, is_shared: Box::new(|_| false) }
        };
        let mut seats = vec![counted.enter(ip("203.0.113.1")).unwrap(), counted.enter(ip("203.0.113.1")).unwrap()];
        seats.push(counted.enter(ip("192.0.2.1")).unwrap());
        counted.replace(limits(3, 1));
        assert_eq!(counted.open(), 3);
        assert_eq!(counted.enter(ip("203.0.113.2")).err(), Some(Full::Connections));
        seats.pop();
        assert_eq!(counted.enter(ip("203.0.113.1")).err(), Some(Full::Address));
        let _other = counted.enter(ip("192.0.2.1")).unwrap();
        counted.replace(limits(8, 3));
        assert!(counted.enter(ip("203.0.113.1")).is_ok());
        drop(seats);
        assert_eq!((counted.open(), counted.by_address.len()), (1, 1));
    }

    #[test]
    fn many_at_once_never_exceed_a_limit_and_all_are_taken_back() {
        let admission = admission(5, 3);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let admission = &admission;
                scope.spawn(move || {
                    let address = if thread % 2 == 0 { ip("203.0.113.1") } else { ip("203.0.113.2") };
                    for _ in 0..2000 {
                        if let Ok(seat) = admission.enter(address) {
                            let open = *admission.by_address.get(&address).unwrap();
                            assert!((1..=3).contains(&open), "{open}");
                            drop(seat);
                        }
                    }
                });
            }
        });
        assert_eq!((admission.open(), admission.by_address.len()), (0, 0));
    }
}
