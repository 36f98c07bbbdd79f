//! The gateway's own name for a request.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::entropy::{Entropy, random};

/// Digits of a name.
const DIGITS: usize = 32;
/// Of which the second half begins here.
const STEP: usize = 16;

/// Names a request for operators and upstreams: 32 lower-case hexadecimal digits. Unique, not secret. Neither half is
/// nothing but zeros, so it can be a trace id, and its second half a step in that trace (W3C Trace Context §3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; DIGITS]);

impl RequestId {
    /// A name that was given elsewhere; `None` if it is none.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let digits: [u8; DIGITS] = digits.as_bytes().try_into().ok()?;
        let is_sound = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            && digits.chunks(STEP).all(|half| half.iter().any(|digit| *digit != b'0'));
        is_sound.then_some(Self(digits))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its digits.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGITS] {
        &self.0
    }

    /// The digits of its second half.
    #[must_use]
    pub fn step(&self) -> &[u8; STEP] {
        self.0.last_chunk().unwrap_or_else(|| unreachable!("a half is shorter than the whole"))
    }
}

/// Names requests: a random prefix of this worker, and a counter that begins at a random number, so that either half
/// alone tells requests of all workers and runs apart.
pub struct RequestIds {
    prefix: [u8; STEP],
    next: AtomicU64,
}

impl RequestIds {
    /// Of one worker.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        let number = || u64::from_be_bytes(random(entropy));
        Self { prefix: hexadecimal(number().max(1)), next: AtomicU64::new(number()) }
    }

    /// The next name.
    pub fn next(&self) -> RequestId {
        let counted = match self.next.fetch_add(1, Ordering::Relaxed) {
            0 => self.next.fetch_add(1, Ordering::Relaxed),
            counted => counted,
        };
        let mut digits = [0; DIGITS];
        let (worker, step) = digits.split_at_mut(STEP);
        worker.copy_from_slice(&self.prefix);
        step.copy_from_slice(&hexadecimal(counted));
        RequestId(digits)
    }
}

/// The number's 16 digits.
pub(super) fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [b'0'; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let ids = RequestIds::new(&SeededEntropy::new(1));
        let (a, b) = (ids.next(), ids.next());
        assert_eq!(a.as_str()[..16], b.as_str()[..16]);
        let counted = |id: RequestId| u64::from_str_radix(std::str::from_utf8(id.step()).unwrap(), 16).unwrap();
        assert_eq!(counted(b), counted(a).wrapping_add(1));
        assert_eq!(RequestId::parse(a.as_str()), Some(a));
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
        let ids = RequestIds { next: AtomicU64::new(0), ..ids };
        assert_eq!(counted(ids.next()), 1, "no half is nothing but zeros");
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in ["", "0199aa00112233448899aabbccddeef", "0199AA00112233448899aabbccddeeff"] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
        for zeros in ["00000000000000008899aabbccddeeff", "0199aa00112233440000000000000000"] {
            assert_eq!(RequestId::parse(zeros), None, "{zeros}");
        }
    }
}
