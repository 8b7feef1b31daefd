//! File sync as it runs: real meshes on the loopback, real folders, and peers that mean harm.
#![cfg(feature = "sync")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a peer answers what its test is about, and nothing else"
)]

mod contents;
mod folder;
mod identity;
mod nodes;
mod pages;
mod restart;
mod streams;
mod suite;
mod through;
