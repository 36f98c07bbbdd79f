//! Where a sign-in may lead: a path on this host, whatever was written into `to`.

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::harness::{Answer, Carrier, HOST, Handset, Harness};
use crate::wire::Wire;

/// A browser of each charset in which forms are read.
const CARRIERS: [Carrier; 2] = [Carrier::SoftBank, Carrier::PrivateApn];

/// Values of `to` as they stand in a query or a form.
fn forms() -> Vec<&'static str> {
    let lines = include_str!("../data/open_redirects.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

async fn harness() -> Harness {
    let limits = "[limits]\nsign_in = \"100000/1m\"\ncode = \"100000/1m\"\nnetwork = \"1000000/1m\"\n[[upstream]]";
    Harness::with(|config| config.replacen("[[upstream]]", limits, 1)).await
}

fn assert_leads_home(answer: &Answer, case: &str) {
    assert_eq!(answer.status, StatusCode::FOUND, "{case}: {}", answer.text());
    let locations: Vec<_> = answer.headers.get_all("location").iter().collect();
    assert_eq!(locations, [&*format!("http://{HOST}/")], "{case}");
}

/// The click, with `to` as a stranger wrote it into the link.
async fn click(handset: &mut Handset, to: &str) -> Answer {
    let link = handset.get("/").await.link("/_sekisho/login?");
    handset.get(&link.replace("to=/&", &format!("to={to}&"))).await
}

#[tokio::test]
async fn no_target_of_a_link_or_a_form_leads_away() {
    let (harness, forms) = (harness().await, forms());
    assert!(forms.len() >= 100, "{}", forms.len());
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    for (number, to) in forms.iter().enumerate() {
        let carrier = CARRIERS[number % CARRIERS.len()];
        let case = format!("{carrier:?} {to}");
        let mut handset = harness.handset(carrier, &number.to_string());

        let form = click(&mut handset, to).await;
        assert_eq!(form.status, StatusCode::FORBIDDEN, "{case}");
        assert_eq!(form.hidden("to"), "/", "{case}: the form of a handset that is not bound");

        let code = harness.code(&format!("account-{number}")).await;
        let body = format!("code={code}&t={}&to={to}", form.hidden("t"));
        assert_leads_home(&handset.send(Method::POST, "/_sekisho/enrol", &kind, body.into()).await, &case);

        handset.cookies.clear();
        assert_leads_home(&click(&mut handset, to).await, &case);

        // Spent by the click before: the page that offers the button again.
        handset.cookies.clear();
        let again = handset.get(&format!("/_sekisho/login?to={to}&t=spent")).await;
        assert_eq!(again.status, StatusCode::FORBIDDEN, "{case}");
        assert!(again.link("/_sekisho/login?").starts_with("/_sekisho/login?to=/&t="), "{case}");
    }
    harness.finish().await;
}

/// Each form as the target of a request itself: nothing in the answer leads to another host.
#[tokio::test]
async fn no_page_that_was_asked_for_in_such_a_form_leads_away() {
    let harness = harness().await;
    let handset = harness.handset(Carrier::PrivateApn, "a");
    let mut judged = 0;
    for form in forms() {
        let target = percent_decode_str(form).decode_utf8_lossy().into_owned();
        if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
            continue;
        }
        let mut wire = Wire::connect(handset.source, harness.address()).await;
        wire.get(&target, &format!("User-Agent: {}\r\n", handset.user_agent)).await;
        let answer = wire.answer().await;
        assert!(!answer.head.to_ascii_lowercase().contains("\r\nlocation:"), "{target}: {}", answer.head);
        let page = Answer { status: StatusCode::OK, headers: http::HeaderMap::new(), body: Bytes::from(answer.body) };
        let text = page.text();
        for (at, name) in ["href=\"", "action=\"", "src=\""].iter().flat_map(|name| text.match_indices(name)) {
            let value = text[at + name.len()..].split('"').next().unwrap();
            let own = value == "/" || value.starts_with("/_sekisho/") || value == "https://example.jp/contact";
            assert!(own, "{target}: {value}");
            if let Some(to) = value.strip_prefix("/_sekisho/login?to=").and_then(|rest| rest.split('&').next()) {
                let to = percent_decode_str(to).decode_utf8().unwrap();
                assert!(to.starts_with('/') && !to.starts_with("//") && !to.contains('\\'), "{target}: {to}");
            }
        }
        judged += 1;
    }
    assert!(judged >= 40, "{judged}");
    assert!(harness.upstream.received().is_empty());
    harness.finish().await;
}
