//! The keys of a listener's session tickets (RFC 8446 §4.6.1, RFC 5077), and how they follow each other.
//!
//! In: how the time goes on. Out: what seals and opens tickets for the TLS library. A key seals for [`TURN`] and opens for as
//! long again; then it is gone, and with it all tickets that it sealed. Keys live in this process alone, on no disk and in no
//! other listener: a restart, and certificates that change, begin with a fresh one. Whose ticket cannot be opened shakes hands
//! in full and notices nothing else.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::Error;
use rustls::crypto::ring::Ticketer;
use rustls::server::ProducesTickets;

use crate::clock::Timestamp;

/// For how long a key seals; a ticket is good for twice as long at most. Whoever takes the keys from memory opens what was
/// recorded over TLS 1.2 in that time, and nothing older.
pub(super) const TURN: Duration = Duration::from_hours(6);

/// The keys of one listener.
pub(super) struct TicketKeys(RwLock<Keys>);

struct Keys {
    current: Arc<dyn ProducesTickets>,
    /// Opens, and seals no more.
    previous: Option<Arc<dyn ProducesTickets>>,
    /// Since when the current one seals.
    since: Timestamp,
}

impl TicketKeys {
    /// One fresh key, from `now` on.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new(now: Timestamp) -> Result<Self, Error> {
        Ok(Self(RwLock::new(Keys { current: key()?, previous: None, since: now })))
    }

    /// Has a fresh key seal once the current one did for [`TURN`]; the one before it is gone. Does nothing before that. Where a
    /// clock was set back, the turn counts from there: no key lives longer for it than twice.
    ///
    /// # Errors
    /// The system gives no random numbers: the keys stay as they are.
    pub(super) fn turn(&self, now: Timestamp) -> Result<(), Error> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if now < keys.since {
            keys.since = now;
        }
        let sealed_for = now.since(keys.since);
        if sealed_for >= TURN {
            let former = std::mem::replace(&mut keys.current, key()?);
            // After so long a pause nothing that it sealed is good any more.
            keys.previous = (sealed_for < 2 * TURN).then_some(former);
            keys.since = now;
        }
        Ok(())
    }
}

/// The library's own: ChaCha20-Poly1305 under a random key that has a name. It would turn by the system's clock after six hours
/// too, and opens what it sealed for longer than it is kept here.
fn key() -> Result<Arc<dyn ProducesTickets>, Error> {
    Ticketer::new()
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    /// In seconds; what clients are told.
    fn lifetime(&self) -> u32 {
        u32::try_from(2 * TURN.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.current.encrypt(plain)
    }

    fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.current.decrypt(sealed).or_else(|| keys.previous.as_ref()?.decrypt(sealed))
    }
}

/// Nothing of a key.
impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_certificates::days;

    const NOW: Timestamp = days(20_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn keys() -> TicketKeys {
        TicketKeys::new(NOW).unwrap()
    }

    #[test]
    fn a_ticket_is_good_for_one_turn_of_the_keys_and_not_for_two() {
        let keys = keys();
        assert_eq!(keys.lifetime(), 12 * 60 * 60);
        let first = keys.encrypt(b"first").unwrap();
        keys.turn(NOW.plus(TURN).minus(SECOND)).unwrap();
        assert_eq!(keys.decrypt(&first).as_deref(), Some(&b"first"[..]));
        let late = keys.encrypt(b"late").unwrap();

        keys.turn(NOW.plus(TURN)).unwrap();
        let second = keys.encrypt(b"second").unwrap();
        for _ in 0..2 {
            for (ticket, plain) in [(&first, "first"), (&late, "late"), (&second, "second")] {
                assert_eq!(keys.decrypt(ticket).as_deref(), Some(plain.as_bytes()), "{plain}");
            }
            // Once more within the turn: nothing moves.
            keys.turn(NOW.plus(2 * TURN).minus(SECOND)).unwrap();
        }

        keys.turn(NOW.plus(2 * TURN)).unwrap();
        assert!(keys.decrypt(&first).is_none() && keys.decrypt(&late).is_none());
        assert_eq!(keys.decrypt(&second).as_deref(), Some(&b"second"[..]));
    }

    #[test]
    fn after_a_long_pause_nothing_of_before_is_good() {
        let keys = keys();
        let ticket = keys.encrypt(b"ticket").unwrap();
        keys.turn(NOW.plus(2 * TURN)).unwrap();
        assert!(keys.decrypt(&ticket).is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_stops_no_turn() {
        let keys = keys();
        let ticket = keys.encrypt(b"ticket").unwrap();
        let back = NOW.minus(Duration::from_hours(24 * 365));
        keys.turn(back).unwrap();
        assert!(keys.decrypt(&ticket).is_some());
        keys.turn(back.plus(TURN)).unwrap();
        keys.turn(back.plus(2 * TURN)).unwrap();
        assert!(keys.decrypt(&ticket).is_none());
    }

    #[test]
    fn each_has_keys_of_its_own() {
        let (one, other) = (keys(), keys());
        let ticket = one.encrypt(b"ticket").unwrap();
        assert!(other.encrypt(b"ticket").is_some() && other.decrypt(&ticket).is_none());
        for changed in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[changed] ^= 1;
            assert!(one.decrypt(&forged).is_none(), "byte {changed}");
        }
    }
}
