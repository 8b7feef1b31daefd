//! TFTP for anycast services: protocol engines without IO, a single-port server, a client,
//! stores of files, and the `tftp` health check.
//!
//! | module | what it is | feature |
//! |---|---|---|
//! | [`handoff`] | transfers that survive a route move: what nodes tell each other of them; as pure | |
//! | [`proto`] | packets, options, netascii, and the server and client engines: no socket, no clock, no runtime | |
//! | [`store`] | where bytes come from and go to: [`store::MemoryStore`], and `FsStore` below one root | `fs` for the latter |
//! | [`sync`] | files that are the same at every site: manifest, merge, transfer | `sync` for what touches disks and peers |
//! | `server` | the UDP server: sockets, batching, the blocking pool; the way to the servers of other nodes | `server`; `mesh` for the last |
//! | `client` | the UDP client | `client` |
//! | `health` | the `tftp` health check | `check` |
//!
//! Protocols: RFC 1350 (TFTP), 2347 (options), 2348 (`blksize`), 2349 (`timeout`, `tsize`),
//! 7440 (`windowsize`); octet and netascii; IPv4 and IPv6. The whole transfer runs from the
//! port that the request was sent to, so it passes stateful firewalls and load balancers.

#[cfg(feature = "client")]
pub mod client;
pub mod handoff;
#[cfg(feature = "check")]
pub mod health;
pub mod proto;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
pub mod sync;
