//! What this node says of itself, and what peers ask it for: the way between the mesh and a node that
//! takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::drive::Inbox;
use crate::mesh::engine::turns::Part;
use crate::mesh::engine::{Answer, Output, TurnsView};
use crate::mesh::wire::{Clients, DataStatus, ServiceStatus};
use crate::service::ServiceName;

/// Requests for promises, and promises, on their way to the node.
pub const CONSENT: usize = 256;

/// What this node says of itself.
#[derive(Debug, Clone, Default)]
pub(in crate::mesh) struct Said {
    pub(in crate::mesh) services: Vec<ServiceStatus>,
    /// When: `failing_for` is counted on from here.
    pub(in crate::mesh) at: Option<Instant>,
    pub(in crate::mesh) wants: BTreeSet<ServiceName>,
    /// Those that take part in turns, and what they need.
    pub(in crate::mesh) parts: BTreeMap<ServiceName, Part>,
    pub(in crate::mesh) data: Vec<DataStatus>,
    pub(in crate::mesh) clients: Option<Clients>,
}

/// Where a node takes part: what it says, and what peers ask it.
#[derive(Debug, Clone)]
pub(in crate::mesh) struct Line {
    pub(in crate::mesh) said: watch::Sender<Said>,
    pub(super) answers: mpsc::Sender<Inbox>,
    pub(super) asks: watch::Sender<Option<mpsc::Sender<Output>>>,
    /// Whose turn it is.
    pub(in crate::mesh) turns: watch::Receiver<TurnsView>,
}

impl Line {
    /// [`Output::Asked`] and [`Output::Granted`] come here from now on.
    pub(in crate::mesh) fn listen(&self) -> mpsc::Receiver<Output> {
        let (tell, asks) = mpsc::channel(CONSENT);
        self.asks.send_replace(Some(tell));
        asks
    }

    /// Answers [`Output::Asked`].
    pub(in crate::mesh) async fn answer(&self, answer: Answer) {
        // The mesh has gone: there is nobody to tell.
        let _ = self.answers.send(Inbox::Answer(answer)).await;
    }
}
