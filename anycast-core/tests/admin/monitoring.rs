//! The alert rules and the dashboard in `docs/monitoring` ask for what `/metrics` serves: every
//! name, every label, every value of a state. And the rules do what they say, by Prometheus'
//! own `promtool`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anycast_core::Verdict;
use anycast_core::announce::Preference;
use anycast_core::testing::fakes::Behaviour;

use crate::openmetrics;
use crate::promql::{self, Asked};
use crate::support::Endpoint;

/// What Prometheus itself adds to every series.
const TARGET: [&str; 2] = ["instance", "job"];
/// Of sections that the daemons add and this node has not; their own tests see that they do.
const OF_DAEMONS: [&str; 4] = [
    "anycast_configuration_last_reload_refused",
    "anycast_tftp_messages_refused_total",
    "anycast_tftp_pauses_total",
    "anycast_tftp_unprotected_total",
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

fn text(name: &str) -> String {
    let path = docs().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of each metric its labels, and of each label its values.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A node that has a fleet, an input of readiness, a check that is down and an order in force,
/// and that was parked, so that no family is empty.
async fn served() -> Served {
    let endpoint = Endpoint::in_trouble().await;
    endpoint.order("drain", "{}").await;
    endpoint.decided(Preference::Demoted).await;
    let mut served = Served::new();
    let mut take = |page: &str| {
        for sample in openmetrics::read(page).unwrap() {
            let labels = served.entry(sample.name).or_default();
            for (label, value) in sample.labels {
                labels.entry(label).or_default().insert(value);
            }
        }
    };
    take(&endpoint.get("/metrics").await.body);
    // Lifting the order would end the parking, so it comes second.
    endpoint.order("undrain", "{}").await;
    endpoint.park().await;
    let page = endpoint.get("/metrics").await.body;
    take(&page);
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let sample = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        assert!(
            served.contains_key(&sample),
            "no sample of {sample}\n{page}"
        );
    }
    for name in OF_DAEMONS {
        served.insert(name.to_owned(), BTreeMap::new());
    }
    served
}

fn check(served: &Served, place: &str, asked: &Asked) {
    let mut known: BTreeSet<&str> = TARGET.into();
    for (metric, matchers) in &asked.metrics {
        let labels = served
            .get(metric)
            .unwrap_or_else(|| panic!("{place}: {metric} is not served"));
        known.extend(labels.keys().map(String::as_str));
        for matcher in matchers {
            if TARGET.contains(&matcher.label.as_str()) {
                continue;
            }
            let Some(values) = labels.get(&matcher.label) else {
                panic!("{place}: {metric} has no label {}", matcher.label);
            };
            let variable = |value: &&String| !value.starts_with('$');
            for value in matcher.values.iter().filter(variable) {
                assert!(
                    values.contains(value),
                    "{place}: {metric}: {value}: {values:?}"
                );
            }
        }
    }
    for label in &asked.labels {
        assert!(known.contains(label.as_str()), "{place}: no label {label}");
    }
}

/// The rules of the file: name, expression, and all of its text.
fn rules(file: &str) -> Vec<(&str, &str, &str)> {
    let rules = file.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().unwrap().trim();
        let expression = rule
            .lines()
            .find_map(|line| line.trim().strip_prefix("expr: "));
        let expression = expression.unwrap_or_else(|| panic!("{name}: no expr on one line"));
        (name, expression, rule)
    });
    rules.collect()
}

#[tokio::test]
async fn rules_and_dashboard_ask_for_what_is_served() {
    let served = served().await;
    let file = text("alerts.yml");
    let all = rules(&file);
    assert!(all.len() >= 15, "{}", all.len());
    assert_eq!(file.matches("expr:").count(), all.len());
    for (name, expression, rule) in all {
        let asked = promql::read(expression);
        assert!(!asked.metrics.is_empty(), "{name} asks for nothing");
        check(&served, name, &asked);
        // What the text says of its labels is there as well.
        let mut labels: BTreeSet<&str> = TARGET.into();
        for (metric, _) in &asked.metrics {
            labels.extend(served[metric].keys().map(String::as_str));
        }
        for label in rule.split("$labels.").skip(1) {
            let label = label.split([' ', '}']).next().unwrap();
            assert!(labels.contains(label), "{name}: $labels.{label}");
        }
    }
    let dashboard = dashboard();
    assert!(dashboard.len() >= 15, "{}", dashboard.len());
    for expression in &dashboard {
        check(&served, "grafana.json", &promql::read(expression));
    }
    // Whoever adds a state wants to see it: the states that matter have a rule or a panel.
    let shown = file + &dashboard.join("\n");
    for metric in [
        "anycast_service_preference",
        "anycast_service_state",
        "anycast_service_confirmation",
        "anycast_service_order",
        "anycast_service_drain",
        "anycast_service_running",
        "anycast_check_verdict",
        "anycast_readiness_ready",
        "anycast_fleet_peers",
    ] {
        assert!(shown.contains(metric), "{metric} is nowhere shown");
    }
}

/// Every expression of the dashboard, those of its variables included.
fn dashboard() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&text("grafana.json")).unwrap();
    let mut found = Vec::new();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            found.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // label_values(SELECTOR, LABEL)
        let query = variable["query"]["query"].as_str();
        let inside = query.and_then(|query| query.strip_prefix("label_values("));
        if let Some((selector, label)) = inside.and_then(|q| q.strip_suffix(')')?.rsplit_once(','))
        {
            found.push(format!("count by ({}) ({selector})", label.trim()));
        }
    }
    found
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(docs())
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}; apt-get install prometheus"));
    assert!(
        output.status.success(),
        "promtool {arguments:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn prometheus_takes_the_rules_and_each_is_raised_when_it_must_be_and_not_else() {
    promtool(&["check", "rules", "alerts.yml"]);
    let (file, cases) = (text("alerts.yml"), text("alerts_test.yml"));
    for (name, ..) in rules(&file) {
        for case in ["raised", "not raised"] {
            let case = format!("\"{name}: {case}\"");
            assert!(cases.contains(&case), "alerts_test.yml has no case {case}");
        }
    }
    promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn prometheus_takes_every_expression_of_the_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dashboard.yml");
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (index, expression) in dashboard().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m");
        rules += &format!("      - {{record: \"q{index}\", expr: '{expression}'}}\n");
    }
    fs::write(&path, rules).unwrap();
    promtool(&["check", "rules", &path.display().to_string()]);
}

#[tokio::test]
async fn a_check_that_cannot_tell_is_what_the_rule_asks_for() {
    let endpoint = Endpoint::start().await;
    endpoint
        .check
        .set(Behaviour::Say(Verdict::unknown("EMFILE")));
    let expected = r#"anycast_check_verdict{service="tftp",check="probe",verdict="unknown"} 1"#;
    let waiting = async {
        while !endpoint.get("/metrics").await.body.contains(expected) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::LIMIT, waiting)
        .await
        .unwrap();
}
