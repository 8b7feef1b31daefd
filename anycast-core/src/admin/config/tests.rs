use super::*;

#[derive(Debug, Deserialize)]
struct File {
    admin: AdminConfig,
}

fn read(text: &str) -> Result<AdminConfig, String> {
    serde_json::from_str::<File>(&format!("{{\"admin\": {text}}}"))
        .map(|file| file.admin)
        .map_err(|error| error.to_string())
}

#[test]
fn all_three_forms_are_read() {
    let one = read(r#""127.0.0.1:9180""#).unwrap();
    assert_eq!(one.addresses(), ["127.0.0.1:9180".parse().unwrap()]);
    assert_eq!(one.access().mode(), 0o600);
    let list = read(r#"["unix:/run/a.sock", "[::1]:9180"]"#).unwrap();
    assert_eq!(list.addresses().len(), 2);
    let table = read(
        r#"{"listen": ["unix:/run/a.sock", "127.0.0.1:1"], "group": "adm", "owner": 0,
            "token_file": "/etc/token"}"#,
    )
    .unwrap();
    assert_eq!(table.access().mode(), 0o660);
    assert_eq!(table.access().owner, Some(Principal::Id(0)));
    assert_eq!(table.access().group, Some(Principal::Name("adm".into())));
    assert_eq!(table.token_file(), Some(Path::new("/etc/token")));
    let table = read(r#"{"listen": "unix:/run/a.sock", "mode": "0640"}"#).unwrap();
    assert_eq!(table.access().mode(), 0o640);
}

#[test]
fn what_opens_too_much_or_has_no_effect_is_refused() {
    for (text, why) in [
        (r#""0.0.0.0:9180""#, "not a loopback address"),
        (r#"{"listen": "192.0.2.1:1"}"#, "not a loopback address"),
        ("[]", "0 addresses"),
        (
            r#"["[::1]:1","[::1]:2","[::1]:3","[::1]:4","[::1]:5"]"#,
            "5 addresses",
        ),
        (r#"["[::1]:1","[::1]:1"]"#, "named twice"),
        ("7", "an address, a list of addresses, or a table"),
        ("{}", "listen"),
        (r#"{"listen": "[::1]:1", "tokenfile": "/x"}"#, "tokenfile"),
        (r#"{"listen": "[::1]:1", "mode": "0600"}"#, "no effect"),
        (r#"{"listen": "[::1]:1", "group": "adm"}"#, "no effect"),
        (
            r#"{"listen": "unix:/a", "token_file": "/x"}"#,
            "without a TCP address",
        ),
        (
            r#"{"listen": "[::1]:1", "token_file": "x"}"#,
            "not an absolute path",
        ),
        (r#"{"listen": "unix:/a", "mode": "0666"}"#, "never let in"),
        (r#"{"listen": "unix:/a", "mode": "rw"}"#, "write it as"),
        (r#"{"listen": "unix:/a", "mode": "0"}"#, "never let in"),
        (r#"{"listen": "unix:/a", "mode": "4600"}"#, "never let in"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
