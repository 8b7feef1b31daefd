//! What clients send that should not, and that it costs others nothing.

use std::time::Duration;

use anycast_core::admin::{MAX_BODY, MAX_CONNECTIONS, REQUEST_TIMEOUT};
use anycast_core::announce::Preference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::support::{Endpoint, JSON, LIMIT, Reply, TOKEN, exchange, post};

async fn others_are_served(endpoint: &Endpoint) {
    let answer = endpoint.get("/healthz").await;
    assert_eq!((answer.status, &*answer.body), (200, "ok\n"));
}

#[tokio::test]
async fn garbage_is_cut_off() {
    let endpoint = Endpoint::start().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], // TLS
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /status HTTP/9.9\r\n\r\n",
        b"GET /status\r\n\r\n",
        b"GET /sta\0tus HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /services/tftp/drain HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /services/tftp/drain HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /services/tftp/drain HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    ] {
        let answer = endpoint.ask(garbage).await;
        let shown = String::from_utf8_lossy(garbage);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{shown}: {answer}");
    }
    others_are_served(&endpoint).await;
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let endpoint = Endpoint::start().await;
    let mut huge = b"GET /status HTTP/1.1\r\nX: ".to_vec();
    huge.resize(1 << 20, b'a');
    let answer = endpoint.ask(&huge).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut lines = b"GET /status HTTP/1.1\r\n".to_vec();
    for line in 0..500 {
        lines.extend(format!("X{line}: y\r\n").into_bytes());
    }
    lines.extend(b"\r\n");
    let answer = endpoint.ask(&lines).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let reason = format!(r#"{{"reason": "{}"}}"#, "x".repeat(MAX_BODY));
    let answer = endpoint.order("drain", &reason).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    // One that says that it will be long, and one that does not say.
    let claimed = "POST /services/tftp/drain HTTP/1.1\r\nHost: localhost\r\n\
                   Content-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n{}";
    let answer = Reply::read(&endpoint.ask_socket(claimed.as_bytes()).await);
    assert_eq!(answer.status, 413, "{answer:?}");
    let mut chunked = b"POST /services/tftp/drain HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for _ in 0..=MAX_BODY / 256 {
        chunked.extend(b"100\r\n");
        chunked.extend([b' '; 256]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let answer = Reply::read(&endpoint.ask_socket(&chunked).await);
    assert_eq!(answer.status, 413, "{answer:?}");
    others_are_served(&endpoint).await;
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn an_old_client_and_a_chunked_body_are_served() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint.ask(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.ends_with("ok\n"), "{answer}");
    let chunked = "POST /services/tftp/drain HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
        d\r\n{\"reason\": \"a\r\n3\r\nb\"}\r\n0\r\n\r\n";
    let answer = Reply::read(&endpoint.ask_socket(chunked.as_bytes()).await);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["reason"], "ab");
}

/// Only the first request of a connection counts: what follows it was not read when its
/// rights were looked at.
#[tokio::test]
async fn pipelined_requests_are_not_carried_out() {
    let endpoint = Endpoint::start().await;
    let order = post("/services/tftp/drain", &[("Host", "localhost"), JSON], "{}");
    let first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = endpoint.ask_socket(&[&first[..], &order].concat()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    sleep(Duration::from_millis(200)).await;
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn half_a_request_is_none() {
    let endpoint = Endpoint::start().await;
    let order = post("/services/tftp/drain", &[("Host", "localhost"), JSON], "{}");
    for end in [10, order.len() - 1] {
        let mut stream = UnixStream::connect(&endpoint.socket).await.unwrap();
        stream.write_all(&order[..end]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let _ = timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(endpoint.is_untouched());
}

/// One byte a moment, of head, of body, and of what is read of the answer.
#[tokio::test]
async fn slow_clients_are_cut_off() {
    let endpoint = Endpoint::start().await;
    let head = b"GET /status HTTP/1.1\r\nX-Padding: ".to_vec();
    let body = post("/services/tftp/drain", &[("Host", "localhost"), JSON], "");
    let body = String::from_utf8(body).unwrap();
    let body = body.replace("Content-Length: 0", "Content-Length: 4000");
    for start in [head, body.into_bytes()] {
        let stream = TcpStream::connect(endpoint.address).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        writing.write_all(&start).await.unwrap();
        let dripping = async {
            while writing.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            // Closed, and refused even to take more.
        };
        timeout(LIMIT, dripping).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, reading.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        others_are_served(&endpoint).await;
    }
    assert!(endpoint.is_untouched());
}

/// A thousand who say nothing keep nobody out, on their own listener or on the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_keep_nobody_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |maximum| maximum.min(8192));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
    let endpoint = Endpoint::with_token().await;
    let mut idle = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        if number % 2 == 1 {
            // Half of them have begun.
            let _ = stream
                .write_all(b"POST /services/tftp/drain HTTP/1.1\r\n")
                .await;
        }
        idle.push(stream);
        if number % 100 == 99 {
            others_are_served(&endpoint).await;
        }
    }
    others_are_served(&endpoint).await;
    let token = format!("Bearer {TOKEN}");
    let answer = endpoint
        .order_tcp("drain", &[("Authorization", token.as_str())])
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = endpoint.order("undrain", "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let metrics = endpoint.get("/metrics").await.body;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("anycast_admin_dropped_connections_total "))
        .unwrap();
    assert!(dropped.parse::<u64>().unwrap() >= 500, "{dropped}");
    drop(idle);
}

/// All places taken by clients who have asked and never read the answer: they go after a
/// while, though not at once.
#[tokio::test]
async fn those_who_do_not_read_their_answer_keep_nobody_out() {
    let endpoint = Endpoint::start().await;
    let mut deaf = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        let request = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n";
        let _ = stream.write_all(request).await;
        deaf.push(stream);
    }
    others_are_served(&endpoint).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 8 {
        silent.push(TcpStream::connect(endpoint.address).await.unwrap());
    }
    others_are_served(&endpoint).await;
}

/// An order that waits for the announcer is not pushed out by newcomers.
#[tokio::test]
async fn an_order_under_way_keeps_its_place() {
    let endpoint = Endpoint::start().await;
    endpoint.announcer.set_slow(Duration::from_millis(500));
    let socket = endpoint.socket.clone();
    let order = tokio::spawn(async move {
        let stream = UnixStream::connect(&socket).await.unwrap();
        let request = post("/services/tftp/drain", &[("Host", "localhost"), JSON], "{}");
        exchange(stream, &request).await
    });
    endpoint.decided(Preference::Demoted).await;
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        silent.push(UnixStream::connect(&endpoint.socket).await.unwrap());
    }
    let answer = timeout(LIMIT + REQUEST_TIMEOUT, order).await.unwrap();
    assert_eq!(Reply::read(&answer.unwrap()).status, 200);
}
