//! Against servers that are scripted packet by packet, on loopback.

use anycast_core::service::ServiceAddress;
use tokio::net::UdpSocket;

use super::*;
use crate::client::RequestError;
use crate::proto::packet::{EncodeError, ErrorCode, Packet, data_header};

/// Long enough that a busy machine does not fail a server that answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Short, where the time-out itself is under test.
const SHORT: Duration = Duration::from_millis(300);

fn addresses(list: &[&str]) -> ServiceAddresses {
    let list = list
        .iter()
        .map(|text| text.parse::<ServiceAddress>().unwrap());
    ServiceAddresses::new(list.collect()).unwrap()
}

fn required() -> Proof {
    Proof::Required(NodeName::new("ams1").unwrap())
}

/// How a scripted server answers every request.
#[derive(Clone, Copy)]
enum Answer {
    /// With an OACK that carries these options, then the file in one block.
    Options(&'static [u8], &'static [u8]),
    /// With the file at once, as a server without options does.
    Plain,
    /// With this datagram.
    Bytes(&'static [u8]),
    /// With the first block of many, and no other.
    Stuck,
    /// Not at all.
    Silence,
}

async fn serve(socket: UdpSocket, answer: Answer) {
    let mut buffer = vec![0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let mut reply = data_header(1).to_vec();
        match (Packet::parse(&buffer[..len]), answer) {
            (Ok(Packet::ReadRequest(request)), Answer::Options(options, _)) => {
                assert_eq!(request.filename, b"health");
                reply = b"\0\x06".to_vec();
                reply.extend(options);
            }
            (Ok(Packet::Ack { block: 0 }), Answer::Options(_, file)) => reply.extend(file),
            (Ok(Packet::ReadRequest(_)), Answer::Plain) => reply.extend(b"ok"),
            (Ok(Packet::ReadRequest(_)), Answer::Bytes(bytes)) => reply = bytes.to_vec(),
            (Ok(Packet::ReadRequest(_)), Answer::Stuck) => reply.extend([0; 512]),
            _ => continue,
        }
        let _ = socket.send_to(&reply, from).await;
    }
}

async fn server(local: &str, port: u16, answer: Answer) -> u16 {
    let socket = UdpSocket::bind((local, port)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(serve(socket, answer));
    port
}

async fn verdict(answer: Answer, proof: Proof, timeout: Duration) -> Verdict {
    let port = server("127.0.0.1", 0, answer).await;
    let addresses = addresses(&["127.0.0.1/32"]);
    let mut check = TftpCheck::new(&addresses, port, "health", proof);
    check.check(timeout).await
}

#[track_caller]
fn assert_unhealthy(verdict: &Verdict, words: &str) {
    let Verdict::Unhealthy(reason, _) = verdict else {
        panic!("{verdict}");
    };
    assert!(reason.as_str().contains(words), "{reason}");
}

#[tokio::test]
async fn this_node_with_the_whole_file_is_healthy() {
    for file in [&b"ok"[..], b""] {
        let answer = Answer::Options(b"anycast-node\0ams1\0", file);
        assert_eq!(
            verdict(answer, required(), PATIENCE).await,
            Verdict::Healthy
        );
    }
    let plain = verdict(Answer::Plain, Proof::None, PATIENCE).await;
    assert_eq!(plain, Verdict::Healthy);
}

#[tokio::test]
async fn another_node_or_an_unnamed_one_is_unhealthy() {
    let other = Answer::Options(b"anycast-node\0fra1\0", b"ok");
    assert_unhealthy(&verdict(other, required(), PATIENCE).await, "fra1");
    let unnamed = Answer::Options(b"blksize\x001428\0", b"ok");
    let unnamed = verdict(unnamed, required(), PATIENCE).await;
    assert_unhealthy(&unnamed, "does not name its node");
    let plain = verdict(Answer::Plain, required(), PATIENCE).await;
    assert_unhealthy(&plain, "does not name its node");
}

#[tokio::test]
async fn errors_and_broken_answers_are_unhealthy() {
    for (bytes, words) in [
        (&b"\0\x05\0\x01File not found\0"[..], "File not found"),
        (b"\0\x05\0\x02", "access violation"),
        (b"\0\x06blksize\x009999\0", "larger than requested"),
    ] {
        let verdict = verdict(Answer::Bytes(bytes), required(), PATIENCE).await;
        assert_unhealthy(&verdict, words);
    }
}

#[tokio::test]
async fn silence_and_a_transfer_that_stops_are_unhealthy() {
    let silent = verdict(Answer::Silence, Proof::None, SHORT).await;
    let stuck = verdict(Answer::Stuck, Proof::None, SHORT).await;
    // On a machine that stood still meanwhile the check rightly blames itself.
    for (verdict, words) in [(silent, "no answer within"), (stuck, "only 512 bytes")] {
        if let Verdict::Unknown(reason) = &verdict {
            assert!(reason.as_str().contains("held up"), "{reason}");
        } else {
            assert_unhealthy(&verdict, words);
        }
    }
}

#[tokio::test]
async fn a_closed_port_is_unhealthy() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let addresses = addresses(&["127.0.0.1/32"]);
    let mut check = TftpCheck::new(&addresses, port, "health", required());
    assert_unhealthy(&check.check(PATIENCE).await, "refused");
}

#[tokio::test]
async fn every_address_must_answer() {
    let answer = Answer::Options(b"anycast-node\0ams1\0", b"ok");
    let port = server("127.0.0.1", 0, answer).await;
    server("::1", port, answer).await;
    let both = addresses(&["127.0.0.1/32", "::1/128"]);
    let mut check = TftpCheck::new(&both, port, "health", required());
    assert_eq!(check.check(PATIENCE).await, Verdict::Healthy);

    let three = addresses(&["127.0.0.1/32", "127.0.0.2/32", "::1/128"]);
    let mut check = TftpCheck::new(&three, port, "health", required());
    assert_unhealthy(&check.check(PATIENCE).await, "127.0.0.2");
}

#[tokio::test]
async fn a_failure_of_this_host_is_unknown() {
    let addresses = addresses(&["127.0.0.1/32"]);
    let check = TftpCheck::new(&addresses, 9, "health", required());
    let mut foreign = check.source("192.0.2.200".parse().unwrap());
    let verdict = foreign.check(PATIENCE).await;
    let Verdict::Unknown(reason) = &verdict else {
        panic!("{verdict}");
    };
    assert!(reason.as_str().contains("192.0.2.200"), "{reason}");

    let mut unnamed = TftpCheck::new(&addresses, 9, "", required());
    assert!(matches!(unnamed.check(PATIENCE).await, Verdict::Unknown(_)));
}

#[test]
fn whose_failure_it_is() {
    // EMFILE and ENOBUFS.
    for errno in [24, 105] {
        let source = io::Error::from_raw_os_error(errno);
        assert!(is_local(&TransferErrorKind::Bind {
            local: None,
            source
        }));
        let source = io::Error::from_raw_os_error(errno);
        assert!(is_local(&TransferErrorKind::Socket(source)));
    }
    // ENETUNREACH and EHOSTUNREACH: the address of the service is gone.
    for errno in [101, 113] {
        let source = io::Error::from_raw_os_error(errno);
        assert!(!is_local(&TransferErrorKind::Socket(source)));
    }
    let request = RequestError::Encode(EncodeError::Filename);
    assert!(is_local(&TransferErrorKind::Request(request)));
    assert!(!is_local(&TransferErrorKind::Refused));
    assert!(!is_local(&TransferErrorKind::Server {
        code: ErrorCode::FileNotFound,
        message: String::new(),
    }));
}

#[test]
fn a_time_out_that_fires_far_too_late_is_this_hosts() {
    let server = "127.0.0.1:69".parse().unwrap();
    let judge = |ago: Duration| {
        let start = Instant::now().checked_sub(ago).unwrap();
        silent(server, "health", 0, start, SHORT)
    };
    assert!(matches!(judge(SHORT * 10), Verdict::Unknown(_)));
    assert!(matches!(judge(SHORT), Verdict::Unhealthy(..)));
}

#[test]
fn unhealthy_outweighs_unknown() {
    let (up, down, lost) = (
        Verdict::Healthy,
        Verdict::unhealthy("down"),
        Verdict::unknown("lost"),
    );
    for (one, other, expected) in [
        (&up, &up, &up),
        (&up, &lost, &lost),
        (&lost, &up, &lost),
        (&lost, &down, &down),
        (&down, &lost, &down),
        (&down, &up, &down),
        (&up, &down, &down),
    ] {
        assert_eq!(&worse(one.clone(), other.clone()), expected);
    }
}
