use super::*;

#[test]
fn a_pid_is_a_number_on_the_first_line() {
    let parse = |bytes: &[u8]| find::parse_pid(bytes).map(|pid| pid.as_raw_nonzero().get());
    assert_eq!(parse(b"7"), Some(7));
    assert_eq!(parse(b" 7\r\n8\n"), Some(7));
    for garbage in [
        &b""[..],
        b"\n7",
        b"0",
        b"-7",
        b"+7",
        b"7 8",
        b"0x7",
        b"4294967296",
        b"\xff",
    ] {
        assert_eq!(parse(garbage), None, "{garbage:?}");
    }
}

/// Counted from the death: who was there a second before has taken over.
#[test]
fn only_who_has_run_for_a_second_took_over() {
    for (start, took_over) in [
        (0, true),
        (900, true),
        (901, false),
        (1000, false),
        (u64::MAX, false),
    ] {
        assert_eq!(super::took_over(start, 1000), took_over, "{start}");
    }
}

#[cfg(feature = "config")]
mod table {
    use super::super::*;
    use crate::config::check::CheckContext;

    fn build(text: &str) -> Result<(), String> {
        let table: ProcessTable = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let address = "192.0.2.53/32".parse().unwrap();
        let context = CheckContext {
            node: &"ams1".parse().unwrap(),
            service: &"dns".parse().unwrap(),
            addresses: &crate::service::ServiceAddresses::new(vec![address]).unwrap(),
        };
        table.build(&context).map(drop)
    }

    #[test]
    fn one_selector_and_its_identity() {
        build("pid_file = '/run/a.pid'").unwrap();
        build("pid_file = '/run/a.pid'\nexecutable = '/usr/sbin/a'\nuser = 'root'").unwrap();
        build("unit = 'unbound'\nexecutable = '/usr/sbin/unbound'").unwrap();
        build("unit = 'getty@tty1.service'").unwrap();
        build("unit = 'dnsmasq@a.b'").unwrap();
        build("executable = '/usr/sbin/a'\nuser = '0'\nargument = '-c /etc/a'").unwrap();
    }

    #[test]
    fn faults_are_told_by_key_with_the_remedy() {
        for (text, part) in [
            ("", "pid_file: nothing selects the process"),
            ("user = 'root'", "pid_file: nothing selects the process"),
            (
                "pid_file = '/a'\nunit = 'b'",
                "unit: cannot be beside pid_file",
            ),
            (
                "pid_file = 'run/a'",
                "pid_file: run/a is not an absolute path",
            ),
            ("executable = 'a'", "executable: a is not an absolute path"),
            ("unit = ''", "unit: \"\" is not the name of a unit"),
            ("unit = '-M x'", "is not the name of a unit"),
            ("unit = '../a'", "is not the name of a unit"),
            ("unit = 'a.socket'", "unit: a .socket has no main process"),
            ("unit = 'a'\nuser = 'no such'", "user: there is no account"),
            ("unit = 'a'\nargument = ''", "argument: is empty"),
            ("unit = 'a'\npidfile = '/x'", "unknown field"),
        ] {
            let error = build(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
