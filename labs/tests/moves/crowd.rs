//! Many clients at once, in one network of theirs, and the death of the site that serves them all.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anycast_labs::node::Kind;
use anycast_labs::{Proc, require};

use super::capture::Capture;
use super::clients::{GIVE_UP, lay};
use super::lab::Lab;
use super::site::{Announcing, Part};
use super::{Handoff, noise};

/// How many.
const CLIENTS: usize = 200;
/// Of the file: about twenty seconds with all of them at once.
const SIZE: usize = 1 << 20;
/// What the crowd's link carries.
const RATE: &str = "rate 80mbit burst 100kb latency 500ms";
/// Of the network's number; other clients have lower ones.
const NUMBER: usize = 50;
const BLKSIZE: usize = 1428;
/// How far into the transfers the site dies.
const BEGUN: Duration = Duration::from_secs(5);
const MOVED: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(100);

/// What became of them.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) clients: usize,
    pub(crate) completed: usize,
    pub(crate) identical: usize,
    /// After what time the router had left the site that was killed.
    pub(crate) moved: Duration,
    pub(crate) longest: Duration,
    pub(crate) median: Duration,
}

/// Each client is a curl of its own, with an address of its own in one /24.
pub(crate) fn killed(router: Kind) -> Crowd {
    let image = noise(7, SIZE);
    let mut lab = Lab::build(router, Announcing::Itself, Handoff::BeforeReply, image);
    let (namespace, folder) = lay(lab.hub(), NUMBER, RATE);
    let curl = require("curl", &[], "curl").unwrap();
    let capture = Capture::start(&namespace, BLKSIZE);
    let mut running: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let own = format!("10.40.{NUMBER}.{}", number + 10);
            namespace.address("up", &format!("{own}/32")).unwrap();
            let out = folder.join(format!("out{number}"));
            let mut command = Command::new(&curl);
            command.args(["--silent", "--show-error", "--max-time", "120"]);
            command.args(["--tftp-blksize", &BLKSIZE.to_string(), "--interface", &own]);
            command
                .arg("--output")
                .arg(&out)
                .arg("tftp://192.0.2.69/image");
            let name = format!("crowd{number}");
            (Proc::start(&namespace, &name, &mut command).unwrap(), out)
        })
        .collect();
    sleep(BEGUN);
    let still = |running: &mut Vec<(Proc, _)>| {
        let mut alive = running
            .iter_mut()
            .map(|(curl, _)| curl.has_ended().unwrap());
        alive.any(|ended| ended.is_none())
    };
    assert!(still(&mut running), "they are too fast");
    // Those of which no other site knew in time, and whether it still is so.
    println!("{:#}", lab.sites[0].ask("/status")["tftp"]);
    lab.sites[0].kill(Part::Service);
    let moved = lab.await_left(0, MOVED).unwrap();
    while still(&mut running) && capture.silence() < GIVE_UP {
        sleep(LOOK);
    }
    let end = Instant::now();
    let mut crowd = Crowd {
        clients: CLIENTS,
        completed: 0,
        identical: 0,
        moved,
        longest: Duration::ZERO,
        median: Duration::ZERO,
    };
    for (curl, out) in &mut running {
        let is_complete = curl
            .has_ended()
            .unwrap()
            .is_some_and(|status| status.success());
        crowd.completed += usize::from(is_complete);
        let is_identical = fs::read(&out).is_ok_and(|bytes| bytes == lab.image);
        crowd.identical += usize::from(is_identical);
        if !is_complete {
            println!("{:?}: {}", curl.has_ended(), curl.tail(1));
        }
    }
    let is_all = crowd.completed == CLIENTS;
    let flows = capture.flows();
    let mut stalls: Vec<_> = flows
        .iter()
        .map(|flow| flow.stall(if is_all { flow.newest } else { end }))
        .collect();
    stalls.sort();
    crowd.longest = stalls.last().copied().unwrap_or_default();
    crowd.median = stalls.get(stalls.len() / 2).copied().unwrap_or_default();
    println!("{} flows, {:?}", flows.len(), crowd);
    crowd
}
