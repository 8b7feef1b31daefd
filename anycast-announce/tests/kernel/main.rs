//! The kernel announcer against the real kernel, in network namespaces of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test talks to the kernel, and fails by panicking"
)]

mod adoption;
mod cancellation;
mod conformance;
mod levels;
mod refusal;
mod repair;
mod samples;
mod sharing;
mod support;
