//! In the place of `bucket.rs` without the feature `object-store`: there is never one.

use std::ops::Range;
use std::sync::Arc;

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::{Failed, Piece};
use super::{FileSyncConfig, Shared, StartError};
use crate::sync::content::ContentId;
use crate::sync::wire::ReadItem;

pub(super) enum Bucket {}

#[allow(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_ref_mut,
    reason = "as with the feature"
)]
pub(super) fn prepare(_config: &mut FileSyncConfig) -> Result<Option<Bucket>, StartError> {
    Ok(None)
}

#[allow(
    clippy::unused_async,
    clippy::needless_pass_by_value,
    reason = "as with the feature"
)]
impl Bucket {
    pub(super) fn is(&self, _peer: &NodeName) -> bool {
        match *self {}
    }

    pub(super) async fn receive(
        &self,
        _shared: &Shared,
        _items: &[ReadItem],
        _pieces: mpsc::Sender<Piece>,
    ) -> Result<(), Failed> {
        match *self {}
    }

    pub(super) async fn read_range(
        &self,
        _content: ContentId,
        _range: Range<u64>,
    ) -> Result<Vec<u8>, String> {
        match *self {}
    }
}

#[derive(Clone)]
pub(super) enum Keeper {}

#[allow(clippy::unused_async, reason = "as with the feature")]
impl Keeper {
    pub(super) fn start(_shared: &Arc<Shared>, _tasks: &mut JoinSet<()>) -> Option<Self> {
        None
    }

    pub(super) fn trouble(&self) -> Option<Reason> {
        match *self {}
    }

    pub(super) async fn sent(&self) -> u64 {
        match *self {}
    }

    pub(super) async fn look(&self) -> Result<(), Reason> {
        match *self {}
    }
}
