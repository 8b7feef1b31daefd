//! A boot storm: more requests at once than files may be opened at once.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anycast_tftp::server::Settings;
use common::{TestServer, pattern, rrq};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

/// Sends from an address of 127.0.0.0/8, which need not be that of the socket.
fn send_from(socket: &UdpSocket, source: Ipv4Addr, server: SocketAddrV4, packet: &[u8]) {
    let info = nix::libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: nix::libc::in_addr {
            s_addr: u32::from_ne_bytes(source.octets()),
        },
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(packet)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&SockaddrIn::from(server)),
    )
    .unwrap();
}

#[test]
fn a_boot_storm_loses_no_request_to_opens_that_are_done() {
    const CLIENTS: u32 = 4000;

    let (server, _) = TestServer::of_memory(&[("f", pattern(400))], Settings::new());
    let SocketAddr::V4(address) = server.address() else {
        unreachable!("an IPv4 server")
    };
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let packet = rrq("f", &[]);
    for client in 0..CLIENTS {
        let source = Ipv4Addr::from(0x7f01_0001 + client);
        send_from(&socket, source, address, &packet);
    }
    // What the kernel drops for want of room shows nothing here. This waits its turn behind
    // all others.
    server.assert_serves("f", &pattern(400));
    let stats = server.stats().engine;
    assert_eq!(stats.dropped_opens, 0, "{stats:?}");
    assert!(stats.sessions > 1024, "{stats:?}");
}
