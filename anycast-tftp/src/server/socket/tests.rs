#![allow(clippy::disallowed_types, reason = "tests drive real sockets")]

use std::time::Duration;

use super::*;

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn the_receive_buffer_is_as_large_as_asked_for_or_that_is_said() {
    let max: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let asked = max + (1 << 20);
    let bound = Bound::new(local(), asked).unwrap();
    let granted = bound.socket.recv_buffer_size().unwrap();
    let may_force =
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&bound.socket, asked).is_ok();
    if may_force {
        assert!(granted >= asked, "{granted} of {asked}");
    }
    assert_eq!(is_short(granted, asked), !may_force);
    assert!(is_short(2 * max, asked));
}

#[test]
fn what_the_kernel_dropped_is_known() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let bound = Bound::new(address.parse().unwrap(), 1).unwrap();
        let id = (bound.address(), bound.inode().unwrap());
        assert_eq!(drops::read(&[id]).unwrap(), [0]);
        let client = std::net::UdpSocket::bind(address).unwrap();
        for _ in 0..100 {
            client.send_to(&[0; 1000], bound.address()).unwrap();
        }
        let dropped = drops::read(&[id, id]).unwrap();
        assert!(dropped[0] > 0 && dropped[0] == dropped[1], "{dropped:?}");
    }
}

/// More packets than the kernel takes at once, which it refuses as it refuses a link without
/// offload: `EINVAL`.
fn too_many(to: SocketAddr) -> Transmit {
    Transmit {
        remote: to,
        local: local(),
        len: 1000,
        segment_size: Some(1),
    }
}

#[tokio::test]
async fn one_client_that_cannot_be_sent_trains_does_not_stop_them_for_others() {
    let mut socket = ServerSocket::new(Bound::new(local(), 1 << 20).unwrap()).unwrap();
    let before = socket.max_segments();
    if before == 1 {
        // A kernel without segmentation offload.
        return;
    }
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    socket.ready(true).await.unwrap();
    let now = Instant::now();
    assert!(socket.may_join(to.ip(), now));
    let error = socket.send(&too_many(to), &[0; 1000], Some(1)).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
    assert_eq!(socket.max_segments(), 1);
    // One by one it works.
    socket.send(&too_many(to), &[0], None).unwrap();
    socket.was_split(to.ip(), now);
    assert_eq!(socket.max_segments(), before);
    assert!(!socket.may_join(to.ip(), now));
    assert!(socket.may_join("127.0.0.2".parse().unwrap(), now));
    // And it is tried again later.
    let later = now + RETRY_JOINED + Duration::from_secs(1);
    assert!(socket.may_join(to.ip(), later));
}

#[tokio::test]
async fn a_link_without_offload_is_not_tried_for_each_client() {
    let mut socket = ServerSocket::new(Bound::new(local(), 1 << 20).unwrap()).unwrap();
    let before = socket.max_segments();
    if before == 1 {
        return;
    }
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    socket.ready(true).await.unwrap();
    let now = Instant::now();
    for client in 0..=u32::try_from(MAX_SPLIT).unwrap() {
        let client = IpAddr::from((0x0a00_0000 + client).to_be_bytes());
        let _ = socket.send(&too_many(to), &[0; 1000], Some(1));
        socket.was_split(client, now);
    }
    assert_eq!(socket.max_segments(), 1);
    assert!(socket.may_join(to.ip(), now + RETRY_JOINED + Duration::from_secs(1)));
    assert_eq!(socket.max_segments(), before);
}
