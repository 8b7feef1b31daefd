//! Datagrams between two nodes: a byte, the [`Purpose`], and what its users say. They may be lost,
//! doubled and out of order; they are authentic and of one packet (RFC 9221).
//!
//! # Queues
//!
//! | queue | holds | when it is full |
//! |---|---|---|
//! | [`DATAGRAMS`], of each peer and purpose | what came and nobody has taken | the newest is dropped, and counted ([`Datagrams::dropped`]) |
//! | [`SEND_BUFFER`], of each connection | what has not been sent | the oldest is dropped |

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::{Connection, SendDatagramError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::streams::Purpose;
use crate::service::NodeName;

/// Datagrams of one peer and purpose that wait for their reader.
pub const DATAGRAMS: usize = 256;
/// Bytes of datagrams to one peer that wait to be sent.
pub const SEND_BUFFER: usize = 256 << 10;
/// Bytes of datagrams of one peer, before they are told apart by purpose.
pub(super) const RECEIVE_BUFFER: usize = 256 << 10;

/// Why a datagram does not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The peer is not up, or is none.
    #[error("peer {0} is not up")]
    Down(NodeName),
    /// Longer than the way to it takes now.
    #[error("a datagram of {length} bytes; {peer} takes at most {max}")]
    Long {
        /// The peer.
        peer: NodeName,
        /// Its length.
        length: usize,
        /// The longest.
        max: usize,
    },
    /// The peer takes none.
    #[error("{0} takes no datagrams")]
    None(NodeName),
}

pub(super) fn send(
    connection: &Connection,
    peer: &NodeName,
    purpose: Purpose,
    bytes: &[u8],
) -> Result<(), DatagramError> {
    let mut whole = BytesMut::with_capacity(1 + bytes.len());
    whole.put_u8(purpose.number());
    whole.extend_from_slice(bytes);
    connection
        .send_datagram(whole.freeze())
        .map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::Long {
                peer: peer.clone(),
                length: bytes.len(),
                max: longest(connection).unwrap_or(0),
            },
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DatagramError::None(peer.clone())
            }
            SendDatagramError::ConnectionLost(_) => DatagramError::Down(peer.clone()),
        })
}

pub(super) fn longest(connection: &Connection) -> Option<usize> {
    connection.max_datagram_size()?.checked_sub(1)
}

#[derive(Debug)]
struct Datagram {
    peer: NodeName,
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

/// Datagrams of one purpose that come from the peers.
#[derive(Debug)]
pub struct Datagrams {
    queue: mpsc::Receiver<Datagram>,
    dropped: Arc<AtomicU64>,
}

impl Datagrams {
    /// The next one, and who sent it; `None` once the mesh has stopped, or when the purpose was
    /// taken by a later call. Cancellation loses none.
    pub async fn next(&mut self) -> Option<(NodeName, Bytes)> {
        let Datagram { peer, bytes, .. } = self.queue.recv().await?;
        Some((peer, bytes))
    }

    /// How many came and were dropped because [`DATAGRAMS`] of their peer waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Who takes datagrams of which purpose.
#[derive(Debug, Default)]
pub(super) struct Letterboxes(Mutex<BTreeMap<Purpose, Letters>>);

#[derive(Debug)]
struct Letters {
    queue: mpsc::Sender<Datagram>,
    dropped: Arc<AtomicU64>,
    places: BTreeMap<NodeName, Arc<Semaphore>>,
}

impl Letterboxes {
    pub(super) fn take(&self, purpose: Purpose, peers: usize) -> Datagrams {
        let (queue, waiting) = mpsc::channel(DATAGRAMS * peers.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let own = Letters {
            queue,
            dropped: Arc::clone(&dropped),
            places: BTreeMap::new(),
        };
        let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        boxes.insert(purpose, own);
        Datagrams {
            queue: waiting,
            dropped,
        }
    }

    /// Nobody takes any more.
    pub(super) fn close(&self) {
        let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        boxes.clear();
    }

    /// One has come; one of a later version, or that nobody takes, is dropped.
    pub(super) fn deliver(&self, peer: &NodeName, mut bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let number = bytes.split_to(1);
        let purpose = number.first().copied().and_then(Purpose::from_number);
        let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = purpose.and_then(|purpose| boxes.get_mut(&purpose)) else {
            return;
        };
        let places = own
            .places
            .entry(peer.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(DATAGRAMS)));
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            own.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // It is only refused when its reader is gone: there is room for all places.
        let _ = own.queue.try_send(Datagram {
            peer: peer.clone(),
            bytes,
            _place: place,
        });
    }
}
