use tokio::time::{sleep, timeout};

use super::*;
use crate::mesh::wire::TurnStage;
use crate::service::ServiceName;

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn service(preferred: bool) -> Vec<ServiceStatus> {
    vec![ServiceStatus {
        name: ServiceName::new("tftp").unwrap(),
        preferred,
        draining: false,
        failing_for: None,
        outlives: None,
        turn: TurnStage::Idle,
    }]
}

pub(super) fn here(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A port that was free a moment ago.
pub(super) fn free() -> SocketAddr {
    std::net::UdpSocket::bind(here(0))
        .unwrap()
        .local_addr()
        .unwrap()
}

pub(super) fn peer(name: &str, address: SocketAddr, identity: &Identity) -> PeerConfig {
    PeerConfig {
        name: node(name),
        address,
        fingerprints: vec![identity.fingerprint()],
    }
}

pub(super) fn config(
    name: &str,
    listen: SocketAddr,
    identity: Identity,
    peers: Vec<PeerConfig>,
) -> MeshConfig {
    MeshConfig {
        name: node(name),
        listen,
        identity,
        peers,
    }
}

/// Two nodes that know each other: a dials.
pub(super) fn pair() -> (MeshConfig, MeshConfig) {
    let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at, there) = (free(), free());
    let to_two = vec![peer("b", there, &two)];
    let to_one = vec![peer("a", at, &one)];
    (
        config("a", at, one, to_two),
        config("b", there, two, to_one),
    )
}

pub(super) async fn until(mesh: &Mesh, what: &str, holds: impl Fn(&PeerView) -> bool) {
    let mut views = mesh.views();
    let all = |views: &Views| !views.is_empty() && views.iter().all(|(_, view)| holds(view));
    let waited = timeout(Duration::from_secs(60), views.wait_for(all)).await;
    assert!(waited.is_ok(), "{what}: {:?}", *mesh.views().borrow());
}

pub(super) fn is_up(view: &PeerView) -> bool {
    view.up_since.is_some()
}

#[tokio::test]
async fn two_nodes_find_each_other_and_hear_of_changes() {
    let (one, two) = pair();
    // The one that is dialled comes later.
    let one = Mesh::start(one).unwrap();
    sleep(Duration::from_millis(300)).await;
    let two = Mesh::start(two).unwrap();
    until(&one, "b to be up", is_up).await;
    until(&two, "a to be up", is_up).await;
    for preferred in [true, false, true] {
        one.set_services(service(preferred));
        until(&two, "the change", |view| {
            view.services == service(preferred)
        })
        .await;
    }
    until(&one, "the clock of b", |view| view.clock.is_some()).await;
    let view = one.views().borrow()[0].1.clone();
    assert!(view.clock.unwrap().micros.abs() < 60_000_000);
}

#[tokio::test]
async fn a_node_that_stops_is_gone_and_comes_back() {
    let (one, two) = pair();
    let again = config(
        "b",
        two.listen,
        Identity::generate().unwrap(),
        two.peers.clone(),
    );
    let (one, two) = (Mesh::start(one).unwrap(), Mesh::start(two).unwrap());
    until(&one, "b to be up", is_up).await;
    let listen = two.address();
    drop(two);
    until(&one, "b to be gone", |view| view.down.is_some()).await;
    // With a key that nobody knows it stays away.
    let stranger = loop {
        match Mesh::start(config(
            "b",
            listen,
            Identity::generate().unwrap(),
            again.peers.clone(),
        )) {
            Ok(mesh) => break mesh,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    sleep(Duration::from_secs(1)).await;
    assert!(one.views().borrow()[0].1.up_since.is_none());
    assert!(
        stranger
            .views()
            .borrow()
            .iter()
            .all(|(_, view)| view.up_since.is_none())
    );
}

#[tokio::test]
async fn while_a_key_is_exchanged_both_are_good() {
    let (mut one, two) = pair();
    let new = Identity::generate().unwrap();
    one.peers[0].fingerprints.push(new.fingerprint());
    let two = config("b", two.listen, new, two.peers);
    let (one, _two) = (Mesh::start(one).unwrap(), Mesh::start(two).unwrap());
    until(&one, "b to be up", is_up).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let refused = |change: &dyn Fn(&mut MeshConfig)| {
        let (mut one, _) = pair();
        change(&mut one);
        Mesh::start(one).unwrap_err().to_string()
    };
    let own = refused(&|config| config.peers[0].name = node("a"));
    assert_eq!(own, "peer a has this node's own name");
    let twice = refused(&|config| config.peers.push(config.peers[0].clone()));
    assert_eq!(twice, "peer b is there twice");
    let keyless = refused(&|config| config.peers[0].fingerprints.clear());
    assert!(keyless.contains("no fingerprint"));
    let same = refused(&|config| {
        let mut other = config.peers[0].clone();
        other.name = node("c");
        config.peers.push(other);
    });
    assert!(same.contains("the same fingerprint"), "{same}");
    let taken = std::net::UdpSocket::bind(here(0)).unwrap();
    let address = taken.local_addr().unwrap();
    let busy = refused(&|config| config.listen = address);
    assert!(busy.contains(&address.to_string()), "{busy}");
}
