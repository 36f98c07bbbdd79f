//! `sekisho dev`: the real gateway, a sample console and simulated carrier gateways on loopback.
