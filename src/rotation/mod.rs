//! Replacing the binding keys while handsets sign in: wrap, then flatten, then let go (`rotation.md` §3).
//!
//! In: an operator's verb, or the passing of time. Out: keys and records that moved one step, in the store first and in
//! the [`KeyRing`](crate::binding::KeyRing) right after. At every instant every bound handset is found: the store
//! refuses digests of a ring that is not in force, and whoever meets that makes them again. One runner moves records,
//! batch by batch; what it has done is in the records themselves, so it may die at any instruction.
//!
//! Absent on purpose: SQL, HTTP, keys in clear, and a way back.

mod again;
mod compromise;
mod drill;
mod engine;
mod error;
mod pace;
mod progress;
mod steps;
mod worker;

pub use compromise::{CompromiseReport, CompromiseStep};
pub use drill::{Drill, DrillError, DrillReport, DrillStage, DrillTerms};
pub use engine::{MOST_OPEN, Rotations, Start};
pub use error::RotationError;
pub use progress::Progress;
