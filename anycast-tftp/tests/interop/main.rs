//! Other people's clients against our server, and our client against another server.
//!
//! Every file is compared byte for byte. A program that is missing fails its tests with the
//! package to install. Everything happens on 127.0.0.1 and ::1, on ports of the moment.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests drive real programs"
)]

#[path = "../common/mod.rs"]
mod common;

mod atftp;
mod busybox;
mod curl;
mod own_client;
mod program;
mod site;
mod tftp_hpa;
