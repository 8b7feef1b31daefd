//! The check `dns` against servers that answer wrongly, late, in part or not at all.
//!
//! Real servers are in the labs (`checks_udp`); these say what no real one would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "check-dns")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anycast_core::health::dns::{DnsCheck, Identity, Question, Transport};
use anycast_core::health::probe::Source;
use anycast_core::{HealthCheck, ServiceAddresses, Verdict};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Long enough for an answer on a slow machine.
const LONG: Duration = Duration::from_secs(20);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(300);
/// A probe that takes longer than this, whatever its time-out, hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Any port of the address where these servers are.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Answers the `n`th query over UDP (from 0) with these datagrams.
async fn udp_server(answers: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(serve_udp(socket, answers));
    address
}

async fn serve_udp(socket: UdpSocket, answers: impl Fn(usize, &[u8]) -> Vec<Vec<u8>>) {
    let mut buffer = [0; 2048];
    for n in 0.. {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        for answer in answers(n, &buffer[..length]) {
            // The client may have gone.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

fn question() -> Question {
    Question::new("health.example", "A").unwrap()
}

fn check_of(server: SocketAddr, question: Question) -> DnsCheck {
    let address = format!("{}/32", server.ip()).parse().unwrap();
    let addresses = ServiceAddresses::new(vec![address]).unwrap();
    DnsCheck::new(addresses, question).with_port(server.port())
}

async fn verdict(mut check: DnsCheck, timeout: Duration) -> Verdict {
    let ended = tokio::time::timeout(LIMIT, check.check(timeout)).await;
    ended.unwrap_or_else(|_| panic!("the check does not end by itself"))
}

#[track_caller]
fn unhealthy(verdict: &Verdict, hint: &str) {
    let Verdict::Unhealthy(reason, _) = verdict else {
        panic!("{verdict}");
    };
    assert!(reason.as_str().contains(hint), "{reason}");
}

/// Unhealthy, unless this machine was so slow that the checker cannot tell.
async fn unhealthy_in_time(check: DnsCheck, hint: &str) {
    for _ in 0..20 {
        let verdict = verdict(check.clone(), SHORT).await;
        if let Verdict::Unknown(reason) = &verdict {
            assert!(reason.as_str().contains("did not run in time"), "{reason}");
            continue;
        }
        return unhealthy(&verdict, hint);
    }
    panic!("starved twenty times");
}

fn answer_to(query: &[u8]) -> Message {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    let data = RData::A(A::new(192, 0, 2, 1));
    let name = message.queries[0].name.clone();
    message.add_answer(Record::from_rdata(name, 60, data));
    message
}

fn right(query: &[u8]) -> Vec<u8> {
    answer_to(query).to_vec().unwrap()
}

/// Reproducible noise.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn a_right_answer_is_healthy() {
    let server = udp_server(|_, query| vec![right(query)]).await;
    let check = check_of(server, question());
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
    let any = check_of(server, question()).with_source(Source::Any);
    assert_eq!(verdict(any, LONG).await, Verdict::Healthy);
    let other = question().containing(&["192.0.2.9"]).unwrap();
    unhealthy(
        &verdict(check_of(server, other), LONG).await,
        &format!("{server}: answered 192.0.2.1, expected 192.0.2.9"),
    );
}

#[tokio::test]
async fn a_lost_datagram_is_asked_for_again() {
    // The server hears the third query alone.
    let server = udp_server(|n, query| match n % 3 {
        2 => vec![right(query)],
        _ => vec![],
    });
    let check = check_of(server.await, question());
    let three_seconds = Duration::from_secs(3);
    assert_eq!(verdict(check, three_seconds).await, Verdict::Healthy);
}

#[tokio::test]
async fn noise_before_the_answer_is_ignored() {
    let server = udp_server(|_, query| {
        let mut other_id = right(query);
        other_id[0] ^= 1;
        let mut other_question = right(query);
        other_question[13] ^= 1;
        let noises = vec![vec![], vec![7], noise(65_507), query.to_vec()];
        [noises, vec![other_id, other_question, right(query)]].concat()
    });
    let check = check_of(server.await, question());
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
}

#[tokio::test]
async fn what_is_no_answer_is_named_in_the_reason() {
    type Answer = fn(&[u8]) -> Vec<u8>;
    let cases: [(Answer, &str); 6] = [
        (|_| vec![], "not a DNS message (0 bytes)"),
        (|_| vec![7], "not a DNS message (1 bytes)"),
        (|_| noise(65_507), "ignored"),
        (|query| query.to_vec(), "not an answer"),
        (
            |query| {
                let mut answer = right(query);
                answer[0] ^= 1;
                answer
            },
            "an answer to another query",
        ),
        (
            |query| {
                let mut answer = right(query);
                answer[13] ^= 1;
                answer
            },
            "an answer to another question",
        ),
    ];
    for (answer, hint) in cases {
        let server = udp_server(move |_, query| vec![answer(query)]).await;
        unhealthy_in_time(check_of(server, question()), hint).await;
    }
}

#[tokio::test]
async fn silence_is_unhealthy_and_ends_by_itself() {
    let server = udp_server(|_, _| vec![]).await;
    unhealthy_in_time(check_of(server, question()), "no answer within 300ms").await;
}

#[tokio::test]
async fn a_flood_of_noise_ends_by_itself() {
    let server = udp_server(|_, _| vec![vec![7]; 5000]).await;
    unhealthy_in_time(check_of(server, question()), "not a DNS message").await;
}

#[tokio::test]
async fn a_closed_port_is_known_at_once() {
    // An address that no other test takes ports of.
    let socket = UdpSocket::bind("127.0.0.9:0").await.unwrap();
    let closed = socket.local_addr().unwrap();
    drop(socket);
    for transport in [Transport::Udp, Transport::Tcp] {
        let check = check_of(closed, question()).with_transport(transport);
        let said = verdict(check, LONG).await;
        unhealthy(&said, &closed.to_string());
        unhealthy(&said, "refused");
    }
}

#[tokio::test]
async fn an_address_that_is_not_here_is_unhealthy() {
    // TEST-NET-3: on no host.
    let elsewhere = "203.0.113.53:53".parse().unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        let check = check_of(elsewhere, question()).with_transport(transport);
        unhealthy(&verdict(check, LONG).await, "not on this node");
    }
}

#[tokio::test]
async fn each_address_must_answer_and_each_that_does_not_is_named() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let answers = |_: usize, query: &[u8]| vec![right(query)];
    tokio::spawn(serve_udp(socket, answers));
    let addresses = ["127.0.0.1/32", "127.0.0.2/32", "127.0.0.3/32"];
    let addresses = addresses.map(|address| address.parse().unwrap());
    let addresses = ServiceAddresses::new(addresses.to_vec()).unwrap();
    let check = DnsCheck::new(addresses, question()).with_port(port);
    let said = verdict(check, LONG).await;
    unhealthy(&said, &format!("127.0.0.2:{port}: "));
    unhealthy(&said, &format!("; 127.0.0.3:{port}: "));
    assert!(!said.to_string().contains("127.0.0.1"), "{said}");
}

#[tokio::test]
async fn the_identity_is_asked_beside_the_question() {
    let server = udp_server(|_, query| {
        let mut message = Message::from_vec(query).unwrap();
        if message.queries[0].query_class == DNSClass::IN {
            return vec![right(query)];
        }
        message.metadata.message_type = MessageType::Response;
        let text = RData::TXT(TXT::new(vec!["fra1".to_owned()]));
        let name = Name::from_ascii("id.server.").unwrap();
        let mut record = Record::from_rdata(name, 0, text);
        record.dns_class = DNSClass::CH;
        message.add_answer(record);
        vec![message.to_vec().unwrap()]
    });
    let server = server.await;
    let with = |identity| check_of(server, question()).with_identity(identity);
    let own = with(Identity::id_server("fra1").unwrap());
    assert_eq!(verdict(own, LONG).await, Verdict::Healthy);
    let other = with(Identity::id_server("ams1").unwrap());
    unhealthy(&verdict(other, LONG).await, r#"answered by "fra1""#);
    let other_name = with(Identity::hostname_bind("fra1").unwrap());
    unhealthy(&verdict(other_name, LONG).await, "no hostname.bind. TXT");
    let nsid = with(Identity::nsid("fra1").unwrap());
    unhealthy(&verdict(nsid, LONG).await, "names no node (NSID)");
}

/// Over TCP, what one connection gets for its query.
async fn tcp_server<F, A>(on: SocketAddr, answer: F) -> SocketAddr
where
    F: Fn(TcpStream, Vec<u8>) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(on).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            tokio::spawn(answer(stream, query));
        }
    });
    address
}

async fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    // The client may have gone.
    let _ = stream.write_u16(length).await;
    let _ = stream.write_all(message).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_over_tcp() {
    let truncated = |_: usize, query: &[u8]| {
        let mut message = answer_to(query);
        message.answers.clear();
        message.metadata.truncation = true;
        vec![message.to_vec().unwrap()]
    };
    // An address where no other test has taken this port for TCP.
    let socket = UdpSocket::bind("127.0.0.5:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    tokio::spawn(serve_udp(socket, truncated));
    let check = check_of(server, question());
    unhealthy(&verdict(check.clone(), LONG).await, "over TCP");
    let answer = async |mut stream: TcpStream, query: Vec<u8>| {
        send(&mut stream, &right(&query)).await;
    };
    tcp_server(server, answer).await;
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
}

#[tokio::test]
async fn over_tcp_noise_is_ignored_and_the_answer_found() {
    let server = tcp_server(ANY_PORT, async |mut stream, query| {
        send(&mut stream, &[]).await;
        send(&mut stream, &noise(65_535)).await;
        send(&mut stream, &query).await;
        // In two pieces.
        let answer = right(&query);
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        let (first, second) = answer.split_at(5);
        stream.write_all(&[&length, first].concat()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(second).await.unwrap();
    });
    let check = check_of(server.await, question()).with_transport(Transport::Tcp);
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
}

#[tokio::test]
async fn over_tcp_what_is_no_answer_is_unhealthy() {
    let over_tcp = |server| check_of(server, question()).with_transport(Transport::Tcp);
    // Closes without a word, or in the middle of one.
    for part in [0, 1, 2, 10] {
        let server = tcp_server(ANY_PORT, move |mut stream, query| async move {
            let length = u16::try_from(right(&query).len()).unwrap();
            let whole = [&length.to_be_bytes(), &right(&query)[..]].concat();
            stream.write_all(&whole[..part]).await.unwrap();
        });
        let said = verdict(over_tcp(server.await), LONG).await;
        unhealthy(&said, "receive over TCP");
    }
    // Accepts, and never answers.
    let server = tcp_server(ANY_PORT, async |stream, _| {
        tokio::time::sleep(LIMIT).await;
        drop(stream);
    });
    unhealthy_in_time(over_tcp(server.await), "no answer within").await;
    // Never stops talking.
    let server = tcp_server(ANY_PORT, async |mut stream, _| {
        while stream.write_all(&[0; 4096]).await.is_ok() {}
    });
    unhealthy_in_time(over_tcp(server.await), "not a DNS message").await;
    // Refuses, rightly.
    let server = tcp_server(ANY_PORT, async |mut stream, query: Vec<u8>| {
        let mut message = answer_to(&query);
        message.metadata.response_code = ResponseCode::ServFail;
        send(&mut stream, &message.to_vec().unwrap()).await;
    });
    let said = verdict(over_tcp(server.await), LONG).await;
    unhealthy(&said, "SERVFAIL instead of NOERROR");
}

#[tokio::test]
async fn a_check_that_was_dropped_works_again() {
    let server = udp_server(|n, query| match n {
        0 => vec![],
        _ => vec![right(query)],
    });
    let mut check = check_of(server.await, question());
    let dropped = tokio::time::timeout(Duration::from_millis(10), check.check(LONG)).await;
    assert!(dropped.is_err());
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
}
