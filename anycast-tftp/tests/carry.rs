//! What peers say to a server, over a real mesh on the loopback.
#![cfg(feature = "mesh")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anycast_core::mesh::identity::Identity;
use anycast_core::mesh::transport::{Mesh, MeshConfig, PeerConfig, Purpose};
use anycast_core::service::NodeName;
use anycast_tftp::handoff::Fleet;
use anycast_tftp::server::carry::carry;
use anycast_tftp::server::{Server, ServerConfig, Settings};
use common::{PATIENCE, TestServer, memory, pattern};

struct Member {
    name: NodeName,
    address: SocketAddr,
    identity: Identity,
}

fn member(name: &str) -> Member {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    Member {
        name: NodeName::new(name).unwrap(),
        address: socket.local_addr().unwrap(),
        identity: Identity::generate().unwrap(),
    }
}

/// Two nodes that know each other.
fn meshes(first: Member, second: Member) -> (Mesh, Mesh) {
    let peer = |member: &Member| PeerConfig {
        name: member.name.clone(),
        address: member.address,
        fingerprints: vec![member.identity.fingerprint()],
    };
    let peers = [vec![peer(&second)], vec![peer(&first)]];
    let [of_first, of_second] = peers;
    let start = |member: Member, peers| {
        Mesh::start(MeshConfig {
            name: member.name,
            listen: member.address,
            identity: member.identity,
            peers,
        })
        .unwrap()
    };
    (start(first, of_first), start(second, of_second))
}

#[test]
fn what_a_peer_says_comes_to_the_engine_of_its_listen_address_or_is_counted() {
    let (own, other) = (member("own"), member("other"));
    let name = own.name.clone();
    let fleet = Fleet::new(name.clone(), vec![other.name.clone()], 1);
    let config = ServerConfig::new(vec!["127.0.0.1:0".parse().unwrap()])
        .with_settings(Settings::new())
        .with_fleet(fleet);
    let store = Arc::new(memory(&[("file", pattern(2000))]));
    let mut server = Server::bind(config, store).unwrap();
    let ends = server.peers().unwrap();
    assert!(server.peers().is_none(), "they are there once");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let (mesh, peer) = meshes(own, other);
    let carrier = carry(&mesh.handle(), ends);
    let server = TestServer::run(server);
    let port = server.address().port().to_be_bytes();
    let here = [&[4], &port[..], &[127, 0, 0, 1], b"?"].concat();
    let elsewhere = [&[4], &port[..], &[127, 0, 0, 2], b"?"].concat();
    let handle = peer.handle();
    let end = Instant::now() + PATIENCE;
    while !handle.is_up(&name) {
        assert!(Instant::now() < end, "the peer does not come up");
        std::thread::yield_now();
    }
    for datagram in [&here, &elsewhere, &here] {
        handle
            .send_datagram(&name, Purpose::Transfers, datagram)
            .unwrap();
    }
    server.wait_for("messages", |stats| stats.io.peer_received == 3);
    let io = server.stats().io;
    assert_eq!((io.peer_unmatched, io.peer_overflow), (1, 0));
    server.assert_serves("file", &pattern(2000));
    // Nobody takes them any more, and the server goes on.
    drop(carrier);
    server.handle.set_draining(true);
    server.assert_serves("file", &pattern(2000));
    server.handle.set_draining(false);
    drop(mesh);
    server.assert_serves("file", &pattern(2000));
}

#[test]
fn without_a_fleet_there_is_nothing_to_carry() {
    let config = ServerConfig::new(vec!["127.0.0.1:0".parse().unwrap()]);
    let mut server = Server::bind(config, Arc::new(memory(&[]))).unwrap();
    assert!(server.peers().is_none());
}

#[test]
fn if_nobody_carries_the_server_serves() {
    let fleet = Fleet::new(
        NodeName::new("own").unwrap(),
        vec![NodeName::new("other").unwrap()],
        1,
    );
    let config = ServerConfig::new(vec!["127.0.0.1:0".parse().unwrap()]).with_fleet(fleet);
    let store = Arc::new(memory(&[("file", pattern(2000))]));
    let server = Server::bind(config, store).unwrap();
    let server = TestServer::run(server);
    server.assert_serves("file", &pattern(2000));
}
