//! An announcer and a health check of one's own, outside of the project's crates: what they
//! need is public, and the conformance suites of `anycast_core::testing` try them.
//!
//! - [`sets`]: an announcer that keeps sets of nftables, for a router or a firewall whose own
//!   rules steer by them.
//! - [`redis`]: a check that asks a Redis server on its Unix socket.

mod nft;
pub mod redis;
pub mod sets;
