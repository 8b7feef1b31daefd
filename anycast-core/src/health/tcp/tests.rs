use super::*;

fn check() -> TcpCheck {
    let address = "127.0.0.1/32".parse().unwrap();
    let addresses = ServiceAddresses::new(vec![address]).unwrap();
    TcpCheck::new(&addresses, NonZeroU16::MIN)
}

#[test]
fn texts_are_neither_empty_nor_without_bound() {
    let empty = check().with_greeting("").unwrap_err();
    assert_eq!(empty, TcpCheckError::Empty { which: "expect" });
    let empty = check().with_exchange("", "x").unwrap_err();
    assert_eq!(empty, TcpCheckError::Empty { which: "send" });
    assert!(check().with_greeting("x".repeat(MAX_TEXT)).is_ok());
    let long = check().with_greeting("x".repeat(MAX_TEXT + 1)).unwrap_err();
    assert_eq!(
        long.to_string(),
        "expect: is 1025 bytes long; shorten it to at most 1024"
    );
}

#[test]
fn a_reason_quotes_what_was_said_instead() {
    assert_eq!(missing(b"220 ", b""), r#"it did not say "220 ""#);
    assert_eq!(
        missing(b"220 ", b"554 no\r\n\xff"),
        "it did not say \"220 \", but \"554 no\\r\\n\u{fffd}\""
    );
    assert!(missing(b"220 ", &[b'x'; MAX_READ]).len() < 128);
}

#[cfg(feature = "config")]
mod table {
    use crate::config::check::CheckContext;
    use crate::health::tcp::TcpTable;
    use crate::{NodeName, ServiceAddresses, ServiceName};

    fn build(text: &str) -> Result<(), String> {
        let table: TcpTable = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let (node, service) = (NodeName::new("ams1"), ServiceName::new("mail"));
        let addresses = ["192.0.2.25/32", "2001:db8::25/128"].map(|text| text.parse().unwrap());
        let context = CheckContext {
            node: &node.unwrap(),
            service: &service.unwrap(),
            addresses: &ServiceAddresses::new(addresses.to_vec()).unwrap(),
        };
        table.build(&context).map(|build| drop(build()))
    }

    #[test]
    fn a_table_becomes_a_check() {
        for good in [
            "port = 25",
            "port = 25\nexpect = \"220 \"",
            "port = 6379\nsend = \"PING\\r\\n\"\nexpect = \"+PONG\"\nsource = \"any\"",
            "port = 25\naddresses = [\"2001:db8::25\"]",
        ] {
            build(good).unwrap();
        }
    }

    #[test]
    fn each_fault_is_one_line_that_names_the_key() {
        for (bad, says) in [
            ("", "missing field `port`"),
            ("port = 0", "expected a nonzero u16"),
            ("port = 65536", "expected a nonzero u16"),
            ("port = 25\nprot = 1", "unknown field `prot`"),
            ("port = 25\nsource = \"lo\"", "unknown variant `lo`"),
            ("port = 25\naddresses = [\"x\"]", "invalid IP address"),
            ("port = 25\naddresses = []", "addresses: "),
            (
                "port = 25\naddresses = [\"192.0.2.26\"]",
                "addresses: 192.0.2.26 is not an address of the service",
            ),
            ("port = 25\nexpect = \"\"", "expect: is empty"),
            (
                "port = 25\nsend = \"x\"",
                "send: nobody looks at the answer",
            ),
            ("port = 25\nsend = \"\"\nexpect = \"x\"", "send: is empty"),
        ] {
            let error = build(bad).unwrap_err();
            assert!(error.contains(says), "{bad:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
