//! One line of the access stream and one count for every request, also for those whose client left before the answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{Method, Request, StatusCode, Version};

use super::Gateway;
use crate::edge::{Client, Connection};
use crate::entropy::{Entropy, random};
use crate::telemetry::Access;
use crate::trace::{Asked, RequestTrace};

/// The status that is logged where the client left before there was an answer; never sent.
const CLIENT_LEFT: u16 = 499;

/// What is known of a request so far; written when it is dropped.
pub(super) struct AccessLine<'g> {
    gateway: &'g Gateway,
    started: Instant,
    asked: Option<(Method, String, Version)>,
    pub(super) request_id: RequestId,
    pub(super) client: Option<Client>,
    pub(super) status: u16,
    pub(super) trace: RequestTrace,
}

impl<'g> AccessLine<'g> {
    pub(super) fn begin<B>(
        gateway: &'g Gateway,
        request_id: RequestId,
        connection: &Connection,
        request: &Request<B>,
    ) -> Self {
        let asked = gateway
            .access
            .is_on()
            .then(|| (request.method().clone(), request.uri().path().to_owned(), request.version()));
        let trace = gateway.tracer.begin(request, || Asked {
            request_id: request_id.as_str(),
            scheme: connection.scheme.as_str(),
            by_proxy: gateway.config.gateway.trusted_proxies.trusts(connection.peer.ip()),
        });
        Self { gateway, started: Instant::now(), asked, request_id, client: None, status: CLIENT_LEFT, trace }
    }
}

impl Drop for AccessLine<'_> {
    fn drop(&mut self) {
        let Self { gateway, started, asked, request_id, client, status, trace } = self;
        if std::thread::panicking() {
            // The client gets a 500 from the listener.
            *status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
        }
        let duration = started.elapsed();
        gateway.metrics.request(*status, duration);
        trace.finish((*status != CLIENT_LEFT).then_some(*status));
        let Some((method, path, version)) = asked else { return };
        let carrier = client.and_then(|client| gateway.config.carriers.match_source(&client));
        gateway.access.write(&Access {
            method: method.as_str(),
            path,
            version: *version,
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

/// Names requests: a random prefix of this worker, and a counter that begins at a random number, so that either half
/// alone tells requests of all workers and runs apart.
pub(super) struct RequestIds {
    prefix: [u8; 16],
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let number = || u64::from_be_bytes(random(entropy));
        Self { prefix: hexadecimal(number()), next: AtomicU64::new(number()) }
    }

    pub(super) fn next(&self) -> RequestId {
        let mut digits = [0; 32];
        let (prefix, counter) = digits.split_at_mut(16);
        prefix.copy_from_slice(&self.prefix);
        counter.copy_from_slice(&hexadecimal(self.next.fetch_add(1, Ordering::Relaxed)));
        RequestId(digits)
    }
}

fn hexadecimal(number: u64) -> [u8; 16] {
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
        let counted = |id: RequestId| u64::from_str_radix(&id.as_str()[16..], 16).unwrap();
        assert_eq!(counted(b), counted(a).wrapping_add(1));
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }
}
