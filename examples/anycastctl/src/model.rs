//! A node's answers, as far as they are shown.
//!
//! A newer node may say more, which is passed over; what an older one does not say is shown as
//! `-`.

pub(crate) mod sync;

use serde::Deserialize;

/// `/status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) services: Vec<Service>,
    pub(crate) mesh: Option<Mesh>,
    pub(crate) tftp: Option<Tftp>,
}

/// The section of a TFTP server.
#[derive(Debug, Deserialize)]
pub(crate) struct Tftp {
    pub(crate) clients: Option<Clients>,
}

/// The other nodes.
#[derive(Debug, Deserialize)]
pub(crate) struct Mesh {
    pub(crate) clients: Option<Clients>,
    pub(crate) giver: Option<String>,
    #[serde(default)]
    pub(crate) peers: Vec<MeshPeer>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MeshPeer {
    pub(crate) node: String,
    pub(crate) address: Option<String>,
    pub(crate) up_age_s: Option<f64>,
    pub(crate) down_reason: Option<String>,
    pub(crate) heard_age_s: Option<f64>,
    pub(crate) software: Option<String>,
    pub(crate) clock_offset_s: Option<f64>,
    #[serde(default)]
    pub(crate) services: Vec<PeerService>,
    #[serde(default)]
    pub(crate) data: Vec<DataSet>,
    pub(crate) clients: Option<Clients>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PeerService {
    pub(crate) name: String,
    pub(crate) preferred: bool,
    #[serde(default)]
    pub(crate) draining: bool,
    pub(crate) failing_age_s: Option<f64>,
    pub(crate) turn: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DataSet {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) reason: Option<String>,
    pub(crate) behind: Option<u64>,
}

/// Whose requests a node answers.
#[derive(Debug, Deserialize)]
pub(crate) struct Clients {
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) top: Vec<ClientNetwork>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ClientNetwork {
    pub(crate) network: String,
    pub(crate) requests: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    pub(crate) role: Option<String>,
    pub(crate) announcer: Option<String>,
    pub(crate) running: Option<bool>,
    pub(crate) preference: String,
    pub(crate) state: Option<String>,
    pub(crate) preference_age_s: Option<f64>,
    pub(crate) reason: Option<String>,
    pub(crate) would_raise: Option<String>,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) intent: Option<Intent>,
    pub(crate) drain: Option<Drain>,
    pub(crate) turn: Option<Turn>,
    pub(crate) budget_tokens: Option<u32>,
    pub(crate) parked_age_s: Option<f64>,
    pub(crate) failing_age_s: Option<f64>,
    #[serde(default)]
    pub(crate) readiness: Vec<Readiness>,
    #[serde(default)]
    pub(crate) fleet: Vec<Peer>,
    #[serde(default)]
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Confirmation {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
}

/// An operator's order in force.
#[derive(Debug, Deserialize)]
pub(crate) struct Intent {
    pub(crate) order: String,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) age_s: Option<f64>,
    pub(crate) expires_in_s: Option<f64>,
    pub(crate) saved: Option<bool>,
    pub(crate) unsaved_reason: Option<String>,
}

/// How far a drain is.
#[derive(Debug, Deserialize)]
pub(crate) struct Drain {
    pub(crate) phase: String,
    pub(crate) phase_age_s: Option<f64>,
    pub(crate) in_flight: Option<u64>,
}

/// Its turn to join or to leave.
#[derive(Debug, Deserialize)]
pub(crate) struct Turn {
    pub(crate) wants: Option<String>,
    #[serde(default)]
    pub(crate) cut_off: bool,
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) severity: Option<String>,
    pub(crate) phase: String,
    pub(crate) phase_age_s: Option<f64>,
    pub(crate) verdict: Option<String>,
    pub(crate) verdict_age_s: Option<f64>,
    pub(crate) successes: Option<u32>,
    pub(crate) failures: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Readiness {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) age_s: Option<f64>,
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) node: String,
    pub(crate) heard_age_s: Option<f64>,
    pub(crate) preferred: Option<bool>,
    pub(crate) draining: Option<bool>,
}

/// The answer to an order.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {
    pub(crate) node: String,
    pub(crate) service: String,
    pub(crate) order: String,
    pub(crate) preference: String,
    pub(crate) in_force: bool,
    pub(crate) saved: bool,
    pub(crate) for_s: Option<f64>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}
