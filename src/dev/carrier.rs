//! The simulated carriers' gateways: what a handset asks for, with what its carrier puts into it.
//!
//! A handset has no network but its carrier's, so this is the only way from the simulator's page to the gateway. It
//! fetches from the gateway's plain listener and from nowhere else, whatever a page, a redirect or a script asks for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE,
    USER_AGENT,
};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cookies::Cookies;
use super::exchange::{ExchangeError, exchange};
use super::form::urlencoded;
use super::handset::{Handset, HandsetSeed};

/// Redirects that a handset follows before it gives up.
const MAX_REDIRECTS: usize = 5;

/// What a handset asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// `GET` or `POST`.
    pub(super) method: Verb,
    /// The whole URL.
    pub(super) url: String,
    /// A form's fields, in order.
    #[serde(default)]
    pub(super) fields: Vec<(String, String)>,
    /// The charset of the page that the form was on.
    #[serde(default)]
    pub(super) charset: String,
    /// The language that the handset is set to.
    pub(super) language: Language,
}

/// How a handset asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verb {
    /// A link, or a form's fields in the query.
    Get,
    /// A form's fields in the body.
    Post,
}

/// A handset's language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    /// Japanese.
    Ja,
    /// English.
    En,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Fetched {
    /// Every request that was made for it.
    pub(super) hops: Vec<Hop>,
    /// Where the page is.
    pub(super) url: String,
    /// The page, decoded.
    pub(super) html: String,
    /// Its type, without parameters.
    pub(super) media_type: String,
    /// Its charset, as forms on it are to be sent.
    pub(super) charset: &'static str,
}

/// One request, as the carrier's gateway saw it pass.
#[derive(Debug, Serialize)]
pub(super) struct Hop {
    pub(super) method: String,
    pub(super) url: String,
    /// The address that it was sent from.
    pub(super) source: Ipv4Addr,
    /// Whether the handset sent a cookie along.
    pub(super) cookie: bool,
    /// What the carrier put in.
    pub(super) inserted: Option<Inserted>,
    pub(super) status: u16,
    /// Whether the answer set or removed a cookie.
    pub(super) set_cookie: bool,
    pub(super) charset: &'static str,
    pub(super) bytes: usize,
}

/// A field that was put in on the way. The value is a simulated subscriber's, shown to its owner alone.
#[derive(Debug, Serialize)]
pub(super) struct Inserted {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub(super) enum CarrierError {
    /// Not the gateway's plain listener.
    #[error("these handsets reach {0} and nothing else")]
    Elsewhere(String),
    /// Not one of ours.
    #[error("there is no such handset")]
    NoSuchHandset,
    /// Round and round.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// What was asked for cannot be put into a request.
    #[error("that is no request")]
    Request(#[from] http::Error),
    /// The gateway did not answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// All carriers' gateways, and what each handset keeps until it is switched off.
pub(super) struct CarrierGateways {
    gateway: SocketAddr,
    origin: String,
    seed: HandsetSeed,
    handsets: Mutex<BTreeMap<Handset, Kept>>,
}

#[derive(Default)]
struct Kept {
    cookies: Cookies,
    requests: u8,
}

impl CarrierGateways {
    /// Gateways that reach the plain listener `gateway`.
    pub(super) fn new(gateway: SocketAddr, seed: HandsetSeed) -> Self {
        Self { gateway, origin: format!("http://{gateway}"), seed, handsets: Mutex::default() }
    }

    /// Fetches what `handset` asks for and follows redirects, each through the carrier again.
    ///
    /// # Errors
    /// [`CarrierError`].
    pub(super) async fn fetch(&self, handset: Handset, ask: &Ask) -> Result<Fetched, CarrierError> {
        if !(1..=super::handset::HANDSETS_EACH).contains(&handset.number) {
            return Err(CarrierError::NoSuchHandset);
        }
        let form = urlencoded(&ask.fields, &ask.charset);
        let (mut method, mut url, mut body) = match ask.method {
            Verb::Post => (Method::POST, ask.url.clone(), Some(form)),
            Verb::Get if form.is_empty() => (Method::GET, ask.url.clone(), None),
            Verb::Get => (Method::GET, format!("{}?{form}", ask.url.split('?').next().unwrap_or_default()), None),
        };
        let mut hops = Vec::new();
        while hops.len() <= MAX_REDIRECTS {
            let (hop, answer) = self.hop(handset, ask.language, &method, &url, body.take()).await?;
            hops.push(hop);
            let onward = answer.status().is_redirection().then(|| answer.headers().get(LOCATION)).flatten();
            let Some(onward) = onward.and_then(|location| location.to_str().ok()) else {
                return Ok(Fetched::new(hops, url, &answer));
            };
            // As browsers do for every status but 307 and 308 (RFC 9110 §15.4).
            method = Method::GET;
            url = if onward.starts_with('/') { format!("{}{onward}", self.origin) } else { onward.to_owned() };
        }
        Err(CarrierError::Redirects)
    }

    /// Switches a handset off and on: its browser forgets its cookies.
    pub(super) fn restart(&self, handset: Handset) {
        self.with(handset, |kept| kept.cookies = Cookies::default());
    }

    async fn hop(
        &self,
        handset: Handset,
        language: Language,
        method: &Method,
        url: &str,
        body: Option<String>,
    ) -> Result<(Hop, Response<Bytes>), CarrierError> {
        let target = self.target(url)?;
        let behaviour = handset.carrier.behaviour();
        let (source, cookie) = self.with(handset, |kept| {
            kept.requests = kept.requests.wrapping_add(1);
            (behaviour.source(kept.requests), kept.cookies.field())
        });
        let with_cookie = cookie.is_some();
        let mut request = Request::builder().method(method).uri(target.path_and_query().map_or("/", |p| p.as_str()));
        if let Some(fields) = request.headers_mut() {
            fields.insert(HOST, HeaderValue::try_from(self.gateway.to_string()).map_err(http::Error::from)?);
            fields.insert(USER_AGENT, HeaderValue::from_static(behaviour.user_agent));
            fields.insert(ACCEPT, HeaderValue::from_static("text/html, application/xhtml+xml, */*"));
            fields.insert(ACCEPT_LANGUAGE, HeaderValue::from_static(language.tag()));
            fields.extend(cookie.map(|cookie| (COOKIE, cookie)));
            if body.is_some() {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            }
        }
        let inserted = behaviour
            .inserts_into(target.query())
            .then(|| Inserted { name: behaviour.header, value: self.seed.identifier(handset).to_string() });
        if let Some(Inserted { name, value }) = &inserted {
            request = request.header(HeaderName::try_from(*name).map_err(http::Error::from)?, value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let answer = exchange(source, self.gateway, request).await?;
        self.with(handset, |kept| kept.cookies.take(answer.headers()));
        let hop = Hop {
            method: method.to_string(),
            url: url.to_owned(),
            source,
            cookie: with_cookie,
            inserted,
            status: answer.status().as_u16(),
            set_cookie: answer.headers().contains_key(SET_COOKIE),
            charset: charset(answer.headers()).name(),
            bytes: answer.body().len(),
        };
        Ok((hop, answer))
    }

    /// The one place that decides where a handset may go.
    fn target(&self, url: &str) -> Result<Uri, CarrierError> {
        let elsewhere = || CarrierError::Elsewhere(self.origin.clone());
        let target: Uri = url.parse().map_err(|_| elsewhere())?;
        let authority = target.authority().map(http::uri::Authority::as_str);
        if target.scheme_str() == Some("http") && authority == self.origin.strip_prefix("http://") {
            Ok(target)
        } else {
            Err(elsewhere())
        }
    }

    fn with<T>(&self, handset: Handset, on: impl FnOnce(&mut Kept) -> T) -> T {
        on(self.handsets.lock().unwrap_or_else(PoisonError::into_inner).entry(handset).or_default())
    }
}

impl Fetched {
    fn new(hops: Vec<Hop>, url: String, answer: &Response<Bytes>) -> Self {
        let encoding = charset(answer.headers());
        let media_type = content_type(answer.headers()).split(';').next().unwrap_or_default().trim();
        Self {
            hops,
            url,
            html: encoding.decode(answer.body()).0.into_owned(),
            media_type: media_type.to_ascii_lowercase(),
            charset: encoding.name(),
        }
    }
}

impl Language {
    const fn tag(self) -> &'static str {
        match self {
            Self::Ja => "ja",
            Self::En => "en",
        }
    }
}

fn content_type(fields: &HeaderMap) -> &str {
    fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn charset(fields: &HeaderMap) -> &'static Encoding {
    content_type(fields)
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("charset"))
        .and_then(|(_, label)| Encoding::for_label(label.trim_matches('"').as_bytes()))
        .unwrap_or(UTF_8)
}

#[cfg(test)]
mod tests {

    use axum::Router;
    use axum::extract::Request as AxumRequest;
    use axum::response::IntoResponse;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::dev::handset::Carrier;
    use crate::dev::serve::serve;

    /// A server that says back what it was asked, sets a cookie at `/set`, and redirects at `/to?URL`.
    async fn gateway() -> (SocketAddr, tokio_util::sync::DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().fallback(async |request: AxumRequest| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            match request.uri().path() {
                "/set" => ([(SET_COOKIE, "sekisho=v; Path=/")], "set").into_response(),
                "/to" => (http::StatusCode::FOUND, [(LOCATION, query)]).into_response(),
                "/sjis" => {
                    ([(CONTENT_TYPE, "text/html; charset=Shift_JIS")], b"\x8a\xd6\x8f\x8a".to_vec()).into_response()
                }
                _ => {
                    let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
                    format!("{} {} {}", request.method(), request.uri(), names.join(" ")).into_response()
                }
            }
        });
        tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop.drop_guard())
    }

    fn ask(url: String) -> Ask {
        Ask { method: Verb::Get, url, fields: Vec::new(), charset: String::new(), language: Language::En }
    }

    const fn handset(carrier: Carrier) -> Handset {
        Handset { carrier, number: 1 }
    }

    #[tokio::test]
    async fn each_carrier_inserts_what_it_inserts_on_every_hop() {
        let (at, _stop) = gateway().await;
        let carriers = CarrierGateways::new(at, HandsetSeed::new(b"seed"));
        let names =
            |fetched: &Fetched| fetched.hops.iter().map(|h| h.inserted.as_ref().map(|i| i.name)).collect::<Vec<_>>();
        let through = format!("http://{at}/to?/page?guid=ON");
        let docomo = carriers.fetch(handset(Carrier::Docomo), &ask(through.clone())).await.unwrap();
        assert_eq!(names(&docomo), [None, Some("X-DCMGUID")], "the first URL has no parameter of that name");
        assert!(docomo.html.contains("x-dcmguid"), "{}", docomo.html);
        let au = carriers.fetch(handset(Carrier::Au), &ask(through)).await.unwrap();
        assert_eq!(names(&au), [Some("X-UP-SUBNO"); 2]);
        assert!(!au.html.contains("x-dcmguid"));
        assert_ne!(au.hops[0].source, au.hops[1].source, "a source address stands for no handset");
    }

    #[tokio::test]
    async fn cookies_stay_with_their_handset_until_it_is_switched_off() {
        let (at, _stop) = gateway().await;
        let carriers = CarrierGateways::new(at, HandsetSeed::new(b"seed"));
        let (mine, other) = (handset(Carrier::Softbank), Handset { carrier: Carrier::Softbank, number: 2 });
        assert!(carriers.fetch(mine, &ask(format!("http://{at}/set"))).await.unwrap().hops[0].set_cookie);
        let page = ask(format!("http://{at}/"));
        assert!(carriers.fetch(mine, &page).await.unwrap().hops[0].cookie);
        assert!(!carriers.fetch(other, &page).await.unwrap().hops[0].cookie);
        carriers.restart(mine);
        assert!(!carriers.fetch(mine, &page).await.unwrap().hops[0].cookie);
    }

    #[tokio::test]
    async fn nothing_but_the_gateway_is_fetched() {
        let (at, _stop) = gateway().await;
        let (elsewhere, _stop_too) = gateway().await;
        let carriers = CarrierGateways::new(at, HandsetSeed::new(b"seed"));
        let urls = [
            format!("http://{elsewhere}/"),
            format!("https://{at}/"),
            format!("http://{at}@{elsewhere}/"),
            format!("http://user@{at}/"),
            format!("http://localhost:{}/", at.port()),
            format!("//{at}/"),
            "/".to_owned(),
            "file:///etc/passwd".to_owned(),
            String::new(),
            format!("http://{at}/to?http://{elsewhere}/"),
            format!("http://{at}/to?//{elsewhere}/"),
            format!("http://{at}/to?https://{at}/"),
        ];
        for url in urls {
            let outcome = carriers.fetch(handset(Carrier::Au), &ask(url.clone())).await;
            let inside = outcome.as_ref().is_ok_and(|fetched| fetched.url.starts_with(&format!("http://{at}/")));
            assert!(matches!(outcome, Err(CarrierError::Elsewhere(_))) || inside, "{url}: {outcome:?}");
        }
        let looping =
            carriers.fetch(handset(Carrier::Au), &ask(format!("http://{at}/to?/to?/to?/to?/to?/to?/to?/"))).await;
        assert!(matches!(looping, Err(CarrierError::Redirects)), "{looping:?}");
    }

    #[tokio::test]
    async fn forms_are_sent_and_old_charsets_are_read() {
        let (at, _stop) = gateway().await;
        let carriers = CarrierGateways::new(at, HandsetSeed::new(b"seed"));
        let mut form = ask(format!("http://{at}/form?old=1"));
        form.fields = vec![("a".to_owned(), "b c".to_owned())];
        let got = carriers.fetch(handset(Carrier::Au), &form).await.unwrap();
        assert!(got.html.starts_with("GET /form?a=b%20c "), "{}", got.html);
        form.method = Verb::Post;
        let got = carriers.fetch(handset(Carrier::Au), &form).await.unwrap();
        assert!(got.html.starts_with("POST /form?old=1 "), "{}", got.html);
        let page = carriers.fetch(handset(Carrier::Au), &ask(format!("http://{at}/sjis"))).await.unwrap();
        assert_eq!((page.html.as_str(), page.charset, page.media_type.as_str()), ("関所", "Shift_JIS", "text/html"));
    }
}
