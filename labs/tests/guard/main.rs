//! `anycast-guard` with real daemons behind it: what lowers a service, what does not, and what
//! a killed guard leaves behind.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells its state by printing"
)]

mod daemons;
mod node;
mod restart;
mod story;
mod unknown;
