//! `/metrics`: it is OpenMetrics by a strict reader, and says what `/status` says.

use std::collections::BTreeMap;

use anycast_core::Verdict;
use anycast_core::announce::Preference;
use anycast_core::testing::fakes::Behaviour;

use crate::openmetrics::{Sample, read};
use crate::support::Endpoint;

async fn scrape(endpoint: &Endpoint) -> Vec<Sample> {
    let answer = endpoint.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(kind), "{answer:?}");
    read(&answer.body).unwrap_or_else(|error| panic!("{error}\n{}", answer.body))
}

/// The value of the one sample that has this name and these labels among its own.
fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        let has = |(label, value): &(&str, &str)| {
            sample.labels.get(*label).map(String::as_str) == Some(*value)
        };
        sample.name == name && labels.iter().all(has)
    };
    let found: Vec<_> = samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].value
}

#[tokio::test]
async fn the_page_says_what_the_status_says() {
    let endpoint = Endpoint::start().await;
    let samples = scrape(&endpoint).await;
    let of = |name, labels: &[(&str, &str)]| value(&samples, name, labels);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        of(
            "anycast_node_info",
            &[("node", "ams1"), ("version", version)]
        ),
        1.0
    );
    assert_eq!(of("anycast_node_working", &[]), 1.0);
    assert_eq!(
        of(
            "anycast_service_info",
            &[("service", "tftp"), ("announcer", "recording")]
        ),
        1.0
    );
    assert_eq!(of("anycast_service_running", &[("service", "tftp")]), 1.0);
    for (preference, expected) in [("preferred", 1.0), ("demoted", 0.0), ("withdrawn", 0.0)] {
        let labels = [("service", "tftp"), ("preference", preference)];
        assert_eq!(of("anycast_service_preference", &labels), expected);
    }
    assert!(
        of(
            "anycast_service_preference_age_seconds",
            &[("service", "tftp")]
        ) >= 0.0
    );
    assert_eq!(of("anycast_service_role", &[("role", "primary")]), 1.0);
    assert_eq!(of("anycast_service_backup_rank", &[]), 0.0);
    assert_eq!(
        of(
            "anycast_service_confirmation",
            &[("confirmation", "confirmed")]
        ),
        1.0
    );
    let check = [("service", "tftp"), ("check", "probe")];
    assert_eq!(
        of(
            "anycast_check_phase",
            &[check[0], check[1], ("phase", "up")]
        ),
        1.0
    );
    assert_eq!(
        of(
            "anycast_check_verdict",
            &[check[0], check[1], ("verdict", "healthy")]
        ),
        1.0
    );
    assert!(of("anycast_check_verdict_age_seconds", &check) >= 0.0);
    assert_eq!(of("anycast_check_failures_in_row", &check), 0.0);
    assert_eq!(of("anycast_check_successes_in_row", &check), 3.0);
    assert_eq!(of("anycast_tftp_blocks_sent_total", &[]), 7.0);
    assert_eq!(of("anycast_tftp_in_flight", &[]), 2.0);
    assert_eq!(of("anycast_admin_orders_total", &[("order", "drain")]), 0.0);
}

/// Of each state exactly one is 1, whatever happens.
fn one_of_each_state(samples: &[Sample]) {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for (name, label) in [
        ("anycast_service_preference", "preference"),
        ("anycast_service_role", "role"),
        ("anycast_service_confirmation", "confirmation"),
        ("anycast_service_state", "state"),
        ("anycast_service_order", "order"),
        ("anycast_service_drain", "phase"),
        ("anycast_check_severity", "severity"),
        ("anycast_check_phase", "phase"),
        ("anycast_check_verdict", "verdict"),
    ] {
        for sample in samples.iter().filter(|sample| sample.name == name) {
            let mut labels = sample.labels.clone();
            assert!(labels.remove(label).is_some(), "{sample:?}");
            *sums.entry(format!("{name} {labels:?}")).or_default() += sample.value;
        }
    }
    assert!(sums.len() >= 9, "{sums:?}");
    assert!(sums.values().all(|sum| *sum == 1.0), "{sums:?}");
}

#[tokio::test]
async fn states_and_counts_follow() {
    let endpoint = Endpoint::with_token().await;
    one_of_each_state(&scrape(&endpoint).await);
    endpoint
        .check
        .set(Behaviour::Say(Verdict::unhealthy("\"quoted\"\\\n")));
    endpoint.in_force(Preference::Demoted).await;
    let samples = scrape(&endpoint).await;
    one_of_each_state(&samples);
    assert_eq!(
        value(&samples, "anycast_check_phase", &[("phase", "down")]),
        1.0
    );
    assert_eq!(
        value(
            &samples,
            "anycast_check_verdict",
            &[("verdict", "unhealthy")]
        ),
        1.0
    );
    assert_eq!(
        value(
            &samples,
            "anycast_service_preference",
            &[("preference", "demoted")]
        ),
        1.0
    );
    // Reasons are no labels.
    assert!(
        !samples
            .iter()
            .any(|s| s.labels.values().any(|v| v.contains("quoted")))
    );
    assert_eq!(endpoint.order("drain", "{}").await.status, 200);
    assert_eq!(endpoint.order_tcp("drain", &[]).await.status, 401);
    assert_eq!(
        endpoint
            .order_tcp("drain", &[("Origin", "null")])
            .await
            .status,
        403
    );
    let samples = scrape(&endpoint).await;
    one_of_each_state(&samples);
    let refused = |why| {
        value(
            &samples,
            "anycast_admin_refused_orders_total",
            &[("why", why)],
        )
    };
    assert_eq!(refused("wrong_token"), 1.0);
    assert_eq!(refused("cross_site"), 1.0);
    assert_eq!(refused("no_token"), 0.0);
    assert_eq!(
        value(
            &samples,
            "anycast_admin_orders_total",
            &[("order", "drain")]
        ),
        1.0
    );
}

/// Two scrapes differ in their values alone, so that nothing is told in a random order.
#[tokio::test]
async fn the_order_of_the_page_is_fixed() {
    let endpoint = Endpoint::start().await;
    let keys = |samples: Vec<Sample>| -> Vec<_> {
        samples.into_iter().map(|s| (s.name, s.labels)).collect()
    };
    assert_eq!(keys(scrape(&endpoint).await), keys(scrape(&endpoint).await));
}
