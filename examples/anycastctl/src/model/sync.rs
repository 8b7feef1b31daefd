//! `/sync`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct DataSet {
    pub(crate) ready: Option<bool>,
    pub(crate) reason: String,
    pub(crate) lag: Lag,
    #[serde(default)]
    pub(crate) peers: Vec<Peer>,
    #[serde(default)]
    pub(crate) force: Run,
    /// What the data set says of itself.
    #[serde(default)]
    pub(crate) details: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) peer: String,
    pub(crate) lag: Lag,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Lag {
    pub(crate) state: String,
    pub(crate) items: Option<u64>,
    pub(crate) age_s: Option<f64>,
}

/// The last order to reconcile.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Run {
    pub(crate) number: u64,
    pub(crate) running: bool,
    pub(crate) did: Option<Did>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Did {
    pub(crate) compared: u64,
    pub(crate) fetched: u64,
    pub(crate) sent: u64,
    pub(crate) removed: u64,
}

/// `/sync/NAME/diff`, by peer.
pub(crate) type Diff = BTreeMap<String, PeerDiff>;

#[derive(Debug, Deserialize)]
pub(crate) struct PeerDiff {
    #[serde(default)]
    pub(crate) items: Vec<Item>,
    /// How many more there are.
    #[serde(default)]
    pub(crate) more: u64,
    /// Why nothing is known.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) item: String,
    /// What is here; absent: nothing.
    pub(crate) here: Option<String>,
    /// What is there.
    pub(crate) there: Option<String>,
    /// What is being done about it, or what is in the way.
    pub(crate) why: Option<String>,
}
