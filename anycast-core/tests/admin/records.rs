//! `/services/NAME/record`: what it gives, and to whom.

use std::time::Instant;

use anycast_core::Verdict;
use anycast_core::announce::Preference;
use anycast_core::record::Replay;
use anycast_core::testing::fakes::Behaviour;

use crate::support::{Endpoint, Reply, TOKEN};

const REQUEST: &str = "GET /services/tftp/record HTTP/1.1\r\nHost: localhost\r\n";

async fn over_tcp(endpoint: &Endpoint, headers: &str) -> Reply {
    let request = format!("{REQUEST}{headers}\r\n");
    Reply::read(&endpoint.ask(request.as_bytes()).await)
}

async fn over_the_socket(endpoint: &Endpoint, path: &str) -> Reply {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Reply::read(&endpoint.ask_socket(request.as_bytes()).await)
}

#[tokio::test]
async fn what_a_running_node_decided_is_replayed_to_the_same() {
    let endpoint = Endpoint::start().await;
    endpoint
        .check
        .set(Behaviour::Say(Verdict::unhealthy("the disk is gone")));
    endpoint.in_force(Preference::Demoted).await;
    endpoint.check.set(Behaviour::Say(Verdict::Healthy));
    endpoint.in_force(Preference::Preferred).await;
    let order = r#"{"reason": "new disks", "for": "2h"}"#;
    assert_eq!(endpoint.order("drain", order).await.status, 200);
    let answer = over_the_socket(&endpoint, "/services/tftp/record").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: application/x-ndjson"));
    let replay = Replay::run(&answer.body, Instant::now()).unwrap();
    assert_eq!(replay.first_difference(), None, "{}", answer.body);
    assert_eq!(replay.header.node.as_str(), "ams1");
    let told: Vec<_> = replay
        .decisions
        .iter()
        .map(|d| (d.preference, &*d.reason))
        .collect();
    let tells = |preference, why: &str| {
        let mut told = told.iter();
        told.any(|(p, reason)| *p == preference && reason.contains(why))
    };
    assert!(
        tells(Preference::Preferred, "every check is up"),
        "{told:?}"
    );
    assert!(tells(Preference::Demoted, "the disk is gone"), "{told:?}");
    assert!(tells(Preference::Demoted, "new disks"), "{told:?}");
    // Read again it has not lost anything.
    let again = over_the_socket(&endpoint, "/services/tftp/record").await;
    assert!(again.body.lines().count() >= answer.body.lines().count());
}

#[tokio::test]
async fn a_service_that_is_not_there_has_no_record() {
    let endpoint = Endpoint::start().await;
    let answer = over_the_socket(&endpoint, "/services/dns/record").await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("no service is called dns"));
}

#[tokio::test]
async fn over_tcp_a_record_needs_the_rights_of_an_order() {
    let without = Endpoint::start().await;
    let answer = over_tcp(&without, "").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.error().contains("no token is configured"));
    let endpoint = Endpoint::with_token().await;
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    for (headers, status) in [
        (String::new(), 401),
        (
            "Authorization: Bearer not-the-token-at-all\r\n".to_owned(),
            401,
        ),
        (format!("{right}Origin: http://localhost\r\n"), 403),
        (format!("{right}Sec-Fetch-Site: none\r\n"), 403),
        (right, 200),
    ] {
        let answer = over_tcp(&endpoint, &headers).await;
        assert_eq!(answer.status, status, "{headers}: {answer:?}");
        assert_eq!(status == 200, answer.body.contains("anycast_record"));
        if status == 401 {
            assert!(answer.head.contains("www-authenticate: bearer"));
        }
    }
    let metrics = endpoint.get("/metrics").await.body;
    let refused = "anycast_admin_refused_orders_total{why=\"wrong_token\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
}
