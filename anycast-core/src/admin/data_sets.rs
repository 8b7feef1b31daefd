//! The data sets of a node: how each compares with those of its peers, and the order to reconcile
//! it now.
//!
//! `force` may take as long as data takes to move, so that the order is answered when it has begun,
//! and what it did is read afterwards. One runs at a time for each data set; another order while it
//! runs is the same one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::service::NodeName;
use crate::sync::{Forced, Lag, PeerStatus, Sync, SyncError};

/// A data set of this node, for [`Admin::with_data_set`](super::Admin::with_data_set).
pub struct DataSet {
    name: &'static str,
    data: Arc<dyn Sync>,
    details: Option<Tell>,
    diff: Option<Tell>,
    run: Arc<Mutex<Run>>,
}

type Tell = Box<dyn Fn() -> serde_json::Result<Value> + Send + std::marker::Sync>;

impl std::fmt::Debug for DataSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataSet({})", self.name)
    }
}

/// The last order to reconcile, and what came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Run {
    /// Counts the orders since the start; 0: there was none.
    number: u64,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    did: Option<Forced>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What `GET /sync/NAME` answers.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Absent: it cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    reason: String,
    lag: LagShown,
    peers: Vec<PeerShown>,
    force: Run,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

#[derive(Debug, Serialize)]
struct PeerShown {
    peer: NodeName,
    lag: LagShown,
}

/// `state` is `none`, `behind` or `unknown`; the rest is there if it is behind.
#[derive(Debug, Serialize)]
struct LagShown {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_s: Option<f64>,
}

impl From<Lag> for LagShown {
    fn from(lag: Lag) -> Self {
        let (state, behind) = match lag {
            Lag::None => ("none", None),
            Lag::Behind { items, age } => ("behind", Some((items, age.as_secs_f64()))),
            Lag::Unknown => ("unknown", None),
        };
        Self {
            state,
            items: behind.map(|(items, _)| items),
            age_s: behind.map(|(_, age)| age),
        }
    }
}

impl From<PeerStatus> for PeerShown {
    fn from(PeerStatus { peer, lag }: PeerStatus) -> Self {
        let lag = lag.into();
        Self { peer, lag }
    }
}

impl DataSet {
    /// A data set of this name, which stands in paths: letters, digits and hyphens.
    #[must_use]
    pub fn new(name: &'static str, data: Arc<dyn Sync>) -> Self {
        Self {
            name,
            data,
            details: None,
            diff: None,
            run: Arc::default(),
        }
    }

    /// What it says of itself beside the rest: counts, troubles, conflicts. Called for each
    /// request; must answer from memory.
    #[must_use]
    pub fn with_details<T: Serialize>(
        mut self,
        tell: impl Fn() -> T + Send + std::marker::Sync + 'static,
    ) -> Self {
        self.details = Some(Box::new(move || serde_json::to_value(tell())));
        self
    }

    /// What differs, by peer and item, for `/sync/NAME/diff`. Called for each request, where it may
    /// block for a moment.
    #[must_use]
    pub fn with_diff<T: Serialize>(
        mut self,
        tell: impl Fn() -> T + Send + std::marker::Sync + 'static,
    ) -> Self {
        self.diff = Some(Box::new(move || serde_json::to_value(tell())));
        self
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        lock(&self.run)
    }

    pub(super) async fn answer(&self) -> serde_json::Result<Answer> {
        let (ready, reason, peers) = match self.data.status().await {
            Ok(status) => (Some(status.ready), status.reason.to_string(), status.peers),
            Err(error) => (None, text_of(&error), Vec::new()),
        };
        Ok(Answer {
            ready,
            reason,
            lag: self.data.lag().await.unwrap_or(Lag::Unknown).into(),
            peers: peers.into_iter().map(PeerShown::from).collect(),
            force: self.run().clone(),
            details: self.details.as_ref().map(|tell| tell()).transpose()?,
        })
    }

    /// `None`: it does not say.
    pub(super) fn diff(&self) -> Option<serde_json::Result<Value>> {
        self.diff.as_ref().map(|tell| tell())
    }

    /// Begins to reconcile unless that is under way; answers with the state of it.
    pub(super) fn force(&self) -> Run {
        let mut run = self.run();
        if run.running {
            return run.clone();
        }
        *run = Run {
            number: run.number + 1,
            running: true,
            did: None,
            error: None,
        };
        let (data, slot, name) = (Arc::clone(&self.data), Arc::clone(&self.run), self.name);
        tokio::spawn(async move {
            // Also when `force` panics: nobody could order it again otherwise.
            let done = tokio::spawn(async move { data.force().await }).await;
            let mut run = lock(&slot);
            run.running = false;
            match done {
                Ok(Ok(did)) => {
                    tracing::info!(data_set = name, ?did, "reconciled by order");
                    run.did = Some(did);
                }
                Ok(Err(error)) => run.error = Some(text_of(&error)),
                Err(error) => run.error = Some(format!("it ended of itself: {error}")),
            }
            if let Some(error) = &run.error {
                tracing::warn!(data_set = name, %error, "could not be reconciled by order");
            }
        });
        run.clone()
    }
}

// Nothing that can panic runs under the lock.
fn lock(run: &Mutex<Run>) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text_of(error: &SyncError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
