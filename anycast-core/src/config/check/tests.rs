mod compose;

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::*;
use crate::config::{ConfigError, Source};
use crate::health::{BuildCheck, HealthCheck, Severity, Verdict};
use crate::node::CheckSpec;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    check: Vec<CheckTable>,
}

/// A kind with one key of each type.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "they are read through Debug")]
#[serde(deny_unknown_fields)]
struct ProbeTable {
    port: NonZeroU16,
    #[serde(default)]
    codes: Vec<u8>,
    patience: Option<Period>,
    ratio: Option<f64>,
    strict: Option<bool>,
    header: Option<Header>,
    mode: Option<Mode>,
    large: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is read through Debug")]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Strict,
    Lax,
}

/// Says what its table held.
struct Says(String);

#[async_trait]
impl HealthCheck for Says {
    async fn check(&mut self, _: Duration) -> Verdict {
        Verdict::unknown(self.0.as_str())
    }
}

fn says(text: String) -> BuildCheck {
    Arc::new(move || Box::new(Says(text.clone())))
}

fn kinds() -> Kinds<'static> {
    Kinds::default().with("probe", |table: &ProbeTable, context: &CheckContext<'_>| {
        if table.port.get() == 1 {
            return Err("port: 1 is tcpmux's".to_owned());
        }
        if table.port.get() == 2 {
            return Err("nobody checks port 2: choose another".to_owned());
        }
        Ok(says(format!(
            "{} on {}: {table:?}",
            context.service, context.node
        )))
    })
}

fn load(text: &str) -> Result<Vec<CheckSpec>, ConfigError> {
    load_with(text, &kinds())
}

fn load_with(text: &str, kinds: &Kinds<'_>) -> Result<Vec<CheckSpec>, ConfigError> {
    let source = Source::new(Path::new("/etc/a.toml"), text);
    let file: File = source.tables()?;
    let addresses = ServiceAddresses::new(vec!["192.0.2.1/32".parse().unwrap()]).unwrap();
    let context = CheckContext {
        node: &NodeName::new("ams1").unwrap(),
        service: &ServiceName::new("web").unwrap(),
        addresses: &addresses,
    };
    checks(&source, &file.check, &context, kinds)
}

#[track_caller]
fn refused(text: &str, whole: &str) {
    let line = load(text).unwrap_err().to_string();
    assert_eq!(line, whole, "{text}");
}

#[track_caller]
fn refused_with(text: &str, names: &[&str]) {
    let line = load(text).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    for name in names {
        assert!(line.contains(name), "{name} is not in: {line}");
    }
}

#[tokio::test]
async fn a_table_becomes_a_check_with_its_kinds_own_keys() {
    let specs = load(
        r#"
[[check]]
kind = "probe"
port = 0x50
codes = [200, 204]
patience = "1m"
ratio = 1e3
strict = true
header = { name = "Host" }
mode = "lax"
large = 18446744073709551615

[[check]]
interval = "4s"
timeout = "3s"
recheck = "50ms"
severity = "warning"
name = "other"
kind = "probe"
port = 443
[check.header]
name = "X-Node"
"#,
    )
    .unwrap();
    let [first, second] = &specs[..] else {
        panic!("{specs:?}")
    };
    assert_eq!(first.name.as_str(), "probe");
    assert_eq!(first.interval, Duration::from_secs(1));
    assert_eq!(first.timeout, Duration::from_millis(500));
    assert_eq!(first.recheck, Some(Duration::from_millis(250)));
    assert_eq!(first.severity, Severity::Critical);
    let said = (first.build)().check(first.timeout).await.to_string();
    assert!(
        said.contains("web on ams1") && said.contains("port: 80"),
        "{said}"
    );
    assert!(
        said.contains("[200, 204]") && said.contains("60s"),
        "{said}"
    );
    assert!(said.contains("1000.0") && said.contains("true"), "{said}");
    assert_eq!(second.name.as_str(), "other");
    assert_eq!(second.interval, Duration::from_secs(4));
    assert_eq!(second.timeout, Duration::from_secs(3));
    assert_eq!(second.recheck, Some(Duration::from_millis(50)));
    assert_eq!(second.severity, Severity::Warning);
    let said = (second.build)().check(second.timeout).await.to_string();
    assert!(said.contains("X-Node"), "{said}");
}

#[test]
fn no_check_is_no_fault_of_the_tables() {
    assert!(load("").unwrap().is_empty());
}

#[test]
fn rechecks_are_a_quarter_of_the_interval_and_never_too_often() {
    let recheck = |interval: &str| {
        let specs = load(&format!(
            "[[check]]\nkind = \"probe\"\nport = 80\ninterval = \"{interval}\""
        ));
        specs.unwrap()[0].recheck.unwrap()
    };
    assert_eq!(recheck("10s"), Duration::from_millis(2500));
    assert_eq!(recheck("200ms"), Duration::from_millis(100));
    assert_eq!(recheck("100ms"), Duration::from_millis(100));
}

#[test]
fn a_fault_names_file_line_column_check_and_key() {
    refused(
        "[[check]]\nkind = \"probe\"\nprot = 80\n",
        "/etc/a.toml:3:1: [[check]] probe: unknown field `prot`, expected one of `port`, \
         `codes`, `patience`, `ratio`, `strict`, `header`, `mode`, `large`; besides these every \
         check has `kind`, `name`, `interval`, `timeout`, `recheck`, `severity`",
    );
    refused(
        "[[check]]\nkind = \"probe\"\nname = \"web\"\nport = \"http\"\n",
        "/etc/a.toml:4:8: [[check]] web port: invalid type: string \"http\", expected a nonzero u16",
    );
    refused(
        "[[check]]\nkind = \"probe\"\n",
        "/etc/a.toml:1:1: [[check]] probe: missing field `port`",
    );
    refused(
        "[[check]]\nkind = \"probe\"\nport = 80\n  [check.header]\n  nam = 1\n",
        "/etc/a.toml:5:3: [[check]] probe header: unknown field `nam`, expected `name`",
    );
    refused(
        "[[check]]\nkind = \"probe\"\nport = 80\ncodes = [200, 404]\n",
        "/etc/a.toml:4:15: [[check]] probe codes: invalid value: integer `404`, expected u8",
    );
    refused(
        "[[check]]\nkind = \"probe\"\nport = 80\nmode = \"hard\"\n",
        "/etc/a.toml:4:8: [[check]] probe mode: unknown variant `hard`, expected `strict` or `lax`",
    );
    refused(
        "\n[[check]]\nkind = \"probe\"\nport = 1\n",
        "/etc/a.toml:4:1: [[check]] probe port: 1 is tcpmux's",
    );
    refused(
        "\n[[check]]\nkind = \"probe\"\nport = 2\n",
        "/etc/a.toml:2:1: [[check]] probe: nobody checks port 2: choose another",
    );
}

#[test]
fn a_fault_in_a_common_key_is_told_alike() {
    let table = |key: &str| format!("[[check]]\nkind = \"probe\"\nport = 80\n{key}\n");
    refused_with(
        &table("interval = 5"),
        &[":4:12: [[check]] probe interval: invalid type: integer `5`"],
    );
    refused_with(
        &table("timeout = \"soon\""),
        &[":4:11: [[check]] probe timeout: \"soon\" is not a duration"],
    );
    let range = "must be between 10ms and the check's interval";
    refused(
        &table("timeout = \"2s\""),
        &format!("/etc/a.toml:4:1: [[check]] probe timeout: {range}"),
    );
    refused(
        &table("recheck = \"2s\""),
        &format!("/etc/a.toml:4:1: [[check]] probe recheck: {range}"),
    );
    refused(
        &table("interval = \"2h\""),
        "/etc/a.toml:4:1: [[check]] probe interval: must be between 100ms and 1h",
    );
    refused_with(
        &table("severity = \"high\""),
        &[
            ":4:12: [[check]] probe severity: unknown variant `high`",
            "`warning`",
        ],
    );
    refused_with(
        &table("name = \"a b\""),
        &[":4:8: [[check]] a b name: ' ' is not allowed in a name"],
    );
    refused_with(
        &table("when = 1979-05-27"),
        &[":4:8: a date has no place in a check"],
    );
}

#[test]
fn kinds_that_are_unknown_missing_or_left_out_are_told_apart() {
    refused(
        "[[check]]\nport = 80\n",
        "/etc/a.toml:1:1: [[check]] kind: is missing; use one of \"probe\", \"all\", \"any\", \
         \"quorum\", \"weighted\", \"not\"",
    );
    refused(
        "[[check]]\nkind = \"prob\"\n",
        "/etc/a.toml:2:1: [[check]] prob kind = \"prob\": no such kind is known here; use one of \
         \"probe\", \"all\", \"any\", \"quorum\", \"weighted\", \"not\"",
    );
    let error = load_with("[[check]]\nkind = \"dns\"\n", &Kinds::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc/a.toml:2:1: [[check]] dns kind = \"dns\": this build was made without the feature \
         check-dns",
    );
    refused_with("check = [1]", &[":1:9:", "a check is a table", "no number"]);
    refused_with("check = { kind = \"probe\" }", &[":1:9:"]);
    for kind in ["\"\"", "\"a b\"", "7", "[\"probe\"]"] {
        refused_with(
            &format!("[[check]]\nkind = {kind}\n"),
            &["/etc/a.toml:2:", "[[check]]", "kind"],
        );
    }
}

#[test]
fn two_checks_of_one_name_are_refused() {
    let two = "[[check]]\nkind = \"probe\"\nport = 80\n[[check]]\nkind = \"probe\"\nport = 81\n";
    refused(
        two,
        "/etc/a.toml:4:1: [[check]] name: two checks are called probe; give each a name of its own",
    );
    let named = format!("{two}name = \"probe\"\n");
    refused_with(
        &named,
        &["/etc/a.toml:7:1: [[check]] name: two checks are called probe"],
    );
    assert_eq!(load(&format!("{two}name = \"second\"\n")).unwrap().len(), 2);
}

#[test]
fn no_depth_of_nesting_brings_it_down() {
    for depth in [70, 79, 90, 300_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let _ = load(&format!("[[check]]\nkind = \"probe\"\nport = {deep}\n")).unwrap_err();
        let dotted = vec!["a"; depth].join(".");
        let _ = load(&format!("[[check]]\nkind = \"probe\"\n{dotted} = 1\n")).unwrap_err();
        let _ = load(&format!(
            "[[check]]\nkind = \"probe\"\n[check.{dotted}]\nb = 1\n"
        ))
        .unwrap_err();
    }
}
