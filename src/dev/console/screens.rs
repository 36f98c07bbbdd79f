//! The console's pages: no script, 240 px wide, every link with its key.

use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY};
use ring::digest;

use super::admission::{Gate, LastTold, Told, admit};
use super::gateway_keys::GatewayKeys;
use super::login::{self, Failed, Login, LoginForm};
use super::sample::{MAILBOXES, NEWS, SITES, WEEK};
use crate::assertion::{ASSERTION_FIELD, VerifyError};
use crate::clock::{Clock, Timestamp};

const STYLE: &str = include_str!("../templates/console/style.css");

/// What a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// Where a handset says nothing else.
    Japanese,
    /// Where it prefers English.
    English,
}

impl Language {
    /// By the first language that is asked for.
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let wanted = fields.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if wanted.trim_start().to_ascii_lowercase().starts_with("en") { Self::English } else { Self::Japanese }
    }

    const fn tag(self) -> &'static str {
        match self {
            Self::Japanese => "ja",
            Self::English => "en",
        }
    }
}

/// The whole console.
pub(in crate::dev) fn router(keys: Arc<GatewayKeys>, clock: Arc<dyn Clock>, last: LastTold, login: Login) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/sites", get(sites))
        .route("/mail", get(mail))
        .route("/visits", get(visits))
        .route("/told", get(told))
        .route("/contract", get(contract))
        .fallback(missing)
        .layer(middleware::from_fn_with_state(Gate { keys, clock, last }, admit))
        .merge(login::router(login))
}

/// One page; which, says the template's `match`.
#[derive(Template)]
#[template(path = "console/layout.html")]
struct Screen<'a> {
    language: Language,
    content: Content<'a>,
}

pub(super) enum Content<'a> {
    Overview,
    Sites,
    Mail,
    Visits,
    Told(&'a Told),
    Contract,
    Missing,
    Login(LoginForm<'a>),
    Refused(Option<VerifyError>),
}

async fn overview(fields: HeaderMap) -> Response {
    show(StatusCode::OK, &fields, Content::Overview)
}

async fn sites(fields: HeaderMap) -> Response {
    show(StatusCode::OK, &fields, Content::Sites)
}

async fn mail(fields: HeaderMap) -> Response {
    show(StatusCode::OK, &fields, Content::Mail)
}

async fn visits(fields: HeaderMap) -> Response {
    show(StatusCode::OK, &fields, Content::Visits)
}

async fn told(fields: HeaderMap, Extension(told): Extension<Told>) -> Response {
    show(StatusCode::OK, &fields, Content::Told(&told))
}

async fn contract(fields: HeaderMap) -> Response {
    show(StatusCode::OK, &fields, Content::Contract)
}

async fn missing(fields: HeaderMap) -> Response {
    show(StatusCode::NOT_FOUND, &fields, Content::Missing)
}

/// The answer to whoever is not asserted.
pub(super) struct Refused {
    pub(super) language: Language,
    /// What is wrong with the assertion; none: there is not exactly one.
    pub(super) because: Option<VerifyError>,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        Screen { language: self.language, content: Content::Refused(self.because) }.answer(StatusCode::FORBIDDEN)
    }
}

/// A page, in the language that `fields` ask for.
pub(super) fn show(status: StatusCode, fields: &HeaderMap, content: Content<'_>) -> Response {
    Screen { language: Language::of(fields), content }.answer(status)
}

impl Screen<'_> {
    fn answer(&self, status: StatusCode) -> Response {
        let Ok(html) = self.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        let fields =
            [(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, POLICY.as_str()), (REFERRER_POLICY, "same-origin")];
        (status, fields, Html(html)).into_response()
    }

    /// English or Japanese.
    const fn t(&self, english: &'static str, japanese: &'static str) -> &'static str {
        match self.language {
            Language::English => english,
            Language::Japanese => japanese,
        }
    }

    const fn title(&self) -> &'static str {
        match self.content {
            Content::Overview => self.t("Overview", "管理トップ"),
            Content::Sites => self.t("Sites", "サイト"),
            Content::Mail => self.t("Mail accounts", "メール"),
            Content::Visits => self.t("Visits", "アクセス統計"),
            Content::Told(_) => self.t("What I was told", "受け取った情報"),
            Content::Contract => self.t("Contract", "ご契約内容"),
            Content::Missing => self.t("No such page", "ページがありません"),
            Content::Login(_) => self.t("Log in", "ログイン"),
            Content::Refused(_) => self.t("Not from the gateway", "関所を通っていません"),
        }
    }

    const fn is_inside(&self) -> bool {
        !matches!(self.content, Content::Login(_) | Content::Refused(_))
    }

    const fn is_overview(&self) -> bool {
        matches!(self.content, Content::Overview)
    }

    /// What the assertion calls the strength of the sign-in, in words.
    fn strength(&self, acr: &str) -> &'static str {
        match acr {
            "urn:sekisho:acr:device" => self.t("by the handset alone", "端末のみで確認"),
            "urn:sekisho:acr:device+pin" => self.t("by the handset and a PIN", "端末と暗証番号で確認"),
            _ => self.t("in a way I do not know", "不明な方法"),
        }
    }

    /// To the second, UTC.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the template engine passes arguments by reference")]
    fn time(seconds: &i64) -> String {
        let at = Timestamp::from_unix_millis(seconds.saturating_mul(1000)).rfc3339();
        at.trim_end_matches('Z').replace('T', " ")
    }

    fn is_assertion(name: &str) -> bool {
        name == ASSERTION_FIELD.as_str()
    }

    fn unread() -> u32 {
        MAILBOXES.iter().map(|mailbox| mailbox.unread).sum()
    }

    fn visits_of_week() -> u32 {
        WEEK.iter().map(|day| day.visits).sum()
    }

    fn disk() -> u32 {
        SITES.iter().map(|site| site.megabytes).sum()
    }
}

/// Nothing but the one style sheet; no other page may frame this one.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::assertion::{Assertion, Claims, Signer};
    use crate::clock::ManualClock;
    use crate::dev::serve::serve;
    use crate::entropy::SeededEntropy;
    use crate::secret::SecretBytes;

    const AUDIENCE: &str = "https://console.internal";

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(1_795_530_117_042)
    }

    fn signer() -> Signer {
        let rng = ring::rand::SystemRandom::new();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        Signer::new(&SecretBytes::new(key.as_ref().to_vec()), &[]).unwrap()
    }

    fn assertion(signer: &Signer, gateway: SocketAddr, audience: &str) -> Assertion {
        let claims = Claims { audience, subject: "pairwise-subject", sid: "handle", auth_time: now(), with_pin: false };
        signer.sign(&format!("http://{gateway}"), &claims, &SeededEntropy::new(1), now()).unwrap()
    }

    /// A gateway that publishes keys, and the console that asks it.
    async fn console(signer: &Signer) -> (SocketAddr, Router, LastTold, tokio_util::sync::DropGuard) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = listener.local_addr().unwrap();
        let jwks = signer.jwks().0;
        let published = Router::new().route("/_sekisho/jwks.json", get(async move || jwks));
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(serve(listener, published, stop.clone()));
        let last = LastTold::default();
        let keys = Arc::new(GatewayKeys::new(gateway, AUDIENCE));
        let login = login::tests::sample(last.clone());
        let console = router(keys, Arc::new(ManualClock::starting_at(now())), last.clone(), login);
        (gateway, console, last, stop.drop_guard())
    }

    async fn ask(console: &Router, path: &str, assertions: &[&Assertion]) -> (StatusCode, String) {
        let mut request = Request::get(path).header("accept-language", "en").header("x-request-id", "7");
        for assertion in assertions {
            request = request.header(ASSERTION_FIELD, assertion.value());
        }
        let answer = console.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_shows_what_it_was_told_and_nothing_else() {
        let signer = signer();
        let (gateway, console, last, _stop) = console(&signer).await;
        let genuine = assertion(&signer, gateway, AUDIENCE);
        let (status, page) = ask(&console, "/told", &[&genuine]).await;
        assert_eq!(status, StatusCode::OK);
        for shown in ["pairwise-subject", "handle", "by the handset alone", "x-request-id", "sekisho-jwt-assertion"] {
            assert!(page.contains(shown), "{shown}");
        }
        assert!(!page.contains(genuine.value().to_str().unwrap()), "the assertion itself is nobody's to read");
        let told = last.take().unwrap();
        assert_eq!(told.headers, ["accept-language", "x-request-id", "sekisho-jwt-assertion"]);
        assert!(last.take().is_none());
    }

    #[tokio::test]
    async fn strangers_see_nothing_on_any_path() {
        let (ours, theirs) = (signer(), signer());
        let (gateway, console, last, _stop) = console(&ours).await;
        let genuine = assertion(&ours, gateway, AUDIENCE);
        let forged = assertion(&theirs, gateway, AUDIENCE);
        let of_another = assertion(&ours, gateway, "https://other.internal");
        for path in ["/", "/sites", "/mail", "/visits", "/told", "/contract", "/none"] {
            for assertions in [&[][..], &[&forged], &[&of_another], &[&genuine, &genuine], &[&genuine, &forged]] {
                let (status, page) = ask(&console, path, assertions).await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
                assert!(!page.contains("hoshizora-cafe"), "{path}");
            }
            let expected = if path == "/none" { StatusCode::NOT_FOUND } else { StatusCode::OK };
            assert_eq!(ask(&console, path, &[&genuine]).await.0, expected);
        }
        last.take();
        assert_eq!(ask(&console, "/", &[&forged]).await.0, StatusCode::FORBIDDEN);
        assert!(last.take().is_none(), "a stranger told us nothing");
        let (status, page) = ask(&console, "/login", &[]).await;
        assert_eq!(status, StatusCode::OK, "who is not asserted may log in");
        assert!(!page.contains("hoshizora-cafe"));
    }
}
