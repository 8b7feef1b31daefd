use super::*;
use crate::service::ServiceName;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn service(preferred: bool) -> Vec<ServiceStatus> {
    vec![ServiceStatus {
        name: ServiceName::new("tftp").unwrap(),
        preferred,
        draining: false,
        failing_for: None,
    }]
}

fn here(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    std::net::UdpSocket::bind(here(0))
        .unwrap()
        .local_addr()
        .unwrap()
}

fn peer(name: &str, address: SocketAddr, identity: &Identity) -> PeerConfig {
    PeerConfig {
        name: node(name),
        address,
        fingerprints: vec![identity.fingerprint()],
    }
}

fn config(
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
fn pair() -> (MeshConfig, MeshConfig) {
    let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at, there) = (free(), free());
    let to_two = vec![peer("b", there, &two)];
    let to_one = vec![peer("a", at, &one)];
    (
        config("a", at, one, to_two),
        config("b", there, two, to_one),
    )
}

async fn until(mesh: &Mesh, what: &str, holds: impl Fn(&PeerView) -> bool) {
    let mut views = mesh.views();
    let all = |views: &Views| !views.is_empty() && views.iter().all(|(_, view)| holds(view));
    let waited = timeout(Duration::from_secs(60), views.wait_for(all)).await;
    assert!(waited.is_ok(), "{what}: {:?}", *mesh.views().borrow());
}

fn is_up(view: &PeerView) -> bool {
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

/// A peer with the right key that does what it likes.
struct Hostile {
    connection: Connection,
    send: SendStream,
    _receive: RecvStream,
}

impl Hostile {
    /// As `a`, whom b expects.
    async fn dial(identity: &Identity, known: &MeshConfig) -> Self {
        let pins = pins(known).unwrap();
        let client = tls::client(identity, &pins).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(Arc::new(transport()));
        let endpoint = Endpoint::client(here(0)).unwrap();
        let address = known.peers[0].address;
        let connecting = endpoint.connect_with(client, address, "anycast-mesh");
        let connection = connecting.unwrap().await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Self {
            connection,
            send,
            _receive: receive,
        }
    }

    async fn closed(self) -> String {
        let closed = timeout(Duration::from_secs(60), self.connection.closed()).await;
        closed.unwrap().to_string()
    }
}

#[tokio::test]
async fn a_hostile_peer_is_told_why_it_is_cut_off_and_others_are_not() {
    let (one, mut two) = pair();
    // A third node beside the hostile one, up all the time.
    let (third, at) = (Identity::generate().unwrap(), free());
    two.peers.push(peer("c", at, &third));
    let to_two = vec![peer("b", two.listen, &two.identity)];
    let third = Mesh::start(config("c", at, third, to_two)).unwrap();
    let two = Mesh::start(two).unwrap();
    until(&third, "b to be up", is_up).await;
    let hello = Message::Hello(super::super::wire::Hello {
        name: node("a"),
        version: 1,
        least_version: 1,
        incarnation: 1,
    });
    let hello = hello.encode().unwrap();
    let endless = [&hello[..], &[0xff; 4]].concat();
    let garbage = [&hello[..], &[0, 0, 0, 2, 2, 7]].concat();
    let cases: [(&[u8], &str); 3] = [
        (&[0xff; 64], "a frame of"),
        (&endless, "a frame of"),
        (&garbage, "cut short"),
    ];
    for (bytes, why) in cases {
        let mut hostile = Hostile::dial(&one.identity, &one).await;
        hostile.send.write_all(bytes).await.unwrap();
        let said = hostile.closed().await;
        assert!(said.contains(why), "{said}");
    }
    // Mute.
    let hostile = Hostile::dial(&one.identity, &one).await;
    let said = hostile.closed().await;
    assert!(
        said.contains("Hello") || said.contains("no control stream"),
        "{said}"
    );
    let since = third.views().borrow()[0].1.up_since;
    assert!(
        since.is_some_and(|since| since.elapsed() > HANDSHAKE_TIME - SILENCE),
        "{since:?}"
    );
    // The real a is let in all the same.
    let one = Mesh::start(one).unwrap();
    let mut views = two.views();
    let has_a = |views: &Views| {
        views
            .iter()
            .any(|(name, view)| *name == node("a") && is_up(view))
    };
    timeout(Duration::from_secs(60), views.wait_for(has_a))
        .await
        .unwrap()
        .unwrap();
    drop(one);
}
