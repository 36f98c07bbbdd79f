//! Media that fail under a running gateway: it refuses with a reason, holds what it acknowledged, lives on, and is itself
//! again when the fault is gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use http::StatusCode;
use rustix::process::Resource;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::bystander::{Bystander, Watch};
use crate::harness::{Answer, Carrier, Handset};
use crate::process::{Folder, Serving, ended_with, held_to_permissions, on_one_core, with_limited_files};
use crate::recorder::RecordingUpstream;
use crate::wire::{PlayedUpstream, Wire};

/// How long the gateway may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway and who is known to it.
pub(crate) struct Town {
    pub(crate) folder: Folder,
    pub(crate) gateway: Serving,
    /// What makes a command one of this town: the gateway is started by it, and started again.
    wrap: Box<dyn Fn(Command) -> Command>,
    _upstream: RecordingUpstream,
    _calm: Bystander,
    /// Normal clients, who notice nothing of what fails.
    pub(crate) watch: Watch,
    /// Bound, with a session.
    signed_in: Handset,
    /// Bound to another account.
    binding: String,
    /// Not bound, with a code that would.
    stranger: Handset,
    code: String,
}

impl Town {
    async fn with(wrap: impl Fn(Command) -> Command + 'static) -> Self {
        Self::of(Folder::alone(), wrap).await
    }

    /// In a folder of which somebody prepared more.
    pub(crate) async fn of(folder: Folder, wrap: impl Fn(Command) -> Command + 'static) -> Self {
        let upstream = RecordingUpstream::start().await;
        folder.edit("http://127.0.0.1:9\"", &format!("http://{}\"", upstream.address));
        folder.append("[limits]\nsign_in = \"1000/1m\"\nnetwork = \"1000/1m\"\ncode = \"1000/1m\"\n[log]\naccess = { file = \"access.log\" }\n");
        let calm = Bystander::new().await;
        folder.append(&calm.beside(""));
        let gateway = folder.serve_as(wrap(folder.command("serve"))).await;
        let watch = calm.watch_at(gateway.places(), async |account| folder.code(account).await).await;
        // Who they are to their console is stored from now on.
        watch.goes_on("before").await;
        let mut signed_in = gateway.handset(Carrier::PrivateApn, "1");
        let mut other = gateway.handset(Carrier::PrivateApn, "2");
        for (handset, account) in [(&mut signed_in, "alice"), (&mut other, "bob")] {
            let code = folder.code(account).await;
            assert_eq!(handset.enrol("/", &code).await.status, StatusCode::FOUND);
            // The upstream's name for the account is made, and stored, at the first request.
            assert_eq!(handset.get("/").await.status, StatusCode::OK);
        }
        let bindings = folder.document("bindings list --account bob").await;
        let binding = bindings["bindings"][0]["id"].as_str().unwrap().to_owned();
        let stranger = gateway.handset(Carrier::PrivateApn, "3");
        let code = folder.code("carol").await;
        Self {
            folder,
            gateway,
            wrap: Box::new(wrap),
            _upstream: upstream,
            _calm: calm,
            watch,
            signed_in,
            binding,
            stranger,
            code,
        }
    }

    fn handset(&self, tail: &str) -> Handset {
        self.gateway.handset(Carrier::PrivateApn, tail)
    }

    /// Nothing is written, nobody is told that it were, and whoever is in stays in.
    pub(crate) async fn fails_closed(&mut self, case: &str) {
        assert_eq!(self.signed_in.get("/").await.status, StatusCode::OK, "{case}");
        let mut bound = self.handset("1");
        let page = bound.get("/").await;
        let refused = bound.get_json(&page.link("/_sekisho/login?")).await;
        let reason = (refused.status, refused.reason());
        assert_eq!(reason, (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable".to_owned()), "{case}");
        assert!(!bound.has_session(), "{case}: {:?}", bound.cookies);
        let entered = self.try_code().await;
        assert_eq!(entered.status, StatusCode::SERVICE_UNAVAILABLE, "{case}: {}", entered.text());
        assert!(!self.stranger.has_session(), "{case}: {:?}", self.stranger.cookies);
        let line = r#"{"account":"dave","carrier":"private-apn","identifier":"QxCnry0000000000000000000004"}"#;
        for verb in ["codes issue carol", &format!("bindings revoke {}", self.binding), "bindings import"] {
            let ended = ended_with(self.folder.command(verb), line.as_bytes()).await;
            assert_ne!(ended.code, 0, "{case}: {verb}: {ended:?}");
            assert!(ended.stderr.contains("store"), "{case}: {verb}: {ended:?}");
        }
        assert_eq!(self.gateway.ops("/healthz").await.status, StatusCode::OK, "{case}");
        self.watch.goes_on(case).await;
    }

    /// The stranger clicks and types the code, if the store can say that it is one.
    async fn try_code(&mut self) -> Answer {
        let page = self.stranger.click_sign_in("/").await;
        if page.status == StatusCode::FORBIDDEN { self.stranger.type_code(&page, &self.code).await } else { page }
    }

    /// What was refused is absent, what is asked for now is done, and both are still so after a kill.
    pub(crate) async fn recovers(mut self, case: &str) {
        let listed = self.folder.document("bindings list").await;
        let accounts =
            listed["bindings"].as_array().unwrap().iter().map(|binding| binding["account"].as_str().unwrap());
        let mut accounts: Vec<_> = accounts.filter(|account| !account.starts_with("bystander")).collect();
        accounts.sort_unstable();
        assert_eq!(accounts, ["alice", "bob"], "{case}");
        assert_eq!(self.gateway.ops("/readyz").await.status, StatusCode::OK, "{case}");
        let mut bound = self.handset("1");
        assert_eq!(bound.click_sign_in("/").await.status, StatusCode::FOUND, "{case}");
        let entered = self.try_code().await;
        assert_eq!(entered.status, StatusCode::FOUND, "{case}: the code was spent: {}", entered.text());
        assert_eq!(self.folder.document(&format!("bindings revoke {}", self.binding)).await["revoked"], 1, "{case}");

        let Self { folder, gateway, wrap, _upstream, _calm, watch, signed_in, stranger, .. } = self;
        watch.noticed_nothing().await;
        gateway.kill().await;
        let gateway = folder.serve_as(wrap(folder.command("serve"))).await;
        for (who, mut handset) in [("before", signed_in), ("after", bound), ("enrolled after", stranger)] {
            handset.gateway = gateway.address("handset");
            assert_eq!(handset.get("/").await.status, StatusCode::OK, "{case}: the session of {who} the fault");
        }
        let revoked = gateway.handset(Carrier::PrivateApn, "2").click_sign_in("/").await;
        assert_eq!(revoked.status, StatusCode::FORBIDDEN, "{case}");
        gateway.stop().await;
        assert_eq!(crate::process::ended(wrap(folder.command("check"))).await.code, 0, "{case}");
    }
}

/// The access log is a file, too: it loses lines, and the gateway lives.
#[tokio::test]
async fn a_full_disk() {
    let mut town = Town::with(|command| with_limited_files(&command)).await;
    for _ in 0..2 {
        town.gateway.limit(Resource::Fsize, Some(0));
        town.fails_closed("full").await;
        town.gateway.limit(Resource::Fsize, None);
    }
    town.gateway.logged("the store cannot be used").await;
    town.recovers("full").await;
}

/// SQLite would write on into files that nobody finds again.
#[tokio::test]
async fn a_store_that_is_moved_away_or_replaced_and_comes_back() {
    for name in ["data/store.db", "data/store.db-wal", "data"] {
        for replaced in [false, true] {
            let case = format!("{name}, replaced: {replaced}");
            let mut town = Town::with(|command| command).await;
            let [place, away] = [name, "away"].map(|name| town.folder.path(name));
            fs::rename(&place, &away).unwrap();
            if replaced && away.is_file() {
                fs::copy(&away, &place).unwrap();
            }
            town.fails_closed(&case).await;
            let ready = town.gateway.ops("/readyz").await;
            assert_eq!(
                (ready.status, &ready.json()["store"]),
                (StatusCode::SERVICE_UNAVAILABLE, &false.into()),
                "{case}"
            );
            town.gateway.logged("put it back, or restart the gateway").await;
            fs::rename(&away, &place).unwrap_or_else(|error| panic!("{case}: {error}"));
            town.recovers(&case).await;
        }
    }
}

#[tokio::test]
async fn a_folder_that_may_not_be_entered_and_one_that_may_not_be_written_to() {
    let mut town = Town::with(held_to_permissions).await;
    let data = town.folder.path("data");
    let may = |mode| fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
    may(0);
    town.fails_closed("closed").await;
    may(0o700);
    // The files are open, and the folder is not needed any more: what is acknowledged is held.
    may(0o500);
    assert_eq!(town.handset("1").click_sign_in("/").await.status, StatusCode::FOUND);
    let Town { folder, gateway, .. } = town;
    gateway.kill().await;
    for verb in ["check", "serve"] {
        let before = folder.snapshot();
        let ended = crate::process::ended(held_to_permissions(folder.command(verb))).await;
        assert_eq!((ended.code, ended.finding_keys()), (2, vec!["store.path"]), "{verb}: {ended:?}");
        assert!(ended.stderr.contains("ermission denied"), "{ended:?}");
        assert_eq!(folder.snapshot(), before);
    }
    may(0o700);
    let gateway = folder.serve().await;
    assert_eq!(gateway.handset(Carrier::PrivateApn, "1").click_sign_in("/").await.status, StatusCode::FOUND);
    gateway.stop().await;
}

#[tokio::test]
async fn too_few_descriptors_for_its_connections() {
    let town = Town::with(|command| command).await;
    let address = town.gateway.address("handset");
    let mut inside = Wire::connect(town.signed_in.source, address).await;
    inside.get("/", "").await;
    assert_eq!(inside.answer().await.status(), StatusCode::UNAUTHORIZED);
    // A machine of many cores has more listeners.
    town.gateway.limit(Resource::Nofile, Some(64.max(town.gateway.descriptors() + 16)));
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    town.gateway.logged("cannot accept connections").await;
    // Whoever is in is served.
    inside.get("/", "").await;
    assert_eq!(timeout(PATIENCE, inside.answer()).await.expect("no answer").status(), StatusCode::UNAUTHORIZED);
    town.watch.goes_on("no descriptors").await;
    crowd.clear();
    let mut bound = town.handset("1");
    let answer = timeout(PATIENCE, bound.click_sign_in("/")).await.expect("no answer");
    assert_eq!(answer.status, StatusCode::FOUND);
    town.recovers("few descriptors").await;
}

#[tokio::test]
async fn too_few_descriptors_for_a_connection_to_the_console() {
    let (folder, console) = (Folder::alone(), PlayedUpstream::start().await);
    folder.append(&console.routed("", "public", "queue = { time = \"15s\" }"));
    let town = Town::of(folder, |command| on_one_core(&command)).await;
    let gateway = &town.gateway;
    let [first, second, operator] = ["handset", "handset", "ops"].map(async |serves| {
        let mut wire = Wire::connect([127, 0, 4, 1].into(), gateway.address(serves)).await;
        wire.get(if serves == "ops" { "/healthz" } else { "/_sekisho/notice" }, "").await;
        assert_eq!(wire.answer().await.status(), StatusCode::OK);
        wire
    });
    let (mut first, mut second, mut operator) = (first.await, second.await, operator.await);
    first.get("/played/1", "").await;
    let mut served = console.accept().await;
    assert!(served.head().await.contains("/played/1"));
    gateway.limit(Resource::Nofile, Some(gateway.descriptors() + 8));
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(TcpStream::connect(gateway.address("handset")).await.unwrap());
    }
    gateway.logged("cannot accept connections").await;
    second.get("/played/2", "").await;
    let waits = async {
        loop {
            operator.get("/metrics", "").await;
            let metrics = operator.answer().await.text();
            if metrics.contains("sekisho_upstream_requests_waiting{upstream=\"played\"} 1") {
                return;
            }
        }
    };
    tokio::select! {
        () = waits => {}
        answer = second.answer() => panic!("it did not wait: {}", answer.status()),
    }
    town.watch.goes_on("none for the console").await;
    for (client, path) in [(&mut first, "/played/1"), (&mut second, "/played/2")] {
        served.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let answer = timeout(PATIENCE, client.answer()).await.expect("no answer");
        assert_eq!((answer.status(), answer.text()), (StatusCode::OK.as_u16(), "hi".to_owned()), "{path}");
        if path == "/played/1" {
            assert!(served.head().await.contains("/played/2"), "over the same connection");
        }
    }
    drop((crowd, first, second, operator));
    town.recovers("none for the console").await;
}
