//! What is on the socket is no BIRD and no bgpd, or one that has lost its mind.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anycast_announce::bird::client::{Client as BirdClient, ClientError as BirdError};
use anycast_announce::bird::command::Command;
use anycast_announce::frr::client::{Client as FrrClient, ClientError as FrrError, Question};

use crate::support::runtime;

/// Answers each connection with `greeting`, and each read with `answer`.
fn daemon(folder: &Path, greeting: &'static [u8], answer: Vec<u8>) -> PathBuf {
    let path = folder.join("socket");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = answer.clone();
            std::thread::spawn(move || {
                // Whoever asked may go at any time.
                let _ = stream.write_all(greeting);
                while stream.read(&mut [0; 512]).is_ok_and(|length| length > 0) {
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    path
}

const READY: &[u8] = b"0001 BIRD 2.0.12 ready.\n";

fn ask_bird(greeting: &'static [u8], answer: &[u8]) -> Result<u16, BirdError> {
    let folder = tempfile::tempdir().unwrap();
    let path = daemon(folder.path(), greeting, answer.to_vec());
    let mut client = BirdClient::new(&path);
    let reply = runtime().block_on(client.ask(&Command::ShowStatus))?;
    Ok(reply.code())
}

#[test]
fn bird_garbage_and_endless_lines_and_replies_end_the_connection() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\xff\xfe\n",
        b" continues nothing\n",
        &vec![b'x'; 1 << 20],
        "1000-endless\n".repeat(1 << 19).as_bytes(),
    ] {
        let error = ask_bird(READY, answer).unwrap_err();
        assert!(matches!(error, BirdError::Reply { .. }), "{error}");
        assert!(error.to_string().lines().count() == 1, "{error}");
    }
    // Another program's greeting.
    let error = ask_bird(b"SSH-2.0-OpenSSH_9.2\n", b"").unwrap_err();
    assert!(error.to_string().contains("is this BIRD"), "{error}");
    let error = ask_bird(b"0013 Daemon is up\n", b"").unwrap_err();
    assert!(matches!(error, BirdError::Reply { .. }), "{error}");
}

#[test]
fn bird_that_hangs_or_stops_half_way_costs_a_time_out() {
    for (greeting, answer) in [
        (&b""[..], &b""[..]),
        (READY, b""),
        (READY, b"1000-BIRD 2.0.12\n"),
    ] {
        let error = ask_bird(greeting, answer).unwrap_err();
        assert!(matches!(error, BirdError::TimedOut { .. }), "{error}");
    }
}

#[test]
fn bird_wrong_codes_and_refusals_are_replies_of_failure() {
    assert_eq!(ask_bird(READY, b"9001 syntax error\n").unwrap(), 9001);
    assert_eq!(ask_bird(READY, b"4711 what is this\n").unwrap(), 4711);
    let error = ask_bird(READY, b"8007 Access denied\n").unwrap_err();
    assert!(error.to_string().contains("restricted"), "{error}");
}

#[test]
fn bird_that_is_restarted_between_two_commands_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(READY).unwrap();
            let _ = stream.read(&mut [0; 512]);
            // One answer, and then it is gone.
            let _ = stream.write_all(b"0013 Daemon is up and running\n");
        }
    });
    let mut client = BirdClient::new(&path);
    runtime().block_on(async {
        for _ in 0..5 {
            assert_eq!(client.ask(&Command::ShowStatus).await.unwrap().code(), 13);
        }
    });
}

/// A future dropped half-way must not leave its reply to the next command.
#[test]
fn bird_answers_are_never_taken_for_those_of_another_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(READY);
                let mut asked = [0; 512];
                while let Ok(length @ 1..) = stream.read(&mut asked) {
                    let is_status = asked[..length].starts_with(b"show status");
                    if is_status {
                        std::thread::sleep(std::time::Duration::from_millis(300));
                    }
                    let code = if is_status { "0013" } else { "0020" };
                    let _ = stream.write_all(format!("{code} x\n").as_bytes());
                }
            });
        }
    });
    let mut client = BirdClient::new(&path);
    runtime().block_on(async {
        let short = std::time::Duration::from_millis(50);
        let cut = tokio::time::timeout(short, client.ask(&Command::ShowStatus)).await;
        assert!(cut.is_err());
        let reply = client.ask(&Command::ConfigureCheck).await.unwrap();
        assert_eq!(reply.code(), 20);
    });
}

#[test]
fn a_socket_that_is_absent_or_closed_to_us_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let error = runtime()
        .block_on(BirdClient::new(&absent).ask(&Command::ShowStatus))
        .unwrap_err();
    assert!(error.to_string().contains("is BIRD running"), "{error}");
    assert!(error.to_string().contains("absent"), "{error}");
    let error = runtime()
        .block_on(FrrClient::new(&absent).ask(Question::Summary))
        .unwrap_err();
    assert!(error.to_string().contains("is bgpd running"), "{error}");
    // A file that nobody listens at.
    let dead = folder.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let error = runtime()
        .block_on(BirdClient::new(&dead).ask(&Command::ShowStatus))
        .unwrap_err();
    assert!(error.to_string().contains("nothing listens"), "{error}");
    // Root may open everything, so the refusal itself is tried only by others.
    let closed = folder.path().join("closed");
    let _listener = UnixListener::bind(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if !rustix::process::geteuid().is_root() {
        let error = runtime()
            .block_on(BirdClient::new(&closed).ask(&Command::ShowStatus))
            .unwrap_err();
        assert!(error.to_string().contains("SupplementaryGroups"), "{error}");
    }
}

fn ask_frr(answer: &[u8]) -> Result<bool, FrrError> {
    let folder = tempfile::tempdir().unwrap();
    let path = daemon(folder.path(), b"", answer.to_vec());
    let mut client = FrrClient::new(&path);
    let reply = runtime().block_on(client.ask(Question::Summary))?;
    Ok(reply.is_success())
}

#[test]
fn bgpd_garbage_half_replies_and_silence_are_bounded() {
    assert!(!ask_frr(b"% Unknown command\n\0\0\0\x02").unwrap());
    assert!(!ask_frr(b"% odd, and all the same\n\0\0\0\0").unwrap());
    assert!(!ask_frr(b"\xff\xfe\0\0\0\x01").unwrap());
    for half in [&b""[..], b"{}", b"{}\n\0\0", b"{}\n\0\0\0"] {
        let error = ask_frr(half).unwrap_err();
        assert!(matches!(error, FrrError::TimedOut { .. }), "{error}");
    }
    let error = ask_frr(&vec![b'x'; 17 << 20]).unwrap_err();
    assert!(matches!(error, FrrError::TooLong { .. }), "{error}");
}
