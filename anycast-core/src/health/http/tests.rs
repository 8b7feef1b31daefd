use super::*;

#[test]
fn status_codes_are_read_and_shown_alike() {
    for (text, within, without) in [
        ("200", 200, 201),
        ("200-299,301", 301, 300),
        (" 204 , 500 - 503 ", 502, 504),
    ] {
        let codes: StatusCodes = text.parse().unwrap();
        assert!(codes.contains(within) && !codes.contains(without), "{text}");
        assert_eq!(codes.to_string().parse::<StatusCodes>().unwrap(), codes);
    }
    assert_eq!(StatusCodes::default().to_string(), "200-299");
    for bad in [
        "", ",", "200,", "abc", "+200", "-200", "200-", "299-200", "199", "600", "20000",
    ] {
        assert!(bad.parse::<StatusCodes>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
    for (text, name, header) in [
        ("www.example.com", "www.example.com", "www.example.com"),
        (
            "www.example.com:8443",
            "www.example.com",
            "www.example.com:8443",
        ),
        ("my_host", "my_host", "my_host"),
        ("192.0.2.80", "192.0.2.80", "192.0.2.80"),
        ("192.0.2.80:8080", "192.0.2.80", "192.0.2.80:8080"),
        ("2001:db8::80", "2001:db8::80", "[2001:db8::80]"),
        ("[2001:db8::80]:8080", "2001:db8::80", "[2001:db8::80]:8080"),
    ] {
        let host = Host::new(text).unwrap();
        assert_eq!(host.header(), header);
        #[cfg(feature = "check-https")]
        assert_eq!(host.name(), name);
        #[cfg(not(feature = "check-https"))]
        let _ = name;
    }
    let long = ["x"; 128].join(".");
    let bad = [
        "",
        ":80",
        "a b",
        "a..b",
        "a/b",
        "user@host",
        "host:",
        "host:x",
        "host:65536",
        &long,
    ];
    for bad in bad {
        assert!(Host::new(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let addresses = ServiceAddresses::new(vec!["192.0.2.80/32".parse().unwrap()]).unwrap();
    let check = || HttpCheck::new(&addresses, NonZeroU16::MIN);
    for path in ["", "health", "http://example.com/", "/a b", "/\n", "*"] {
        assert!(check().with_path(path).is_err(), "{path:?}");
    }
    for path in ["/", "/health?full=1", "/%20", "/{}"] {
        assert!(check().with_path(path).is_ok(), "{path:?}");
    }
    for (name, value) in [("", "x"), ("a b", "x"), ("x", "a\nb"), ("x:", "y")] {
        assert!(
            check().with_header(name, value).is_err(),
            "{name:?} {value:?}"
        );
    }
    assert!(check().with_body("").is_err());
    assert!(check().with_body("x".repeat(MAX_TEXT + 1)).is_err());
}

#[cfg(feature = "config")]
mod table {
    use crate::config::check::CheckContext;
    use crate::{NodeName, ServiceAddresses, ServiceName};

    fn built<T: serde::de::DeserializeOwned>(
        text: &str,
        build: impl FnOnce(&T, &CheckContext<'_>) -> Result<crate::health::BuildCheck, String>,
    ) -> Result<(), String> {
        let table: T = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let addresses = ["192.0.2.80/32", "2001:db8::80/128"].map(|text| text.parse().unwrap());
        let context = CheckContext {
            node: &NodeName::new("ams1").unwrap(),
            service: &ServiceName::new("web").unwrap(),
            addresses: &ServiceAddresses::new(addresses.to_vec()).unwrap(),
        };
        build(&table, &context).map(|build| drop(build()))
    }

    fn http(text: &str) -> Result<(), String> {
        built(text, super::HttpTable::build)
    }

    fn refused(result: Result<(), String>, says: &str) {
        let error = result.unwrap_err();
        assert!(error.contains(says), "{error} does not say {says}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn a_table_becomes_a_check() {
        for good in [
            "",
            "port = 8080\naddresses = [\"192.0.2.80\"]\nsource = \"any\"",
            "host = \"www.example.com\"\npath = \"/health\"\nstatus = 204\nmethod = \"head\"",
            "status = \"200-299,301\"\nbody = \"ok\"\nheader = \"X-Node: {node}\"",
        ] {
            http(good).unwrap();
        }
    }

    #[test]
    fn each_fault_is_one_line_that_names_the_key() {
        for (bad, says) in [
            ("prot = 1", "unknown field `prot`"),
            ("port = 0", "expected a nonzero u16"),
            ("addresses = [\"192.0.2.81\"]", "addresses: 192.0.2.81"),
            ("method = \"POST\"", "unknown variant `POST`"),
            ("status = 99", "\"99\" is not a status code"),
            ("status = \"2xx\"", "\"2xx\" is not a status code"),
            ("status = -1", "\"-1\" is not a status code"),
            ("status = true", "status codes such as 200"),
            ("path = \"health\"", "path: \"health\" is not a path"),
            ("host = \"a b\"", "host: \"a b\" is not a host"),
            ("header = \"X-Node\"", "header: \"X-Node\" is not a header"),
            ("body = \"\"", "body: is 0 bytes long"),
            (
                "body = \"ok\"\nmethod = \"head\"",
                "body: an answer to HEAD",
            ),
            ("tls = true", "expected struct TlsTable"),
            ("tls = { verfy = \"name\" }", "unknown field `verfy`"),
        ] {
            refused(http(bad), says);
        }
    }

    #[cfg(not(feature = "check-https"))]
    #[test]
    fn a_build_without_tls_says_so() {
        refused(http("tls = {}"), "tls: this build speaks no TLS");
    }

    #[cfg(feature = "check-https")]
    #[test]
    fn tls_verifies_unless_told_otherwise() {
        http("tls = { ca = \"/etc/ssl/ca.pem\" }").unwrap();
        http("tls = { verify = \"none\" }").unwrap();
        refused(http("tls = {}"), "tls.ca: is missing");
        refused(
            http("tls = { ca = \"ca.pem\" }"),
            "tls.ca: ca.pem is not an absolute",
        );
        let both = http("tls = { ca = \"/ca.pem\", verify = \"none\" }");
        refused(both, "tls.ca: has no effect");
    }

    #[cfg(feature = "check-https")]
    #[test]
    fn a_table_becomes_a_certificate_check() {
        let certificate = |text| built(text, super::CertificateTable::build);
        certificate("").unwrap();
        certificate("port = 853\nhost = \"dns.example\"\nvalid_for = \"30d\"").unwrap();
        refused(certificate("valid_for = \"0s\""), "valid_for: is below 1s");
        refused(certificate("valid_for = \"14\""), "is not a duration");
        refused(certificate("host = \"a b\""), "host: \"a b\"");
        refused(certificate("path = \"/\""), "unknown field `path`");
    }
}
