//! Who gets in: whoever the gateway asserts, and nobody else.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::HeaderMap;
use serde::Serialize;

use super::gateway_keys::GatewayKeys;
use super::screens::{Language, Refused};
use crate::assertion::{ASSERTION_FIELD, VerifiedClaims};
use crate::clock::Clock;

/// Everything that a request told this console.
#[derive(Clone, Debug, Serialize)]
pub(in crate::dev) struct Told {
    /// What the assertion says; none on the login page, which asks for none.
    pub(in crate::dev) claims: Option<VerifiedClaims>,
    /// The names of all header fields, as they came.
    pub(in crate::dev) headers: Vec<String>,
}

impl Told {
    fn by(claims: VerifiedClaims, fields: &HeaderMap) -> Self {
        Self { claims: Some(claims), ..Self::nobody(fields) }
    }

    /// By a request that was not asked who sent it.
    pub(super) fn nobody(fields: &HeaderMap) -> Self {
        Self { claims: None, headers: fields.keys().map(ToString::to_string).collect() }
    }
}

/// What the console was told last; the simulator's page shows it beside the handset.
#[derive(Clone, Default)]
pub(in crate::dev) struct LastTold(Arc<Mutex<Option<Told>>>);

impl LastTold {
    /// Takes what was told since it was last taken.
    pub(in crate::dev) fn take(&self) -> Option<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn put(&self, told: Told) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

/// What admission needs.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) keys: Arc<GatewayKeys>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) last: LastTold,
}

/// Passes a request on with what was [`Told`], or answers 403.
pub(super) async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let language = Language::of(request.headers());
    let mut assertions = request.headers().get_all(ASSERTION_FIELD).iter();
    // One value, nothing else: of two, one was not written by the gateway.
    let (Some(Ok(assertion)), None) = (assertions.next().map(|value| value.to_str()), assertions.next()) else {
        return Refused { language, because: None }.into_response();
    };
    match gate.keys.verify(assertion, gate.clock.now()).await {
        Err(error) => Refused { language, because: Some(error) }.into_response(),
        Ok(claims) => {
            let told = Told::by(claims, request.headers());
            gate.last.put(told.clone());
            request.extensions_mut().insert(told);
            next.run(request).await
        }
    }
}
