//! Files that are kept in a bucket of a real S3 server.
#![cfg(feature = "object-store")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod bucket;
mod nodes;
mod s3;
mod suite;
