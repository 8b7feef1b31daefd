//! Following the peers: one task for each, which asks for its changes whenever it is up, and again
//! when something is missing.
//!
//! A peer that says what it may not, or nothing for [`SILENT`], is asked anew after a pause that
//! grows from [`PAUSE_MIN`] to [`PAUSE_MAX`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use anycast_core::mesh::transport::MeshHandle;
use anycast_core::mesh::transport::frames::FrameError;
use anycast_core::mesh::transport::streams::{OpenError, Purpose, StreamError};
use anycast_core::service::NodeName;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::serve::{ServeError, write};
use crate::sync::wire::{MAX_FRAME, Message, WireError};

/// A frame is whole after so long.
const FRAME: Duration = Duration::from_secs(20);
/// A peer says where it stands every second.
const SILENT: Duration = Duration::from_secs(10);
/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Whoever has been followed for so long begins with the shortest pause again.
const STEADY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Ask(#[from] ServeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it said nothing for {SILENT:?}")]
    Silent,
    #[error("it said something that was not asked for")]
    Other,
    #[error("it ended the stream")]
    Ended,
}

/// Follows one peer for ever.
pub(super) async fn follow(shared: Arc<Shared>, mesh: MeshHandle, peer: NodeName) {
    let mut views = mesh.views();
    let mut pause = PAUSE_MIN;
    loop {
        while !mesh.is_up(&peer) {
            if views.changed().await.is_err() {
                return;
            }
        }
        let began = Instant::now();
        shared.with(|replica| replica.handle_peer_up(began, &peer));
        let ended = attend(&shared, &mesh, &peer).await;
        shared.with(|replica| replica.handle_peer_down(&peer));
        // Perhaps it was the only one that differed.
        shared.note_agreement();
        if began.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        if let Err(error) = &ended {
            tell(&peer, error);
        }
        let rest = sleep(pause);
        tokio::pin!(rest);
        pause = (pause * 2).min(PAUSE_MAX);
        loop {
            // It has gone, and what it does when it is back is another matter.
            if !mesh.is_up(&peer) {
                pause = PAUSE_MIN;
                break;
            }
            tokio::select! {
                () = &mut rest => break,
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// A connection that ends is told by the mesh; what a peer does wrong is told here.
fn tell(peer: &NodeName, error: &FollowError) {
    match error {
        FollowError::Open(_)
        | FollowError::Ask(ServeError::Stream(StreamError::Lost(_)))
        | FollowError::Frame(FrameError::Stream(_))
        | FollowError::Ended => {
            tracing::debug!(%peer, %error, "following a peer ended");
        }
        FollowError::Ask(_)
        | FollowError::Frame(_)
        | FollowError::Wire(_)
        | FollowError::Silent
        | FollowError::Other => {
            tracing::warn!(%peer, %error, "what a peer says of its files cannot be used");
        }
    }
}

/// Asks, listens, and asks again when the replica misses something. Ends with an error.
async fn attend(
    shared: &Arc<Shared>,
    mesh: &MeshHandle,
    peer: &NodeName,
) -> Result<(), FollowError> {
    let again = shared.follows(peer);
    loop {
        // What it asked for until now is asked with this. A peer that gives reason to ask, over and
        // over, is not asked more often for it.
        let pause = sleep(PAUSE_MIN);
        let asked = again.notified();
        tokio::pin!(asked);
        asked.as_mut().enable();
        let asked = async {
            asked.await;
            pause.await;
        };
        tokio::pin!(asked);
        let (mut sender, mut receiver) = mesh.open(peer, Purpose::Files).await?;
        let follow = shared.replica().follow(peer);
        write(&mut sender, &Message::Follow(follow)).await?;
        loop {
            let frame = tokio::select! {
                frame = timeout(SILENT, receiver.read_frame(MAX_FRAME, FRAME)) => frame,
                () = &mut asked => break,
            };
            let frame = frame.map_err(|_| FollowError::Silent)??;
            let frame = frame.ok_or(FollowError::Ended)?;
            let now = Instant::now();
            match Message::decode(&frame)? {
                Some(Message::Page(page)) => {
                    shared.with(|replica| replica.handle_page(now, peer, &page));
                }
                Some(Message::Head(head)) => {
                    shared.with(|replica| replica.handle_head(now, peer, head));
                    shared.note_agreement();
                }
                // Of a later version.
                None => {}
                Some(_) => return Err(FollowError::Other),
            }
        }
    }
}

/// Tells every peer that is up which generations clients have begun with. A notice that does not
/// reach a peer costs a client of it a mixed boot at worst, as without any.
pub(super) async fn tell_affinity(shared: Arc<Shared>, peers: Vec<NodeName>) {
    loop {
        shared.noticed.notified().await;
        let notices = shared.affinity().poll_notices();
        if notices.is_empty() {
            continue;
        }
        let message = Message::Affinity(notices);
        for peer in peers.iter().filter(|peer| shared.is_up(peer)) {
            let sent = async {
                let (mut sender, _) = shared.stream_to(peer).await.ok()?;
                write(&mut sender, &message).await.ok()?;
                sender.finish().ok()
            };
            let _ = sent.await;
        }
    }
}
