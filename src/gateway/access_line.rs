//! One line of the access stream and one count for every request, also for those whose client left before the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{Method, Request};

use super::Gateway;
use crate::edge::Client;
use crate::entropy::{Entropy, random};
use crate::telemetry::Access;

/// The status that is logged where the client left before there was an answer; never sent.
const CLIENT_LEFT: u16 = 499;

/// What is known of a request so far; written when it is dropped.
pub(super) struct AccessLine<'g> {
    gateway: &'g Gateway,
    started: Instant,
    asked: Option<(Method, String)>,
    pub(super) request_id: RequestId,
    pub(super) client: Option<Client>,
    pub(super) status: u16,
}

impl<'g> AccessLine<'g> {
    pub(super) fn begin<B>(gateway: &'g Gateway, request_id: RequestId, request: &Request<B>) -> Self {
        let asked = gateway.access.is_on().then(|| (request.method().clone(), request.uri().path().to_owned()));
        Self { gateway, started: Instant::now(), asked, request_id, client: None, status: CLIENT_LEFT }
    }
}

impl Drop for AccessLine<'_> {
    fn drop(&mut self) {
        let Self { gateway, started, asked, request_id, client, status } = self;
        let duration = started.elapsed();
        gateway.metrics.request(*status, duration);
        let Some((method, path)) = asked else { return };
        let carrier = client.and_then(|client| gateway.config.carriers.match_source(&client));
        gateway.access.write(&Access {
            method: method.as_str(),
            path,
            status: *status,
            client: client.map(|client| client.address),
            duration,
            carrier: carrier.map(|profile| profile.name()),
            request_id: request_id.as_str(),
            at: gateway.clock.now(),
        });
    }
}

/// Names a request for operators and upstreams: 32 hexadecimal digits. Unique, not secret.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Names requests: a random prefix of this worker, and a counter.
pub(super) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        Self { prefix: u64::from_be_bytes(random(entropy)), next: AtomicU64::new(1) }
    }

    pub(super) fn next(&self) -> RequestId {
        let number = (u128::from(self.prefix) << 64) | u128::from(self.next.fetch_add(1, Ordering::Relaxed));
        let mut digits = [0; 32];
        for (i, digit) in digits.iter_mut().rev().enumerate() {
            let nibble = (number >> (4 * i)) & 0xf;
            *digit = b"0123456789abcdef".get(nibble as usize).copied().unwrap_or(b'0');
        }
        RequestId(digits)
    }
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
        assert!(a.as_str().ends_with("0000000000000001") && b.as_str().ends_with("0000000000000002"));
    }
}
