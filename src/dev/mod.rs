//! `sekisho dev`: the real gateway, a sample console and simulated carrier gateways, all on loopback.
//!
//! [`run`] lays out one folder (configuration, KEK, certificates, store), starts the gateway of this very program
//! from it, and puts two things beside it that a newcomer has not got: an upstream (`console`) and handsets
//! (`handset`) whose carrier (`carrier`) is simulated, seen through one web page (`simulator`). The gateway
//! knows nothing of this folder; everything here meets it over HTTP or over its admin socket.
//!
//! Absent on purpose: identifiers at rest. Those of the simulated handsets are derived from a seed when they are
//! needed, so that no file in the folder holds one.

mod carrier;
mod certificates;
mod console;
mod cookies;
mod exchange;
mod folder;
mod form;
mod handset;
mod ports;
mod run;
mod serve;
mod simulator;

pub use run::run;
