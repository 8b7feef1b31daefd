//! What `/status` and `/metrics` tell of the other nodes.
#![allow(
    clippy::disallowed_types,
    reason = "a test: it looks for a port that is free"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anycast_core::NodeName;
use anycast_core::catchment::Catchment;
use anycast_core::mesh::fleet::{self, Joined};
use anycast_core::mesh::identity::Identity;
use anycast_core::mesh::transport::{Mesh, MeshConfig, PeerConfig};
use anycast_core::mesh::wire::{DataStatus, ServiceStatus, TurnStage};
use serde_json::Value;

use crate::support::{Endpoint, LIMIT};

/// A node in a mesh: `fra1` is there, and says all there is to say; `par1` is not.
pub(crate) struct Meshed {
    pub(crate) endpoint: Endpoint,
    pub(crate) joined: Joined,
    _here: Mesh,
    _there: Mesh,
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn peer(name: &str, address: SocketAddr, identity: &Identity) -> PeerConfig {
    PeerConfig {
        name: NodeName::new(name).unwrap(),
        address,
        fingerprints: vec![identity.fingerprint()],
    }
}

fn service(name: &str, failing_for: Option<u64>) -> ServiceStatus {
    ServiceStatus {
        name: name.parse().unwrap(),
        preferred: failing_for.is_none(),
        draining: false,
        failing_for,
        outlives: None,
        turn: TurnStage::Idle,
    }
}

impl Meshed {
    pub(crate) async fn start() -> Self {
        let endpoint = Endpoint::start().await;
        let (ams, fra, par) = (free(), free(), free());
        let keys = [(); 3].map(|()| Identity::generate().unwrap());
        let [own, other, absent] = keys;
        let peers = vec![peer("fra1", fra, &other), peer("par1", par, &absent)];
        let back = vec![peer("ams1", ams, &own)];
        let config = |name: &str, listen, identity, peers| MeshConfig {
            name: NodeName::new(name).unwrap(),
            listen,
            identity,
            peers,
        };
        let here = Mesh::start(config("ams1", ams, own, peers)).unwrap();
        let there = Mesh::start(config("fra1", fra, other, back)).unwrap();
        there.set_services(vec![service("tftp", None), service("dns", Some(3000))]);
        let data = |name: &str, ready, reason: Option<&str>, behind| DataStatus {
            name: name.parse().unwrap(),
            ready,
            reason: reason.map(Into::into),
            behind,
        };
        let files = data("files", false, Some("catching up"), Some(7));
        there.set_data(vec![files, data("leases", true, None, None)]);
        let mut catchment = Catchment::new(Instant::now());
        catchment.handle_request(Instant::now(), "192.0.2.1".parse().unwrap());
        there.set_clients(catchment.top(Instant::now(), 16));
        let services = ["tftp".parse().unwrap()];
        let joined = fleet::join(&endpoint.node.handle(), &here, &services).unwrap();
        Self {
            endpoint,
            joined,
            _here: here,
            _there: there,
        }
    }

    /// The status, once this holds of the mesh in it.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_whole(what, |status| holds(&status["mesh"]))
            .await
    }

    /// The same, of the whole of it.
    async fn until_whole(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.endpoint.get("/status").await.json();
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The service takes turns from now on: once this node gives them.
    pub(crate) async fn take_turns(&self) -> Value {
        self.endpoint.take_turns().await;
        self.until_whole("this node to give turns", |status| {
            status["mesh"]["giver"] == "ams1" && status["services"][0]["turn"]["cut_off"] == false
        })
        .await
    }

    /// It is drained, and waits for its turn to leave.
    pub(crate) async fn wait_to_leave(&self) -> Value {
        let answer = self.endpoint.order("drain", "{}").await.json();
        assert_eq!(answer["in_force"], false, "{answer:#}");
        let warnings = answer["warnings"].to_string();
        assert!(warnings.contains("preferred until its turn"), "{warnings}");
        self.until_whole("its turn to be waited for", |status| {
            status["services"][0]["turn"]["wants"] == "leave"
        })
        .await
    }

    /// All has been said of both peers.
    pub(crate) async fn complete(&self) -> Value {
        self.until("both peers", |mesh| {
            let [there, away] = [&mesh["peers"][0], &mesh["peers"][1]];
            there["clock_offset_s"].is_number()
                && there["clients"].is_object()
                && away["down_reason"].is_string()
        })
        .await
    }
}

#[tokio::test]
async fn the_other_nodes_are_in_status_with_what_they_said_or_why_they_are_away() {
    let meshed = Meshed::start().await;
    let status = meshed.complete().await;
    let [there, away] = [&status["mesh"]["peers"][0], &status["mesh"]["peers"][1]];
    assert_eq!(there["node"], "fra1");
    assert!(there["down_reason"].is_null());
    assert_eq!(there["services"][0]["preferred"], true);
    assert!(there["services"][1]["failing_age_s"].as_f64().unwrap() >= 3.0);
    assert_eq!(there["data"][0]["behind"], 7);
    assert_eq!(there["clients"]["top"][0]["network"], "192.0.2.0/24");
    assert_eq!(there["software"], env!("CARGO_PKG_VERSION"));
    assert_eq!(away["node"], "par1");
    assert!(away["up_age_s"].is_null() && away["heard_age_s"].is_null());
    // It is a member of the service's fleet, too.
    assert_eq!(status["services"][0]["fleet"][0]["node"], "fra1");
}

#[tokio::test]
async fn the_other_nodes_are_in_metrics() {
    let meshed = Meshed::start().await;
    meshed.complete().await;
    let page = meshed.endpoint.get("/metrics").await.body;
    let has = |line: &str| page.lines().any(|have| have.starts_with(line));
    for line in [
        r#"anycast_mesh_up{peer="fra1"} 1"#,
        r#"anycast_mesh_up{peer="par1"} 0"#,
        r#"anycast_mesh_heard_age_seconds{peer="fra1"} "#,
        r#"anycast_mesh_clock_offset_seconds{peer="fra1"} "#,
        r#"anycast_mesh_clock_error_seconds{peer="fra1"} "#,
    ] {
        assert!(has(line), "{line} is not in\n{page}");
    }
    assert!(!has(r#"anycast_mesh_heard_age_seconds{peer="par1"}"#));
    let alone = Endpoint::start().await.get("/metrics").await.body;
    assert!(!alone.contains("anycast_mesh"), "{alone}");
}
