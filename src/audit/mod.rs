//! The audit trail: who did what, when, why and how it ended, in a chain that shows what was changed in it.
//!
//! In: an [`Event`], from whoever does something or sees something happen. Out: an [`Entry`] in the store, whose hash
//! is over the one before it, and [`Checkpoint`]s that the audit key seals. Afterwards nobody takes an entry out,
//! changes it or puts one in without [`Verifier`] naming the place, on any machine and without the gateway. Accounts
//! stand in it under a pseudonym that cannot be resolved once the account is forgotten. Absent on purpose: sign-ins
//! and refusals of strangers, which the security log has (a stranger could fill the store with them), and any way to
//! change or take back an entry.
//!
//! What a line looks like, and how to verify it without this program: `docs/audit.md`.

mod entry;
mod event;
mod export;
#[cfg(fuzzing)]
pub mod fuzz;
mod lines;
#[cfg(test)]
mod tests;
mod trail;
mod verify;

pub use entry::{Checkpoint, Entry, EntryHash, Pseudonym, Tip};
pub(crate) use event::plain;
pub use event::{Action, Effect, Event, Outcome};
pub use export::Export;
pub use lines::MOST_LINE_BYTES;
pub use trail::{AuditTrail, Begun, Ends, SealError};
pub use verify::{Bad, Expected, Verdict, Verifier};
