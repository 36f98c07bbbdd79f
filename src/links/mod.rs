//! A session without cookies: its token goes into the links of what the browser is shown, and comes back by them.
//!
//! In: an answer on its way to a handset whose browser keeps no cookies. Out: the same answer, its same-site links
//! carrying `_sk` (and what the carrier must be asked with), its off-site links leading over `/_sekisho/leave`.
//! What holds afterwards: the token stands in URLs of our own origins and nowhere else; every other byte is the
//! upstream's; nothing was collected. Absent on purpose: who is signed in, and whether a token is believed.

mod body;
mod carry;
mod change;
mod discreet;
mod fields;
mod form_body;
mod forms;
#[cfg(fuzzing)]
pub mod fuzz;
mod leave;
mod markup;
mod mask;
mod plan;
mod query;
mod refresh;
mod sites;
mod stream;
mod text;

#[cfg(test)]
mod forms_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use body::LinkedBody;
pub use carry::{ask_plainly, carry};
pub use form_body::{FormEncoding, TokenEraser};
pub use leave::{LeaveLinks, Target};
pub use plan::LinkPlan;
pub use query::{UrlTokens, take_token};
pub use sites::OwnSites;
