//! A model of rotation on the real store (`rotation.md` §4): thirty handsets, sign-ins, enrolments, revocations, wraps,
//! crashes and restarts, up to three rotations at once, in the orders that seeds give. The invariants of §5 are looked at
//! after every step. What is known to be wrong is shown to be wrong: a model that cannot fail proves nothing.
//!
//! The clock is paused: a look-up that waits for memory to follow the store waits in no time, since only a later step ends that.
//!
//! `SEKISHO_MODEL_RUNS=500` for as many runs as the design was judged by; a run that fails names its seed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a set-up that fails should fail its test")]

use std::rc::Rc;

use sekisho::store::{KeyPurpose, KeyState, KeyStore as _, RotationStore as _};

use actors::{LookUp, drive, enrol, revoke, sign_in, start, try_what_must_not_be};
use turns::{Actor, Dice};
use world::{IDENTIFIERS, World};

mod actors;
mod stale;
mod turns;
mod world;

/// Runs unless the environment says otherwise: some seconds.
const RUNS: u64 = 40;
/// Runs in which something wrong has to show.
const RUNS_TO_FAIL: u64 = 40;
const STEPS: usize = 500;
/// Steps in which whatever began is over: what waits for nothing any more must not wait for ever.
const MOST_ROUNDS: u32 = 2000;
const ROTATIONS: u32 = 3;

/// Who drives a rotation, and how handsets are looked up.
#[derive(Clone, Copy)]
struct Ways {
    look_ups: &'static [LookUp],
    drive: fn(&Rc<World>) -> Actor,
    /// Whether the store is looked at after every step. What is wrong would not get far.
    checked: bool,
}

const RIGHT: Ways = Ways { look_ups: &[LookUp::Gateway, LookUp::ONE_BY_ONE], drive, checked: true };

/// What a run came to.
struct Outcome {
    /// Sign-ins that failed and should not have.
    lost: Vec<String>,
    /// Rotations that began.
    rotations: usize,
    /// The most old keys that records needed at one time.
    most_open: usize,
}

async fn run(seed: u64, ways: Ways) -> Outcome {
    let world = Rc::new(World::new(seed).await);
    let mut dice = Dice::new(seed);
    let mut actors: Vec<Actor> = Vec::new();
    for handset in 0..IDENTIFIERS / 2 {
        finish(vec![enrol(&world, handset)]).await;
    }
    let (mut started, mut most_open) = (0, 0);
    for _ in 0..STEPS {
        let handset = dice.roll(IDENTIFIERS);
        match dice.roll(100) {
            0..=7 => actors.push(sign_in(&world, handset, ways.look_ups[dice.roll(ways.look_ups.len())])),
            8..=10 => actors.push(enrol(&world, handset)),
            11 => revoke(&world, handset).await,
            12..=13 if started < ROTATIONS => {
                started += 1;
                actors.push(start(&world));
            }
            14..=17 => actors.push((ways.drive)(&world)),
            18 if ways.checked => try_what_must_not_be(&world, dice.roll(100)).await,
            19 => crash(&mut actors, &mut dice),
            20 if dice.roll(4) == 0 => {
                // The process ends; the next one knows what is in the store.
                actors.clear();
                world.reload().await;
            }
            _ if actors.is_empty() => {}
            _ => {
                let chosen = dice.roll(actors.len());
                if actors[chosen].step().await {
                    drop(actors.swap_remove(chosen));
                }
            }
        }
        if ways.checked {
            world.check().await;
            most_open = most_open.max(open(&world).await);
        }
    }
    world.reload().await;
    finish(actors).await;
    if ways.checked {
        settle(&world, ways).await;
    }
    let rotations = world.store.rotations().await.unwrap().len();
    Outcome { lost: world.lost.take(), rotations, most_open }
}

/// Whatever was interrupted comes to its end: every handset signs in, and every old key is let go.
async fn settle(world: &Rc<World>, ways: Ways) {
    world.reload().await;
    for _ in 0..=2 * ROTATIONS {
        finish(vec![(ways.drive)(world)]).await;
        for handset in 0..IDENTIFIERS {
            finish(vec![sign_in(world, handset, LookUp::Gateway)]).await;
        }
        world.check().await;
    }
    let keys = world.store.keys().await.unwrap().keys;
    let states = keys.iter().filter(|key| key.purpose == KeyPurpose::Binding).map(|key| key.state);
    let left: Vec<_> = states.filter(|state| *state != KeyState::Drained).collect();
    assert_eq!(left, [KeyState::Active], "the rest is drained");
}

async fn finish(actors: Vec<Actor>) {
    let mut actors = actors;
    let mut rounds = 0;
    while !actors.is_empty() {
        rounds += 1;
        assert!(rounds < MOST_ROUNDS, "{} actors do not come to their end", actors.len());
        let mut left = Vec::new();
        for mut actor in actors {
            if !actor.step().await {
                left.push(actor);
            }
        }
        actors = left;
    }
}

fn crash(actors: &mut Vec<Actor>, dice: &mut Dice) {
    let moving: Vec<usize> = (0..actors.len()).filter(|at| actors[*at].moves).collect();
    if !moving.is_empty() {
        drop(actors.swap_remove(moving[dice.roll(moving.len())]));
    }
}

/// How many old keys are still needed.
async fn open(world: &World) -> usize {
    let keys = world.store.keys().await.unwrap().keys;
    keys.iter().filter(|key| matches!(key.state, KeyState::Retiring | KeyState::Inner)).count()
}

fn runs() -> u64 {
    std::env::var("SEKISHO_MODEL_RUNS").map_or(RUNS, |runs| runs.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_sign_in_is_lost_and_every_rotation_ends() {
    let (mut rotations, mut most_open) = (0, 0);
    for seed in 0..runs() {
        let outcome = run(seed, RIGHT).await;
        assert!(outcome.lost.is_empty(), "seed {seed}: {:?}", outcome.lost);
        rotations += outcome.rotations;
        most_open = most_open.max(outcome.most_open);
    }
    let runs = usize::try_from(runs()).unwrap();
    println!("{runs} runs, {rotations} rotations, up to {most_open} at once");
    assert!(rotations >= 2 * runs && most_open >= 2, "{rotations} rotations, {most_open} at once");
}

/// How many sign-ins are lost until the first run in which some are.
async fn first_loss(ways: Ways) -> usize {
    for seed in 0..RUNS_TO_FAIL {
        let lost = run(seed, ways).await.lost.len();
        if lost > 0 {
            return lost;
        }
    }
    0
}

#[tokio::test(start_paused = true)]
async fn the_newest_key_first_loses_sign_ins() {
    let look_ups = &[LookUp::Probes { newest_first: true, recheck: true }];
    assert!(first_loss(Ways { look_ups, checked: false, ..RIGHT }).await > 0);
}

#[tokio::test(start_paused = true)]
async fn without_looking_at_the_generation_again_sign_ins_are_lost() {
    let look_ups = &[LookUp::Probes { newest_first: false, recheck: false }];
    assert!(first_loss(Ways { look_ups, checked: false, ..RIGHT }).await > 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_records_that_is_not_looked_at_again_loses_sign_ins() {
    assert!(first_loss(Ways { drive: stale::drive, checked: false, ..RIGHT }).await > 0);
}
