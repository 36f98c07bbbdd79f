// One page of each kind, with the data of an ordinary day, for the tests and for `examples/pages.rs`.
// Included by both, so it takes its names from the module that includes it.

use super::{
    ClientAddressDetail, DataAct, DataDone, Day, Duration, Language, Me, MeBinding, MeDone, MeSession, MyData, News,
    NewsKind, NoticeConfig, NoticeDocument, NoticeFacts, NoticeNews, NoticePage, NoticeRevision, Page, PinState,
    ReadField, Reason, Timestamp,
};

const TOKEN: &str = "q3Zf0mW8Vh2c1b7JtYx5Rw";

/// Calls `show` with the name of each page and the page.
pub(super) fn each_page(show: &mut dyn FnMut(&str, &Page<'_>)) {
    let notice = NoticeConfig {
        controller: "Example KK".to_owned(),
        contact: "https://example.jp/contact".to_owned(),
        revision: "2026-11-23".to_owned(),
    };
    sign_in_pages(&notice, show);
    for (name, because) in [
        ("enrol", None),
        ("enrol-code-invalid", Some(Reason::CodeInvalid)),
        ("enrol-binding-limit", Some(Reason::BindingLimit)),
    ] {
        show(
            name,
            &Page::Enrol { action: "/_sekisho/enrol?guid=ON", form_token: TOKEN, to: "/orders?page=2", because },
        );
    }
    for reason in Reason::ALL {
        let retry_after_seconds = (*reason == Reason::RateLimited).then_some(95);
        let request_id = "01j9zc3v0n5w";
        let page = Page::Refusal { reason: *reason, carrier: None, retry_after_seconds, request_id };
        show(&format!("refusal-{}", reason.as_str()), &page);
    }
    notice_pages(show);
    me_pages(show);
    pin_pages(show);
    let binding = MeBinding {
        id: "01939c3e-7a10-7b52-9c6e-2f4d1a0b3c00".to_owned(),
        carrier: "docomo".to_owned(),
        bound_on: Day::from_unix_days(20_700),
        last_used_on: Day::from_unix_days(20_780),
        label: Some("二台目".to_owned()),
        told: None,
        this: true,
    };
    show("remove", &Page::Remove { action: "/_sekisho/me/remove?guid=ON", form_token: TOKEN, binding: &binding });
    data_pages(&binding, show);
    show("logout", &Page::Logout { form_token: TOKEN });
    show("signed-out", &Page::SignedOut);
    show("leave", &Page::Leave { url: "https://www.example.com/manual?page=2&lang=ja", host: "www.example.com" });
}

fn data_pages(binding: &MeBinding, show: &mut dyn FnMut(&str, &Page<'_>)) {
    let unnamed = |n: u8| MeBinding {
        id: format!("01939c3e-7a10-7b52-9c6e-2f4d1a0b3c0{n}"),
        carrier: "softbank".to_owned(),
        bound_on: binding.bound_on,
        last_used_on: binding.last_used_on,
        label: None,
        told: None,
        this: false,
    };
    for (name, handsets, held, done) in
        [("data", 1, false, None), ("data-renamed", 0, false, Some(DataDone::Renamed)), ("data-full", 9, true, None)]
    {
        let handsets: Vec<_> = (0..handsets).map(unnamed).collect();
        show(name, &Page::Data(MyData { handsets: &handsets, held, form_token: TOKEN, done }));
    }
    show("label", &Page::Label { form_token: TOKEN, binding, because: None });
    show("label-invalid", &Page::Label { form_token: TOKEN, binding, because: Some(Reason::LabelInvalid) });
    for (name, act) in [("erase", DataAct::Erase), ("stop", DataAct::Stop)] {
        let action = format!("/_sekisho/me/{name}?guid=ON");
        show(name, &Page::Confirm { act, action: &action, form_token: TOKEN });
        let receipt = (act == DataAct::Erase).then_some("e17");
        show(&format!("{name}-done"), &Page::Acted { act, receipt, certificate: None });
    }
    let held = serde_json::Map::from_iter([("backups".to_owned(), serde_json::json!([{}]))]);
    let (act, receipt, certificate) = (DataAct::Erase, Some("e17"), Some(&held));
    show("erase-done-backups", &Page::Acted { act, receipt, certificate });
}

fn sign_in_pages(notice: &NoticeConfig, show: &mut dyn FnMut(&str, &Page<'_>)) {
    for (name, carrier, because) in [
        ("sign-in", None, None),
        ("sign-in-docomo", Some("docomo"), None),
        ("sign-in-expired", Some("softbank"), Some(Reason::SessionExpired)),
    ] {
        let login_url = "/_sekisho/login?to=%2Forders%3Fpage%3D2&t=q3Zf0mW8Vh2c1b7JtYx5Rw&guid=ON";
        show(name, &Page::SignIn { login_url, because, carrier, retention_days: 400, notice });
    }
}

fn pin_pages(show: &mut dyn FnMut(&str, &Page<'_>)) {
    let code_url = "/_sekisho/login?to=%2Forders%3Fpage%3D2&t=q3Zf0mW8Vh2c1b7JtYx5Rw&guid=ON&by=code";
    for (name, because, set) in
        [("pin", None, true), ("pin-wrong", Some(Reason::PinWrong), true), ("pin-none", None, false)]
    {
        show(
            name,
            &Page::Pin { action: "/_sekisho/pin", form_token: TOKEN, to: "/orders?page=2", because, code_url, set },
        );
    }
    for (name, state, because) in [
        ("me-pin", PinState::None, None),
        ("me-pin-set", PinState::Set(Day::from_unix_days(20_700)), Some(Reason::PinWrong)),
        ("me-pin-forgotten", PinState::Forgotten, Some(Reason::PinInvalid)),
    ] {
        let action = "/_sekisho/me/pin?guid=ON";
        show(name, &Page::MePin { action, form_token: TOKEN, state, because, code_url });
    }
    let news = |kind, carrier: &str| News { kind, carrier: carrier.to_owned(), day: Day::from_unix_days(20_780) };
    let news =
        [news(NewsKind::HandsetBound, "softbank"), news(NewsKind::WrongPins, "docomo"), news(NewsKind::WrongCodes, "")];
    show("news", &Page::News { news: &news, notice: None, to: "/orders?page=2" });
    for (name, asks_pin, because) in
        [("add", false, None), ("add-pin", true, None), ("add-pin-wrong", true, Some(Reason::PinWrong))]
    {
        let action = "/_sekisho/me/add?guid=ON";
        show(name, &Page::Add { action, form_token: TOKEN, asks_pin, because, code_url });
    }
    let expires_at = Timestamp::from_unix_millis(1_795_530_117_042);
    show("added", &Page::Added { code: "1234-5678-9012", expires_at, url: "https://admin.example.jp" });
    for (name, news, reads, revision) in [
        ("news-notice", &news[..0], "docomo", "2026-11-23"),
        ("news-notice-same", &news[..0], "", "2026-12-01"),
        ("news-full", &news[..], "everything", "2026-12-01"),
    ] {
        let was = document("2026-11-23");
        let mut is = document(revision);
        if reads == "docomo" {
            is.facts.retention_days = 30;
            is = NoticeDocument::of(is.facts);
        }
        let mut changes = is.changes_since(&was, Language::Japanese);
        if reads == "everything" {
            changes = is.ja;
        }
        let notice = NoticeNews { revision: revision.to_owned(), from: Day::from_unix_days(20_780), changes };
        show(name, &Page::News { news, notice: Some(&notice), to: "/orders?page=2" });
    }
}

fn document(revision: &str) -> NoticeDocument {
    let reads = [("docomo", "X-DCMGUID"), ("au", "X-UP-SUBNO"), ("softbank", "X-JPHONE-UID"), ("emobile", "X-EM-UID")];
    NoticeDocument::of(NoticeFacts {
        controller: "Example KK".to_owned(),
        contact: "https://example.jp/contact".to_owned(),
        revision: revision.to_owned(),
        reads: reads.map(|(carrier, header)| ReadField { carrier: carrier.into(), header: header.into() }).into(),
        retention_days: 400,
        session_idle_seconds: 1800,
        session_absolute_seconds: 43_200,
        client_address: ClientAddressDetail::Prefix,
    })
}

fn notice_pages(show: &mut dyn FnMut(&str, &Page<'_>)) {
    let told = document("2026-11-23");
    let day = Day::from_unix_days;
    let revision = |id: u32| NoticeRevision { id, revision: "2026-10-01".to_owned(), from: day(20_730) };
    let earlier = [4, 3, 2, 1].map(revision);
    for (name, former, earlier) in [
        ("notice", None, &earlier[..0]),
        ("notice-revised", None, &earlier[..]),
        ("notice-former", Some((day(20_700), day(20_730))), &earlier[..2]),
    ] {
        show(name, &Page::Notice(NoticePage { told: &told, former, earlier }));
    }
}

fn me_pages(show: &mut dyn FnMut(&str, &Page<'_>)) {
    let start = Timestamp::from_unix_millis(1_795_530_117_042);
    let carrier = |n: u8| match n % 3 {
        0 => "docomo",
        1 => "au",
        _ => "softbank",
    };
    let binding = |n: u8| MeBinding {
        id: format!("01939c3e-7a10-7b52-9c6e-2f4d1a0b3c0{n}"),
        carrier: carrier(n).to_owned(),
        bound_on: Day::from_unix_days(20_700),
        last_used_on: start.day(),
        label: (n == 0).then(|| "仕事用 & 私用".to_owned()),
        told: Some("2026-11-23".to_owned()),
        this: n == 0,
    };
    let session = |n: u8| MeSession {
        id: format!("s{n}"),
        carrier: carrier(n).to_owned(),
        created_at: start,
        last_seen_at: start.plus(Duration::from_mins(10)),
        this: n == 0,
    };
    for (name, handsets, sessions, done) in
        [("me", 2, 1, None), ("me-removed", 1, 1, Some(MeDone::HandsetRemoved)), ("me-full", 9, 9, None)]
    {
        let bindings: Vec<_> = (0..handsets).map(binding).collect();
        let sessions: Vec<_> = (0..sessions).map(session).collect();
        show(
            name,
            &Page::Me(Me {
                account: "clerk-17",
                bindings: &bindings,
                sessions: &sessions,
                form_token: TOKEN,
                retention_days: 400,
                pin_set_on: (handsets > 1).then(|| Day::from_unix_days(20_700)),
                told: Some("2026-11-23"),
                done,
            }),
        );
    }
}
