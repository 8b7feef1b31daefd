//! What is asked, and what of the answer is judged.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use anycast_core::Verdict;
use anycast_core::health::http::{HttpCheck, MAX_BODY};
use anycast_core::health::probe::Source;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::stream::{PATIENT, addresses, listen, nothing_left, probe, serve, unhealthy, unknown};
use super::{answer, check, head};

/// A service that always gives this answer.
async fn always(said: String) -> SocketAddr {
    serve("127.0.0.80", move |mut stream| {
        let said = said.clone();
        async move {
            head(&mut stream).await;
            let _ = stream.write_all(said.as_bytes()).await;
            // Its end comes from the other side.
            head(&mut stream).await;
        }
    })
    .await
}

/// What a service at `address` is asked by a check.
async fn asked(address: &str, by: impl FnOnce(HttpCheck) -> HttpCheck) -> (SocketAddr, String) {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let at = serve(address, move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(head(&mut stream).await).unwrap();
            let said = answer("200 OK", "", "");
            stream.write_all(said.as_bytes()).await.unwrap();
        }
    })
    .await;
    assert_eq!(probe(by(check(at)), PATIENT).await, Verdict::Healthy);
    (at, heard.recv().await.unwrap())
}

#[tokio::test]
async fn the_question_is_a_plain_one() {
    let (at, head) = asked("127.0.0.80", |check| check).await;
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines[0], "GET / HTTP/1.1");
    let has = |line: &str| assert!(lines.contains(&line), "{line} is not in {head}");
    has(&format!("host: {at}"));
    has("connection: close");
    has(concat!(
        "user-agent: anycast-core/",
        env!("CARGO_PKG_VERSION"),
        " (health check)"
    ));
    let (at, head) = asked("::1", |check| check).await;
    assert!(head.contains(&format!("host: {at}\r\n")), "{head}");
}

#[tokio::test]
async fn host_path_and_method_are_the_operators() {
    let (_, head) = asked("127.0.0.80", |check| {
        let check = check.with_host("www.example.com").unwrap();
        check.with_path("/health?full=1").unwrap().with_head_only()
    })
    .await;
    assert!(
        head.starts_with("HEAD /health?full=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: www.example.com\r\n"), "{head}");
}

#[tokio::test]
async fn the_question_comes_from_the_service_address() {
    let (listener, at) = listen("127.0.0.80").await;
    let from = async || {
        let (mut stream, from) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let said = answer("204 No Content", "", "");
        stream.write_all(said.as_bytes()).await.unwrap();
        head(&mut stream).await;
        from.ip().to_string()
    };
    let (verdict, ip) = tokio::join!(probe(check(at), PATIENT), from());
    assert_eq!((verdict, ip), (Verdict::Healthy, "127.0.0.80".to_owned()));
    let any = check(at).with_source(Source::Any);
    let (verdict, ip) = tokio::join!(probe(any, PATIENT), from());
    assert_eq!((verdict, ip), (Verdict::Healthy, "127.0.0.1".to_owned()));
}

#[tokio::test]
async fn every_address_has_to_answer() {
    let (v4, v6, port) = loop {
        let (v4, at) = listen("127.0.0.80").await;
        // Rarely, another program has that port.
        if let Ok(v6) = TcpListener::bind(("::1", at.port())).await {
            break (v4, v6, at.port());
        }
    };
    for (listener, status) in [(v4, "200 OK"), (v6, "503 Service Unavailable")] {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                head(&mut stream).await;
                let said = answer(status, "", "");
                let _ = stream.write_all(said.as_bytes()).await;
                head(&mut stream).await;
            }
        });
    }
    let both = addresses(&["127.0.0.80", "::1"].map(|ip| ip.parse().unwrap()));
    let check = HttpCheck::new(&both, NonZeroU16::new(port).unwrap());
    let says = format!("[::1]:{port}: answered 503 Service Unavailable, not 200-299");
    assert_eq!(probe(check, PATIENT).await, Verdict::unhealthy(says));
}

#[tokio::test]
async fn the_status_must_be_an_expected_one() {
    let down = always(answer("503 Service Unavailable", "", "ok")).await;
    let verdict = probe(check(down), PATIENT).await;
    unhealthy(&verdict, "answered 503 Service Unavailable, not 200-299");
    let moved = always(answer("301 Moved Permanently", "Location: /\r\n", "")).await;
    let verdict = probe(check(moved), PATIENT).await;
    unhealthy(&verdict, "answered 301 Moved Permanently, not 200-299");
    let expected = check(moved).with_status("200-299,301".parse().unwrap());
    assert_eq!(probe(expected, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn the_header_must_name_this_node() {
    let named = |node: &str| always(answer("200 OK", &format!("X-Node: {node}\r\n"), ""));
    let ams1 = |at| check(at).with_header("x-node", "ams1").unwrap();
    let verdict = probe(ams1(named("ams1").await), PATIENT).await;
    assert_eq!(verdict, Verdict::Healthy);
    let verdict = probe(ams1(named("proxy\r\nX-Node: ams1").await), PATIENT).await;
    assert_eq!(verdict, Verdict::Healthy, "one of two");
    let verdict = probe(ams1(named("fra1").await), PATIENT).await;
    unhealthy(&verdict, "answered with x-node: \"fra1\", not \"ams1\"");
    let nobody = always(answer("200 OK", "", "")).await;
    let verdict = probe(ams1(nobody), PATIENT).await;
    unhealthy(&verdict, "answered without the header x-node");
}

#[tokio::test]
async fn the_body_must_hold_the_text_within_its_first_part() {
    let ready = |at| check(at).with_body("ready").unwrap();
    let at = always(answer("200 OK", "", "all is ready\n")).await;
    assert_eq!(probe(ready(at), PATIENT).await, Verdict::Healthy);
    let at = always(answer("200 OK", "", "starting\n")).await;
    let verdict = probe(ready(at), PATIENT).await;
    unhealthy(&verdict, r#"no "ready" in the answer's body: "starting\n""#);
    let at = always(answer("200 OK", "", "")).await;
    unhealthy(&probe(ready(at), PATIENT).await, "no \"ready\"");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let at = always(chunked.to_owned()).await;
    assert_eq!(probe(ready(at), PATIENT).await, Verdict::Healthy);

    let padding = "x".repeat(MAX_BODY - 5);
    let within = always(answer("200 OK", "", &format!("{padding}ready and more"))).await;
    assert_eq!(probe(ready(within), PATIENT).await, Verdict::Healthy);
    let beyond = always(answer("200 OK", "", &format!("{padding}.ready"))).await;
    unhealthy(&probe(ready(beyond), PATIENT).await, "no \"ready\"");
    // Without a text to look for, a long answer is as good as any.
    assert_eq!(probe(check(beyond), PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn an_old_service_may_end_its_answer_with_the_connection() {
    let at = serve("127.0.0.80", |mut stream| async move {
        head(&mut stream).await;
        let said = b"HTTP/1.0 200 OK\r\n\r\nready";
        stream.write_all(said).await.unwrap();
    })
    .await;
    let ready = check(at).with_body("ready").unwrap();
    assert_eq!(probe(ready, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let at = always(format!("{hints}{hints}{}", answer("200 OK", "", ""))).await;
    assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn nothing_of_a_probe_stays_in_the_kernel() {
    let at = always(answer("200 OK", "", "ok")).await;
    let closing = serve("127.0.0.80", |mut stream| async move {
        head(&mut stream).await;
        let said = answer("200 OK", "Connection: close\r\n", "ok");
        stream.write_all(said.as_bytes()).await.unwrap();
    })
    .await;
    for _ in 0..50 {
        assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
        assert_eq!(probe(check(closing), PATIENT).await, Verdict::Healthy);
    }
    nothing_left(at).await;
    nothing_left(closing).await;
}

#[tokio::test]
async fn a_refusal_and_a_missing_address_are_the_services_fault() {
    let (listener, at) = listen("127.0.0.80").await;
    drop(listener);
    let verdict = probe(check(at), PATIENT).await;
    unhealthy(&verdict, &format!("{at}: connecting: Connection refused"));
    let missing = check("192.0.2.1:80".parse().unwrap());
    let verdict = probe(missing, PATIENT).await;
    unhealthy(&verdict, "192.0.2.1:80: the address is not on this node");
}

#[test]
fn without_descriptors_nothing_is_said_of_the_service() {
    super::stream::in_poverty(|exhaust| async move {
        let at = always(answer("200 OK", "", "")).await;
        assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
        let hoard = exhaust();
        unknown(&probe(check(at), PATIENT).await, "opening a socket");
        drop(hoard);
        assert_eq!(probe(check(at), PATIENT).await, Verdict::Healthy);
    });
}
