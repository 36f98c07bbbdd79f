//! Each step of a key's life, and each that is refused, against a store in memory that lets no key move backwards.

use super::*;
use crate::clock::Day;
use crate::store::KeyDates;

use KeyPurpose::{Assertion, Audit, Binding, Session};
use KeyState::{Active, Destroyed, Drained, Inner, Pending, Retiring};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const PERIODS: KeyPeriods = KeyPeriods {
    cooling: Duration::from_hours(7 * 24),
    assertion_publish: DAY,
    assertion_rotate: Duration::from_hours(30 * 24),
    session_rotate: Duration::from_hours(90 * 24),
    audit_rotate: Duration::from_hours(365 * 24),
};

type Verb = fn(&View<'_>, &str) -> Result<Plan, KeyRefusal>;
const VERBS: [Verb; 4] = [
    |view, id| view.activate(id),
    |view, id| view.suspend(id),
    |view, id| view.resume(id),
    |view, id| view.destroy(id),
];
type Maker = fn(&View<'_>, KeyPurpose) -> Result<Plan, KeyRefusal>;
const MAKERS: [Maker; 2] = [|view, purpose| view.generate(purpose), |view, purpose| view.start(purpose, "")];

/// A store in memory that makes the changes of a plan as the real one does, and a clock.
struct World {
    keys: Vec<KeyRecord>,
    rotations: Vec<RotationRecord>,
    now: Timestamp,
    shown_for: Duration,
}

fn start() -> Timestamp {
    Timestamp::from_unix_millis(1_795_478_400_000)
}

fn record(new: NewKey, now: Timestamp) -> KeyRecord {
    KeyRecord {
        id: new.id(),
        purpose: new.purpose,
        state: new.state,
        suspended: false,
        compromised: false,
        wrapped: vec![1],
        commitment: [0; 32],
        public: None,
        created_at: now,
        dates: KeyDates { activated_at: (new.state == Active).then_some(now), ..KeyDates::default() },
    }
}

impl World {
    fn new() -> Self {
        let keys = KeyPurpose::ALL.map(|purpose| record(NewKey { purpose, number: 1, state: Active }, start()));
        Self { keys: keys.into(), rotations: Vec::new(), now: start(), shown_for: Duration::ZERO }
    }

    /// Puts a key into a state, whatever came before.
    fn with(mut self, id: &str, purpose: KeyPurpose, state: KeyState) -> Self {
        let number = id[1..].parse().unwrap();
        let mut key = record(NewKey { purpose, number, state }, self.now);
        key.dates.retired_at = (state == Retiring).then_some(self.now);
        key.dates.drained_at = (state == Drained).then_some(self.now);
        self.keys.retain(|other| other.id != id);
        self.keys.push(key);
        self
    }

    fn key(&mut self, id: &str) -> &mut KeyRecord {
        self.keys.iter_mut().find(|key| key.id == id).unwrap()
    }

    fn pass(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.shown_for += by;
    }

    fn decide<T>(&self, decide: impl FnOnce(&View<'_>) -> T) -> T {
        let (keys, rotations, now, shown_for) = (&self.keys, &self.rotations, self.now, self.shown_for);
        decide(&View { keys, rotations, periods: &PERIODS, now, shown_for })
    }

    fn apply(&mut self, plan: Plan) {
        let made = plan.make.map(|new| record(new, self.now));
        if made.as_ref().is_some_and(|key| key.state == Pending && key.purpose == Assertion) {
            self.shown_for = Duration::ZERO;
        }
        self.keys.extend(made);
        for change in plan.changes {
            match change {
                KeyChange::Move { id, from, to, at } => {
                    let key = self.key(&id);
                    let place = |state| KeyState::ALL.iter().position(|other| *other == state);
                    assert!(key.state == from && place(from) < place(to), "{id}: {from:?} to {to:?}");
                    key.state = to;
                    match to {
                        Active => key.dates.activated_at = Some(at),
                        Retiring => key.dates.retired_at = Some(at),
                        Drained => key.dates.drained_at = Some(at),
                        Destroyed => key.dates.destroyed_at = Some(at),
                        Pending | Inner => {}
                    }
                }
                KeyChange::Suspend { id, suspended } => self.key(&id).suspended = suspended,
                KeyChange::Compromise { id } => self.key(&id).compromised = true,
                KeyChange::New(_)
                | KeyChange::Rewrap { .. }
                | KeyChange::RewrapPinSecret { .. }
                | KeyChange::RewrapLogKeys(_) => {
                    unreachable!("no plan has them")
                }
            }
        }
        for rotation in plan.rotations {
            self.rotations.retain(|other| other.id != rotation.id);
            self.rotations.push(rotation);
        }
        for purpose in KeyPurpose::ALL {
            let active = self.keys.iter().filter(|key| key.purpose == purpose && key.state == Active);
            assert_eq!(active.count(), 1, "{purpose:?}");
        }
    }

    fn run(&mut self, decide: impl FnOnce(&View<'_>) -> Result<Plan, KeyRefusal>) {
        let plan = self.decide(decide).unwrap();
        self.apply(plan);
    }

    /// All that is due.
    fn upkeep(&mut self) {
        for _ in 0..16 {
            self.run(|view| Ok(view.due()));
        }
    }

    /// `a1 retiring, a2 active`.
    fn keys_of(&self, purpose: KeyPurpose) -> String {
        let mut keys: Vec<_> = self.keys.iter().filter(|key| key.purpose == purpose).collect();
        keys.sort_by_key(|key| key.id.clone());
        keys.iter().map(|key| format!("{} {}", key.id, key.state.as_str())).collect::<Vec<_>>().join(", ")
    }

    /// `r1 a1>a2 running`.
    fn rotations(&self) -> String {
        let text = |r: &RotationRecord| format!("{} {}>{} {}", r.id, r.from, r.to, r.state.as_str());
        self.rotations.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    fn refusal(&self, decide: impl FnOnce(&View<'_>) -> Result<Plan, KeyRefusal>) -> String {
        self.decide(decide).unwrap_err().to_string()
    }
}

#[test]
fn an_assertion_key_is_published_then_signs_then_is_kept_then_drained() {
    let mut world = World::new();
    world.run(|view| view.start(Assertion, "why"));
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 active, a2 pending", "r1 a1>a2 running")
    );
    assert!(world.refusal(|view| view.start(Assertion, "")).contains("rotation r1"));
    world.pass(DAY.saturating_sub(Duration::from_secs(1)));
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 active, a2 pending");
    world.pass(Duration::from_secs(1));
    world.upkeep();
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 retiring, a2 active", "r1 a1>a2 draining")
    );
    world.pass(DAY.saturating_sub(Duration::from_secs(1)));
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 retiring, a2 active");
    world.pass(Duration::from_secs(1));
    world.upkeep();
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 drained, a2 active", "r1 a1>a2 done")
    );
    let done = &world.rotations[0];
    assert_eq!((done.finished_at, done.reason.as_str()), (Some(world.now), "why"));
    assert_eq!(done.drain_by, Day::from_unix_days(start().day().unix_days() + 2));
}

#[test]
fn the_schedule_replaces_each_key_at_its_age_and_publishes_before() {
    let mut world = World::new();
    let mut seen = Vec::new();
    for day in 0..370 {
        world.upkeep();
        let state = [Assertion, Session, Audit].map(|purpose| world.keys_of(purpose));
        if day == 29 {
            assert_eq!(state[0], "a1 active, a2 pending", "published a day before its turn");
        }
        seen.push(state);
        world.pass(DAY);
    }
    assert_eq!(seen[30][0], "a1 retiring, a2 active");
    assert_eq!(seen[31][0], "a1 drained, a2 active");
    assert_eq!(seen[89][1], "s1 active");
    assert_eq!(seen[90][1], "s1 retiring, s2 active");
    assert_eq!(seen[91][1], "s1 drained, s2 active");
    assert_eq!(seen[364][2], "u1 active");
    assert_eq!(seen[365][2], "u1 drained, u2 active");
    assert_eq!(world.keys_of(Binding), "k1 active", "records move with binding keys");
    assert!(world.rotations.iter().all(|rotation| rotation.reason == SCHEDULE));
}

#[test]
fn a_clock_that_jumps_makes_no_unknown_key_sign() {
    let mut world = World::new();
    world.run(|view| view.start(Assertion, ""));
    world.now = world.now.plus(10 * DAY);
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 active, a2 pending", "nobody can have fetched it yet");
    assert!(world.refusal(|view| view.activate("a2")).contains("upstreams may not know it"));
    world.shown_for = PUBLISHED_AT_LEAST;
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 retiring, a2 active");
}

#[test]
fn by_hand_a_key_may_sign_once_every_cache_can_know_it() {
    let mut world = World::new();
    world.run(|view| view.generate(Assertion));
    assert!(world.refusal(|view| view.generate(Assertion)).starts_with("a2 is pending"));
    world.pass(PUBLISHED_AT_LEAST.saturating_sub(Duration::from_millis(1)));
    assert!(world.refusal(|view| view.activate("a2")).contains("2026-11-24T00:06:00Z"));
    world.pass(Duration::from_millis(1));
    world.run(|view| view.activate("a2"));
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 retiring, a2 active", "r1 a1>a2 draining")
    );
}

#[test]
fn a_session_key_is_kept_longer_than_the_codes_it_made() {
    let mut world = World::new();
    world.run(|view| view.start(Session, ""));
    assert_eq!(
        (world.keys_of(Session).as_str(), world.rotations().as_str()),
        ("s1 retiring, s2 active", "r1 s1>s2 draining")
    );
    world.pass(EnrolmentCode::LIFETIME + Duration::from_mins(10));
    world.upkeep();
    assert_eq!(world.keys_of(Session), "s1 retiring, s2 active");
    world.pass(HOUR);
    world.upkeep();
    assert_eq!(
        (world.keys_of(Session).as_str(), world.rotations().as_str()),
        ("s1 drained, s2 active", "r1 s1>s2 done")
    );
}

#[test]
fn a_compromise_replaces_the_key_at_once_and_drops_the_one_that_waited() {
    let mut world = World::new();
    world.run(|view| view.start(Assertion, ""));
    world.run(|view| view.compromise("a1", "found in a bucket"));
    assert_eq!(world.keys_of(Assertion), "a1 retiring, a2 drained, a3 active");
    assert_eq!(world.rotations(), "r1 a1>a2 aborted, r2 a1>a3 draining");
    assert!(world.key("a1").compromised && !world.key("a2").compromised);
    world.run(|view| view.compromise("a1", "again"));
    assert_eq!(world.rotations.len(), 2, "said once");
    for (id, after) in [("s1", "s1 drained, s2 active"), ("u1", "u1 drained, u2 active")] {
        world.run(|view| view.compromise(id, ""));
        assert!([Session, Audit].map(|purpose| world.keys_of(purpose)).contains(&after.to_owned()), "{id}");
    }
    assert!(world.rotations().ends_with("r3 s1>s2 done, r4 u1>u2 done"), "{}", world.rotations());
    world.pass(DAY);
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 drained, a2 drained, a3 active");
    assert_eq!(world.refusal(|view| view.compromise("k1", "")), KeyRefusal::BindingKey.to_string());
}

#[test]
fn a_key_that_is_not_in_use_is_only_said_to_have_leaked() {
    for (state, expected) in
        [(Pending, "a1 active, a2 drained"), (Drained, "a1 active, a2 drained"), (Destroyed, "a1 active, a2 destroyed")]
    {
        let mut world = World::new().with("a2", Assertion, state);
        world.run(|view| view.compromise("a2", ""));
        assert_eq!(world.keys_of(Assertion), expected, "{state:?}");
        assert!(world.key("a2").compromised, "{state:?}");
    }
    let mut world = World::new().with("s1", Session, Retiring).with("s2", Session, Active);
    world.run(|view| view.compromise("s1", ""));
    assert_eq!(world.keys_of(Session), "s1 drained, s2 active", "codes made under it die");
}

#[test]
fn while_a_key_is_suspended_nothing_is_due_and_its_successor_inherits_nothing() {
    let mut world = World::new();
    world.run(|view| view.start(Assertion, ""));
    world.run(|view| view.suspend("a1"));
    world.pass(50 * DAY);
    world.upkeep();
    assert_eq!(world.keys_of(Assertion), "a1 active, a2 pending", "a person decides");
    world.run(|view| view.activate("a2"));
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 drained, a2 active", "r1 a1>a2 done")
    );
    world.run(|view| view.suspend("a2"));
    world.run(|view| view.suspend("a2"));
    world.run(|view| view.resume("a2"));
    world.run(|view| view.resume("a2"));
    assert!(!world.key("a2").suspended);
    assert!(world.refusal(|view| view.suspend("u1")).contains("audit key"));
    assert!(world.refusal(|view| view.suspend("a1")).contains("not in use any more"));
}

#[test]
fn only_a_key_that_cooled_off_or_was_never_used_is_destroyed() {
    let world = World::new().with("a2", Assertion, Drained);
    let mut later = World { now: world.now.plus(PERIODS.cooling), ..world };
    let too_early = World { now: later.now.minus(Duration::from_millis(1)), keys: later.keys.clone(), ..World::new() };
    assert!(too_early.refusal(|view| view.destroy("a2")).contains("2026-12-01T00:00:00Z (keys.cooling)"));
    later.run(|view| view.destroy("a2"));
    assert_eq!(later.keys_of(Assertion), "a1 active, a2 destroyed");
    assert!(later.refusal(|view| view.destroy("a2")).contains("nothing is left"));
    for (state, said) in [(Active, "rotate first"), (Retiring, "still needed"), (Inner, "still needed")] {
        let world = World {
            now: start().plus(1000 * DAY),
            ..World::new().with("a1", Assertion, Active).with("k1", Binding, state)
        };
        assert!(world.refusal(|view| view.destroy("k1")).contains(said), "{state:?}");
    }
    let mut pending = World::new();
    pending.run(|view| view.start(Assertion, ""));
    assert!(pending.refusal(|view| view.destroy("a2")).contains("rotation r1 waits for it"));
    let running = pending.rotations[0].clone();
    pending.run(|view| view.abort(&running));
    assert!(pending.refusal(|view| view.destroy("a2")).contains("cools off"));
    pending.run(|view| view.start(Assertion, ""));
    assert_eq!(pending.rotations(), "r1 a1>a2 aborted, r2 a1>a3 running", "numbers are not used twice");
    let mut unused = World::new();
    unused.run(|view| view.generate(Session));
    unused.run(|view| view.destroy("s2"));
    assert_eq!(unused.keys_of(Session), "s1 active, s2 destroyed");
}

#[test]
fn a_rotation_may_be_given_up_until_its_key_signs() {
    let mut world = World::new();
    world.run(|view| view.start(Assertion, ""));
    let running = world.rotations[0].clone();
    world.run(|view| view.abort(&running));
    assert_eq!(
        (world.keys_of(Assertion).as_str(), world.rotations().as_str()),
        ("a1 active, a2 drained", "r1 a1>a2 aborted")
    );
    let mut world = World::new();
    world.run(|view| view.start(Session, ""));
    let draining = world.rotations[0].clone();
    assert!(world.refusal(|view| view.abort(&draining)).contains("goes on to its end"));
}

#[test]
fn no_verb_moves_a_key_backwards_or_knows_a_key_that_is_not_there() {
    for state in KeyState::ALL {
        let world = World::new().with("a2", Assertion, state);
        let world = if state == Active { world.with("a1", Assertion, Retiring) } else { world };
        for verb in VERBS {
            // `apply` panics at a move backwards, and where not exactly one is active.
            if let Ok(plan) = world.decide(|view| verb(view, "a2")) {
                let mut after = World { keys: world.keys.clone(), rotations: Vec::new(), ..World::new() };
                after.apply(plan);
            }
        }
    }
    for verb in VERBS {
        for id in ["a9", "", "k", "a1 ", "A1"] {
            assert_eq!(World::new().decide(|view| verb(view, id)).err(), Some(KeyRefusal::NotThere), "{id}");
        }
    }
    for verb in MAKERS {
        assert_eq!(World::new().decide(|view| verb(view, Binding)).err(), Some(KeyRefusal::BindingKey));
    }
}

#[test]
fn check_names_keys_that_became_too_old() {
    let world = World::new();
    let said = |days: u32| {
        let at = start().plus(DAY * days);
        world.keys.iter().filter_map(|key| overdue(key, &PERIODS, at)).count()
    };
    assert_eq!([said(31), said(33), said(93), said(368), said(733)], [0, 1, 2, 3, 4]);
}
