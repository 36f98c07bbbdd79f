//! The console's own login, by password: the handset that it is typed on is bound and needs none again.
//!
//! Nobody is asserted here, so this is the one page without admission. It knows no handset either: it says
//! `Sekisho-Bind` and whose account it is, and the gateway, which knows, binds the handset that sent the form.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cookie::Cookie;
use http::StatusCode;
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::admission::{LastTold, Told};
use super::screens::{Content, show};
use crate::entropy::{Entropy, random};

const BIND: HeaderName = HeaderName::from_static("sekisho-bind");
/// Holds what the form repeats: a page elsewhere can send a form, but neither read this cookie nor set it.
const FORM_COOKIE: &str = "console_form";

/// Who may log in, and what the form needs.
pub(in crate::dev) struct Login {
    /// The one account; also what the gateway is told to bind to.
    pub(in crate::dev) account: String,
    pub(in crate::dev) password: Zeroizing<String>,
    /// Where handsets reach this console: old ones follow absolute redirects only.
    pub(in crate::dev) origin: String,
    pub(in crate::dev) entropy: Arc<dyn Entropy>,
    pub(in crate::dev) last: LastTold,
}

/// The form, as it is shown.
pub(super) struct LoginForm<'a> {
    pub(super) account: &'a str,
    pub(super) token: &'a str,
    /// What was wrong with the last try.
    pub(super) failed: Option<Failed>,
}

/// Why a login was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The form is not one that this browser was given.
    Form,
    /// Account or password.
    Password,
}

/// `/login`, for [`Login`].
pub(super) fn router(login: Login) -> Router {
    Router::new().route("/login", get(form).post(log_in)).with_state(Arc::new(login))
}

async fn form(State(login): State<Arc<Login>>, fields: HeaderMap) -> Response {
    login.last.put(Told::nobody(&fields));
    login.show(&fields, None)
}

async fn log_in(State(login): State<Arc<Login>>, fields: HeaderMap, body: Bytes) -> Response {
    login.last.put(Told::nobody(&fields));
    match login.judge(&fields, &body) {
        Ok(bind) => {
            let spent = HeaderValue::from_static("console_form=; Path=/login; Max-Age=0");
            let location = HeaderValue::try_from(format!("{}/", login.origin));
            let Ok(location) = location else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
            let no_store = HeaderValue::from_static("no-store");
            let answer = [(LOCATION, location), (BIND, bind), (SET_COOKIE, spent), (CACHE_CONTROL, no_store)];
            (StatusCode::FOUND, answer).into_response()
        }
        Err(failed) => login.show(&fields, Some(failed)),
    }
}

impl Login {
    /// The form, with a token of its own.
    fn show(&self, fields: &HeaderMap, failed: Option<Failed>) -> Response {
        let token = URL_SAFE_NO_PAD.encode(random::<16>(&*self.entropy));
        let status = if failed.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let form = LoginForm { account: &self.account, token: &token, failed };
        let mut answer = show(status, fields, Content::Login(form));
        let cookie = format!("{FORM_COOKIE}={token}; Path=/login; HttpOnly; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        answer
    }

    /// The account to bind to, if `form` was given to this browser and holds the right words.
    fn judge(&self, fields: &HeaderMap, form: &[u8]) -> Result<HeaderValue, Failed> {
        let typed = |name: &str| form_urlencoded::parse(form).find(|(n, _)| n == name).map(|(_, value)| value);
        let typed = |name: &str| Zeroizing::new(typed(name).unwrap_or_default().trim().to_owned());
        let cookies = fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let given = cookies.flat_map(Cookie::split_parse).flatten().find(|cookie| cookie.name() == FORM_COOKIE);
        let given = given.filter(|cookie| !cookie.value().is_empty()).ok_or(Failed::Form)?;
        if !bool::from(same(given.value(), &typed("form"))) {
            return Err(Failed::Form);
        }
        // Both are compared, whatever the first says.
        let right = same(&self.account, &typed("account")) & same(&self.password, &typed("password"));
        if !bool::from(right) {
            return Err(Failed::Password);
        }
        HeaderValue::from_str(&self.account).map_err(|_| Failed::Password)
    }
}

fn same(one: &str, other: &str) -> Choice {
    one.as_bytes().ct_eq(other.as_bytes())
}

#[cfg(test)]
pub(super) mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::entropy::SeededEntropy;

    pub(in super::super) fn sample(last: LastTold) -> Login {
        Login {
            account: "demo".to_owned(),
            password: Zeroizing::new("48151623".to_owned()),
            origin: "http://127.0.0.1:8080".to_owned(),
            entropy: Arc::new(SeededEntropy::new(1)),
            last,
        }
    }

    fn console() -> (Router, LastTold) {
        let last = LastTold::default();
        (router(sample(last.clone())), last)
    }

    struct Given {
        cookie: String,
        token: String,
    }

    async fn open(console: &Router) -> Given {
        let request = Request::get("/login").header("accept-language", "en").body(Body::empty()).unwrap();
        let answer = console.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key(BIND));
        let set = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        let (cookie, attributes) = set.split_once(';').unwrap();
        assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Lax"), "{attributes}");
        let token = cookie.split_once('=').unwrap().1.to_owned();
        let page = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(page.contains(&token), "the form repeats its cookie");
        assert!(page.contains("action=\"/login?guid=ON\""), "else docomo's gateway inserts nothing");
        assert!(!page.contains("48151623"));
        Given { cookie: cookie.to_owned(), token }
    }

    async fn send(console: &Router, cookie: Option<&str>, form: &str) -> Response {
        let mut request = Request::post("/login?guid=ON");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        console.clone().oneshot(request.body(Body::from(form.to_owned())).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn the_right_password_binds_to_the_account() {
        let (console, last) = console();
        let Given { cookie, token } = open(&console).await;
        let cookies = format!("other=1; {cookie}");
        let answer = send(&console, Some(&cookies), &format!("form={token}&account=demo&password=+48151623")).await;
        assert_eq!(answer.status(), StatusCode::FOUND);
        assert_eq!(answer.headers()[BIND], "demo");
        assert_eq!(answer.headers()[LOCATION], "http://127.0.0.1:8080/");
        assert!(answer.headers()[SET_COOKIE].to_str().unwrap().starts_with("console_form=;"), "the form is spent");
        assert!(last.take().unwrap().claims.is_none(), "nobody vouched for anybody");
    }

    #[tokio::test]
    async fn everything_else_binds_nobody() {
        let (console, _) = console();
        let Given { cookie, token } = open(&console).await;
        let other = open(&console).await;
        let right = "account=demo&password=48151623";
        let tries = [
            (Some(&cookie), format!("form={token}&account=demo&password=48151624")),
            (Some(&cookie), format!("form={token}&account=demo&password=")),
            (Some(&cookie), format!("form={token}&account=demo")),
            (Some(&cookie), format!("form={token}&account=root&password=48151623")),
            (Some(&cookie), format!("form={token}&password=48151623")),
            (Some(&cookie), right.to_owned()),
            (Some(&cookie), format!("form=&{right}")),
            (Some(&cookie), format!("form={}&{right}", other.token)),
            (Some(&other.cookie), format!("form={token}&{right}")),
            (Some(&"console_form=".to_owned()), format!("form=&{right}")),
            (None, format!("form={token}&{right}")),
            (None, right.to_owned()),
        ];
        for (cookie, form) in tries {
            let answer = send(&console, cookie.map(String::as_str), &form).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{form}");
            assert!(!answer.headers().contains_key(BIND), "{form}");
            assert!(answer.headers().contains_key(SET_COOKIE), "the next try has a form of its own: {form}");
        }
    }
}
