//! What an operator finds in the log: every order with who, from where and why, and checks that
//! fail themselves.

use std::time::{Duration, Instant};

use anycast_core::announce::Preference;
use anycast_core::machine::PeerReport;
use anycast_core::testing::fakes::Behaviour;
use anycast_core::{NodeName, Verdict};
use anycast_labs::logged::Logged;
use tracing::Level;

use crate::support::{Endpoint, JSON, LIMIT, Reply, TOKEN, post};

/// Collects what is logged at INFO and above in this thread, a line an event.
pub(crate) struct Lines(Logged);

impl Lines {
    /// Until the guard is dropped.
    pub(crate) fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Logged::new("anycast_core", Level::INFO);
        let guard = tracing::subscriber::set_default(logged.clone());
        (Self(logged), guard)
    }

    pub(crate) fn having(&self, what: &str) -> Vec<String> {
        let mut lines = self.0.lines();
        lines.retain(|line| line.contains(what));
        lines
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }

    pub(crate) async fn until(&self, what: &str) -> String {
        let waiting = async {
            loop {
                if let Some(line) = self.having(what).pop() {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(LIMIT, waiting).await;
        found.unwrap_or_else(|_| panic!("no line has {what:?}: {:?}", self.0.lines()))
    }
}

/// The one line that has this, which is at this level and has all of these.
fn one(lines: &Lines, what: &str, level: &str, parts: &[&str]) {
    let found = lines.having(what);
    let [line] = &found[..] else {
        panic!("{what:?}: {found:?}");
    };
    assert!(line.starts_with(level), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part}: {line}");
    }
    lines.clear();
}

#[tokio::test]
async fn every_order_is_logged_with_who_from_where_and_why() {
    let (lines, _guard) = Lines::collect();
    let endpoint = Endpoint::with_token().await;
    let pid = format!("pid {}", std::process::id());
    let who = ["by=\"", "uid ", pid.as_str(), "by the Unix socket"];
    for (verb, reason, parts) in [
        ("drain", "disk swap", &["lasts=Some(7200s)"][..]),
        ("withdraw", "the site moves", &["lasts=Some(7200s)"]),
        ("undrain", "disks swapped", &["lasts=None"]),
    ] {
        lines.clear();
        let lasts = if verb == "undrain" {
            ""
        } else {
            r#", "for": "2h""#
        };
        let body = format!(r#"{{"reason": "{reason}\n"{lasts}}}"#);
        assert_eq!(endpoint.order(verb, &body).await.status, 200);
        let order = format!("order=\"{verb}\"");
        let reason = format!("reason={reason} ");
        let common = ["service=tftp", order.as_str(), reason.as_str(), "saved="];
        let parts = [&common[..], &who, parts].concat();
        one(&lines, "message=operator's order ", "INFO", &parts);
    }
    // Over TCP: the token has no name, the address is what is known.
    let token = format!("Bearer {TOKEN}");
    let bearer = ("Authorization", token.as_str());
    assert_eq!(endpoint.order_tcp("drain", &[bearer]).await.status, 200);
    let who = ["by=\"the holder of the token, from 127.0.0.1:"];
    let parts = [&who[..], &["order=\"drain\"", "reason=no reason given "]].concat();
    one(&lines, "message=operator's order ", "INFO", &parts);
}

#[tokio::test]
async fn an_order_that_is_refused_is_logged_with_who_and_why() {
    let (lines, _guard) = Lines::collect();
    let endpoint = Endpoint::in_trouble().await;
    endpoint.check.set(Behaviour::Say(Verdict::Healthy));
    if let Some(clock) = &endpoint.clock {
        clock.send_replace(anycast_core::machine::Readiness::Ready);
    }
    endpoint.in_force(Preference::Preferred).await;
    // Nobody else is left.
    for name in ["fra1", "lon1"] {
        let report = PeerReport {
            heard_at: Instant::now(),
            preferred: false,
            draining: false,
            failing_since: None,
        };
        let (service, peer) = ("tftp".parse().unwrap(), NodeName::new(name).unwrap());
        let handle = endpoint.node.handle();
        handle.report_peer(&service, peer, report).await.unwrap();
    }
    lines.clear();
    let pid = format!("pid {}", std::process::id());
    let who = ["WARN", "by=\"", pid.as_str(), "by the Unix socket"];
    let refused = "message=operator's order refused ";
    let answer = endpoint.order("drain", r#"{"reason": "disk swap"}"#).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    let parts = [
        "order=\"drain\"",
        "reason=\"disk swap\"",
        "refused=no other node is known",
    ];
    one(&lines, refused, "WARN", &[&who[..], &parts].concat());
    // Each of them, in a row.
    let answer = endpoint.order("withdraw", r#"{"for": "soon"}"#).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let parts = ["order=\"withdraw\"", "refused=for = \"soon\" is not"];
    one(&lines, refused, "WARN", &[&who[..], &parts].concat());
    let request = post(
        "/services/dns/undrain",
        &[("Host", "localhost"), JSON],
        r#"{"reason": "wrong service"}"#,
    );
    let answer = Reply::read(&endpoint.ask_socket(&request).await);
    assert_eq!(answer.status, 404, "{answer:?}");
    let parts = [
        "service=dns",
        "order=\"undrain\"",
        "reason=\"wrong service\"",
    ];
    one(&lines, refused, "WARN", &[&who[..], &parts].concat());
    // What is in the body leaves one line and no control characters.
    let answer = endpoint.order("drain", "{\"a\\u001b[2J\\nb\": 1}").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let line = lines.having(refused).pop().unwrap();
    assert!(!line.contains(['\u{1b}', '\n']), "{line:?}");
    endpoint.in_force(Preference::Preferred).await;
}

/// Who has no right to give orders has no name, and does not fill the log.
#[tokio::test]
async fn one_who_has_no_right_is_logged_by_address_and_not_each_time() {
    let (lines, _guard) = Lines::collect();
    let endpoint = Endpoint::with_token().await;
    let wrong = ("Authorization", "Bearer wrong-token-of-some-length");
    for _ in 0..20 {
        assert_eq!(endpoint.order_tcp("drain", &[wrong]).await.status, 401);
    }
    let parts = ["from=127.0.0.1:", "order=\"/services/tftp/drain\"", "token"];
    one(&lines, "request was refused", "WARN", &parts);
    assert!(lines.having(wrong.1).is_empty());
    assert!(lines.having("operator's order").is_empty());
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn a_record_that_is_read_is_logged() {
    let (lines, _guard) = Lines::collect();
    let endpoint = Endpoint::start().await;
    let request = "GET /services/tftp/record HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = Reply::read(&endpoint.ask_socket(request.as_bytes()).await);
    assert_eq!(answer.status, 200, "{answer:?}");
    let pid = format!("pid {}", std::process::id());
    let parts = ["service=tftp", "by=\"", pid.as_str(), "bytes="];
    one(&lines, "message=record given ", "INFO", &parts);
}

#[tokio::test]
async fn an_unknown_check_is_logged_once_with_its_reason_and_when_it_is_over() {
    let (lines, _guard) = Lines::collect();
    let endpoint = Endpoint::start().await;
    lines.clear();
    let probes = endpoint.check.probes();
    endpoint.check.set(Behaviour::Panic);
    while endpoint.check.probes() < probes + 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = "message=check is unknown";
    lines.until(began).await;
    // It changes its reason, and is the same episode.
    let why = Verdict::unknown("too many open files");
    endpoint.check.set(Behaviour::Say(why));
    let probes = endpoint.check.probes();
    while endpoint.check.probes() < probes + 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let parts = [
        "service=tftp",
        "check=probe",
        "reason=it panicked: scripted panic",
    ];
    let found = lines.having(began);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(lines.having("open files").is_empty());
    endpoint.check.set(Behaviour::Say(Verdict::Healthy));
    let over = "message=check is no longer unknown";
    lines.until(over).await;
    one(&lines, began, "WARN", &parts);
    assert!(endpoint.is_untouched());
}
