//! The decision about identifiers and the reading of User-Agent strings, against the published cases.

mod ident_cases;
mod profiles;
mod tools;
mod user_agents;
