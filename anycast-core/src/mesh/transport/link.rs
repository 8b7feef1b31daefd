//! The task of a connection: the control stream both ways, and what the peer opens beside it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::drive::{Inbox, Link};
use super::streams::{PURPOSE_TIME, Purpose, Receiver, Refusal, Sender, refuse};
use super::{FRAME_TIME, HANDSHAKE_TIME, OUTBOX, Shared};
use crate::health::Reason;
use crate::mesh::engine::ConnectionId;
use crate::mesh::tls::Pins;
use crate::mesh::wire::{MAX_FRAME, Message};
use crate::service::NodeName;

pub(super) fn close(connection: &Connection, reason: &str) {
    connection.close(VarInt::from_u32(1), reason.as_bytes());
}

/// Whose key the connection has proven.
pub(super) fn owner(connection: &Connection, pins: &Pins) -> Option<NodeName> {
    let proven = connection.peer_identity()?;
    let chain = proven.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
    pins.owner(chain.ok()?.first()?).cloned()
}

/// One connection from its handshake to its end.
pub(super) async fn serve(
    connection: Connection,
    peer: NodeName,
    dialled: bool,
    shared: &Arc<Shared>,
) {
    let id = ConnectionId(shared.connections.fetch_add(1, Ordering::Relaxed));
    let (tell, outgoing) = mpsc::channel(OUTBOX);
    let (up, is_up) = oneshot::channel();
    let link = Link {
        connection: connection.clone(),
        tell,
        up: Some(up),
        why: None,
    };
    let connected = Inbox::Connected {
        peer: peer.clone(),
        id,
        link,
    };
    if shared.inbox.send(connected).await.is_err() {
        return;
    }
    let error = tokio::select! {
        ended = talk(&connection, &peer, id, dialled, outgoing, is_up, shared) => match ended {
            Ok(()) => "the node stops".to_owned(),
            Err(error) => error,
        },
        error = connection.closed() => error.to_string(),
    };
    close(&connection, &error);
    let closed = Inbox::Closed(peer, id, Reason::new(&error));
    // The engine has gone: there is nobody to tell.
    let _ = shared.inbox.send(closed).await;
}

async fn talk(
    connection: &Connection,
    peer: &NodeName,
    id: ConnectionId,
    dialled: bool,
    outgoing: mpsc::Receiver<Message>,
    is_up: oneshot::Receiver<()>,
    shared: &Arc<Shared>,
) -> Result<(), String> {
    let stream = async {
        if dialled {
            connection.open_bi().await
        } else {
            connection.accept_bi().await
        }
    };
    let stream = timeout(HANDSHAKE_TIME, stream).await;
    let (send, receive) = stream
        .map_err(|_| format!("no control stream within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    let beside = async {
        // Before it has said who it is, or never.
        if is_up.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            ended = take_streams(connection, peer, shared) => ended,
            ended = take_datagrams(connection, peer, shared) => ended,
        }
    };
    tokio::select! {
        ended = hear(Receiver::new(receive, None), peer, id, shared) => ended,
        ended = say(Sender::new(send, None, None), outgoing) => ended,
        ended = beside => ended,
    }
}

async fn say(mut stream: Sender, mut outgoing: mpsc::Receiver<Message>) -> Result<(), String> {
    while let Some(message) = outgoing.recv().await {
        let frame = message.encode().map_err(|error| error.to_string())?;
        let written = timeout(FRAME_TIME, stream.write_all(&frame)).await;
        let written = written.map_err(|_| "it does not read what it is told".to_owned())?;
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn hear(
    mut stream: Receiver,
    peer: &NodeName,
    id: ConnectionId,
    shared: &Shared,
) -> Result<(), String> {
    // Between two frames there may be silence, if not at first: who says nothing is no peer.
    loop {
        let frame = stream.read_frame(MAX_FRAME, FRAME_TIME).await;
        let frame = frame.map_err(|error| error.to_string())?;
        let frame = frame.ok_or("it has ended its control stream")?;
        let decoded = Message::decode(&frame).map_err(|error| error.to_string())?;
        let Some(message) = decoded else {
            continue; // of a later version
        };
        let inbox = Inbox::Message(peer.clone(), id, message);
        if shared.inbox.send(inbox).await.is_err() {
            return Ok(());
        }
    }
}

/// Their number is bounded by what the connection allows at once.
async fn take_streams(
    connection: &Connection,
    peer: &NodeName,
    shared: &Arc<Shared>,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let (send, receive) = stream.map_err(|error| error.to_string())?;
                tasks.spawn(take_stream(send, receive, peer.clone(), Arc::clone(shared)));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn take_stream(
    send: SendStream,
    mut receive: RecvStream,
    peer: NodeName,
    shared: Arc<Shared>,
) {
    let mut number = [0];
    let refusal = match timeout(PURPOSE_TIME, receive.read_exact(&mut number)).await {
        Ok(Ok(())) => match Purpose::from_number(number[0]) {
            Some(purpose) => return shared.ports.deliver(&peer, purpose, send, receive),
            None => Refusal::Unknown,
        },
        Ok(Err(_)) | Err(_) => Refusal::Late,
    };
    tracing::debug!(%peer, %refusal, number = number[0], "a stream was refused");
    refuse(send, receive, refusal);
}

async fn take_datagrams(
    connection: &Connection,
    peer: &NodeName,
    shared: &Shared,
) -> Result<(), String> {
    loop {
        let datagram = connection.read_datagram().await;
        let datagram = datagram.map_err(|error| error.to_string())?;
        shared.letterboxes.deliver(peer, datagram);
    }
}
