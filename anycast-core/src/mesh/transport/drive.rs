//! The engine's task.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use quinn::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::line::Said;
use super::link::close;
use super::{Connections, Views};
use crate::health::Reason;
use crate::mesh::engine::{Answer, ConnectionId, Engine, Output, TurnsView};
use crate::mesh::wire::Message;
use crate::service::NodeName;

/// What comes to the engine.
#[derive(Debug)]
pub(super) enum Inbox {
    Connected {
        peer: NodeName,
        id: ConnectionId,
        link: Link,
    },
    Message(NodeName, ConnectionId, Message),
    Closed(NodeName, ConnectionId, Reason),
    Answer(Answer),
    /// Dialling it failed.
    Failed(NodeName, Reason),
}

/// The way to the task of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) tell: mpsc::Sender<Message>,
    /// Told once the peer has said who it is.
    pub(super) up: Option<oneshot::Sender<()>>,
    /// Why the engine has ended it.
    pub(super) why: Option<Reason>,
}

/// The connections that stand, and those of them that are up.
struct Links {
    all: BTreeMap<ConnectionId, Link>,
    /// The last one of each peer.
    last: BTreeMap<NodeName, ConnectionId>,
    up: watch::Sender<Connections>,
    asks: Asks,
}

/// Where what peers ask and promise goes.
type Asks = watch::Receiver<Option<mpsc::Sender<Output>>>;

pub(super) async fn drive(
    mut engine: Engine,
    mut inbox: mpsc::Receiver<Inbox>,
    (mut said, asks): (watch::Receiver<Said>, Asks),
    (publish, publish_turns): (watch::Sender<Views>, watch::Sender<TurnsView>),
    up: watch::Sender<Connections>,
) {
    let mut links = Links {
        all: BTreeMap::new(),
        last: BTreeMap::new(),
        up,
        asks,
    };
    loop {
        let due = engine.poll_timeout().map(|(at, _)| at);
        let wait = async {
            match due {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = inbox.recv() => match item {
                None => return,
                Some(Inbox::Connected { peer, id, link }) => {
                    links.add(&peer, id, link);
                    engine.handle_connected(Instant::now(), &peer, id);
                }
                Some(Inbox::Message(peer, id, message)) => {
                    engine.handle_message(Instant::now(), wall(), &peer, id, message);
                }
                Some(Inbox::Closed(peer, id, reason)) => {
                    links.remove(&peer, id, &reason);
                    engine.handle_closed(Instant::now(), &peer, id, reason);
                }
                Some(Inbox::Failed(peer, reason)) => engine.handle_failed(&peer, reason),
                Some(Inbox::Answer(answer)) => engine.handle_answer(answer),
            },
            changed = said.changed() => {
                if changed.is_err() {
                    return;
                }
                let said = said.borrow_and_update().clone();
                let now = Instant::now();
                engine.handle_status(said.at.unwrap_or(now), said.services);
                engine.handle_data(now, said.data);
                engine.handle_clients(said.clients);
                engine.handle_wants(now, said.wants);
                engine.handle_parts(now, said.parts);
            }
            () = wait => {}
        }
        engine.handle_timeout(Instant::now(), wall());
        while let Some(output) = engine.poll_output() {
            links.carry_out(output);
        }
        let views: Views = engine
            .peers()
            .map(|(name, view)| (name.clone(), view))
            .collect();
        publish.send_if_modified(|old| {
            let is_new = *old != views;
            *old = views;
            is_new
        });
        let turns = engine.turns();
        publish_turns.send_if_modified(|old| {
            let is_new = *old != turns;
            *old = turns;
            is_new
        });
    }
}

impl Links {
    fn add(&mut self, peer: &NodeName, id: ConnectionId, link: Link) {
        self.all.insert(id, link);
        self.last.insert(peer.clone(), id);
        // The one before is replaced; this one is not up yet.
        self.set_down(peer);
    }

    fn remove(&mut self, peer: &NodeName, id: ConnectionId, reason: &Reason) {
        // Of one that was up the engine tells the end.
        let link = self.all.remove(&id).filter(|link| link.up.is_some());
        if let Some(link) = link {
            let reason = link.why.as_ref().unwrap_or(reason);
            tracing::warn!(%peer, %reason, "a connection ended before the peer was there");
        }
        if self.last.get(peer) == Some(&id) {
            self.last.remove(peer);
            self.set_down(peer);
        }
    }

    fn set_up(&mut self, peer: &NodeName) {
        let id = self.last.get(peer);
        let Some(link) = id.and_then(|id| self.all.get_mut(id)) else {
            return;
        };
        let connection = link.connection.clone();
        self.up.send_modify(|up| {
            up.insert(peer.clone(), connection);
        });
        if let Some(up) = link.up.take() {
            // Its task has ended already.
            let _ = up.send(());
        }
    }

    fn set_down(&self, peer: &NodeName) {
        self.up.send_if_modified(|up| up.remove(peer).is_some());
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(id, message) => {
                let Some(link) = self.all.get(&id) else {
                    return;
                };
                // Its task sees the end, and says so.
                if matches!(
                    link.tell.try_send(message),
                    Err(mpsc::error::TrySendError::Full(_))
                ) {
                    close(&link.connection, "it does not read what it is told");
                }
            }
            Output::Close(id, reason) => {
                if let Some(link) = self.all.get_mut(&id) {
                    close(&link.connection, reason.as_str());
                    link.why = Some(reason);
                }
            }
            Output::Up(peer) => {
                tracing::info!(%peer, "the peer is there");
                self.set_up(&peer);
            }
            Output::Down(peer, reason) => {
                tracing::warn!(%peer, %reason, "the peer is gone");
                self.set_down(&peer);
            }
            Output::Heard { .. } => {} // in the views
            Output::Asked { .. } | Output::Granted { .. } => {
                // Full, or nobody takes part: nothing is promised and nothing taken.
                if let Some(asks) = self.asks.borrow().as_ref() {
                    let _ = asks.try_send(output);
                }
            }
        }
    }
}

/// In microseconds since 1970.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}
