//! The announcers of BIRD and FRR on the real daemons, beside a router that counts what it
//! hears; and before what is no daemon at all.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them, and daemons run in real time"
)]

mod bird;
mod frr;
mod hostile;
mod include;
mod ospf;
mod route_map;
mod support;
