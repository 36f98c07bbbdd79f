//! The memory-hard stretch of what could be searched, identifiers of small spaces and PINs: Argon2id (RFC 9106) inside
//! the keyed hash.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use thiserror::Error;
use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

use super::Pin;
use super::keyring::DigestError;
use crate::carrier::RawIdentifier;
use crate::store::{SchemeRecord, StretchParameters};

/// What `stretch = "auto"` stands for: 19 MiB, 2 passes (`rotation.md` §2; the first choice of OWASP's password
/// storage cheat sheet). PINs are stretched by it where identifiers are not.
pub const AUTO_STRETCH: StretchParameters = StretchParameters { memory_kib: 19 * 1024, passes: 2 };

/// Bytes of a stretched identifier.
const OUTPUT_BYTES: usize = 32;
/// Sign-ins that may wait for each one that is being stretched. At 10 to 30 ms each, the last waits about a second.
const WAITING_FOR_EACH: usize = 32;
/// Most memory for one stretch, in KiB: 1 GiB, so that a typing error cannot end the process.
const MOST_MEMORY_KIB: u32 = 1 << 20;
/// Most passes.
const MOST_PASSES: u32 = 64;

/// Stretches identifiers and PINs with the cost of the store's scheme, a few at a time.
pub struct Stretcher {
    argon2: Argon2<'static>,
    /// Whether identifiers of small spaces are stretched, or PINs alone.
    identifiers: bool,
    salt: [u8; 16],
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    /// How much of `running` an import may have.
    in_bulk: Arc<Semaphore>,
    /// Wiped memory of finished stretches, at most as many as run at once. Handed back to the allocator it would stay
    /// with each of the runtime's threads that ever stretched, 19 MiB every time.
    idle: Arc<Mutex<Vec<Vec<Block>>>>,
}

/// For whom a stretch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A person waits: at once, or not at all where too many wait already.
    SignIn,
    /// An import: whenever there is room, on half of the cores at most, so that sign-ins are not held up.
    Bulk,
}

/// Costs outside the accepted range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("binding.stretch: memory must be 8KiB to 1GiB, passes 1 to 64")]
pub struct StretchOutOfRange;

/// An identifier ready to be hashed.
pub(super) enum Stretched {
    /// Its space is too large to be searched, or the scheme has no stretch.
    Plain(RawIdentifier),
    /// What Argon2id made of it.
    Argon2id(Zeroizing<[u8; OUTPUT_BYTES]>),
}

impl Stretcher {
    /// A stretcher that works on as many identifiers at once as there are cores.
    ///
    /// # Errors
    /// [`StretchOutOfRange`] if the scheme's costs are.
    pub fn new(scheme: &SchemeRecord) -> Result<Self, StretchOutOfRange> {
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with_slots(scheme, at_once, at_once * WAITING_FOR_EACH)
    }

    fn with_slots(scheme: &SchemeRecord, at_once: usize, waiting: usize) -> Result<Self, StretchOutOfRange> {
        let cost = scheme.stretch.unwrap_or(AUTO_STRETCH);
        if cost.memory_kib > MOST_MEMORY_KIB || cost.passes > MOST_PASSES {
            return Err(StretchOutOfRange);
        }
        // One lane: cores are better spent on the next sign-in.
        let params = Params::new(cost.memory_kib, cost.passes, 1, Some(OUTPUT_BYTES));
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| StretchOutOfRange)?),
            identifiers: scheme.stretch.is_some(),
            salt: scheme.salt,
            running: Arc::new(Semaphore::new(at_once)),
            admitted: Arc::new(Semaphore::new(at_once + waiting)),
            in_bulk: Arc::new(Semaphore::new((at_once / 2).max(1))),
            idle: Arc::default(),
        })
    }

    /// Stretches `identifier` on a blocking thread if its space is small; the clear identifier is wiped there.
    pub(super) async fn stretch(&self, identifier: RawIdentifier, urgency: Urgency) -> Result<Stretched, DigestError> {
        if !self.identifiers || !identifier.small_space() {
            return Ok(Stretched::Plain(identifier));
        }
        let salt = self.salt;
        let work = move |argon2: &Argon2<'_>, memory: &mut [Block]| hash(argon2, identifier.expose(), &salt, memory);
        self.run(urgency, work).await.map(Stretched::Argon2id)
    }

    /// Stretches a PIN under a salt of its own, on a blocking thread.
    pub(super) async fn stretch_pin(
        &self,
        pin: &Pin,
        salt: [u8; 16],
    ) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DigestError> {
        let pin = Zeroizing::new(pin.expose().as_bytes().to_vec());
        let work = move |argon2: &Argon2<'_>, memory: &mut [Block]| hash(argon2, &pin, &salt, memory);
        self.run(Urgency::SignIn, work).await
    }

    /// Does the work on a blocking thread, in its turn.
    async fn run(
        &self,
        urgency: Urgency,
        work: impl FnOnce(&Argon2<'_>, &mut [Block]) -> Zeroizing<[u8; OUTPUT_BYTES]> + Send + 'static,
    ) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DigestError> {
        let admitted = match urgency {
            Urgency::SignIn => Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| DigestError::Busy)?,
            Urgency::Bulk => Arc::clone(&self.in_bulk).acquire_owned().await.map_err(|_| DigestError::Busy)?,
        };
        // Served in the order of asking, so that an import never overtakes a sign-in that waits.
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| DigestError::Busy)?;
        let (argon2, idle) = (self.argon2.clone(), Arc::clone(&self.idle));
        let work = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the waiting request: a client that hangs up frees no slot that is still in use.
            let _permits = (admitted, running);
            let memory = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut memory = memory.unwrap_or_else(|| vec![Block::new(); argon2.params().block_count()]);
            let out = work(&argon2, &mut memory);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
            out
        });
        // The runtime is shutting down if this fails.
        work.await.map_err(|_| DigestError::Busy)
    }
}

fn hash(argon2: &Argon2<'_>, secret: &[u8], salt: &[u8; 16], memory: &mut [Block]) -> Zeroizing<[u8; OUTPUT_BYTES]> {
    let mut out = Zeroizing::new([0; OUTPUT_BYTES]);
    argon2
        .hash_password_into_with_memory(secret, salt, out.as_mut_slice(), &mut *memory)
        .unwrap_or_else(|_| unreachable!("the lengths of output, salt and memory follow from the parameters"));
    // From its first blocks the secret could be searched without paying for the memory.
    memory.iter_mut().zeroize();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::hex;

    impl Stretcher {
        /// Cheap costs: 64 KiB, 1 pass, salt 00..0f.
        pub(in crate::binding) fn for_test() -> Self {
            Self::with_slots(&scheme(Some((64, 1))), 2, 2).unwrap()
        }
    }

    fn scheme(cost: Option<(u32, u32)>) -> SchemeRecord {
        let stretch = cost.map(|(memory_kib, passes)| StretchParameters { memory_kib, passes });
        SchemeRecord {
            id: "v1".into(),
            stretch,
            salt: std::array::from_fn(|at| u8::try_from(at).unwrap()),
            pin_secret: Vec::new(),
        }
    }

    fn identifier(small: bool) -> RawIdentifier {
        RawIdentifier::for_test("docomo", b"0123abc", small)
    }

    #[tokio::test]
    async fn known_answers() {
        // Computed with Python's cryptography (OpenSSL's Argon2id).
        for (cost, expected) in [
            ((64, 1), "b7a1e81d64965ae06ad96aba0a463334ca413cd95dd42aeb1d4b59539822d932"),
            ((19_456, 2), "d390652476641f3a73a732850eb6ff01975de194f03e408d6ce2e89be5f556d7"),
        ] {
            let stretcher = Stretcher::new(&scheme(Some(cost))).unwrap();
            let Ok(Stretched::Argon2id(out)) = stretcher.stretch(identifier(true), Urgency::SignIn).await else {
                panic!("{cost:?}")
            };
            assert_eq!(hex(out.as_slice()), expected, "{cost:?}");
        }
    }

    #[tokio::test]
    async fn memory_is_wiped_and_serves_the_next_one() {
        let stretcher = Stretcher::with_slots(&scheme(Some((64, 1))), 2, 2).unwrap();
        let mut outputs = Vec::new();
        for _ in 0..3 {
            let made = stretcher.stretch(identifier(true), Urgency::SignIn).await;
            let Ok(Stretched::Argon2id(out)) = made else { panic!("it is stretched") };
            outputs.push(hex(out.as_slice()));
            let idle = stretcher.idle.lock().unwrap();
            assert_eq!((idle.len(), idle[0].len()), (1, 64));
            assert!(idle[0].iter().all(|block| block.as_ref().iter().all(|word| *word == 0)));
        }
        assert!(outputs.iter().all(|out| *out == outputs[0]));
    }

    #[tokio::test]
    async fn large_spaces_and_stores_without_a_stretch_stay_plain() {
        for (cost, small) in [(Some((64, 1)), false), (None, true), (None, false)] {
            let stretcher = Stretcher::new(&scheme(cost)).unwrap();
            let Ok(Stretched::Plain(same)) = stretcher.stretch(identifier(small), Urgency::SignIn).await else {
                panic!("{cost:?} {small}")
            };
            assert_eq!(same.expose(), b"0123abc");
        }
    }

    #[test]
    fn costs_outside_the_range_are_refused() {
        for cost in [(7, 1), (0, 1), (64, 0), (MOST_MEMORY_KIB + 1, 1), (64, MOST_PASSES + 1)] {
            assert_eq!(Stretcher::new(&scheme(Some(cost))).err(), Some(StretchOutOfRange), "{cost:?}");
        }
        for cost in [(MOST_MEMORY_KIB, 1), (64, MOST_PASSES)] {
            assert!(Stretcher::new(&scheme(Some(cost))).is_ok(), "{cost:?}");
        }
        assert!(Stretcher::new(&scheme(Some((8, 1)))).is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let stretcher = Arc::new(Stretcher::with_slots(&scheme(Some((64, 1))), 1, 1).unwrap());
        let held = Arc::clone(&stretcher.running).acquire_owned().await.unwrap();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let stretcher = Arc::clone(&stretcher);
                tokio::spawn(async move { stretcher.stretch(identifier(true), Urgency::SignIn).await.map(|_| ()) })
            })
            .collect();
        let taken = async {
            while stretcher.admitted.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), taken).await.expect("the queue fills");
        assert_eq!(stretcher.stretch(identifier(true), Urgency::SignIn).await.err(), Some(DigestError::Busy));
        assert!(
            stretcher.stretch(identifier(false), Urgency::SignIn).await.is_ok(),
            "what needs no stretch needs no place"
        );
        drop(held);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert!(stretcher.stretch(identifier(true), Urgency::SignIn).await.is_ok());
    }

    #[tokio::test]
    async fn an_import_has_half_of_the_slots_and_waits_instead_of_being_refused() {
        let scheme = scheme(Some((64, 1)));
        for (at_once, in_bulk) in [(1, 1), (2, 1), (4, 2), (5, 2)] {
            let stretcher = Stretcher::with_slots(&scheme, at_once, 0).unwrap();
            assert_eq!(stretcher.in_bulk.available_permits(), in_bulk, "of {at_once}");
        }
        let stretcher = Stretcher::with_slots(&scheme, 4, 0).unwrap();
        let other_lines = Arc::clone(&stretcher.in_bulk).acquire_many_owned(2).await.unwrap();
        let mut line = Box::pin(stretcher.stretch(identifier(true), Urgency::Bulk));
        assert!(futures_util::poll!(line.as_mut()).is_pending());
        assert_eq!(stretcher.running.available_permits(), 4, "it takes no slot while it waits");
        assert!(stretcher.stretch(identifier(true), Urgency::SignIn).await.is_ok());

        let sign_ins = Arc::clone(&stretcher.admitted).acquire_many_owned(4).await.unwrap();
        drop(other_lines);
        assert!(line.await.is_ok());
        drop(sign_ins);
    }
}
