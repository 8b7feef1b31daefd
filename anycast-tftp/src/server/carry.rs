//! Carries what servers say to each other over the mesh, in its datagrams for
//! [transfers](Purpose::Transfers).
//!
//! # Tasks
//!
//! | task | what it does | if it is slow |
//! |---|---|---|
//! | out | hands what the server says to the mesh, which sends it or drops it | [`DEPARTURES`](super::link::DEPARTURES) |
//! | in | hands what came to the engine that it is for | [`DATAGRAMS`](anycast_core::mesh::transport::datagrams::DATAGRAMS) of each peer |
//! | up | tells the server which peers can be reached | the latest counts |
//!
//! None of them waits for a peer, and there is no timer: a message is on its way as soon as it is said.
//! All end when [`Carrier`] is dropped, or when the mesh or the server stops.

use anycast_core::mesh::transport::{MeshHandle, Purpose};
use anycast_core::service::NodeName;
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::task::JoinSet;

use super::{FromPeers, ToPeers};

/// Carries until it is dropped. A message that is in the mesh by then is sent all the same.
#[derive(Debug)]
#[must_use = "dropped, it carries no more"]
pub struct Carrier {
    _tasks: JoinSet<()>,
}

/// Begins to carry. Must be called within a tokio runtime. Of two carriers of one mesh the first
/// hears nothing any more.
pub fn carry(mesh: &MeshHandle, (from, to): (FromPeers, ToPeers)) -> Carrier {
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(mesh.clone(), from.clone()));
    tasks.spawn(receive(mesh.clone(), from));
    tasks.spawn(send(mesh.clone(), to));
    Carrier { _tasks: tasks }
}

async fn send(mesh: MeshHandle, mut to: ToPeers) {
    while let Some((peer, message)) = to.next().await {
        if let Err(error) = mesh.send_datagram(&peer, Purpose::Transfers, &message) {
            to.count_unsent();
            tracing::trace!(%peer, %error, "a message was not sent");
        }
    }
}

async fn receive(mesh: MeshHandle, from: FromPeers) {
    let mut datagrams = mesh.datagrams(Purpose::Transfers);
    while let Some((peer, message)) = datagrams.next().await {
        from.deliver(&peer, message);
    }
}

async fn follow(mesh: MeshHandle, from: FromPeers) {
    let mut views = mesh.views();
    let mut known: BTreeMap<NodeName, Option<Instant>> = BTreeMap::new();
    loop {
        let now: Vec<_> = views
            .borrow_and_update()
            .iter()
            .map(|(peer, view)| (peer.clone(), view.up_since))
            .collect();
        for (peer, up_since) in now {
            let before = known.insert(peer.clone(), up_since).flatten();
            if before == up_since {
                continue;
            }
            // One that came back may be another process, which knows nothing.
            if before.is_some() {
                from.set_up(&peer, false);
            }
            if up_since.is_some() {
                from.set_up(&peer, true);
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}
