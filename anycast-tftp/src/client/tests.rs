//! Against servers that are scripted packet by packet, on loopback.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::UdpSocket;

use super::*;
use crate::proto::packet::{Packet, ack, data_header};

/// What no event is awaited longer than: tests must end, not be fast.
const PATIENCE: Duration = Duration::from_secs(60);

struct Peer {
    socket: UdpSocket,
    client: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl Peer {
    async fn new(local: &str) -> Self {
        Self {
            socket: UdpSocket::bind(local).await.unwrap(),
            client: None,
            buffer: vec![0; 65_536],
        }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    async fn receive(&mut self) -> Packet<'_> {
        let receive = self.socket.recv_from(&mut self.buffer);
        let (len, from) = tokio::time::timeout(PATIENCE, receive)
            .await
            .unwrap()
            .unwrap();
        self.client = Some(from);
        Packet::parse(&self.buffer[..len]).unwrap()
    }

    async fn send(&self, packet: &[u8]) {
        self.socket
            .send_to(packet, self.client.unwrap())
            .await
            .unwrap();
    }

    async fn send_data(&self, block: u16, payload: &[u8]) {
        let mut packet = data_header(block).to_vec();
        packet.extend(payload);
        self.send(&packet).await;
    }

    async fn expect_ack(&mut self, block: u16) {
        assert_eq!(self.receive().await, Packet::Ack { block });
    }
}

fn get(
    server: SocketAddr,
    client: Client,
) -> tokio::task::JoinHandle<(Vec<u8>, Result<Transferred, TransferError>)> {
    tokio::spawn(async move {
        let mut sink = Vec::new();
        let result = client.get(server, "file", &mut sink, |_| {}).await;
        (sink, result)
    })
}

#[tokio::test]
async fn a_file_arrives_over_both_families_and_progress_is_told() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let mut peer = Peer::new(local).await;
        let server = peer.address();
        let getting = tokio::spawn(async move {
            let (mut sink, mut seen) = (Vec::new(), Vec::new());
            let client = Client::new(Settings::default());
            let progress = |progress| seen.push(progress);
            let done = client
                .get(server, "file", &mut sink, progress)
                .await
                .unwrap();
            (sink, seen, done)
        });
        let request = peer.receive().await;
        let Packet::ReadRequest(request) = request else {
            panic!("{request:?}");
        };
        assert_eq!(
            (request.filename, request.mode),
            (&b"file"[..], Mode::Octet)
        );
        peer.send(b"\0\x06blksize\x008\0tsize\x0011\0windowsize\x002\0")
            .await;
        peer.expect_ack(0).await;
        peer.send_data(1, b"12345678").await;
        peer.send_data(2, b"90!").await;
        peer.expect_ack(2).await;
        let (sink, seen, done) = getting.await.unwrap();
        assert_eq!(sink, b"1234567890!");
        let total = Some(11);
        assert_eq!(seen.last(), Some(&Progress { bytes: 11, total }));
        assert_eq!((done.bytes, done.blocks, done.peer), (11, 2, server));
    }
}

#[tokio::test]
async fn a_server_may_take_a_new_port_and_loses_nothing_by_dallying() {
    let mut listener = Peer::new("127.0.0.1:0").await;
    let mut worker = Peer::new("127.0.0.1:0").await;
    let getting = get(listener.address(), Client::new(Settings::plain()));
    listener.receive().await;
    worker.client = listener.client;
    worker.send_data(1, b"x").await;
    worker.expect_ack(1).await;
    let (sink, done) = getting.await.unwrap();
    assert_eq!(
        (sink, done.unwrap().peer),
        (b"x".to_vec(), worker.address())
    );
    // The acknowledgement is lost, say.
    worker.send_data(1, b"x").await;
    worker.expect_ack(1).await;
}

#[tokio::test]
async fn netascii_is_translated_across_blocks() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let client = Client::new(Settings::plain().mode(Mode::Netascii).blksize(Some(8)));
    let getting = get(peer.address(), client);
    peer.receive().await;
    peer.send(b"\0\x06blksize\x008\0").await;
    peer.expect_ack(0).await;
    peer.send_data(1, b"line ab\r").await;
    peer.expect_ack(1).await;
    peer.send_data(2, b"\nxyz12\r\0").await;
    peer.expect_ack(2).await;
    peer.send_data(3, b"\r").await;
    peer.expect_ack(3).await;
    assert_eq!(getting.await.unwrap().0, b"line ab\nxyz12\r\r");
}

#[tokio::test]
async fn a_put_sends_text_and_bytes() {
    for (mode, expected) in [
        (Mode::Octet, &b"a\nb\rcdefghij"[..]),
        (Mode::Netascii, b"a\r\nb\r\0cdefghij"),
    ] {
        let mut peer = Peer::new("127.0.0.1:0").await;
        let server = peer.address();
        let putting = tokio::spawn(async move {
            let settings = Settings::default().mode(mode);
            let mut source = &b"a\nb\rcdefghij"[..];
            let mut last = 0;
            let size = Some(source.len() as u64);
            let done = Client::new(settings)
                .put(server, "file", &mut source, size, |p| last = p.bytes)
                .await
                .unwrap();
            (done, last)
        });
        let request = peer.receive().await;
        let Packet::WriteRequest(request) = request else {
            panic!("{request:?}");
        };
        assert_eq!(request.options.tsize, Some(12));
        peer.send(b"\0\x06blksize\x008\0").await;
        let mut received: Vec<u8> = Vec::new();
        loop {
            let packet = peer.receive().await;
            let Packet::Data { block, payload } = packet else {
                panic!("{packet:?}");
            };
            received.extend(payload);
            let last = payload.len() < 8;
            peer.send(&ack(block)).await;
            if last {
                break;
            }
        }
        assert_eq!(received, expected);
        let (done, last) = putting.await.unwrap();
        assert_eq!((done.bytes, last), (12, 12));
    }
}

#[tokio::test]
async fn errors_name_server_and_file() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let getting = get(peer.address(), Client::new(Settings::plain()));
    peer.receive().await;
    peer.send(b"\0\x05\0\x01no such file\0").await;
    let error = getting.await.unwrap().1.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "\"file\" at {}: the server says: error 1 (file not found): \"no such file\"",
            peer.address()
        )
    );
    assert_eq!((error.server(), error.file()), (peer.address(), "file"));
}

#[tokio::test]
async fn a_closed_port_is_a_refusal_at_once() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let server = Peer::new(local).await.address();
        let error = get(server, Client::default()).await.unwrap().1.unwrap_err();
        assert!(
            matches!(error.kind(), TransferErrorKind::Refused),
            "{error}"
        );
    }
}

#[tokio::test]
async fn silence_ends_and_rubbish_does_not_prolong_it() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let give_up = Duration::from_secs(1);
    let client = Client::new(Settings::plain().give_up(give_up));
    let mut getting = get(peer.address(), client);
    peer.receive().await;
    let begin = Instant::now();
    let result = loop {
        peer.send(b"\0\x07rubbish").await;
        let pause = tokio::time::sleep(Duration::from_millis(20));
        tokio::select! {
            result = &mut getting => break result.unwrap().1,
            () = pause => assert!(begin.elapsed() < PATIENCE),
        }
    };
    let error = result.unwrap_err();
    let TransferErrorKind::NoAnswer { after } = error.kind() else {
        panic!("{error}");
    };
    assert!(*after >= give_up);
}

#[tokio::test]
async fn a_dropped_transfer_tells_the_server() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let getting = get(peer.address(), Client::new(Settings::plain()));
    peer.receive().await;
    peer.send_data(1, &[0; 512]).await;
    peer.expect_ack(1).await;
    getting.abort();
    let packet = peer.receive().await;
    assert!(matches!(packet, Packet::Error { .. }), "{packet:?}");
}

/// A sink that is full after some bytes.
struct Full(usize);

impl AsyncWrite for Full {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = self.0.min(data.len());
        self.0 -= len;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_full_sink_is_not_acknowledged_but_reported() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let server = peer.address();
    let getting = tokio::spawn(async move {
        let client = Client::new(Settings::plain());
        client.get(server, "file", &mut Full(600), |_| {}).await
    });
    peer.receive().await;
    peer.send_data(1, &[0; 512]).await;
    peer.expect_ack(1).await;
    peer.send_data(2, &[0; 512]).await;
    let packet = peer.receive().await;
    assert!(
        matches!(
            packet,
            Packet::Error {
                code: ErrorCode::DiskFull,
                ..
            }
        ),
        "{packet:?}"
    );
    let error = getting.await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), TransferErrorKind::Sink(_)),
        "{error}"
    );
}

#[tokio::test]
async fn the_local_address_is_used_and_a_foreign_one_refused() {
    let mut peer = Peer::new("127.0.0.1:0").await;
    let client = Client::new(Settings::plain()).local_address("127.0.0.5".parse().unwrap());
    let getting = get(peer.address(), client.clone());
    peer.receive().await;
    assert_eq!(peer.client.unwrap().ip().to_string(), "127.0.0.5");
    peer.send_data(1, b"").await;
    assert!(getting.await.unwrap().1.is_ok());

    let foreign = client.local_address("192.0.2.200".parse().unwrap());
    let error = get(peer.address(), foreign).await.unwrap().1.unwrap_err();
    assert!(
        matches!(error.kind(), TransferErrorKind::Bind { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("192.0.2.200"), "{error}");
}
