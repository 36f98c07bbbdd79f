//! `ClientAddr` -> `CarrierMatch` -> `RawIdentifier`.
mod skeleton;
mod spec;
pub use skeleton::*;
pub use spec::{Networks, ProfileSpec, RequiredQuery, SpecProblem};
