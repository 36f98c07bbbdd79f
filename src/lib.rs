//! Sekisho: a mobile device-ID authentication gateway.
//!
//! A reverse proxy in front of an admin console. It signs handsets in by the identifier that their
//! carrier's gateway puts into the request, binds it to an account through keyed hashes, and tells the
//! upstream who is there by one signed assertion. Read the modules in this order; it is the order in
//! which a request meets them.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod config;

pub mod edge;

pub mod carrier;

pub mod keys;

pub mod binding;

pub mod rotation;

pub mod session;

pub mod assertion;

pub mod upstream;

pub mod links;

pub mod pages;

pub mod gateway;

pub mod receipt;

pub mod store;

pub mod backup;

pub mod audit;

pub mod privacy;

pub mod admin;

pub mod cli;

pub mod dev;

pub mod logs;

pub mod telemetry;

#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "what is recorded leaves by the feature alone"))]
pub mod trace;

pub mod body;
pub mod refusal;
pub mod tls;

pub mod clock;
pub mod entropy;
pub mod secret;
