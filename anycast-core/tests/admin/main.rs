//! The admin endpoint over real sockets: what it answers, whom it obeys, and what it survives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: it says what it expects, and runs in real time"
)]
#![cfg(all(feature = "admin", feature = "testing"))]

mod bad_input;
mod data_sets;
#[cfg(feature = "checks")]
mod full_disk;
mod log;
#[cfg(feature = "mesh")]
mod mesh;
mod metrics;
mod monitoring;
mod openmetrics;
mod orders;
mod promql;
mod records;
mod socket;
mod status_schema;
mod support;

use std::time::Duration;

use crate::support::{Endpoint, LIMIT};

#[tokio::test]
async fn status_is_json_with_reasons() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint.get("/status").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"));
    assert!(answer.head.contains("cache-control: no-store"));
    let status = answer.json();
    assert_eq!(status["node"], "ams1");
    assert_eq!(status["tftp"]["blocks_sent"], 7);
    let service = &status["services"][0];
    assert_eq!(service["name"], "tftp");
    assert_eq!(service["addresses"][0], "192.0.2.69");
    assert_eq!(service["preference"], "preferred");
    assert_eq!(service["reason"], "every check is up");
    assert_eq!(service["confirmation"]["state"], "confirmed");
    assert_eq!(service["checks"][0]["phase"], "up");
    assert_eq!(service["checks"][0]["verdict"], "healthy");
    assert!(service["preference_age_s"].as_f64().unwrap() >= 0.0);
}

#[tokio::test]
async fn healthz_is_ok_until_the_announcer_fails() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint.get("/healthz").await;
    assert_eq!((answer.status, &*answer.body), (200, "ok\n"));
    endpoint.announcer.set_failing(true);
    let expected = "tftp: cannot be applied: recording announcer";
    let waiting = async {
        let mut last = None;
        loop {
            let answer = endpoint.get("/healthz").await;
            if answer.body.contains(expected) {
                return answer;
            }
            // What cannot be observed is not confirmed, before the next attempt fails.
            let is_doubt = answer.status == 503 && answer.body.contains("tftp: not confirmed: ");
            assert!(
                answer.status == 200 && last != Some(503) || is_doubt,
                "{answer:?}"
            );
            last = Some(answer.status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The boost is renewed at a third of a minute.
    let answer = tokio::time::timeout(LIMIT * 2, waiting).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[tokio::test]
async fn nothing_but_known_paths_and_their_methods() {
    let endpoint = Endpoint::start().await;
    for (request, status, allow) in [
        ("POST /status", 405, "allow: get, head"),
        ("DELETE /metrics", 405, "allow: get, head"),
        ("OPTIONS /services/tftp/drain", 405, "allow: post"),
        ("GET /services/tftp/drain", 405, "allow: post"),
        ("PUT /services/tftp/withdraw", 405, "allow: post"),
        ("POST /services/tftp/record", 405, "allow: get, head"),
        ("GET /services//record", 404, ""),
        ("GET /services/a/b/record", 404, ""),
        ("GET /other", 404, ""),
        ("POST /services/tftp/reboot", 404, ""),
        ("POST /services/tftp", 404, ""),
        ("POST /services//drain", 404, ""),
        ("GET /status/", 404, ""),
        ("HEAD /status", 200, ""),
    ] {
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = support::Reply::read(&endpoint.ask(text.as_bytes()).await);
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        assert!(answer.head.contains(allow), "{request}: {answer:?}");
        if request.starts_with("HEAD") {
            assert!(answer.body.is_empty());
        }
    }
    assert!(endpoint.is_untouched());
}
