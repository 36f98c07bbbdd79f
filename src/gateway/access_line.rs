//! One line of the access stream and one count for every request, also for those whose client left before the answer.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode, Version};

use super::handle::Share;
use crate::edge::{Client, Connection};
use crate::telemetry::Access;
use crate::trace::{Asked, RequestId, RequestTrace};

/// The status that is logged where the client left before there was an answer; never sent.
const CLIENT_LEFT: u16 = 499;

/// What is known of a request so far; written when it is dropped.
pub(super) struct AccessLine {
    /// What the request is answered with.
    pub(super) share: Arc<Share>,
    started: Instant,
    asked: Option<(Method, String, Version)>,
    pub(super) request_id: RequestId,
    pub(super) client: Option<Client>,
    pub(super) status: u16,
    pub(super) trace: RequestTrace,
}

impl AccessLine {
    pub(super) fn begin<B>(
        share: Arc<Share>,
        request_id: RequestId,
        connection: &Connection,
        request: &Request<B>,
    ) -> Self {
        let gateway = &*share.gateway;
        let asked = gateway
            .access
            .is_on()
            .then(|| (request.method().clone(), request.uri().path().to_owned(), request.version()));
        let trace = gateway.tracer.begin(request, || Asked {
            request_id: &request_id,
            scheme: connection.scheme.as_str(),
            by_proxy: gateway.config.gateway.trusted_proxies.trusts(connection.peer.ip()),
        });
        Self { share, started: Instant::now(), asked, request_id, client: None, status: CLIENT_LEFT, trace }
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let Self { share, started, asked, request_id, client, status, trace } = self;
        let gateway = &*share.gateway;
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
