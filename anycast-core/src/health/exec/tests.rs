use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;

fn finished(stdout: &[u8], stderr: &[u8]) -> Finished {
    Finished {
        status: ExitStatus::from_raw(2 << 8),
        stdout: stdout.to_vec(),
        stderr: stderr.to_vec(),
    }
}

#[test]
fn the_reason_is_bounded_and_printable_whatever_is_said() {
    let flood = vec![b'x'; 1024];
    let said = ExecCheck::new("/p")
        .judge(&finished(&flood, b""))
        .to_string();
    assert!(
        said.starts_with("unhealthy: /p: exit code 2: xxx"),
        "{said}"
    );
    assert!(said.len() < 300, "{}", said.len());
    let odd = finished(b"\x00\x1b[2J\x07\xff\r\n", b"");
    let said = ExecCheck::new("/p").judge(&odd).to_string();
    assert!(!said.contains(|c: char| c.is_control()), "{said:?}");
    let silent = ExecCheck::new("/p").judge(&finished(b" \n\t\n", b""));
    assert_eq!(silent.to_string(), "unhealthy: /p: exit code 2");
}

#[tokio::test(start_paused = true)]
async fn a_time_out_that_fires_late_says_nothing_about_the_service() {
    let check = ExecCheck::new("/p").with_on_timeout(OnTimeout::Unhealthy);
    let deadline = Instant::now();
    let timeout = Duration::from_secs(1);
    tokio::time::advance(MAX_LATENESS).await;
    let said = check.timed_out(timeout, deadline);
    assert_eq!(said, Verdict::unhealthy("/p: not ended within 1s: killed"));
    tokio::time::advance(Duration::from_millis(1)).await;
    let said = check.timed_out(timeout, deadline);
    assert!(matches!(said, Verdict::Unknown(_)), "{said}");
}

#[cfg(feature = "config")]
mod table {
    use super::super::*;
    use crate::config::check::CheckContext;

    fn build(text: &str) -> Result<(), String> {
        let table: ExecTable = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let context = CheckContext {
            node: &"ams1".parse().unwrap(),
            service: &"dns".parse().unwrap(),
            addresses: &crate::service::ServiceAddresses::new(vec![
                "192.0.2.53/32".parse().unwrap(),
                "2001:db8::53/128".parse().unwrap(),
            ])
            .unwrap(),
        };
        table.build(&context).map(drop)
    }

    fn refused(text: &str, part: &str) {
        let error = build(text).unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn good_tables_build() {
        build("command = ['/bin/true']").unwrap();
        build(
            "command = ['/bin/sh', '-c', 'exit 0']\nuser = 'root'\ndir = '/usr'\n\
             env = { A = '1' }\non_timeout = 'unhealthy'\n\
             exit = { healthy = [0, 1], unhealthy = ['3-5', 200], signals = 'unhealthy' }",
        )
        .unwrap();
    }

    #[test]
    fn faults_are_told_by_key_with_the_remedy() {
        refused("command = []", "command: is empty; name a program");
        refused(
            "command = ['true']",
            "command: \"true\" is not an absolute path",
        );
        refused("command = ['/a', \"b\\u0000\"]", "NUL");
        refused(
            "command = ['/a']\ndir = 'tmp'",
            "dir: tmp is not an absolute path",
        );
        refused(
            "command = ['/a']\nuser = 'no such'",
            "user: there is no account \"no such\"",
        );
        refused("command = ['/a']\nenv = { 'A=B' = '1' }", "env: \"A=B\"");
        refused(
            "command = ['/a']\nenv = { ANYCAST_NODE = '1' }",
            "env: ANYCAST_NODE is set",
        );
        refused("command = ['/a']\ncomand = 1", "unknown field `comand`");
        refused(
            "command = ['/a']\non_timeout = 'healthy'",
            "unknown variant",
        );
    }

    #[test]
    fn exit_codes_are_ranges_without_contradiction() {
        let exit = |exit: &str| format!("command = ['/a']\nexit = {{ {exit} }}");
        build(&exit("healthy = [0], unhealthy = ['1-255']")).unwrap();
        build(&exit("unhealthy = [3, '3-4']")).unwrap();
        refused(&exit("healthy = [256]"), "256 is not an exit code");
        refused(&exit("healthy = [-1]"), "-1 is not an exit code");
        refused(&exit("unhealthy = ['5-3']"), "\"5-3\" is not a range");
        refused(&exit("unhealthy = ['a']"), "\"a\" is not a range");
        refused(
            &exit("healthy = [1], unhealthy = ['0-9']"),
            "exit: code 1 is both in healthy and in unhealthy",
        );
        refused(&exit("unknown = [0]"), "no code means healthy");
    }

    #[tokio::test]
    async fn the_command_is_told_service_node_and_addresses() {
        let script = "echo $ANYCAST_SERVICE $ANYCAST_NODE $ANYCAST_ADDRESSES; exit 1";
        let text = format!("command = ['/bin/sh', '-c', '{script}']");
        let table: ExecTable = toml::from_str(&text).unwrap();
        let addresses = crate::service::ServiceAddresses::new(vec![
            "2001:db8::53/128".parse().unwrap(),
            "192.0.2.53/32".parse().unwrap(),
        ]);
        let context = CheckContext {
            node: &"ams1".parse().unwrap(),
            service: &"dns".parse().unwrap(),
            addresses: &addresses.unwrap(),
        };
        let build = table.build(&context).unwrap();
        let said = build().check(Duration::from_secs(30)).await.to_string();
        assert!(
            said.ends_with(": dns ams1 192.0.2.53 2001:db8::53"),
            "{said}"
        );
    }
}
