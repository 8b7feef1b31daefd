//! The protocol without IO: no socket, no clock, no runtime, no randomness. Time comes in as
//! an argument; what is to be sent, read and written comes out.
//!
//! | module | what it is |
//! |---|---|
//! | [`packet`], [`options`], [`netascii`] | the wire |
//! | [`transfer`], [`rtt`] | block numbers, windows and waiting times of one transfer |
//! | [`server`] | the server engine: many transfers in one table |
//! | [`settings`], [`stats`] | what the server engine may do, and what it did |
//! | [`client`] | the client engine: one transfer |
//! | [`jobs`] | what the server engine asks of a store |

pub mod client;
pub mod jobs;
pub mod netascii;
pub mod options;
pub mod packet;
pub mod rtt;
pub mod server;
pub(crate) mod session;
pub mod settings;
pub mod stats;
mod table;
mod timers;
pub mod transfer;

pub use session::{Direction, Outcome, TransferRecord};
pub use table::Flow;
