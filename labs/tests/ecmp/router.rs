//! The router: BIRD, which hears every site, and a kernel that spreads flows over those of one cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anycast_labs::{Netns, Proc, eventually, isolate, require};

use crate::lab::{Lab, PATIENCE, SERVICE, address};

/// How often the router's table is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What a node that is preferred is announced with.
const BOOST: &str = "200";
/// The group of next hops; theirs are below it.
const GROUP: usize = 100;

/// How the router spreads flows over next hops of one cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// BIRD merges the paths into one route; the kernel hashes over all of its next hops.
    Plain,
    /// A resilient next-hop group: a bucket keeps its next hop while that is there and it is in use.
    Resilient,
}

/// The sites that the router takes for the nearest, as they come and go.
type Seen = Vec<BTreeSet<usize>>;

/// BIRD at the router and at each site, and what the router has had of them.
pub(crate) struct Routing {
    sites: usize,
    _daemons: Vec<Proc>,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    watching: Option<JoinHandle<()>>,
}

impl Routing {
    /// Starts all of it. Must not outlive the lab's namespaces, of which it takes copies.
    pub(crate) fn start(lab: &Lab, kind: Kind) -> Self {
        // By ports too: a hundred clients behind one address are a hundred flows.
        let hash = "net.ipv4.fib_multipath_hash_policy";
        lab.hub.sysctl(hash, "1").unwrap();
        let mut daemons = vec![bird(&lab.hub, "hub", &router_config(lab, kind))];
        for (number, site) in lab.sites.iter().enumerate() {
            daemons.push(bird(&site.namespace, &site.name, &site_config(number)));
        }
        if kind == Kind::Resilient {
            for (number, site) in lab.sites.iter().enumerate() {
                let (id, via, device) = (number + 1, address(number), &site.name);
                let line = format!("ip nexthop add id {id} via {via} dev {device}");
                lab.hub.run(&line).unwrap();
            }
        }
        let seen = Arc::new(Mutex::new(vec![BTreeSet::new()]));
        let over = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            socket: socket("hub"),
            sites: lab.sites.len(),
            kind,
            seen: Arc::clone(&seen),
            over: Arc::clone(&over),
        };
        // The thread stays in the router's namespace.
        let watching = lab
            .hub
            .enter(move || thread::spawn(move || watch.run()))
            .unwrap();
        Self {
            sites: lab.sites.len(),
            _daemons: daemons,
            seen,
            over,
            watching: Some(watching),
        }
    }

    /// The sites that the router takes for the nearest now.
    pub(crate) fn members(&self) -> BTreeSet<usize> {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    /// Waits until these are.
    pub(crate) fn await_members(&self, wanted: &[usize]) {
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        let what = format!("the router to have {wanted:?}");
        let reached = eventually(PATIENCE, &what, || self.members() == wanted);
        if let Err(error) = reached {
            panic!("{error}; it has {:?}", self.seen.lock().unwrap());
        }
    }

    /// When the router heard of each that is among the nearest now, by its own clock.
    pub(crate) fn joined(&self) -> BTreeMap<usize, Duration> {
        table(&socket("hub"), self.sites).unwrap()
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            // One that has panicked has said so.
            let _ = watching.join();
        }
    }
}

/// Looks at the router's table, and has its kernel follow where BIRD does not do that.
struct Watch {
    socket: PathBuf,
    sites: usize,
    kind: Kind,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn run(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let table = table(&self.socket, self.sites);
            if let Some(members) = table.map(|table| table.into_keys().collect())
                && self.seen.lock().unwrap().last().unwrap() != &members
            {
                if self.kind == Kind::Resilient {
                    follow(&members);
                }
                self.seen.lock().unwrap().push(members);
            }
            thread::sleep(LOOK);
        }
    }
}

/// The sites that the router takes for the nearest, and when it heard that of each.
fn table(socket: &Path, sites: usize) -> Option<BTreeMap<usize, Duration>> {
    let mut command = Command::new("birdc");
    command.arg("-s").arg(socket);
    let route = format!("{SERVICE}/32");
    let output = command
        .args(["show", "route", "all", "for", &route])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (mut found, mut at, mut via) = (BTreeMap::new(), None, None);
    for line in text.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once(" [") {
            // `unicast [ams1 1795827907.363] * (100) [i]`
            let stamp = rest.split_once(']')?.0.split_whitespace().nth(1)?;
            at = Some(Duration::from_secs_f64(stamp.parse().ok()?));
        } else if let Some(rest) = line.strip_prefix("via ") {
            let hop = rest.split_whitespace().next()?;
            via = (0..sites).find(|site| address(*site) == hop);
        } else if let Some(level) = line.strip_prefix("BGP.local_pref: ")
            && level == BOOST
        {
            found.insert(via?, at?);
        }
    }
    Some(found)
}

/// The group has these as its next hops.
fn follow(members: &BTreeSet<usize>) {
    if members.is_empty() {
        return; // there is no empty group; who is left at the floor is of no interest here
    }
    let hops: Vec<_> = members.iter().map(|site| (site + 1).to_string()).collect();
    let hops = hops.join("/");
    for line in [
        // A flow that is not idle keeps its bucket.
        format!(
            "nexthop replace id {GROUP} group {hops} type resilient buckets 128 idle_timer 120 \
             unbalanced_timer 0"
        ),
        format!("route replace {SERVICE}/32 nhid {GROUP}"),
    ] {
        let status = Command::new("ip").args(line.split_whitespace()).status();
        assert!(status.unwrap().success(), "{line}");
    }
}

fn socket(name: &str) -> PathBuf {
    isolate::work_dir().join(format!("{name}-bird.ctl"))
}

fn bird(namespace: &Netns, name: &str, config: &str) -> Proc {
    let path = isolate::work_dir().join(format!("{name}-bird.conf"));
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(require("bird", &[], "bird2").unwrap());
    command
        .arg("-f")
        .arg("-c")
        .arg(path)
        .arg("-s")
        .arg(socket(name));
    let process = Proc::start(namespace, &format!("{name}-bird"), &mut command).unwrap();
    eventually(PATIENCE, "BIRD to open its socket", || {
        socket(name).exists()
    })
    .unwrap();
    process
}

/// The sample that operators start from, with this lab's addresses.
fn site_config(number: usize) -> String {
    let mut text = include_str!("../../../examples/routing/bird.conf").to_owned();
    for (sample, ours) in [
        ("10.0.0.2", address(number)),
        ("10.0.0.1", format!("10.30.{number}.1")),
        ("log syslog all;", "log stderr all;".to_owned()),
        // Only IPv4 here.
        (
            "protocol bgp router6 from to_router {",
            "protocol bgp router6 from to_router { disabled;".to_owned(),
        ),
    ] {
        assert!(text.contains(sample), "the sample has no {sample:?}");
        text = text.replace(sample, &ours);
    }
    text
}

fn router_config(lab: &Lab, kind: Kind) -> String {
    let mut text =
        "log stderr all;\nrouter id 10.30.0.1;\ntimeformat route \"%s.%3f\";\nprotocol device { scan time 1; }\n".to_owned();
    if kind == Kind::Plain {
        text += "protocol kernel { merge paths on; ipv4 { export where source = RTS_BGP; }; }\n";
    }
    for (number, site) in lab.sites.iter().enumerate() {
        let _ = writeln!(
            text,
            "protocol bgp {} {{ local as 65000; direct; hold time 9; connect delay time 1;\n\
             connect retry time 1; error wait time 1, 2; neighbor {} as 65000;\n\
             ipv4 {{ import all; export none; }}; }}",
            site.name,
            address(number)
        );
    }
    text
}
