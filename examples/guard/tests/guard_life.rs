//! The life of the real binary in a network of its own: start, reload, stop, and what the
//! service manager is told. Its checks look at files, so no daemon is needed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its state by printing"
)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anycast_labs::{Netns, Proc, eventually, isolate, isolated};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two services, `web` and `dns`, each well while its file is there.
struct Guard {
    namespace: Netns,
    folder: PathBuf,
    process: Proc,
    manager: UnixDatagram,
}

fn config(services: &[(&str, &str)]) -> String {
    let folder = isolate::work_dir();
    let folder = folder.display();
    let mut text = format!(
        "[node]\nname = \"ams1\"\nstate_dir = \"{folder}/state\"\n\
         admin = \"unix:{folder}/admin.sock\"\n\
         [announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"3s\"\n"
    );
    for (name, more) in services {
        let last = last(name);
        text += &format!(
            "[[service]]\nname = \"{name}\"\naddresses = [\"192.0.2.{last}/32\"]\n\
             rise = 1\nhold_down = \"100ms\"\nflap_limit = 0\nbudget_refill = \"0s\"\n{more}\n\
             [[service.check]]\nkind = \"file\"\npath = \"{folder}/{name}\"\ninterval = \"200ms\"\n"
        );
    }
    text
}

/// The last octet of a service's address.
fn last(name: &str) -> usize {
    name.len() + name.bytes().map(usize::from).sum::<usize>() % 200
}

const BOTH: [(&str, &str); 2] = [("web", ""), ("dns", "")];

impl Guard {
    fn start() -> Self {
        let guard = Self::launch(&config(&BOTH));
        guard.until("both to be preferred", || {
            guard.preferred("web") && guard.preferred("dns")
        });
        guard
    }

    /// Started with this file, and not waited for.
    fn launch(text: &str) -> Self {
        let namespace = Netns::new("ams1").unwrap();
        let folder = isolate::work_dir();
        fs::create_dir_all(folder.join("state")).unwrap();
        for (name, _) in BOTH {
            fs::write(folder.join(name), "").unwrap();
        }
        fs::write(folder.join("guard.toml"), text).unwrap();
        let manager = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let process = Self::run(&namespace);
        Self {
            namespace,
            folder,
            process,
            manager,
        }
    }

    fn run(namespace: &Netns) -> Proc {
        let folder = isolate::work_dir();
        let mut command = Command::new(env!("CARGO_BIN_EXE_anycast-guard"));
        command.arg("--config").arg(folder.join("guard.toml"));
        command.env("NOTIFY_SOCKET", folder.join("notify.sock"));
        command.env("WATCHDOG_USEC", "4000000");
        Proc::start(namespace, "guard", &mut command).unwrap()
    }

    /// Stopped in order, and started again with this file.
    fn restart(&mut self, text: &str) {
        self.process.signal(Signal::SIGTERM).unwrap();
        self.await_end(0);
        fs::write(self.folder.join("guard.toml"), text).unwrap();
        self.process = Self::run(&self.namespace);
        self.until("it to answer", || self.status().is_some());
    }

    /// Gives an order: `drain` or `undrain`.
    fn order(&self, service: &str, verb: &str) {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = r#"{"reason":"disk swap"}"#;
        let request = format!(
            "POST /services/{service}/{verb} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }

    /// Who has ordered what is in force, and nothing where health decides.
    fn ordered_by(&self, service: &str) -> Option<String> {
        let status = self.status()?;
        let services = status["services"].as_array().unwrap();
        let service = services.iter().find(|each| each["name"] == service)?;
        service["intent"]["by"].as_str().map(str::to_owned)
    }

    fn copies(&self) -> usize {
        let listing = self.namespace.run("ip -4 -o addr show dev svc0");
        listing.map_or(0, |listing| listing.matches("192.0.2.").count())
    }

    fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        if let Err(error) = eventually(PATIENCE, what, condition) {
            panic!("{error}\n{:?}\n{}", self.status(), self.process.tail(30));
        }
    }

    fn status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn preferred(&self, name: &str) -> bool {
        let Some(status) = self.status() else {
            return false;
        };
        let services = status["services"].as_array().unwrap();
        services.iter().any(|service| {
            service["name"] == name
                && service["preference"] == "preferred"
                && service["confirmation"]["state"] == "confirmed"
        })
    }

    /// Reloads, and waits for the outcome: why it was refused, or nothing.
    fn reload(&mut self, text: &str) -> Option<String> {
        fs::write(self.folder.join("guard.toml"), text).unwrap();
        let log = self.process.log().to_owned();
        let count = |text: &str| fs::read_to_string(&log).unwrap().matches(text).count();
        let (refused, reloaded) = (
            || count("reload refused"),
            || count("configuration reloaded"),
        );
        let before = (refused(), reloaded());
        self.process.signal(Signal::SIGHUP).unwrap();
        self.until("the reload to end", || (refused(), reloaded()) != before);
        let total = |(a, b): (usize, usize)| a + b;
        assert_eq!(
            total((refused(), reloaded())),
            total(before) + 1,
            "said once"
        );
        let mut error = Value::Null;
        let is_refused = refused() > before.0;
        self.until("/status to tell", || {
            error = self.status().unwrap()["configuration"]["error"]["reason"].clone();
            error.is_string() == is_refused
        });
        error.as_str().map(str::to_owned)
    }

    /// The next message with this in it.
    fn await_told(&self, part: &str) -> String {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        while begun.elapsed() < PATIENCE {
            match self.manager.recv(&mut buffer) {
                Ok(length) => {
                    let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if message.contains(part) {
                        return message;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{part} was never told\n{}", self.process.tail(30));
    }

    /// Forgets what was told so far.
    fn drain_told(&self) {
        self.manager.set_nonblocking(true).unwrap();
        while self.manager.recv(&mut [0; 4096]).is_ok() {}
        self.manager.set_nonblocking(false).unwrap();
    }

    fn boosts(&self) -> usize {
        let listing = self.namespace.run("ip -4 -o addr show dev lo").unwrap();
        listing.matches("192.0.2.").count()
    }

    /// Ends with this code.
    fn await_end(&mut self, code: i32) {
        let process = &mut self.process;
        eventually(PATIENCE, "the guard to end", || {
            process.has_ended().unwrap().is_some()
        })
        .unwrap();
        let status = self.process.has_ended().unwrap().unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.process.tail(30));
    }
}

#[test]
fn a_reload_is_taken_whole_or_refused_whole() {
    isolated(|| {
        let mut guard = Guard::start();
        let bad = [
            (
                config(&BOTH).replacen("rise", "ries", 1),
                "unknown field `ries`",
            ),
            (config(&[]), "there is none"),
            (config(&BOTH[..1]), "dns"),
            (config(&[("web", ""), ("dns", ""), ("ntp", "")]), "ntp"),
            (config(&BOTH).replace("3s", "4s"), "restart"),
            (String::new(), "node"),
        ];
        for (text, hint) in bad {
            let said = guard.reload(&text).unwrap();
            assert!(said.contains(hint), "{said}");
            assert!(guard.preferred("web") && guard.preferred("dns"));
            assert_eq!(guard.boosts(), 2);
        }
        assert_eq!(guard.reload(&config(&BOTH)), None);
        assert!(guard.preferred("web") && guard.preferred("dns"));

        // By saying so it goes, and may then be left out; it can come back until that.
        let removed = config(&[("web", ""), ("dns", "state = \"removed\"")]);
        assert_eq!(guard.reload(&removed), None);
        guard.until("dns to be demoted", || guard.boosts() == 1);
        assert_eq!(guard.reload(&config(&BOTH)), None);
        guard.until("dns to be back", || guard.boosts() == 2);
        assert_eq!(guard.reload(&removed), None);
        assert_eq!(guard.reload(&config(&BOTH[..1])), None);
        guard.until("dns to stay demoted", || guard.boosts() == 1);
        assert!(guard.preferred("web"));
    });
}

/// What would never end to be read, or not fit, is refused, and the watchdog is fed.
#[test]
fn a_reload_of_what_is_no_file_is_refused() {
    isolated(|| {
        let mut guard = Guard::start();
        // Before that a reload is not told, as nothing is ready that could be reloaded.
        guard.await_told("READY=1");
        let path = guard.folder.join("guard.toml");
        let refused = |guard: &Guard, count| {
            guard.until("the reload to be refused", || {
                let log = guard.process.tail(10_000);
                log.matches("reload refused").count() == count
            });
            assert!(guard.preferred("web") && guard.preferred("dns"));
        };
        fs::remove_file(&path).unwrap();
        guard.process.signal(Signal::SIGHUP).unwrap();
        refused(&guard, 1);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        guard.drain_told();
        guard.process.signal(Signal::SIGHUP).unwrap();
        guard.await_told("RELOADING=1");
        refused(&guard, 2);
        for _ in 0..3 {
            guard.await_told("WATCHDOG=1");
        }
        guard.process.signal(Signal::SIGTERM).unwrap();
        guard.await_end(0);
    });
}

/// Everything that a service manager is told, from the start to the end.
#[test]
fn the_service_manager_is_told_the_whole_life() {
    isolated(|| {
        let mut guard = Guard::launch(&config(&BOTH));
        let starting = guard.await_told("");
        assert!(starting.starts_with("STATUS=starting"), "{starting}");
        guard.await_told("READY=1");
        assert_eq!(guard.copies(), 2, "the first decisions were carried out");
        guard.await_told("STATUS=2 of 2 preferred");
        guard.await_told("WATCHDOG=1");
        fs::remove_file(guard.folder.join("web")).unwrap();
        let status = guard.await_told("STATUS=1 of 2 preferred; web demoted: ");
        println!("{status}");
        guard.await_told("WATCHDOG=1");

        // Type=notify-reload demands the time; Type=notify does not mind it.
        for (text, outcome) in [
            (config(&BOTH), "configuration reloaded"),
            (String::new(), "reload refused"),
        ] {
            fs::write(guard.folder.join("guard.toml"), text).unwrap();
            guard.drain_told();
            let before = monotonic_usec();
            guard.process.signal(Signal::SIGHUP).unwrap();
            let reloading = guard.await_told("RELOADING=1");
            let (_, at) = reloading.split_once("MONOTONIC_USEC=").unwrap();
            let at: i64 = at.trim().parse().unwrap();
            assert!((before..=monotonic_usec()).contains(&at), "{reloading}");
            guard.await_told("READY=1");
            guard.until(outcome, || guard.process.tail(1000).contains(outcome));
        }
        guard.await_told("; the last reload was refused");

        guard.process.signal(Signal::SIGTERM).unwrap();
        guard.await_told("STOPPING=1");
        guard.await_end(0);
        assert_eq!(guard.boosts(), 0, "demoted");
        assert_eq!(guard.copies(), 2, "not withdrawn");
    });
}

fn monotonic_usec() -> i64 {
    let now = sd_notify::NotifyState::monotonic_usec_now().unwrap();
    let text = now.to_string();
    text.split_once('=').unwrap().1.parse().unwrap()
}

#[test]
fn a_stop_keeps_what_on_stop_keeps() {
    isolated(|| {
        let kept = "on_stop = \"keep\"\nkeep_for = \"1m\"";
        let text = config(&[("web", kept), ("dns", "")]);
        let mut guard = Guard::launch(&text);
        guard.until("both to be preferred", || {
            guard.preferred("web") && guard.preferred("dns")
        });
        guard.process.signal(Signal::SIGTERM).unwrap();
        guard.await_end(0);
        assert_eq!(guard.boosts(), 1, "web is kept, dns is not");
        assert_eq!(guard.copies(), 2);
        guard.process = Guard::run(&guard.namespace);
        guard.until("both to be preferred again", || {
            guard.preferred("web") && guard.preferred("dns")
        });
        let log = guard.process.tail(10_000);
        let changes = |name| {
            log.matches(&format!("boost of 192.0.2.{}/", last(name)))
                .count()
        };
        assert_eq!(changes("web"), 1, "added once, and adopted");
        assert_eq!(changes("dns"), 3, "added, removed, added");
    });
}

/// What the file ordered goes and comes with the file; what an operator ordered stays.
#[test]
fn orders_of_the_file_follow_the_file_over_a_restart() {
    isolated(|| {
        let removed = config(&[("web", ""), ("dns", "state = \"removed\"")]);
        let by_file = Some("the configuration".to_owned());
        let mut guard = Guard::launch(&removed);
        guard.until("web alone to be preferred", || {
            guard.preferred("web") && guard.ordered_by("dns") == by_file
        });
        let saved = guard.folder.join("state/intent-dns.json");
        guard.until("it to be saved", || saved.exists());
        guard.restart(&config(&BOTH));
        guard.until("dns to be back", || guard.preferred("dns"));
        assert_eq!(guard.ordered_by("dns"), None);
        guard.restart(&removed);
        guard.until("dns to be removed", || guard.ordered_by("dns") == by_file);
        guard.until("web to be preferred", || guard.preferred("web"));
        assert_eq!(guard.boosts(), 1);

        // An operator's order replaces the file's, and no start takes it away.
        guard.order("dns", "drain");
        let by_operator = guard.ordered_by("dns");
        assert!(
            by_operator.is_some() && by_operator != by_file,
            "{by_operator:?}"
        );
        for text in [&config(&BOTH), &removed, &config(&BOTH)] {
            guard.restart(text);
            guard.until("web to be preferred", || guard.preferred("web"));
            guard.until("the operator's order to stand", || {
                guard.ordered_by("dns") == by_operator
            });
            assert_eq!(guard.boosts(), 1);
        }
        // What the file says is what is left of an order that is lifted, and of its change under
        // an order.
        assert_eq!(guard.reload(&removed), None);
        assert_eq!(guard.ordered_by("dns"), by_operator);
        guard.order("dns", "undrain");
        assert_eq!(guard.ordered_by("dns"), by_file);
        guard.until("web alone to be preferred", || guard.boosts() == 1);
        assert_eq!(guard.reload(&config(&BOTH)), None);
        guard.until("dns to be back", || guard.preferred("dns"));
        assert_eq!(guard.ordered_by("dns"), None);
    });
}
