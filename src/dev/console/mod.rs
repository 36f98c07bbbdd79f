//! The sample admin console: an upstream as one should be.
//!
//! [`admission`] lets a request in only for the assertion in it, verified with [`gateway_keys`]; [`screens`] are what
//! a hosting company's customer sees, over the invented data of [`sample`]. [`login`] is a second way in, by password.
//! It never learns an identifier, and shows on a page of its own everything that it did learn.

mod admission;
mod gateway_keys;
mod login;
mod sample;
mod screens;

pub(super) use admission::{LastTold, Told};
pub(super) use gateway_keys::GatewayKeys;
pub(super) use login::Login;
pub(super) use screens::router;
