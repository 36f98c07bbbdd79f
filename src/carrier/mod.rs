//! `ClientAddr` -> `CarrierMatch` -> `RawIdentifier`.
//!
//! In: a head whose host is ours, and who asks. Out: the identifier that the carrier's gateway wrote, or the one
//! reason why there is none. What holds afterwards: the source network chose the profile, headers had no say in
//! it. Carriers are data (`builtin.toml`, and what the operator writes); no other file branches on one. Absent on
//! purpose: hashing, logging, sessions.

mod build;
mod builtin;
mod explain;
mod grammar;
mod identifier;
mod identify;
mod profile;
mod ranges;
mod reserved;
mod spec;
mod user_agent;

pub use explain::{explain_lines, identify_request, user_agent_lines};
pub use identifier::RawIdentifier;
pub use identify::{Carriers, IdentificationRefusal};
pub use profile::{CarrierName, Charset, Markup, OverTls, Profile};
pub use reserved::ReservedFields;
pub use spec::{Networks, ProfileSpec, RequiredQuery, SpecProblem};
pub use user_agent::{UserAgent, UserAgentKind};
