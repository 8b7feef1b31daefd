//! The doctor on real daemons: the samples of `examples/routing` are found clean, and each trap
//! that is put into them is named.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them, and daemons run in real time"
)]

mod bird;
mod frr;
mod support;
