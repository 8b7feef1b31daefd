//! Data sets: how they are shown, and the order to reconcile one.

use std::sync::Arc;
use std::time::Duration;

use anycast_core::service::NodeName;
use anycast_core::sync::{self, Forced, Lag, PeerStatus, Status, SyncError};
use async_trait::async_trait;
use tokio::sync::Notify;

use crate::support::{Endpoint, JSON, Reply, post};

/// Behind by two files; what it is told to reconcile it begins at once, and ends when it may.
#[derive(Debug, Default)]
pub(crate) struct Files(pub(crate) Arc<Notify>);

#[async_trait]
impl sync::Sync for Files {
    async fn status(&self) -> Result<Status, SyncError> {
        let mut status = Status::new(false, "2 files are missing");
        status.peers.push(PeerStatus {
            peer: NodeName::new("fra1").unwrap(),
            lag: self.lag().await?,
        });
        Ok(status)
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        let age = Duration::from_secs(3);
        Ok(Lag::Behind { items: 2, age })
    }

    async fn force(&self) -> Result<Forced, SyncError> {
        self.0.notified().await;
        Ok(Forced {
            fetched: 2,
            ..Forced::default()
        })
    }
}

#[tokio::test]
async fn a_data_set_says_how_it_is_and_what_differs() {
    let endpoint = Endpoint::start().await;
    let all = endpoint.get("/sync").await.json();
    assert_eq!(all["files"]["ready"], false);
    let one = endpoint.get("/sync/files").await.json();
    assert_eq!(one, all["files"]);
    assert_eq!(one["reason"], "2 files are missing");
    assert_eq!(one["peers"][0]["peer"], "fra1");
    let lag = serde_json::json!({"state": "behind", "items": 2, "age_s": 3.0});
    assert_eq!(one["lag"], lag);
    assert_eq!(one["peers"][0]["lag"], lag);
    assert_eq!(one["force"]["number"], 0);
    let diff = endpoint.get("/sync/files/diff").await.json();
    assert_eq!(diff["fra1"][0], "boot/linux");
    for path in ["/sync/leases", "/sync/files/other", "/sync/", "/syncs"] {
        assert_eq!(endpoint.get(path).await.status, 404, "{path}");
    }
    assert_eq!(endpoint.get("/sync/files/force").await.status, 405);
}

#[tokio::test]
async fn an_order_to_reconcile_is_answered_when_it_has_begun_and_tells_afterwards() {
    let endpoint = Endpoint::start().await;
    let headers = [("Host", "localhost"), JSON];
    let request = post("/sync/files/force", &headers, "{}");
    let refused = Reply::read(&endpoint.ask(&request).await);
    assert_eq!(refused.status, 403, "over TCP without a token: {refused:?}");
    for _ in 0..2 {
        let begun = Reply::read(&endpoint.ask_socket(&request).await);
        assert_eq!(begun.status, 200, "{begun:?}");
        assert_eq!(begun.json()["number"], 1, "a second order is the same one");
        assert_eq!(begun.json()["running"], true);
    }
    endpoint.files.notify_one();
    let done = async {
        loop {
            let force = endpoint.get("/sync/files").await.json()["force"].clone();
            if force["running"] == false {
                return force;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(crate::support::LIMIT, done).await;
    assert_eq!(done.unwrap()["did"]["fetched"], 2);
}
