//! An upgrade of a fleet, site by site, and the way back: nodes of the version of the wire before beside
//! those of this one, both built from these sources. That takes minutes: `cargo xtask handoff` runs it.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

#[path = "handoff/clients.rs"]
mod clients;
#[path = "sync/lab.rs"]
mod lab;
#[path = "handoff/scene.rs"]
mod scene;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::node::service::{EXECUTABLE, PREVIOUS, build_previous};
use anycast_labs::{eventually, isolated_with_for};
use nix::sys::signal::Signal;

use crate::clients::{ALL, Outcome, read_all};
use crate::lab::{Lab, PATIENCE};
use crate::scene::{LOSS, MULTI, NAMES, Scene};

/// Four reads, each as long as the clients' links make it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two moves of the route.
const STEP: Duration = Duration::from_millis(500);

fn prepare() -> Result<Vec<(String, std::ffi::OsString)>, String> {
    Ok([build_previous()?, lab::prepare()?].concat())
}

/// While all clients read, a site is stopped as an operator does it, and started as this executable;
/// the route goes round all sites that run until they have read all.
fn replace(scene: &mut Scene, site: usize, executable: &'static str) -> Vec<Outcome> {
    let others = [(site + 1) % NAMES.len(), (site + 2) % NAMES.len()];
    let Scene { lab, clients, .. } = scene;
    lab.lead_to(site);
    read_all(clients, |some_read| {
        thread::sleep(Duration::from_secs(1));
        let mut daemon = lab.sites[site].daemon.take().unwrap();
        daemon.signal(Signal::SIGTERM).unwrap();
        thread::sleep(STEP);
        lab.lead_to(others[0]);
        eventually(PATIENCE, "it to have ended", || {
            daemon.has_ended().unwrap().is_some()
        })
        .unwrap();
        assert!(daemon.has_ended().unwrap().unwrap().success());
        lab.lead_to(others[1]);
        lab.sites[site].executable = executable;
        lab.sites[site].start();
        lab.await_agreed();
        lab.lead_to(site);
        assert!(some_read(), "the clients were too fast");
        let begun = Instant::now();
        while some_read() && begun.elapsed() < PATIENCE {
            for next in 0..NAMES.len() {
                lab.lead_to(next);
                thread::sleep(STEP);
            }
        }
    })
}

/// Which versions a site has spoken with its peers, one after the other, as its log has it.
fn spoken(lab: &Lab, site: usize) -> Vec<u8> {
    let log = lab.sites[site].daemon.as_ref().unwrap().log();
    let log = fs::read_to_string(log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("a peer hands transfers on"));
    let version = |line: &str| line.rsplit_once("version=")?.1.get(..1)?.parse().ok();
    lines.filter_map(version).collect()
}

#[test]
fn a_fleet_is_upgraded_site_by_site_and_one_site_taken_back_while_clients_read() {
    isolated_with_for(LIMIT, prepare, || {
        let mut lab = Lab::new(&NAMES, MULTI);
        for site in &mut lab.sites {
            site.executable = PREVIOUS;
        }
        let mut scene = Scene::of(lab, ALL.into());
        for (replaced, executable) in [
            (0, EXECUTABLE),
            (1, EXECUTABLE),
            (2, EXECUTABLE),
            (1, PREVIOUS),
        ] {
            let outcomes = replace(&mut scene, replaced, executable);
            println!("{replaced} is {executable} now");
            scene.assert_complete(&outcomes, LOSS);
            for site in 0..NAMES.len() {
                let count = |counter| scene.counted(site, counter);
                println!(
                    "{site}: {:?}, {} adopted, {} taken over, {} unprotected, {} of {} refused",
                    spoken(&scene.lab, site),
                    count("adopted"),
                    count("taken_over"),
                    count("unprotected"),
                    count("messages_refused"),
                    count("messages_received"),
                );
                assert_eq!(count("messages_refused"), 0);
                assert!(count("adopted") > 0, "nothing came across");
            }
        }
        // The first has seen all; the last one that began speaks the version before with both.
        let first = spoken(&scene.lab, 0);
        assert!(first.contains(&1) && first.contains(&2), "{first:?}");
        assert!(spoken(&scene.lab, 1).ends_with(&[1, 1]));
    });
}
