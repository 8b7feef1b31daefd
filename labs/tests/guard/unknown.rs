//! What breaks at `anycast-guard` itself, and not at the service, lowers nothing: a check's
//! program that is gone, no descriptors left, a configuration that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anycast_labs::node::service::build_guard;
use anycast_labs::{Netns, Proc, isolated_with};
use nix::sys::signal::Signal;

use super::daemons::DNSMASQ;
use super::node::{Guarded, folder, write};
use super::story::addresses;

/// Boosts written, at two addresses, each at a third of the dead man's 3 s or so: many rounds of
/// the checks.
const MANY: usize = 24;

fn with_dnsmasq(body: impl FnOnce(Guarded<'_>)) {
    let node = Netns::new("ams1").unwrap();
    let folder = folder(&node);
    (DNSMASQ.lay)(&folder, true);
    let script = write(&folder, "check.sh", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let _running: Proc = DNSMASQ.start(&node);
    let exec = format!(
        "{}\n[[service.check]]\nkind = \"exec\"\nname = \"script\"\ncommand = [\"{}\"]\n         interval = \"1s\"\ntimeout = \"1s\"\n",
        DNSMASQ.checks,
        script.display()
    );
    let guarded = Guarded::start(&node, addresses(), "3s", &exec);
    guarded.await_preferred();
    body(guarded);
}

#[test]
fn a_checks_program_that_is_gone_lowers_nothing() {
    isolated_with(build_guard, || {
        with_dnsmasq(|guarded| {
            let mark = guarded.mark();
            let script = guarded.folder.join("check.sh");
            fs::remove_file(&script).unwrap();
            guarded.until("the check to be unknown", |guarded| {
                guarded.verdict("script").contains("unknown")
            });
            println!("{}", guarded.verdict("script"));
            guarded.await_renewals(MANY);
            assert!(guarded.verdict("script").contains("unknown"));
            assert!(guarded.is_preferred());
            guarded.assert_nothing_deleted(mark);
            // It still can: what the script says counts once it is there again.
            write(&guarded.folder, "check.sh", "#!/bin/sh\nexit 1\n");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            guarded.await_lowered("script");
            guarded.assert_never_withdrawn();
        });
    });
}

/// Without descriptors it can neither probe nor be asked: that the boosts are renewed shows that
/// it decides. Then it is given some again, and tells.
#[test]
fn a_guard_without_descriptors_lowers_nothing() {
    isolated_with(build_guard, || {
        with_dnsmasq(|mut guarded| {
            let id = guarded.process().id();
            let mark = guarded.mark();
            let limit = |files: u32| {
                let line = format!("prlimit --pid {id} --nofile={files}:4096");
                guarded.namespace.run(&line).unwrap();
            };
            limit(3);
            // It says that it has none: this connection cannot be taken.
            let _asked = guarded.connect().unwrap();
            let log = guarded.process().log().to_owned();
            guarded.until("no descriptors to be left", |_| {
                fs::read_to_string(&log).unwrap().contains("os error 24")
            });
            guarded.await_renewals(MANY);
            assert!(guarded.is_preferred());
            limit(1024);
            guarded.await_renewals(MANY);
            guarded.until("the checks to go on", |guarded| {
                guarded.verdict("service").contains("healthy")
                    && guarded.verdict("script").contains("healthy")
            });
            guarded.assert_nothing_deleted(mark);
            guarded.assert_never_withdrawn();
        });
    });
}

/// Said once each time, shown until the next good one, and the old one goes on checking.
#[test]
fn a_configuration_that_cannot_be_used_lowers_nothing() {
    isolated_with(build_guard, || {
        with_dnsmasq(|mut guarded| {
            let good = guarded.written();
            let mark = guarded.mark();
            let (services, _) = good.split_once("[[service]]").unwrap();
            for (bad, hint) in [
                (good.replace("rise = 2", "ries = 2"), "unknown field `ries`"),
                (services.to_owned(), "[[service]]: there is none"),
                (String::new(), "node"),
                ("[[[".to_owned(), "guard.toml:1:"),
            ] {
                guarded.write(&bad);
                guarded.process().signal(Signal::SIGHUP).unwrap();
                guarded.until(hint, |guarded| {
                    let error = guarded.status()["configuration"]["error"]["reason"].clone();
                    error.as_str().is_some_and(|reason| reason.contains(hint))
                });
                guarded.await_renewals(MANY / 2);
                assert!(guarded.is_preferred());
            }
            let log = fs::read_to_string(guarded.process().log()).unwrap();
            let said = log.lines().filter(|line| line.contains("reload refused"));
            assert_eq!(said.count(), 4, "{log}");
            guarded.write(&good);
            guarded.process().signal(Signal::SIGHUP).unwrap();
            guarded.until("the good file to be in force", |guarded| {
                guarded.status()["configuration"]["error"].is_null()
            });
            guarded.await_renewals(MANY);
            guarded.assert_nothing_deleted(mark);
            guarded.assert_never_withdrawn();
        });
    });
}
