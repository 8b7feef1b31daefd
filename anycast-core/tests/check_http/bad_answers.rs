//! Services that answer wrongly, slowly, without end or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use anycast_core::Verdict;
use anycast_core::health::http::{MAX_HEAD, MAX_HEADERS, MAX_WIRE};
use tokio::io::AsyncWriteExt;

use super::stream::{LATER, PATIENT, SHORT, listen, probe, serve, unhealthy};
use super::{answer, check, head};

/// A service that says `first`, then `more` again and again, with a pause before each.
async fn says(first: &str, more: &[u8], pause: Duration) -> SocketAddr {
    let (first, more) = (first.to_owned(), more.to_vec());
    serve("127.0.0.81", move |mut stream| {
        let (first, more) = (first.clone(), more.clone());
        async move {
            head(&mut stream).await;
            if stream.write_all(first.as_bytes()).await.is_err() || more.is_empty() {
                return;
            }
            loop {
                tokio::time::sleep(pause).await;
                if stream.write_all(&more).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

async fn verdict_on(at: SocketAddr, timeout: Duration) -> Verdict {
    probe(check(at), timeout).await
}

#[tokio::test]
async fn garbage_is_unhealthy() {
    for garbage in [
        "\0\x01\x02\x03\n\n\n",
        "220 mail.example ESMTP\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "<html>200 OK</html>\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        let at = says(garbage, b"", Duration::ZERO).await;
        let verdict = verdict_on(at, PATIENT).await;
        assert!(
            matches!(verdict, Verdict::Unhealthy(..)),
            "{garbage:?}: {verdict}"
        );
        let reason = verdict.to_string();
        assert!(reason.contains(&at.to_string()), "{garbage:?}: {reason}");
    }
}

#[tokio::test]
async fn an_early_end_is_unhealthy() {
    for (said, reason) in [
        ("", "no valid answer: "),
        ("HTTP/1.1 200 OK\r\nX-", "no valid answer: "),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nready",
            "the answer broke off: ",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n",
            "the answer broke off: ",
        ),
    ] {
        let at = says(said, b"", Duration::ZERO).await;
        unhealthy(&verdict_on(at, PATIENT).await, reason);
    }
    let resetting = serve("127.0.0.81", |stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    unhealthy(&verdict_on(resetting, PATIENT).await, "reset by peer");
}

#[tokio::test]
async fn silence_is_unhealthy() {
    let (_listener, at) = listen("127.0.0.81").await;
    unhealthy(&verdict_on(at, SHORT).await, "no answer within 200ms");
    let head = says("HTTP/1.1 200 OK\r\n", b"", Duration::ZERO).await;
    unhealthy(&verdict_on(head, PATIENT).await, "no valid answer");
}

#[tokio::test]
async fn a_trickle_is_bounded_by_the_time_out() {
    const PAUSE: Duration = Duration::from_millis(20);
    let status = says("", b"\r\n", PAUSE).await;
    unhealthy(&verdict_on(status, SHORT).await, "no answer within 200ms");
    let headers = says("HTTP/1.1 200 OK\r\nX-Slow: ", b"x", PAUSE).await;
    unhealthy(&verdict_on(headers, SHORT).await, "no answer within 200ms");
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let body = says(first, b"x", PAUSE).await;
    let verdict = verdict_on(body, LATER).await;
    unhealthy(&verdict, "bytes of the answer's body within 3s");
}

#[tokio::test]
async fn a_head_without_end_is_bounded_in_bytes() {
    let long = says("HTTP/1.1 200 OK\r\nX-Long: ", &[b'x'; 4096], Duration::ZERO).await;
    unhealthy(&verdict_on(long, PATIENT).await, "too large");
    let many = says("HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n", Duration::ZERO).await;
    unhealthy(&verdict_on(many, PATIENT).await, "too large");
    let lines = "X-Many: x\r\n".repeat(MAX_HEADERS);
    let too_many = says(&answer("200 OK", &lines, ""), b"", Duration::ZERO).await;
    unhealthy(&verdict_on(too_many, PATIENT).await, "too large");
    let lines = "X-Many: x\r\n".repeat(MAX_HEADERS - 1);
    let within = says(&answer("200 OK", &lines, ""), b"", Duration::ZERO).await;
    assert_eq!(verdict_on(within, PATIENT).await, Verdict::Healthy);
    let padding = format!("X-Long: {}\r\n", "x".repeat(MAX_HEAD / 2));
    let within = says(&answer("200 OK", &padding, ""), b"", Duration::ZERO).await;
    assert_eq!(verdict_on(within, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn a_body_without_end_is_read_up_to_its_bound() {
    let first = "HTTP/1.1 200 OK\r\n\r\n";
    let at = says(first, &[b'x'; 65_536], Duration::ZERO).await;
    assert_eq!(verdict_on(at, PATIENT).await, Verdict::Healthy);
    let ready = check(at).with_body("ready").unwrap();
    unhealthy(&probe(ready, PATIENT).await, "no \"ready\"");
}

#[tokio::test]
async fn whatever_is_framed_is_bounded_in_bytes() {
    let all = format!("it sent {MAX_WIRE} bytes, and that was not all");
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    let at = says("", &interim, Duration::ZERO).await;
    unhealthy(&verdict_on(at, PATIENT).await, &all);
    // A chunk's size in as many digits as are allowed, for one byte of body.
    let first = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = b"000000000001\r\nx\r\n".repeat(100);
    let at = says(first, &chunks, Duration::ZERO).await;
    unhealthy(&verdict_on(at, PATIENT).await, &all);
}

/// Dropped half-way, it closes its connection, and the next one works.
#[tokio::test]
async fn a_dropped_probe_spoils_nothing() {
    use anycast_core::HealthCheck as _;
    let (listener, at) = listen("127.0.0.81").await;
    let mut check = check(at);
    let dropped = tokio::time::timeout(SHORT, check.check(PATIENT)).await;
    assert!(dropped.is_err());
    let (mut stream, _) = listener.accept().await.unwrap();
    let head_of_it = head(&mut stream).await;
    assert!(head_of_it.is_empty() || head_of_it.starts_with("GET / "));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let said = answer("200 OK", "", "");
        stream.write_all(said.as_bytes()).await.unwrap();
        head(&mut stream).await;
    });
    assert_eq!(probe(check, PATIENT).await, Verdict::Healthy);
}
