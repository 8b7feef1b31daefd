//! Watches what the kernel drops before the server sees it: requests lost in a boot storm.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::socket::{Bound, drops};
use super::{DROPS_EVERY, Shared};

/// Asks the kernel at every interval, on a thread that may wait, and warns when it dropped
/// more. Never ends.
pub(super) fn watch(
    sockets: &[Bound],
    shared: Arc<Shared>,
) -> impl Future<Output = Infallible> + use<> {
    let found = sockets
        .iter()
        .map(|socket| Ok((socket.address(), socket.inode()?)))
        .collect::<std::io::Result<Arc<[_]>>>();
    async move {
        let sockets = match found {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::warn!(%error, "what the kernel drops will not be known");
                return std::future::pending().await;
            }
        };
        loop {
            let wanted = Arc::clone(&sockets);
            let asked = tokio::task::spawn_blocking(move || drops::read(&wanted)).await;
            match asked {
                Ok(Ok(now)) => tell(&sockets, &shared, now),
                Ok(Err(error)) => tracing::debug!(%error, "cannot ask what the kernel dropped"),
                Err(error) => tracing::debug!(%error, "the runtime ends"),
            }
            tokio::time::sleep(DROPS_EVERY).await;
        }
    }
}

fn tell(sockets: &[(SocketAddr, u64)], shared: &Shared, now: Vec<u64>) {
    let mut known = shared.drops.lock().unwrap_or_else(PoisonError::into_inner);
    for ((address, _), (now, before)) in sockets.iter().zip(now.iter().zip(known.iter())) {
        let dropped = now.saturating_sub(*before);
        if dropped > 0 {
            tracing::warn!(%address, dropped, total = now, "the kernel dropped datagrams: the receive buffer was full");
        }
    }
    *known = now;
}
