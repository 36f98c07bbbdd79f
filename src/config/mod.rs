//! Text -> [`Config`]: shapes, then facts, once.
//!
//! In: one TOML file. Out: domain types that cannot be wrong, or every [`Finding`] at once. `document` finds
//! the line of every key, `raw` is what the user may write, `check` turns that into domain types; nothing past
//! this folder sees a raw shape. A finding never repeats what stands on its line: somebody may have pasted a
//! secret there. Absent on purpose: reading secrets and certificates, which start-up and `check` do next.

mod certificate_name;
mod check;
mod document;
mod duration;
mod finding;
mod in_force;
mod load;
mod log;
mod origin;
mod raw;
mod secret_source;
mod size;
mod trace;
mod types;

pub use certificate_name::CertificateName;
pub use check::parts;
pub use duration::Rate;
pub use finding::{Finding, Severity};
pub use in_force::InForce;
pub use load::Identification;
pub use log::{AccessFormat, AccessLog, ClientAddressDetail, LogConfig, LogLevel, PrivacyConfig, SecurityLog};
pub use origin::Origin;
pub use secret_source::{SecretError, SecretSource};
pub use trace::{CollectorUrl, TraceConfig, TraceSampling};
pub use types::*;
