//! Everything below `/_sekisho/`: which page, by which method. Nothing here reaches an upstream.

use http::header::{ALLOW, HeaderValue};
use http::{Method, Response};

use super::Gateway;
use super::form::Form;
use super::local_path::LocalPath;
use super::visit::{Visit, query_value};
use crate::body::Body;
use crate::edge::ClientBody;
use crate::pages::{CODE_FIELD, DataAct, FORM_TOKEN_FIELD, PIN_FIELD};
use crate::refusal::Reason;

impl Gateway {
    pub(super) async fn own_page(&self, visit: &Visit<'_>, body: ClientBody) -> Response<Body> {
        let path = visit.head.path().strip_prefix("/_sekisho/").unwrap_or_default();
        let read = matches!(*visit.head.method(), Method::GET | Method::HEAD);
        let post = *visit.head.method() == Method::POST;
        // The same forms by GET, from browsers that cannot post. Without the field that only the form has, the page of
        // the form is meant, and nothing changes.
        let by_get = |mark| Form::comes_by_get(visit, mark);
        match path {
            "enrol" if post || by_get(CODE_FIELD) => self.enrol(visit, body).await,
            "pin" if post || by_get(PIN_FIELD) => self.enter_pin(visit, body).await,
            "unlock" if post || by_get(PIN_FIELD) => self.unlock(visit, body).await,
            "logout" if post || by_get(FORM_TOKEN_FIELD) => self.logout(visit, body).await,
            "me/pin" if post || by_get(FORM_TOKEN_FIELD) => self.change_pin(visit, body).await,
            "me/add" if post || by_get(FORM_TOKEN_FIELD) => self.add_handset(visit, body).await,
            "me/remove" if post || by_get(FORM_TOKEN_FIELD) => self.remove_binding(visit, body).await,
            "me/sessions/end" if post || by_get(FORM_TOKEN_FIELD) => self.end_sessions(visit, body).await,
            "me/label" if post || by_get(FORM_TOKEN_FIELD) => self.label_own(visit, body).await,
            "me/erase" if post || by_get(FORM_TOKEN_FIELD) => self.act_on_own(visit, body, DataAct::Erase).await,
            "me/stop" if post || by_get(FORM_TOKEN_FIELD) => self.act_on_own(visit, body, DataAct::Stop).await,
            "login" if read => self.login(visit).await,
            // A form that was reloaded or bookmarked: begin again.
            "enrol" | "unlock" if read => {
                let to = LocalPath::parse(&query_value(visit.head, "to").unwrap_or_default());
                self.sign_in_page(visit, &to, Reason::SignInRequired)
            }
            "ticket" if *visit.head.method() == Method::GET => self.redeem_ticket(visit).await,
            "bind" if *visit.head.method() == Method::GET => self.redeem_bind_ticket(visit).await,
            "logout" if read => self.logout_form(visit).await,
            "pin" if read => self.pin_again(visit).await,
            "me/pin" if read => self.pin_form(visit).await,
            "me/add" if read => self.add_form(visit).await,
            "news" if read => self.news_page(visit).await,
            "me" if read => self.me(visit).await,
            "leave" if read || post => self.leave_page(visit, body).await,
            "me/export" if read => self.export_own(visit).await,
            "me/data" if read => self.my_data(visit).await,
            "me/label" if read => self.label_form(visit).await,
            "me/remove" | "me/sessions/end" | "me/erase" if read && !visit.reader.posts => self.me(visit).await,
            "me/stop" if read && !visit.reader.posts => self.my_data(visit).await,
            "notice" if read => self.notice(visit).await,
            "jwks.json" if read => self.jwks(visit.head, visit.client.scheme),
            "login" | "me" | "me/export" | "me/data" | "news" | "notice" | "jwks.json" => {
                self.wrong_method(visit, "GET, HEAD").await
            }
            "ticket" | "bind" => self.wrong_method(visit, "GET").await,
            "enrol" | "pin" | "unlock" | "me/pin" | "me/add" | "logout" | "leave" | "me/label" => {
                self.wrong_method(visit, "GET, HEAD, POST").await
            }
            "me/remove" | "me/sessions/end" | "me/erase" | "me/stop" => self.wrong_method(visit, "POST").await,
            _ => self.refuse_in_place(visit, Reason::NoRoute).await,
        }
    }

    async fn wrong_method(&self, visit: &Visit<'_>, allowed: &'static str) -> Response<Body> {
        let mut answer = self.refuse_in_place(visit, Reason::MethodNotAllowed).await;
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        answer
    }
}
