//! The check `ntp` against servers that answer wrongly, late or not at all.
//!
//! A real server is in the labs (`checks_udp`); these say what no real one would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "check-ntp")]

use std::net::SocketAddr;
use std::time::Duration;

use anycast_core::health::ntp::NtpCheck;
use anycast_core::{HealthCheck, ServiceAddresses, Verdict};
use tokio::net::UdpSocket;

/// Long enough for an answer on a slow machine.
const LONG: Duration = Duration::from_secs(20);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(300);
/// A probe that takes longer than this, whatever its time-out, hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Answers the `n`th request (from 0) with these datagrams.
async fn server(answers: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        for n in 0.. {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answers(n, &buffer[..length]) {
                // The client may have gone.
                let _ = socket.send_to(&answer, client).await;
            }
        }
    });
    address
}

/// Stratum 2, at a fixed time in the past.
fn right(request: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = 0b00_100_100;
    packet[1] = 2;
    packet[24..32].copy_from_slice(&request[40..48]);
    packet[32..48].fill(0x11);
    packet
}

fn check_of(server: SocketAddr) -> NtpCheck {
    let address = format!("{}/32", server.ip()).parse().unwrap();
    let addresses = ServiceAddresses::new(vec![address]).unwrap();
    NtpCheck::new(addresses).with_port(server.port())
}

async fn verdict(mut check: NtpCheck, timeout: Duration) -> Verdict {
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
async fn unhealthy_in_time(check: NtpCheck, hint: &str) {
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

#[tokio::test]
async fn a_right_answer_is_healthy_and_bounds_are_kept() {
    let server = server(|_, request| vec![right(request)]).await;
    let check = check_of(server);
    assert_eq!(verdict(check.clone(), LONG).await, Verdict::Healthy);
    let first = check.clone().with_max_stratum(1);
    unhealthy(
        &verdict(first, LONG).await,
        &format!("{server}: stratum 2, at most 1"),
    );
    let offset = check.with_max_offset(Duration::from_secs(3600));
    unhealthy(&verdict(offset, LONG).await, "off this host's clock");
}

#[tokio::test]
async fn a_lost_datagram_is_asked_for_again() {
    let server = server(|n, request| match n % 3 {
        2 => vec![right(request)],
        _ => vec![],
    });
    let check = check_of(server.await);
    let three_seconds = Duration::from_secs(3);
    assert_eq!(verdict(check, three_seconds).await, Verdict::Healthy);
}

#[tokio::test]
async fn noise_before_the_answer_is_ignored() {
    let server = server(|_, request| {
        let mut late = right(request);
        late[24] ^= 1;
        let noise = vec![0x24; 65_507];
        vec![
            vec![],
            vec![7],
            noise,
            request.to_vec(),
            late,
            right(request),
        ]
    });
    let check = check_of(server.await);
    assert_eq!(verdict(check, LONG).await, Verdict::Healthy);
}

#[tokio::test]
async fn what_is_no_answer_is_named_in_the_reason() {
    type Answer = fn(&[u8]) -> Vec<u8>;
    let cases: [(Answer, &str); 4] = [
        (|_| vec![7], "not an NTP packet (1 bytes)"),
        (|request| right(request)[..47].to_vec(), "(47 bytes)"),
        (|_| vec![0x24; 65_507], "does not answer the request"),
        (|request| request.to_vec(), "does not answer the request"),
    ];
    for (answer, hint) in cases {
        let server = server(move |_, request| vec![answer(request)]).await;
        unhealthy_in_time(check_of(server), hint).await;
    }
}

#[tokio::test]
async fn silence_and_floods_end_by_themselves() {
    let silent = server(|_, _| vec![]).await;
    unhealthy_in_time(check_of(silent), "no answer within 300ms").await;
    let flood = server(|_, _| vec![vec![7]; 5000]).await;
    unhealthy_in_time(check_of(flood), "not an NTP packet").await;
}

#[tokio::test]
async fn a_closed_port_is_known_at_once_and_so_is_an_address_that_is_not_here() {
    // An address that no other test takes ports of.
    let socket = UdpSocket::bind("127.0.0.9:0").await.unwrap();
    let closed = socket.local_addr().unwrap();
    drop(socket);
    let said = verdict(check_of(closed), LONG).await;
    unhealthy(&said, "refused");
    // TEST-NET-3: on no host.
    let elsewhere = check_of("203.0.113.123:123".parse().unwrap());
    unhealthy(&verdict(elsewhere, LONG).await, "not on this node");
}

#[tokio::test]
async fn a_server_that_will_not_talk_to_us_is_not_blamed() {
    for code in [b"RATE", b"DENY", b"RSTR"] {
        let server = server(|_, request| {
            let mut packet = right(request);
            packet[0] |= 0b11_000_000;
            packet[1] = 0;
            packet[12..16].copy_from_slice(code);
            vec![packet]
        });
        let said = verdict(check_of(server.await), LONG).await;
        let Verdict::Unknown(reason) = &said else {
            panic!("{said}");
        };
        let code = std::str::from_utf8(code).unwrap();
        assert!(reason.as_str().contains(code), "{reason}");
    }
}
