//! The trait [`Sync`]: data that must be the same at every site before a site may attract
//! clients (files, leases).
//!
//! It is written `sync::Sync`, as one writes `fmt::Result`, and is never re-exported at the
//! crate root: imported bare it would shadow [`std::marker::Sync`].

use std::time::Duration;

use async_trait::async_trait;

use crate::health::Reason;
use crate::service::NodeName;

/// What one synchronised data set says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// Whether this node may be preferred as far as this data set is concerned.
    pub ready: bool,
    /// Why, in words for an operator.
    pub reason: Reason,
    /// The peers this node compares itself with, in order of name.
    pub peers: Vec<PeerStatus>,
}

impl Status {
    /// A status without peers; add them to [`peers`](Self::peers).
    #[must_use]
    pub fn new(ready: bool, reason: impl Into<Reason>) -> Self {
        Self {
            ready,
            reason: reason.into(),
            peers: Vec::new(),
        }
    }
}

/// How one peer's copy compares with ours.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerStatus {
    /// The peer.
    pub peer: NodeName,
    /// How far this node is behind that peer.
    pub lag: Lag,
}

/// How far this node's copy is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Lag {
    /// Nothing is missing here.
    None,
    /// So many items (files, lease records) are missing, the oldest for so long.
    Behind {
        /// Missing items: at least one.
        items: u64,
        /// Age of the oldest missing item.
        age: Duration,
    },
    /// The other copy has not been heard of; nothing is known.
    Unknown,
}

/// What [`Sync::force`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Forced {
    /// Items compared.
    pub compared: u64,
    /// Items fetched from peers.
    pub fetched: u64,
    /// Items sent to peers.
    pub sent: u64,
    /// Items removed here because they were deleted elsewhere.
    pub removed: u64,
}

/// Why a synchronisation could not be asked or forced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No peer could be reached. Nothing was changed.
    #[error("{data_set}: no peer can be reached: {reason}")]
    Unreachable {
        /// Which data set.
        data_set: String,
        /// What was tried.
        reason: Reason,
    },
    /// The local store failed. What was already applied stays, each item whole.
    #[error("{data_set}: the local store failed")]
    Store {
        /// Which data set.
        data_set: String,
        /// The store's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + std::marker::Sync>,
    },
}

/// Data kept equal between nodes.
///
/// To fail-safe an `Err` of [`status`](Self::status) or [`lag`](Self::lag) is `Unknown`: it
/// neither lowers a node that is preferred nor lets one rise that is not.
#[async_trait]
pub trait Sync: Send + std::marker::Sync {
    /// Whether this copy is fit to be served from, and why.
    ///
    /// Answers from memory, within 100 ms, without asking peers. Cancel-safe, idempotent.
    ///
    /// # Errors
    /// [`SyncError::Store`] when the local state cannot be read.
    async fn status(&self) -> Result<Status, SyncError>;

    /// How far this node is behind the furthest copy it knows of.
    ///
    /// The same promises as [`status`](Self::status).
    ///
    /// # Errors
    /// [`SyncError::Store`] when the local state cannot be read.
    async fn lag(&self) -> Result<Lag, SyncError>;

    /// Reconciles completely with every reachable peer now, and says what was done.
    ///
    /// May take as long as the data takes to move. Idempotent: a second call finds nothing
    /// to do. Dropping the future stops the work between two items; every item is either
    /// whole or absent. Never removes anything because a peer's list is absent or empty
    /// (F10): only an explicit deletion removes.
    ///
    /// # Errors
    /// [`SyncError::Unreachable`] when there is nobody to reconcile with,
    /// [`SyncError::Store`] when the local store failed.
    async fn force(&self) -> Result<Forced, SyncError>;
}
