use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: NodeTable,
    service: ServiceTable,
}

const GOOD: &str = r#"
[node]
name = "ams1"
admin = "127.0.0.1:9180"

[service]
name = "tftp"
addresses = ["2001:db8::69/128", "192.0.2.69/32"]
role = "backup"
rise = 4
hold_down = "1m 500ms"
on_stop = "keep"
keep_for = "2m"
"#;

fn path() -> &'static Path {
    Path::new("/etc/anycast/tftpd.toml")
}

fn error(text: &str) -> String {
    let line = parse::<File>(path(), text).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn a_good_file_becomes_checked_types() {
    let file: File = parse(path(), GOOD).unwrap();
    assert_eq!(file.node.name.as_str(), "ams1");
    assert_eq!(file.node.state_dir, Path::new("/var/lib/anycast"));
    let identity = file.service.identity(path()).unwrap();
    assert_eq!(identity.role.to_string(), "backup(1)");
    assert_eq!(identity.addresses.count(), 2);
    let policy = file.service.policy(Path::new("x")).unwrap();
    assert_eq!(policy.rise.get(), 4);
    assert_eq!(policy.fall, crate::machine::Policy::default().fall);
    assert_eq!(policy.hold_down, Duration::from_millis(60_500));
    let on_stop = file.service.on_stop(path()).unwrap();
    assert_eq!(on_stop, crate::node::OnStop::Keep(Duration::from_secs(120)));
}

/// Replaces one piece of the good file and expects an error that names these.
fn spoilt(piece: &str, by: &str, names: &[&str]) {
    assert!(GOOD.contains(piece), "{piece}");
    let line = error(&GOOD.replacen(piece, by, 1));
    for name in names {
        assert!(line.contains(name), "{name} is not in: {line}");
    }
}

#[test]
fn faults_name_file_line_key_and_remedy() {
    let file = "/etc/anycast/tftpd.toml:";
    spoilt(
        "rise = 4",
        "raise = 4",
        &[file, ":10:1:", "unknown field `raise`", "`rise`"],
    );
    spoilt(
        "rise = 4",
        "rise = \"4\"",
        &[file, ":10:8:", "expected a nonzero u32"],
    );
    spoilt(
        "rise = 4",
        "rise = 0",
        &[":10:8:", "expected a nonzero u32"],
    );
    spoilt(
        "\"1m 500ms\"",
        "\"soon\"",
        &[":11:13:", "not a duration", "write it as"],
    );
    spoilt(
        "192.0.2.69/32",
        "192.0.2.0/24",
        &[":8:13:", "192.0.2.0/24 is not a single address", "/32"],
    );
    spoilt(
        "192.0.2.69/32",
        "192.0.2.690/32",
        &[":8:13:", "not a prefix", "192.0.2.69/32"],
    );
    spoilt(
        "192.0.2.69/32",
        "2001:db8::69/128",
        &[":8:13:", "listed twice"],
    );
    spoilt(
        "\"2001:db8::69/128\", \"192.0.2.69/32\"",
        "",
        &[":8:13:", "empty", "at least one"],
    );
    spoilt("ams1", "ams 1", &[":3:8:", "' ' is not allowed in a name"]);
    spoilt(
        "127.0.0.1:9180",
        "0.0.0.0:9180",
        &[":4:9:", "not a loopback address"],
    );
    spoilt(
        "\"backup\"",
        "\"leader\"",
        &[":9:8:", "unknown variant `leader`", "`primary`"],
    );
    spoilt("[service]", "[services]", &["unknown field `services`"]);
    spoilt("name = \"tftp\"", "", &["missing field `name`"]);
    spoilt("rise = 4", "rise = ", &[":10:"]);
}

#[test]
fn keys_that_do_not_fit_together_are_named() {
    let file: File = parse(path(), &GOOD.replace("\"keep\"", "\"demote\"")).unwrap();
    let line = file.service.on_stop(path()).unwrap_err().to_string();
    assert!(
        line.contains("[service] keep_for") && line.contains("on_stop = \"keep\""),
        "{line}"
    );
    let ranked = GOOD.replace("role = \"backup\"", "rank = 2");
    let file: File = parse(path(), &ranked).unwrap();
    let line = file.service.identity(path()).unwrap_err().to_string();
    assert!(line.contains("[service] rank"), "{line}");
}

#[test]
fn unreadable_and_oversized_files_are_told_apart() {
    let missing = read::<File>(Path::new("/nonexistent/tftpd.toml")).unwrap_err();
    assert!(
        matches!(missing, ConfigError::Unreadable { .. }),
        "{missing}"
    );
    let folder = read::<File>(Path::new("/")).unwrap_err();
    assert!(
        matches!(folder, ConfigError::NotAConfiguration { .. }),
        "{folder}"
    );
}
