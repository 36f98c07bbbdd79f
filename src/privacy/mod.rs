//! The privacy policy as code: what everything that is kept is for and for how long, and what a person may ask for.
//!
//! In: the configuration in force, the store, the audit trail. Out: the purpose register, the export of one account, its
//! erasure with a sealed certificate. Absent on purpose: any way to find an account by anything but its id, and any way
//! to bring back what was erased.

mod backoff;
mod canary_search;
mod clock_watch;
mod export;
mod periods;
mod policy;
mod posture;
mod promises;
mod purpose;
mod register;
mod retention;
mod statistics;
mod subjects;
mod tongue;

pub use canary_search::{CANARY_PROOF, Canary, CanarySearch, Searched};
pub use periods::{Kept, Periods};
pub use policy::{PolicyChange, changes, policy};
pub use posture::{Evidence, PROMISES, Promise, Standing, posture};
pub use promises::Promises;
pub use purpose::{Purpose, line, of, without_purpose};
pub use register::REGISTER;
pub use retention::{RETENTION_PROOF, Retention, RetentionParts, Round};
pub use statistics::{MOST_DAYS, ShownCount, Statistics};
pub use subjects::{CERTIFICATE, Erased, SubjectError, Subjects};
pub use tongue::{Text, Tongue};
