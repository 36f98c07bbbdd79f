//! Logs and metrics: no identifier, digest, token, code, cookie or serial, ever.
//!
//! Three streams of JSON lines. `access` has a line a request ([`AccessLogger`]), `security` has what the security team
//! must see ([`security`]), `system` has everything else that the program says with `tracing`. What may stand in a line
//! is decided by types: no stream takes a request, a header or a store record.

mod access;
mod client;
mod common_log;
mod figures;
mod histogram;
mod json;
mod log;
mod log_choice;
mod metrics;
mod outcomes;
mod panic;
mod queue;
mod rotation_figures;
mod security;
mod security_file;
mod spread;
mod stdout;
mod upstreams;

pub use access::{ACCESS_FIELDS, Access, AccessLogger, Redirection};
pub use figures::Figures;
pub use histogram::Observed;
pub use log::{LogError, LogGuard, init, init_for_people};
pub use log_choice::{LogChoice, LogInForce, NoLogChoice, choose_log, configure_log, log_in_force};
pub use metrics::{METRIC_LABELS, Metrics};
pub use outcomes::{BindOutcome, PinOutcome, ReloadOutcome, SpanOutcome};
pub use panic::hide_panic_messages;
pub use security::{Actor, KeyAction, RotationStep, SECURITY_FIELDS, SecurityEvent, security};
pub use security_file::{
    SecurityRedirection, open_security_log, probe_security_log, security_day_over, security_log_trouble,
};
pub use upstreams::{ServerFigures, UpstreamLabels, UpstreamMetrics};
