//! The simulator's page and what stands behind it. Loopback only, and only for its own page.
//!
//! Whoever has an account on this machine can use it, as they can claim to be any handset from 127.0.1.0/24; so this is
//! for play and never in front of a real console.
//!
//! Another site in the same browser must not be able to sign a handset in or to issue a code: every request has to name
//! this host (which ends DNS rebinding), whoever says where it comes from has to come from here, and whatever acts has
//! to come as JSON, which no form can send and no foreign script may without being asked about first (Fetch §4.8).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::carrier::{Ask, CarrierError, CarrierGateways, Fetched};
use super::console::{LastTold, Told};
use super::handset::{Carrier, HANDSETS_EACH, Handset, Inserts};
use crate::admin::{AdminClient, Bindings, ClientError, IssuedCode, Sessions};

const PAGE: &str = include_str!("static/index.html");
const SCRIPT: &str = include_str!("static/app.js");
const STYLE: &str = include_str!("static/app.css");

/// The handset's screen is a `srcdoc` frame, which inherits this: no page in it can load, run or send anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the page needs.
pub(super) struct Simulator {
    /// Where this page is.
    pub(super) address: SocketAddr,
    /// The gateway's plain listener.
    pub(super) gateway: SocketAddr,
    /// The way there.
    pub(super) carriers: CarrierGateways,
    /// The operator's way in.
    pub(super) admin: AdminClient,
    /// Whose handsets these are to be.
    pub(super) account: String,
    /// The password of the console's own login for it.
    pub(super) password: Zeroizing<String>,
    /// What the console was told.
    pub(super) told: LastTold,
}

/// The page and its calls.
pub(super) fn router(simulator: Simulator) -> Router {
    let simulator = Arc::new(simulator);
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", PAGE)))
        .route("/app.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/app.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/api/facts", get(facts))
        .route("/api/kept", get(kept))
        .route("/api/fetch", post(fetch))
        .route("/api/restart", post(restart))
        .route("/api/code", post(code))
        .layer(middleware::from_fn_with_state(Arc::clone(&simulator), only_our_own_page))
        .with_state(simulator)
}

type Shared = State<Arc<Simulator>>;

/// What the page shows before anything happened.
#[derive(Serialize)]
struct Facts<'a> {
    gateway: String,
    account: &'a str,
    password: &'a str,
    handsets_each: u8,
    carriers: Vec<CarrierFacts>,
}

#[derive(Serialize)]
struct CarrierFacts {
    name: &'static str,
    /// The query parameter without which nothing is inserted.
    asked_by: Option<String>,
    network: String,
    user_agent: &'static str,
}

async fn facts(State(simulator): Shared) -> Response {
    let carriers = Carrier::ALL.map(|carrier| {
        let behaviour = carrier.behaviour();
        CarrierFacts {
            name: carrier.name(),
            asked_by: match behaviour.inserts {
                Inserts::Always => None,
                Inserts::WhenAsked(name, value) => Some(format!("{name}={value}")),
            },
            network: format!("127.0.{}.0/24", behaviour.network),
            user_agent: behaviour.user_agent,
        }
    });
    Json(Facts {
        gateway: format!("http://{}", simulator.gateway),
        account: &simulator.account,
        password: &simulator.password,
        handsets_each: HANDSETS_EACH,
        carriers: carriers.into(),
    })
    .into_response()
}

#[derive(Deserialize)]
struct FetchCall {
    handset: Handset,
    ask: Ask,
}

#[derive(Serialize)]
struct FetchAnswer {
    #[serde(flatten)]
    fetched: Fetched,
    /// What the console was told meanwhile, if it was asked at all.
    told: Option<Told>,
}

async fn fetch(State(simulator): Shared, Json(call): Json<FetchCall>) -> Result<Json<FetchAnswer>, Failure> {
    // Two pages at once could see each other's; what they see is true all the same.
    simulator.told.take();
    let fetched = simulator.carriers.fetch(call.handset, &call.ask).await?;
    Ok(Json(FetchAnswer { fetched, told: simulator.told.take() }))
}

#[derive(Deserialize)]
struct RestartCall {
    handset: Handset,
}

async fn restart(State(simulator): Shared, Json(call): Json<RestartCall>) -> Json<Value> {
    simulator.carriers.restart(call.handset);
    Json(json!({}))
}

#[derive(Deserialize)]
struct CodeCall {}

async fn code(State(simulator): Shared, Json(CodeCall {}): Json<CodeCall>) -> Result<Json<IssuedCode>, Failure> {
    Ok(Json(issue_code(&simulator.admin, &simulator.account).await?))
}

/// A fresh enrolment code for `account`, from the running gateway.
///
/// # Errors
/// [`ClientError`].
pub(super) async fn issue_code(admin: &AdminClient, account: &str) -> Result<IssuedCode, ClientError> {
    admin.call(Method::POST, &format!("/v1/accounts/{account}/codes")).await
}

#[derive(Serialize)]
struct Kept {
    #[serde(flatten)]
    bindings: Bindings,
    #[serde(flatten)]
    sessions: Sessions,
}

async fn kept(State(simulator): Shared) -> Result<Json<Kept>, Failure> {
    let of = |what: &str| format!("/v1/accounts/{}/{what}", simulator.account);
    let bindings = simulator.admin.call(Method::GET, &of("bindings")).await?;
    let sessions = simulator.admin.call(Method::GET, &of("sessions")).await?;
    Ok(Json(Kept { bindings, sessions }))
}

/// Why a call failed, said to the page.
struct Failure(StatusCode, String);

impl From<CarrierError> for Failure {
    fn from(error: CarrierError) -> Self {
        let status = match error {
            CarrierError::Elsewhere(_) | CarrierError::NoSuchHandset | CarrierError::Request(_) => {
                StatusCode::BAD_REQUEST
            }
            CarrierError::Redirects | CarrierError::Exchange(_) => StatusCode::BAD_GATEWAY,
        };
        Self(status, error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self(StatusCode::BAD_GATEWAY, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": { "message": self.1 } }))).into_response()
    }
}

fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, media_type)], text)
}

async fn only_our_own_page(State(simulator): Shared, request: Request, next: Next) -> Response {
    let mut answer = if is_from_our_page(request.headers(), request.method(), simulator.address) {
        next.run(request).await
    } else {
        Failure(StatusCode::FORBIDDEN, "only the simulator's own page may ask here".to_owned()).into_response()
    };
    let fields = answer.headers_mut();
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    answer
}

fn is_from_our_page(fields: &HeaderMap, method: &Method, address: SocketAddr) -> bool {
    let names = [address.to_string(), format!("localhost:{}", address.port())];
    let is_ours = |host: &[u8]| names.iter().any(|name| name.as_bytes() == host);
    let mut hosts = fields.get_all(HOST).iter();
    let our_host = matches!((hosts.next(), hosts.next()), (Some(host), None) if is_ours(host.as_bytes()));
    let own_origin =
        fields.get_all(ORIGIN).iter().all(|origin| origin.as_bytes().strip_prefix(b"http://").is_some_and(is_ours));
    // A link from elsewhere may open the page, which does nothing by itself; nothing else may come from another site.
    let own_site = fields.get_all(SEC_FETCH_SITE).iter().all(|site| match site.as_bytes() {
        b"same-origin" => true,
        b"none" | b"cross-site" | b"same-site" => *method == Method::GET && is_navigation(fields),
        _ => false,
    });
    our_host && own_origin && own_site
}

fn is_navigation(fields: &HeaderMap) -> bool {
    fields.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::dev::handset::HandsetSeed;

    fn page() -> Router {
        let address = SocketAddr::from(([127, 0, 0, 1], 8000));
        let gateway = SocketAddr::from(([127, 0, 0, 1], 1));
        router(Simulator {
            address,
            gateway,
            carriers: CarrierGateways::new(gateway, HandsetSeed::new(b"seed")),
            admin: AdminClient::new(std::path::Path::new("/nonexistent/admin.sock")),
            account: "demo".to_owned(),
            password: Zeroizing::new("48151623".to_owned()),
            told: LastTold::default(),
        })
    }

    async fn status(method: &str, path: &str, fields: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Body::from(r#"{"handset":{"carrier":"au","number":1}}"#);
        page().oneshot(request.body(body).unwrap()).await.unwrap().status()
    }

    const OWN: (&str, &str) = ("host", "127.0.0.1:8000");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn its_own_page_may_act() {
        let calls: [&[(&str, &str)]; 4] = [
            &[OWN, JSON, ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")],
            &[("host", "localhost:8000"), JSON, ("origin", "http://localhost:8000")],
            &[OWN, JSON, ("sec-fetch-site", "same-origin")],
            &[OWN, JSON],
        ];
        for fields in calls {
            assert_eq!(status("POST", "/api/restart", fields).await, StatusCode::OK, "{fields:?}");
        }
        let opened = [OWN, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(status("GET", "/", &opened).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn other_sites_may_not() {
        let calls: [&[(&str, &str)]; 9] = [
            &[JSON],
            &[("host", "rebound.example:8000"), JSON],
            &[("host", "127.0.0.1"), JSON],
            &[OWN, OWN, JSON],
            &[OWN, JSON, ("origin", "http://127.0.0.1:8080")],
            &[OWN, JSON, ("origin", "https://127.0.0.1:8000")],
            &[OWN, JSON, ("origin", "null")],
            &[OWN, JSON, ("sec-fetch-site", "cross-site")],
            &[OWN, JSON, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")],
        ];
        for fields in calls {
            assert_eq!(status("POST", "/api/restart", fields).await, StatusCode::FORBIDDEN, "{fields:?}");
        }
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let refused = status("POST", "/api/restart", &[OWN, ("content-type", form)]).await;
            assert_eq!(refused, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{form}");
        }
        let script = [OWN, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(status("GET", "/api/kept", &script).await, StatusCode::FORBIDDEN);
    }
}
