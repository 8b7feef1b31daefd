//! The nodes of a fleet, talking to each other: who is there, how each is, what time it is there.
//!
//! # Contract
//!
//! - A peer is configured by its name, its *unicast* address and the fingerprint of its key; two
//!   fingerprints while a key is exchanged. There is no certificate authority, and no name but the
//!   one that a key stands for. See [`identity`].
//! - Nodes speak QUIC with TLS 1.3 and prove their keys to each other. A key that is not configured
//!   never gets beyond the handshake.
//! - Of two nodes the one whose name is the lower dials, again and again, with back-off and jitter.
//! - What is said, and in which versions, is in [`wire`]; who may say it, and how often, in
//!   [`engine`]. Both are pure.
//! - A peer that is unknown, slow, silent, hostile or away costs the others nothing: each has its
//!   own tasks and queues, and none of the node's decisions waits for any.
//!
//! # Tasks
//! See [`transport`].

pub mod clock;
pub mod engine;
pub mod fleet;
pub mod identity;
mod status;
mod tls;
pub mod transport;
pub mod wire;
