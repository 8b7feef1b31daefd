//! The tasks that dial.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint};
use tokio::time::{sleep, timeout};

use super::drive::Inbox;
use super::link::{close, owner, serve};
use super::{BACK_OFF_MAX, BACK_OFF_MIN, HANDSHAKE_TIME, PeerConfig, STEADY, Shared};
use crate::health::Reason;

/// Dials one peer for as long as the mesh runs.
pub(super) async fn dial(endpoint: Endpoint, peer: PeerConfig, shared: Arc<Shared>) {
    let mut pause = BACK_OFF_MIN;
    let mut last = String::new();
    loop {
        match connect(&endpoint, &peer, &shared).await {
            Ok(connection) => {
                last.clear();
                let began = Instant::now();
                serve(connection, peer.name.clone(), true, &shared).await;
                // One who lets this node in only to cut it off is not dialled the quicker for it.
                if began.elapsed() >= STEADY {
                    pause = BACK_OFF_MIN;
                }
            }
            Err(error) => {
                // The same again is no news.
                if error != last {
                    let (peer, address) = (&peer.name, peer.address);
                    let error = Reason::new(&error);
                    tracing::warn!(%peer, %address, %error, "no connection; dialling on");
                    // The engine has gone: there is nobody to tell.
                    let failed = Inbox::Failed(peer.clone(), error);
                    let _ = shared.inbox.send(failed).await;
                }
                last = error;
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

async fn connect(
    endpoint: &Endpoint,
    peer: &PeerConfig,
    shared: &Shared,
) -> Result<Connection, String> {
    let connecting = endpoint.connect(peer.address, "anycast-mesh");
    let connecting = connecting.map_err(|error| error.to_string())?;
    let connected = timeout(HANDSHAKE_TIME, connecting).await;
    let connection = connected
        .map_err(|_| format!("no handshake within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    match owner(&connection, &shared.pins) {
        Some(name) if name == peer.name => Ok(connection),
        Some(name) => {
            close(&connection, "another peer was expected at this address");
            Err(format!("{name} answers there"))
        }
        None => Err("no key of a peer".to_owned()),
    }
}

/// Between three quarters of it and five.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let part = u32::try_from(random % 512).unwrap_or_default();
    pause * 3 / 4 + pause / 1024 * part
}
