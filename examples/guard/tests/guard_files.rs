//! The real binary without a network of its own: what it says of files, good and bad.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its state by printing"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_anycast-guard");
const CONFIGS: [&str; 6] = ["chrony", "dnsmasq", "kea", "knot", "nginx", "unbound"];

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn good(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "[node]\nname = \"ams1\"\nstate_dir = \"{folder}/state\"\n\
         admin = \"unix:{folder}/admin.sock\"\n\
         [announce]\nkind = \"loopback\"\nfloor = true\n\
         [[service]]\nname = \"web\"\naddresses = [\"192.0.2.80/32\"]\n\
         [[service.check]]\nkind = \"file\"\npath = \"{folder}/well\"\n"
    )
}

/// A file with this in it, and the folder that goes with it.
fn file(change: impl Fn(String) -> String) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard.toml");
    fs::write(&path, change(good(folder.path()))).unwrap();
    (folder, path)
}

/// Every way to start answers with this one line, and code 1.
#[track_caller]
fn refused(path: &Path, hint: &str) {
    let path = path.to_str().unwrap();
    for more in [&["check-config"][..], &["--dry-run"], &[]] {
        let output = run(&[&["--config", path], more].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{more:?}: {said}");
        assert!(said.starts_with("anycast-guard: "), "{more:?}: {said}");
        assert!(said.contains(hint), "{more:?}: {said}");
        assert!(output.stdout.is_empty(), "{more:?}");
    }
}

#[test]
fn every_ready_configuration_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    let names: Vec<_> = found
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, CONFIGS);
    for path in found {
        let output = run(&["--config", path.to_str().unwrap(), "check-config"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("can be used"));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_and_code_1() {
    for (piece, by, hint) in [
        (
            "floor = true",
            "flor = true",
            "guard.toml:7:1: unknown field `flor`",
        ),
        ("floor = true", "floor = false", "without a floor"),
        ("\"192.0.2.80/32\"", "", "name at least one"),
        ("192.0.2.80/32", "192.0.2.0/24", "/32"),
        ("kind = \"file\"", "kind = \"fiel\"", "fiel"),
        ("[[service.check]]", "[[service.czech]]", "czech"),
        ("path = ", "path = 7 #", "path"),
        ("[node]", "[[[node]", "guard.toml:1:"),
    ] {
        let (_folder, path) = file(|text| {
            assert!(text.contains(piece), "{piece}");
            text.replacen(piece, by, 1)
        });
        refused(&path, hint);
    }
    let (_folder, path) = file(|_| String::new());
    refused(&path, "node");
    let (_folder, path) = file(|text| text.split_once("[[service]]").unwrap().0.to_owned());
    refused(&path, "there is none");
}

#[test]
fn a_file_that_cannot_be_read_is_one_line_and_code_1() {
    let folder = tempfile::tempdir().unwrap();
    refused(&folder.path().join("missing.toml"), "missing.toml");
    refused(folder.path(), folder.path().to_str().unwrap());
    let bytes = folder.path().join("bytes.toml");
    fs::write(&bytes, [0xff, 0xfe, 0x00]).unwrap();
    refused(&bytes, "bytes.toml");
}

/// A BIRD whose socket only shows: it cannot be steered, and that is found at the start.
#[test]
fn a_restricted_socket_of_bird_is_one_line_and_code_1() {
    let (folder, path) = file(|text| {
        let (_, rest) = text.split_once("floor = true\n").unwrap();
        let (node, _) = text.split_once("[announce]").unwrap();
        let socket = node
            .split_once("unix:")
            .unwrap()
            .1
            .replace("admin.sock\"", "bird.ctl");
        format!(
            "{node}[announce]\nkind = \"bird\"\nfloor = true\nchannels = [\"r4.ipv4\"]\n\
             carrier = \"protocol\"\nboost = [\"b4\"]\nsocket = \"{}\"\n{rest}",
            socket.trim()
        )
    });
    let listener = UnixListener::bind(folder.path().join("bird.ctl")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"0001 BIRD 3.3.2 ready.\n").unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let answer = match line.strip_prefix("show protocols ") {
                    Some(name) => format!("1002-{name} BGP --- up 0 Established\n0000 \n"),
                    None => "8007 Access denied\n".to_owned(),
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    let output = run(&["--config", path.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    for part in [
        "anycast-guard: ",
        "bird.ctl",
        "restricted",
        "main control socket",
    ] {
        assert!(last.contains(part), "{part} is not in: {last}");
    }
}

#[test]
fn wrong_arguments_are_code_2_and_a_missing_file_is_code_1() {
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["--frobnicate"]).status.code(), Some(2));
    let both = run(&["--config", "a", "--dry-run", "--check-config"]);
    assert_eq!(both.status.code(), Some(2));
    let without = run(&["check-config"]);
    assert_eq!(without.status.code(), Some(1));
    assert!(text(&without.stderr).contains("--config FILE is missing"));
    assert!(run(&["--help"]).status.success());
}

/// It says what it would do and what the checks say, and makes neither socket nor state.
#[test]
fn a_dry_run_probes_and_changes_nothing() {
    let (folder, path) = file(|text| text);
    let listing = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();
    let arguments = ["--config", path.to_str().unwrap(), "--dry-run"];
    let output = run(&arguments);
    let said = text(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in [
        "service web",
        "192.0.2.80",
        "svc0",
        "check file",
        "unhealthy",
        "would come to be: demoted: file",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert_eq!(listing(), before);
    fs::write(folder.path().join("well"), "").unwrap();
    let said = text(&run(&arguments).stdout);
    assert!(
        said.contains("healthy") && !said.contains("unhealthy"),
        "{said}"
    );
    assert!(said.contains("would come to be: preferred"), "{said}");
    // However long that takes.
    let (slow, seldom) = (
        "rise = 4294967295\nhold_down = \"1d\"\n",
        good(folder.path()),
    );
    fs::write(
        &path,
        seldom.replace("[[service.check]]", &format!("{slow}[[service.check]]")),
    )
    .unwrap();
    let said = text(&run(&arguments).stdout);
    assert!(said.contains("would come to be: preferred"), "{said}");
    // What an operator had ordered counts, also where it cannot be understood.
    fs::write(&path, good(folder.path())).unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    let saved = folder.path().join("state/intent-web.json");
    fs::write(&saved, "{").unwrap();
    let said = text(&run(&arguments).stdout);
    assert!(said.contains("would come to be: demoted"), "{said}");
    assert!(said.contains("cannot be read"), "{said}");
    assert_eq!(fs::read_to_string(&saved).unwrap(), "{");
    fs::remove_file(&saved).unwrap();
    let removed = good(folder.path()).replace(
        "[[service.check]]",
        "state = \"removed\"\n[[service.check]]",
    );
    fs::write(&path, removed).unwrap();
    let said = text(&run(&arguments).stdout);
    assert!(said.contains("would come to be: demoted"), "{said}");
    assert!(said.contains("state = \"removed\""), "{said}");
}
