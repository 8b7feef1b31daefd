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
        let last = name.len() + name.bytes().map(usize::from).sum::<usize>() % 200;
        text += &format!(
            "[[service]]\nname = \"{name}\"\naddresses = [\"192.0.2.{last}/32\"]\n\
             rise = 1\nhold_down = \"100ms\"\nflap_limit = 0\nbudget_refill = \"0s\"\n{more}\n\
             [[service.check]]\nkind = \"file\"\npath = \"{folder}/{name}\"\ninterval = \"200ms\"\n"
        );
    }
    text
}

const BOTH: [(&str, &str); 2] = [("web", ""), ("dns", "")];

impl Guard {
    fn start() -> Self {
        let namespace = Netns::new("ams1").unwrap();
        let folder = isolate::work_dir();
        fs::create_dir_all(folder.join("state")).unwrap();
        for (name, _) in BOTH {
            fs::write(folder.join(name), "").unwrap();
        }
        fs::write(folder.join("guard.toml"), config(&BOTH)).unwrap();
        let manager = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let process = Self::spawn(&namespace);
        let guard = Self {
            namespace,
            folder,
            process,
            manager,
        };
        guard.until("both to be preferred", || {
            guard.preferred("web") && guard.preferred("dns")
        });
        guard
    }

    fn spawn(namespace: &Netns) -> Proc {
        let folder = isolate::work_dir();
        let mut command = Command::new(env!("CARGO_BIN_EXE_anycast-guard"));
        command.arg("--config").arg(folder.join("guard.toml"));
        command.env("NOTIFY_SOCKET", folder.join("notify.sock"));
        command.env("WATCHDOG_USEC", "4000000");
        Proc::start(namespace, "guard", &mut command).unwrap()
    }

    /// Kills it, and starts it with this file.
    fn restart(&mut self, text: &str) {
        self.process.kill().unwrap();
        fs::write(self.folder.join("guard.toml"), text).unwrap();
        self.process = Self::spawn(&self.namespace);
    }

    /// Gives an order over the admin socket.
    fn order(&self, service: &str, verb: &str) {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /services/{service}/{verb} HTTP/1.0\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }

    /// Who gave the order that is in force for a service.
    fn ordered_by(&self, name: &str) -> Option<String> {
        let status = self.status()?;
        let services = status["services"].as_array()?;
        let service = services.iter().find(|service| service["name"] == name)?;
        service["intent"]["by"].as_str().map(str::to_owned)
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

/// The file's own order follows the file over a restart; an operator's follows the operator.
#[test]
fn what_the_file_ordered_before_a_restart_follows_the_file_and_an_operators_drain_stands() {
    isolated(|| {
        let mut guard = Guard::start();
        let removed = config(&[("web", ""), ("dns", "state = \"removed\"")]);
        assert_eq!(guard.reload(&removed), None);
        guard.until("dns to be demoted", || guard.boosts() == 1);
        guard.restart(&removed);
        guard.until("the order to stand", || {
            guard.ordered_by("dns").as_deref() == Some("the configuration")
        });
        guard.until("web to be back", || guard.preferred("web"));
        assert_eq!(guard.boosts(), 1);

        guard.restart(&config(&BOTH));
        guard.until("dns to be back", || {
            guard.preferred("web") && guard.preferred("dns")
        });
        assert_eq!(guard.ordered_by("dns"), None);

        guard.order("dns", "drain");
        guard.until("dns to be drained", || guard.boosts() == 1);
        for text in [&removed, &config(&BOTH)] {
            guard.restart(text);
            guard.until("web to be back", || guard.preferred("web"));
            guard.until("the operator's order to stand", || {
                let by = guard.ordered_by("dns");
                by.is_some_and(|by| by != "the configuration")
            });
            assert_eq!(guard.boosts(), 1);
        }
        guard.order("dns", "undrain");
        guard.until("dns to be back", || guard.preferred("dns"));
    });
}

/// What systemd is told, with `Type=notify` and a watchdog; a stop demotes and ends in order.
#[test]
fn the_service_manager_is_told_and_a_stop_demotes() {
    isolated(|| {
        let mut guard = Guard::start();
        guard.await_told("READY=1");
        guard.await_told("WATCHDOG=1");
        fs::remove_file(guard.folder.join("dns")).unwrap();
        let status = guard.await_told("STATUS=1 of 2 preferred");
        assert!(status.contains("dns demoted: "), "{status}");
        guard.drain_told();
        guard.process.signal(Signal::SIGHUP).unwrap();
        let reloading = guard.await_told("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        guard.await_told("READY=1");
        guard.await_told("WATCHDOG=1");
        assert_eq!(guard.boosts(), 1);
        guard.process.signal(Signal::SIGTERM).unwrap();
        guard.await_told("STOPPING=1");
        guard.await_end(0);
        assert_eq!(guard.boosts(), 0);
        let copies = guard.namespace.run("ip -4 -o addr show dev svc0").unwrap();
        assert_eq!(copies.matches("192.0.2.").count(), 2, "{copies}");
    });
}

/// What would never end to be read, or not fit, is refused, and the watchdog is fed.
#[test]
fn a_reload_of_what_is_no_file_is_refused() {
    isolated(|| {
        let mut guard = Guard::start();
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
