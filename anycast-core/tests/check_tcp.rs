//! The check `tcp` against real listeners: what it proves, and what it survives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "check-tcp")]

mod stream;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use anycast_core::health::probe::Source;
use anycast_core::health::tcp::{MAX_READ, TcpCheck};
use anycast_core::{HealthCheck, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use self::stream::{
    LATER, PATIENT, SHORT, addresses, in_poverty, listen, nothing_left, probe, serve, unhealthy,
};

fn check(at: SocketAddr) -> TcpCheck {
    let addresses = addresses(&[at.ip()]);
    TcpCheck::new(&addresses, NonZeroU16::new(at.port()).unwrap())
}

#[tokio::test]
async fn every_address_has_to_accept() {
    let (v4, v6, port) = loop {
        let (v4, at) = listen("127.0.0.53").await;
        // Rarely, another program has that port.
        if let Ok(v6) = TcpListener::bind(("::1", at.port())).await {
            break (v4, v6, NonZeroU16::new(at.port()).unwrap());
        }
    };
    let both = TcpCheck::new(
        &addresses(&["127.0.0.53", "::1"].map(|ip| ip.parse().unwrap())),
        port,
    );
    assert_eq!(probe(both.clone(), PATIENT).await, Verdict::Healthy);
    drop(v6);
    let verdict = probe(both.clone(), PATIENT).await;
    unhealthy(&verdict, &format!("[::1]:{port}: connecting: "));
    drop(v4);
    let verdict = probe(both, PATIENT).await;
    unhealthy(&verdict, &format!("127.0.0.53:{port}: connecting: "));
    unhealthy(&verdict, &format!("; [::1]:{port}: connecting: "));
}

#[tokio::test]
async fn the_probe_comes_from_the_service_address() {
    let (listener, at) = listen("127.0.0.53").await;
    assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip(), at.ip());
    let any = check(at).with_source(Source::Any);
    assert_eq!(probe(any, PATIENT).await, Verdict::Healthy);
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn an_address_that_is_not_on_this_node_is_unhealthy() {
    let verdict = probe(check("192.0.2.1:80".parse().unwrap()), PATIENT).await;
    unhealthy(&verdict, "192.0.2.1:80: the address is not on this node");
}

/// Its kernel accepts on its behalf until the queue is full.
#[tokio::test]
async fn a_service_that_never_accepts_is_found_out_by_its_full_queue() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.54:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
    let mut verdict = Verdict::Healthy;
    for _ in 0..100 {
        verdict = probe(check(at), SHORT).await;
        if verdict != Verdict::Healthy {
            break;
        }
    }
    unhealthy(&verdict, "no connection within 200ms");
}

#[tokio::test]
async fn a_bare_connection_leaves_nothing_behind() {
    let at = serve("127.0.0.55", |mut stream| async move {
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    for _ in 0..100 {
        assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
    }
    nothing_left(at).await;
}

#[tokio::test]
async fn a_greeting_may_come_in_pieces() {
    let at = serve("127.0.0.53", |mut stream| async move {
        for piece in [&b"* hello\r\n22"[..], b"0 mail", b".example ESMTP\r\n"] {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let greeted = check(at).with_greeting("220 mail.example").unwrap();
    assert_eq!(probe(greeted, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn a_question_is_answered() {
    let at = serve("127.0.0.53", |mut stream| async move {
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).await.unwrap();
        let answer: &[u8] = if &asked == b"PING\r\n" {
            b"+PONG\r\n"
        } else {
            b"-ERR unknown command\r\n"
        };
        stream.write_all(answer).await.unwrap();
        let _ = stream.read(&mut asked).await;
    })
    .await;
    let ping = |send: &str| check(at).with_exchange(send, "+PONG").unwrap();
    assert_eq!(probe(ping("PING\r\n"), PATIENT).await, Verdict::Healthy);
    let verdict = probe(ping("PINK\r\n"), LATER).await;
    unhealthy(
        &verdict,
        r#"it did not say "+PONG", but "-ERR unknown command\r\n" within 3s"#,
    );
}

#[tokio::test]
async fn silence_is_unhealthy() {
    let (listener, at) = listen("127.0.0.53").await;
    let mut greeted = check(at).with_greeting("220 ").unwrap();
    for _ in 0..2 {
        let verdict = probe(greeted.clone(), SHORT).await;
        unhealthy(&verdict, "it did not say \"220 \" within 200ms");
    }
    // A probe that was dropped half-way spoils nothing.
    let dropped = tokio::time::timeout(SHORT, greeted.check(PATIENT)).await;
    assert!(dropped.is_err());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Those of the probes that have ended are reset.
            let _ = stream.write_all(b"220 \r\n").await;
        }
    });
    assert_eq!(probe(greeted, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn a_trickle_is_bounded_by_the_time_out() {
    let at = serve("127.0.0.53", |mut stream| async move {
        while stream.write_all(b"2").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let greeted = check(at).with_greeting("220 ").unwrap();
    unhealthy(&probe(greeted, SHORT).await, "within 200ms");
}

#[tokio::test]
async fn a_flood_is_bounded_in_bytes() {
    let at = serve("127.0.0.53", |mut stream| async move {
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let greeted = check(at).with_greeting("220 ").unwrap();
    let verdict = probe(greeted, PATIENT).await;
    unhealthy(&verdict, &format!("in its first {MAX_READ} bytes"));
}

#[tokio::test]
async fn an_early_end_is_unhealthy() {
    let closing = serve("127.0.0.53", |mut stream| async move {
        stream.write_all(b"421 too busy\r\n").await.unwrap();
    })
    .await;
    let resetting = serve("127.0.0.53", |stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    let greeted = |at| check(at).with_greeting("220 ").unwrap();
    unhealthy(
        &probe(greeted(closing), PATIENT).await,
        r#"but "421 too busy\r\n" before it closed the connection"#,
    );
    // The reset may be there before the probe was told of its connection.
    unhealthy(&probe(greeted(resetting), PATIENT).await, "reset by peer");
}

#[test]
fn without_descriptors_nothing_is_said_of_the_service() {
    in_poverty(|exhaust| async move {
        let at = serve("127.0.0.53", |mut stream| async move {
            stream.write_all(b"220 \r\n").await.unwrap();
        })
        .await;
        let checks = [check(at), check(at).with_greeting("220 ").unwrap()];
        let hoard = exhaust();
        for check in &checks {
            let verdict = probe(check.clone(), PATIENT).await;
            assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
        }
        drop(hoard);
        for check in checks {
            assert_eq!(probe(check, PATIENT).await, Verdict::Healthy);
        }
    });
}
