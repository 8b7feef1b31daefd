//! The scenarios of failover, for either routing daemon: the router and the
//! sites run the same one.
//!
//! Both address families are watched in every scenario. Times are printed, and
//! bounded only so that a route which does not move fails: machines are noisy.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anycast_labs::node::Kind;
use anycast_labs::node::service::HEALTH_FILE;
use anycast_labs::topo::{BOOST, FLOOR, HOLD_TIME, Heard, Lab, SERVICE};
use anycast_labs::{Netns, Proc, eventually};
use nix::sys::signal::Signal;

/// More than the dead man's 3 s, the checks and the hold time take anywhere.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a routing daemon may take to connect again after a cut, by default.
const RECOVERY: Duration = Duration::from_secs(150);
const FILE: &str = "image.bin";
const A: usize = 0;
const B: usize = 1;

/// 200,000 bytes in which no two blocks are equal.
fn content() -> Vec<u8> {
    (0..50_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect()
}

/// Both sites are preferred, and the router takes site a.
fn up(kind: Kind) -> Lab {
    let mut lab = Lab::build(kind, kind, &[(FILE, &content()), (HEALTH_FILE, b"well\n")]).unwrap();
    for site in &mut lab.sites {
        site.start().unwrap();
    }
    for service in SERVICE {
        for site in [A, B] {
            await_announced(&lab, site, service, BOOST);
        }
        await_best(&lab, A, service, BOOST);
    }
    lab
}

fn await_best(lab: &Lab, site: usize, service: IpAddr, local_pref: u32) {
    let next_hop = lab.sites[site].next_hop(service);
    eventually(
        PATIENCE,
        &format!("{service} by {next_hop} at {local_pref}"),
        || {
            lab.best(service)
                .unwrap()
                .is_some_and(|best| best.next_hop == next_hop && best.local_pref == local_pref)
        },
    )
    .unwrap();
}

fn await_announced(lab: &Lab, site: usize, service: IpAddr, local_pref: u32) {
    eventually(
        PATIENCE,
        &format!("site {site} to announce {service} at {local_pref}"),
        || lab.heard(site, service, 0).unwrap().announced.last() == Some(&local_pref),
    )
    .unwrap();
}

/// Every site's routes since message `since`: none withdrawn, no session lost.
fn assert_no_withdrawal(lab: &Lab, since: usize) {
    for site in [A, B] {
        for service in SERVICE {
            let heard = lab.heard(site, service, since).unwrap();
            assert_eq!(
                (heard.withdrawn, heard.sessions),
                (0, 0),
                "{service} from site {site}: {heard:?}"
            );
        }
    }
}

/// Fetch the file by the service address and compare every byte.
fn fetch(from: &Netns, service: IpAddr) {
    let url = match service {
        IpAddr::V4(address) => format!("tftp://{address}/{FILE}"),
        IpAddr::V6(address) => format!("tftp://[{address}]/{FILE}"),
    };
    let mut curl = Command::new("curl");
    let output = from
        .output(curl.args(["--silent", "--show-error", "--max-time", "50", &url]))
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{}: {url}: {} {said}",
        from.name(),
        output.status
    );
    assert!(
        output.stdout == content(),
        "{}: {url}: other bytes",
        from.name()
    );
}

fn fetch_both(from: &Netns) {
    SERVICE.into_iter().for_each(|service| fetch(from, service));
}

/// Echo requests to both service addresses at site a, five a second.
struct Pings(Vec<Proc>);

impl Pings {
    fn start(lab: &Lab) -> Self {
        lab.probe_at(A).unwrap();
        let ping = |service: IpAddr| {
            let name = if service.is_ipv4() { "ping4" } else { "ping6" };
            let mut command = Command::new("ping");
            command.args(["-n", "-i", "0.2", &service.to_string()]);
            Proc::start(&lab.prober, name, &mut command).unwrap()
        };
        Self(SERVICE.map(ping).into())
    }

    /// Each request was answered, but for one that may still be under way.
    fn assert_all_answered(self) {
        for mut ping in self.0 {
            ping.signal(Signal::SIGINT).unwrap();
            eventually(PATIENCE, "ping to end", || {
                ping.has_ended().unwrap().is_some()
            })
            .unwrap();
            let said = ping.tail(10);
            let (sent, received) = ping_counts(&said).unwrap_or_else(|| panic!("{said}"));
            assert!(
                sent >= 10 && received + 1 >= sent,
                "{}: {said}",
                ping.name()
            );
        }
    }
}

/// `12 packets transmitted, 12 received, …`
fn ping_counts(said: &str) -> Option<(u32, u32)> {
    let line = said
        .lines()
        .find(|line| line.contains("packets transmitted"))?;
    let mut counts = line
        .split(", ")
        .map(|part| part.split(' ').next()?.parse().ok());
    Some((counts.next()??, counts.next()??))
}

/// The dead man: the daemon at site a can no longer renew the boost.
fn dead_man(kind: Kind, silence: impl FnOnce(&mut Proc), revive: impl FnOnce(&mut Lab)) {
    let mut lab = up(kind);
    fetch_both(&lab.client);
    let pings = Pings::start(&lab);
    let since = lab.messages().unwrap();

    let begun = Instant::now();
    silence(lab.sites[A].tftpd.process().unwrap());
    for service in SERVICE {
        await_best(&lab, B, service, BOOST);
        println!(
            "{kind:?}: {service} moved to site b after {:?}",
            begun.elapsed()
        );
    }
    // A route that was withdrawn has moved, too.
    assert_no_withdrawal(&lab, since);
    for service in SERVICE {
        await_announced(&lab, A, service, FLOOR);
    }
    assert_no_withdrawal(&lab, since);
    fetch_both(&lab.client);

    let begun = Instant::now();
    revive(&mut lab);
    for service in SERVICE {
        await_best(&lab, A, service, BOOST);
        println!(
            "{kind:?}: {service} back at site a after {:?}",
            begun.elapsed()
        );
    }
    assert_no_withdrawal(&lab, since);
    fetch_both(&lab.client);
    pings.assert_all_answered();
}

pub(crate) fn daemon_killed(kind: Kind) {
    dead_man(
        kind,
        |daemon| daemon.kill().unwrap(),
        |lab| lab.sites[A].start().unwrap(),
    );
}

pub(crate) fn daemon_stopped(kind: Kind) {
    let revive = |lab: &mut Lab| lab.sites[A].tftpd.process().unwrap().resume().unwrap();
    dead_man(kind, |daemon| daemon.stop().unwrap(), revive);
}

/// Every packet between router and site a is lost; only the hold timer tells.
pub(crate) fn site_cut(kind: Kind) {
    let lab = up(kind);
    fetch_both(&lab.client);
    let since = lab.messages().unwrap();
    let hub = lab.router.namespace();
    let begun = Instant::now();
    hub.cut(lab.sites[A].router_device()).unwrap();
    for service in SERVICE {
        await_best(&lab, B, service, BOOST);
        println!(
            "{kind:?}: {service} moved after {:?} (hold time {HOLD_TIME} s)",
            begun.elapsed()
        );
    }
    fetch_both(&lab.client);
    hub.heal(lab.sites[A].router_device()).unwrap();
    let next_hop = lab.sites[A].next_hop(SERVICE[0]);
    eventually(RECOVERY, "the sessions to come up again", || {
        lab.best(SERVICE[0])
            .unwrap()
            .is_some_and(|best| best.next_hop == next_hop)
    })
    .unwrap();
    for service in SERVICE {
        await_best(&lab, A, service, BOOST);
    }
    for site in [A, B] {
        for service in SERVICE {
            assert_eq!(lab.heard(site, service, since).unwrap().withdrawn, 0);
        }
    }
    fetch_both(&lab.client);
}

/// The link to site a goes down at the router.
pub(crate) fn link_down(kind: Kind) {
    let lab = up(kind);
    fetch_both(&lab.client);
    let begun = Instant::now();
    lab.router
        .namespace()
        .down(lab.sites[A].router_device())
        .unwrap();
    for service in SERVICE {
        await_best(&lab, B, service, BOOST);
        println!("{kind:?}: {service} moved after {:?}", begun.elapsed());
    }
    fetch_both(&lab.client);
}

/// The check of site a fails while its daemon lives: it is demoted, and serves
/// whoever still comes, at every probe.
pub(crate) fn check_failed(kind: Kind) {
    let lab = up(kind);
    lab.probe_at(A).unwrap();
    let since = lab.messages().unwrap();
    let health = lab.sites[A].tftpd.root().join(HEALTH_FILE);
    let over = AtomicBool::new(false);
    let probes = thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut probes = 0;
            while !over.load(Ordering::Relaxed) {
                fetch_both(&lab.prober);
                probes += 1;
            }
            probes
        });
        // Also when this fails: the prober must not go on for ever.
        let _over = Set(&over);
        fs::remove_file(&health).unwrap();
        for service in SERVICE {
            await_announced(&lab, A, service, FLOOR);
            await_best(&lab, B, service, BOOST);
        }
        fetch_both(&lab.client);
        fetch_both(&lab.prober);
        fs::write(&health, b"well again\n").unwrap();
        for service in SERVICE {
            await_best(&lab, A, service, BOOST);
        }
        over.store(true, Ordering::Relaxed);
        prober.join().unwrap()
    });
    println!("{kind:?}: {probes} times two files from the node while it was demoted and raised");
    assert!(probes >= 1);
    assert_no_withdrawal(&lab, since);
}

struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Packets of no transfer to both service addresses, until it is dropped: a listener is silent, and
/// where there is none the kernel says so.
struct Knocker {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Knocker {
    fn start(lab: &Lab) -> Self {
        let bind = || {
            SERVICE.map(|service| {
                let any = if service.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                (UdpSocket::bind(any).unwrap(), service)
            })
        };
        let sockets = lab.client.enter(bind).unwrap();
        let knocker = Self {
            is_over: Arc::default(),
            sent: Arc::default(),
        };
        let (is_over, sent) = (Arc::clone(&knocker.is_over), Arc::clone(&knocker.sent));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for (socket, service) in &sockets {
                    // ACK 9. It fails where there is no route, or for what came of the last one.
                    let is_sent = socket.send_to(&[0, 4, 0, 9], (*service, 69)).is_ok();
                    sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        knocker
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// How often the router has passed on that a port is closed.
fn refusals(lab: &Lab) -> u64 {
    let hub = lab.router.namespace();
    let said = hub.run("nft list counters table inet refusals").unwrap();
    let counts = said.split("packets ").skip(1);
    let count = |rest: &str| rest.split(' ').next()?.parse::<u64>().ok();
    counts.map(|rest| count(rest).unwrap()).sum()
}

/// A listener is there before a site is preferred, and until nobody comes any more: while site a
/// is started, stopped and started again no client hears that a port is closed, which would end its
/// transfer.
pub(crate) fn nobody_is_refused(kind: Kind) {
    let files: [(&str, &[u8]); 1] = [(HEALTH_FILE, b"well\n")];
    let mut lab = Lab::build(kind, kind, &files).unwrap();
    let count = "icmp type destination-unreachable icmp code port-unreachable counter name four\n\
                 icmpv6 type destination-unreachable icmpv6 code port-unreachable counter name six";
    let table = format!(
        "table inet refusals {{\ncounter four {{ }}\ncounter six {{ }}\n\
         chain seen {{ type filter hook forward priority 0;\n{count}\n}}\n}}\n"
    );
    lab.router.namespace().nft(&table).unwrap();
    let knocker = Knocker::start(&lab);
    lab.sites[B].start().unwrap();
    for service in SERVICE {
        await_best(&lab, B, service, BOOST);
    }
    let before = refusals(&lab);
    lab.sites[A].start().unwrap();
    for service in SERVICE {
        await_best(&lab, A, service, BOOST);
    }
    let daemon = lab.sites[A].tftpd.process().unwrap();
    daemon.signal(Signal::SIGTERM).unwrap();
    for service in SERVICE {
        await_best(&lab, B, service, BOOST);
    }
    eventually(PATIENCE, "the daemon to end", || {
        let daemon = lab.sites[A].tftpd.process().unwrap();
        daemon.has_ended().unwrap().is_some()
    })
    .unwrap();
    let sent = knocker.sent.load(Ordering::Relaxed);
    thread::sleep(Duration::from_secs(1));
    lab.sites[A].start().unwrap();
    for service in SERVICE {
        await_best(&lab, A, service, BOOST);
    }
    assert!(knocker.sent.load(Ordering::Relaxed) > sent);
    assert_eq!(refusals(&lab), before, "after {sent} packets");
    // Killed, it leaves no listener for as long as the boost lasts: the count sees that.
    lab.sites[A].tftpd.process().unwrap().kill().unwrap();
    eventually(PATIENCE, "a refusal", || refusals(&lab) > before).unwrap();
}

/// Site a loses its floor by an operator's hand: the count of withdrawals,
/// which is zero everywhere else, must see that.
pub(crate) fn withdrawal_is_counted(kind: Kind, remove_floor: &[&str]) {
    let lab = Lab::build(kind, kind, &[]).unwrap();
    for service in SERVICE {
        await_announced(&lab, A, service, FLOOR);
        await_best(&lab, A, service, FLOOR);
    }
    let since = lab.messages().unwrap();
    for command in remove_floor {
        lab.sites[A].node.ask(command).unwrap();
    }
    for service in SERVICE {
        await_best(&lab, B, service, FLOOR);
        let heard = lab.heard(A, service, since).unwrap();
        assert_eq!(
            heard,
            Heard {
                announced: vec![],
                withdrawn: 1,
                sessions: 0
            }
        );
    }
}
