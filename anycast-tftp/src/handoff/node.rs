//! The server engine of one node, together with what it knows of the others.

use std::time::Instant;

use anycast_core::NodeName;

use super::Fleet;
use crate::proto::jobs::{StoreReply, StoreRequest};
use crate::proto::server::{Server, Timeout, Transmit};
use crate::proto::settings::{Settings, SettingsError};
use crate::proto::stats::Stats;
use crate::proto::{Flow, TransferRecord};

/// See the [module documentation](super).
#[derive(Debug)]
pub struct Node {
    server: Server,
}

impl Node {
    /// A node without transfers. Without a fleet it is the server engine alone.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        _now: Instant,
        settings: Settings,
        _fleet: Option<Fleet>,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            server: Server::new(settings)?,
        })
    }

    /// Replaces the settings for new transfers.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing has changed then.
    pub fn handle_settings(&mut self, settings: Settings) -> Result<(), SettingsError> {
        self.server.handle_settings(settings)
    }

    /// Takes a datagram of a client, whatever is in it.
    pub fn handle_datagram(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        self.server.handle_datagram(now, flow, datagram);
    }

    /// Takes the answer to a store request, however late.
    pub fn handle_store_reply(&mut self, now: Instant, reply: StoreReply) {
        self.server.handle_store_reply(now, reply);
    }

    /// Time has passed. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }

    /// A peer can be reached, or no more. All are down at first.
    pub fn handle_peer(&mut self, _now: Instant, _peer: &NodeName, _is_up: bool) {}

    /// Takes what a peer sent, whatever is in it.
    pub fn handle_message(&mut self, _now: Instant, _peer: &NodeName, _message: &[u8]) {}

    /// This node drains, or does no more: peers take its transfers over as their clients come to them.
    pub fn handle_draining(&mut self, _now: Instant, _is_draining: bool) {}

    /// What a peer is to be told, of at most [`MAX_MESSAGE`](super::limits::MAX_MESSAGE) bytes. It
    /// may be lost.
    pub fn poll_message(&mut self, _now: Instant) -> Option<(NodeName, Vec<u8>)> {
        None
    }

    /// Something for a store to do.
    pub fn poll_store_request(&mut self) -> Option<StoreRequest> {
        self.server.poll_store_request()
    }

    /// As [`Server::poll_transmit`].
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        self.server.poll_transmit(now, max_segments, buf)
    }

    /// The record of a transfer that ended here.
    pub fn poll_event(&mut self) -> Option<TransferRecord> {
        self.server.poll_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, at the earliest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        self.server.poll_timeout()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.server.stats()
    }

    /// Transfers that have not ended and that this node is to end.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.server.in_flight()
    }
}
