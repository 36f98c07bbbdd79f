//! The only place that knows the order of the stages.
//!
//! `handle` is where a request comes in; `login` is the file that a newcomer opens first. A request that is proxied
//! goes through `session_check` and `forward` and touches nothing else here.

mod access_line;
mod arrival;
mod authorize;
mod behind;
mod bind_ticket;
mod canary;
mod catch_up;
mod certificates;
mod console;
mod descriptors;
mod enrol;
mod form;
mod form_token;
mod forward;
#[cfg(fuzzing)]
pub mod fuzz;
mod handle;
mod handshake;
mod last_minute;
mod limits;
mod listeners;
mod local_path;
mod log_days;
mod login;
mod logout;
mod me;
mod me_add;
mod me_data;
mod me_pin;
mod me_remove;
mod news;
mod notice;
mod opening;
mod own_pages;
mod pin;
mod policy;
mod posture;
mod reload;
mod respond;
mod restore;
mod self_test;
mod sent;
mod serve;
mod session_check;
mod startup;
mod state;
mod statement;
mod status;
mod ticket;
mod to_the_end;
mod underway;
mod unlock;
mod upkeep;
mod url_session;
mod visit;
mod watchdog;
mod wellknown;

pub use handle::Worker;
pub use listeners::Listening;
pub use restore::{RestoreError, Restored, restore};
pub use serve::{check, serve};
pub use startup::{Running, inspect};
pub use state::{Gateway, Parts, Setting};
