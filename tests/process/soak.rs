//! SIGKILL at random moments under a stream of enrolments, sign-ins, revocations and imports. At the next start what was
//! acknowledged is there, what was refused is not, and what was neither is there whole or not at all.
//!
//! `SEKISHO_SOAK_ROUNDS` is how many kills there are, `SEKISHO_SEED` repeats a run's plan. What happens at the instant of
//! a kill is the machine's choice all the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use sekisho::admin::{AdminClient, Imported};
use sekisho::entropy::{Entropy as _, SeededEntropy, SystemEntropy, random};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Answer, Carrier, Handset, NoAnswer};
use crate::process::{Folder, Serving};
use crate::recorder::RecordingUpstream;

/// Kills where the environment does not say.
const ROUNDS: u32 = 10;
/// Kills of one store; then a new one is begun, so that a long soak looks at each as often as a short one.
const OF_ONE_STORE: u32 = 10;
/// Stores that are begun besides where the machine was too busy for all kinds of work to be met.
const MORE: u32 = 10;
/// The last moment for a kill. Most of it lies after the first answers, all of it before the streams run dry.
const LONGEST: u64 = 250;

/// Most handsets that a stream signs in, or revokes, before a kill.
const AT_WORK: usize = 30;

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let seed =
        from_environment("SEKISHO_SEED").unwrap_or_else(|| u64::from_be_bytes(random(&SystemEntropy::default())));
    let rounds = from_environment("SEKISHO_SOAK_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("{rounds} kills with SEKISHO_SEED={seed}");
    let dice = Dice::new(seed);
    let mut met = Tally::default();
    let (mut left, mut more) = (rounds, MORE);
    loop {
        while left > 0 {
            let kills = left.min(OF_ONE_STORE);
            met += Campaign::run(&dice, kills).await;
            left -= kills;
        }
        eprintln!("{met:?}");
        let Some(what) = met.lacks().filter(|_| rounds >= ROUNDS) else { return };
        assert!(more > 0, "streams without {what} prove nothing of them");
        (left, more) = (OF_ONE_STORE, more - 1);
    }
}

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What the streams met.
#[derive(Debug, Default)]
struct Tally {
    enrolled: usize,
    signed_in: usize,
    revoked: usize,
    imported: usize,
    refused: usize,
    /// Calls that the kill left without an answer.
    unknown: usize,
}

impl Tally {
    /// A kind of work that was never met, if there is one.
    fn lacks(&self) -> Option<&'static str> {
        let Self { enrolled, signed_in, revoked, imported, refused, unknown: _ } = *self;
        let kinds = [
            (enrolled, "enrolments"),
            (signed_in, "sign-ins"),
            (revoked, "revocations"),
            (imported, "imported bindings"),
            (refused, "refusals"),
        ];
        kinds.into_iter().find_map(|(count, what)| (count == 0).then_some(what))
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.enrolled += other.enrolled;
        self.signed_in += other.signed_in;
        self.revoked += other.revoked;
        self.imported += other.imported;
        self.refused += other.refused;
        self.unknown += other.unknown;
    }
}

/// Numbers that the seed decides.
struct Dice(SeededEntropy);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// Less than `bound`.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_be_bytes(bytes) % bound
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Dice of its own for a stream, so that the streams' pace does not change its plan.
    fn split(&self) -> Self {
        Self::new(self.below(u64::MAX))
    }
}

/// What is known of a handset and its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Bound,
    Unbound,
    /// The answer did not come: either, but whole.
    Unknown,
}

/// A handset with an account of its own.
struct Member {
    account: String,
    /// With the cookies of a session that lives as long as the binding, if it has any.
    handset: Handset,
    /// The code that binds, or bound, it.
    code: Option<String>,
    known: Known,
}

/// An import that was sent: who is in it, in order, and what was said of it.
struct Sent {
    lines: String,
    members: Vec<Member>,
    /// Lines of its own that must be refused.
    wrong: u64,
    /// How many bindings were said to be durable.
    durable: u64,
    done: Option<Imported>,
}

/// What a stream leaves to be looked at after the kill.
#[derive(Default)]
struct Report {
    members: Vec<Member>,
    /// Handsets that were refused, and the code that they tried, which was spent or wrong.
    refused: Vec<Handset>,
    imports: Vec<Sent>,
    seen: Tally,
}

/// One store, killed again and again.
struct Campaign {
    folder: Folder,
    /// Whose state is known; by account.
    members: BTreeMap<String, Member>,
    serials: Arc<Serials>,
    seen: Tally,
}

/// Numbers for handsets, none twice in a store.
#[derive(Default)]
struct Serials(AtomicU32);

impl Serials {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// A handset that nobody had before. One in four needs the stretch.
    fn member(&self, at: SocketAddr) -> Member {
        let serial = self.next();
        let carrier = if serial.is_multiple_of(4) { Carrier::SoftBank } else { Carrier::PrivateApn };
        let handset = Handset::new(at, carrier, &serial.to_string());
        Member { account: format!("account-{serial}"), handset, code: None, known: Known::Unbound }
    }
}

impl Campaign {
    async fn run(dice: &Dice, kills: u32) -> Tally {
        let upstream = RecordingUpstream::start().await;
        let folder = Folder::new(upstream.address);
        folder.append("[limits]\nsign_in = \"1000000/1m\"\nnetwork = \"1000000/1m\"\ncode = \"1000000/1m\"\n");
        let (members, serials) = (BTreeMap::new(), Arc::default());
        let mut campaign = Self { folder, members, serials, seen: Tally::default() };
        let mut reports = Vec::new();
        for _ in 0..kills {
            let gateway = campaign.folder.serve().await;
            campaign.judge(&gateway, reports).await;
            reports = campaign.stream(dice, gateway).await;
        }
        let gateway = campaign.folder.serve().await;
        campaign.judge(&gateway, reports).await;
        gateway.kill().await;
        let check = campaign.folder.run("check").await;
        assert_eq!(check.code, 0, "the store is sound after every kill: {check:?}");
        campaign.seen
    }

    fn admin(&self) -> AdminClient {
        AdminClient::new(&self.folder.path("run/admin.sock"))
    }

    /// Lets the streams run until a random moment, and kills.
    async fn stream(&mut self, dice: &Dice, mut gateway: Serving) -> Vec<Report> {
        let at = gateway.address("handset");
        let mut pools: [Vec<Member>; 3] = Default::default();
        for member in std::mem::take(&mut self.members).into_values() {
            let pool = usize::try_from(dice.below(3)).unwrap();
            let free = member.known == Known::Bound && pools[pool].len() < AT_WORK;
            pools[if free { pool } else { 2 }].push(member);
        }
        let [to_sign_in, to_revoke, at_rest] = pools;
        self.members = at_rest.into_iter().map(|member| (member.account.clone(), member)).collect();
        let mut streams = JoinSet::new();
        for _ in 0..2 {
            streams.spawn(enrolments(dice.split(), self.admin(), Arc::clone(&self.serials), at));
        }
        streams.spawn(imports(dice.split(), self.admin(), Arc::clone(&self.serials), at));
        streams.spawn(sign_ins(to_sign_in, at));
        streams.spawn(revocations(to_revoke, self.admin()));
        let moment = Duration::from_millis(dice.below(LONGEST));
        assert!(timeout(moment, gateway.end()).await.is_err(), "it ended by itself: {}", gateway.stdout());
        gateway.kill().await;
        timeout(Duration::from_mins(1), streams.join_all()).await.expect("a stream hangs on a gateway that is gone")
    }

    /// Holds the store to what was told. Everything is known afterwards.
    async fn judge(&mut self, gateway: &Serving, reports: Vec<Report>) {
        let at = gateway.address("handset");
        let mut ids = self.bindings().await;
        for Report { members, refused, imports, seen } in reports {
            self.seen += seen;
            for sent in imports {
                self.judge_import(sent, &ids).await;
                ids = self.bindings().await;
            }
            for mut member in members {
                let bound = ids.contains_key(&member.account);
                judge_member(&mut member, bound, self.serials.member(at).handset).await;
                self.members.insert(member.account.clone(), member);
            }
            for handset in refused {
                let answer = fresh(&handset, at).click_sign_in("/").await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "refused, yet bound");
            }
        }
        let ids = self.bindings().await;
        for (account, member) in &self.members {
            let listed = ids.get(account).map_or(0, Vec::len);
            assert_eq!(listed, usize::from(member.known == Known::Bound), "bindings of {account}: {:?}", member.known);
        }
        for account in ids.keys() {
            assert!(self.members.contains_key(account), "nobody asked for a binding of {account}");
        }
    }

    /// An import is there up to a line, which is none before what was said to be durable; running it again does the rest.
    async fn judge_import(&mut self, sent: Sent, ids: &BTreeMap<String, Vec<String>>) {
        let Sent { lines, members, wrong, durable, done } = sent;
        let there = |member: &Member| ids.contains_key(&member.account);
        let present = members.iter().take_while(|member| there(member)).count();
        assert!(!members.iter().skip(present).any(there), "an import has holes");
        let [all, present] = [members.len(), present].map(|count| u64::try_from(count).unwrap());
        assert!(present >= durable, "{durable} lines were durable, {present} of {all} are there");
        if let Some(done) = done {
            assert_eq!((done.imported, done.unchanged, done.refused_in_all()), (all, 0, wrong));
            assert_eq!(present, all, "an import was acknowledged");
        }
        let again = self.admin().import(stream::iter([Ok(Bytes::from(lines))]), |_| ()).await.unwrap();
        assert_eq!((again.imported, again.unchanged, again.refused_in_all()), (all - present, present, wrong));
        for member in members {
            self.members.insert(member.account.clone(), Member { known: Known::Bound, ..member });
        }
    }

    /// Every binding there is: ids by account.
    async fn bindings(&self) -> BTreeMap<String, Vec<String>> {
        bindings(&self.admin(), "/v1/bindings").await.expect("it serves")
    }
}

/// Holds a member to what it was told, once the store says whether it is bound. `thief` is bound to nothing.
async fn judge_member(member: &mut Member, bound: bool, mut thief: Handset) {
    let at = thief.gateway;
    let Member { account, handset, code, known } = member;
    if *known != Known::Unknown {
        assert_eq!(bound, *known == Known::Bound, "{account} was told {known:?}");
    }
    handset.gateway = at;
    if handset.has_session() {
        let expected = if bound { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(handset.get("/").await.status, expected, "the session of {account}, {known:?}");
    }
    // The binding and the code that makes it are one: spent where there is one, good where there is none.
    let was_bound = *known == Known::Bound || (*known == Known::Unknown && bound);
    if let Some(code) = code.take() {
        if was_bound {
            assert_eq!(
                thief.enrol("/", &code).await.status,
                StatusCode::FORBIDDEN,
                "the code of {account} serves twice"
            );
        } else if *known == Known::Unknown {
            let mut again = fresh(handset, at);
            let answer = again.enrol("/", &code).await;
            assert_eq!(
                answer.status,
                StatusCode::FOUND,
                "the code of {account} is spent for nothing: {}",
                answer.text()
            );
            (*handset, *known) = (again, Known::Bound);
            return;
        }
    }
    let mut again = fresh(handset, at);
    let expected = if bound { StatusCode::FOUND } else { StatusCode::FORBIDDEN };
    assert_eq!(again.click_sign_in("/").await.status, expected, "a sign-in of {account}, {known:?}");
    *handset = again;
    *known = if bound { Known::Bound } else { Known::Unbound };
}

/// The same handset with no cookies.
fn fresh(handset: &Handset, at: SocketAddr) -> Handset {
    let mut fresh = Handset::new(at, handset.carrier, "0");
    fresh.identifier.clone_from(&handset.identifier);
    fresh
}

async fn bindings(admin: &AdminClient, list: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let listed: Value = admin.call(Method::GET, list).await.ok()?;
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in listed["bindings"].as_array().unwrap() {
        let text = |name: &str| binding[name].as_str().unwrap().to_owned();
        ids.entry(text("account")).or_default().push(text("id"));
    }
    Some(ids)
}

/// A click on the sign-in page of `/`.
async fn click(handset: &mut Handset) -> Result<Answer, NoAnswer> {
    let page = handset.try_send(Method::GET, "/", &[], Bytes::new()).await?;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.text());
    handset.try_send(Method::GET, &page.link("/_sekisho/login?"), &[], Bytes::new()).await
}

/// Types a code into the page that a click led to.
async fn type_code(handset: &mut Handset, page: &Answer, code: &str) -> Result<Answer, NoAnswer> {
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    let fields = [("code", code), ("t", &page.hidden("t")), ("to", &page.hidden("to"))];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    handset.try_send(Method::POST, &page.attribute("action", "/_sekisho/enrol"), &kind, body.into()).await
}

/// New handsets enrol; some mistype their code first, some codes are tried by a second handset.
async fn enrolments(dice: Dice, admin: AdminClient, serials: Arc<Serials>, at: SocketAddr) -> Report {
    let mut report = Report::default();
    // A call that breaks off ends the stream.
    let _ = async {
        loop {
            let mut member = serials.member(at);
            let issued: Value = admin.call(Method::POST, &format!("/v1/accounts/{}/codes", member.account)).await?;
            let code = issued["code"].as_str().unwrap().to_owned();
            let mut page = click(&mut member.handset).await?;
            if dice.one_in(4) {
                // Its first half is right, as a typing error would leave it.
                page = type_code(&mut member.handset, &page, &format!("{}-0000-0000", &code[..4])).await?;
                report.seen.refused += 1;
            }
            let entered = type_code(&mut member.handset, &page, &code).await;
            member.code = Some(code.clone());
            member.known = if entered.is_ok() { Known::Bound } else { Known::Unknown };
            report.members.push(member);
            report.seen.unknown += usize::from(entered.is_err());
            let entered = entered?;
            assert_eq!(entered.status, StatusCode::FOUND, "{}", entered.text());
            report.seen.enrolled += 1;
            if dice.one_in(4) {
                let mut thief = serials.member(at).handset;
                let page = click(&mut thief).await?;
                let answer = type_code(&mut thief, &page, &code).await?;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
                report.refused.push(thief);
                report.seen.refused += 1;
            }
        }
        #[expect(unreachable_code, reason = "tells the type of what breaks off")]
        Ok::<(), NoAnswer>(())
    }
    .await;
    report
}

/// Bound handsets sign in with no cookies.
async fn sign_ins(members: Vec<Member>, at: SocketAddr) -> Report {
    let mut report = Report::default();
    let mut serves = true;
    for mut member in members {
        if serves {
            let mut handset = fresh(&member.handset, at);
            if let Ok(answer) = click(&mut handset).await {
                assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text());
                report.seen.signed_in += 1;
                member.handset = handset;
            } else {
                report.seen.unknown += 1;
                serves = false;
            }
        }
        report.members.push(member);
    }
    report
}

/// Bound handsets are revoked.
async fn revocations(members: Vec<Member>, admin: AdminClient) -> Report {
    let mut report = Report::default();
    let mut serves = true;
    for mut member in members {
        let list = format!("/v1/accounts/{}/bindings", member.account);
        let ids = if serves { bindings(&admin, &list).await } else { None };
        if let Some(ids) = ids {
            let id = &ids[&member.account][0];
            let revoked = admin.call::<Value>(Method::DELETE, &format!("/v1/bindings/{id}")).await;
            member.known = if let Ok(answer) = revoked {
                assert_eq!(answer, json!({ "revoked": 1 }));
                report.seen.revoked += 1;
                Known::Unbound
            } else {
                report.seen.unknown += 1;
                Known::Unknown
            };
        } else {
            serves = false;
        }
        report.members.push(member);
    }
    report
}

/// Imports of a few lines, and now and then of more than a transaction holds, with lines that cannot be taken.
async fn imports(dice: Dice, admin: AdminClient, serials: Arc<Serials>, at: SocketAddr) -> Report {
    let mut report = Report::default();
    loop {
        let count = if dice.one_in(30) { 600 } else { 1 + dice.below(30) };
        let mut sent = Sent { lines: String::new(), members: Vec::new(), wrong: 0, durable: 0, done: None };
        for _ in 0..count {
            let serial = serials.next();
            let account = format!("account-{serial}");
            let handset = Handset::new(at, Carrier::PrivateApn, &serial.to_string());
            let wrong = dice.one_in(10);
            let identifier = if wrong { Some("short".to_owned()) } else { handset.identifier.clone() };
            let line = json!({ "account": account, "carrier": "private-apn", "identifier": identifier });
            sent.lines += &line.to_string();
            sent.lines.push('\n');
            if wrong {
                sent.wrong += 1;
            } else {
                sent.members.push(Member { account, handset, code: None, known: Known::Unknown });
            }
        }
        let lines = stream::iter([Ok(Bytes::from(sent.lines.clone()))]);
        let mut durable = 0;
        let done = admin.import(lines, |progress| durable = progress.imported).await;
        let broke_off = done.is_err();
        (sent.durable, sent.done) = (durable, done.ok());
        report.seen.unknown += usize::from(broke_off);
        report.seen.refused += usize::try_from(sent.done.as_ref().map_or(0, Imported::refused_in_all)).unwrap();
        report.seen.imported += usize::try_from(sent.done.as_ref().map_or(durable, |done| done.imported)).unwrap();
        report.imports.push(sent);
        if broke_off {
            return report;
        }
    }
}
