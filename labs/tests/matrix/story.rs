//! How each scenario goes.

use std::thread::sleep;
use std::time::Duration;

use anycast_labs::eventually;
use anycast_labs::node::Kind;
use nix::sys::signal::Signal;

use super::backend::Backend;
use super::lab::{Heard, Lab, Mark};
use super::scenario::Scenario;
use super::site::{DEAD_MAN, PATIENCE, Site};
use super::table::{self, Row};
use super::topology::{NEAREST, Protocol, SECOND, SITES, Topology};

/// Long enough that no restart comes too late, however busy the machine.
const LONG_DEAD_MAN: Duration = Duration::from_secs(20);
const BOTH_SECOND: [usize; 2] = [SECOND, SECOND];

/// After what time each router left its nearest site, and took it again.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    moved: Option<[Duration; 2]>,
    back: Option<[Duration; 2]>,
}

/// Every scenario of a topology; a row of the table for each node to which they happen.
pub(crate) fn run(topology: Topology, backend: Backend) -> Vec<Row> {
    let mut lab = Lab::build(topology, backend);
    lab.await_sessions();
    let scenarios = Scenario::of(topology);
    if scenarios.first() != Some(&Scenario::Rise) {
        lab.start_controllers();
        lab.await_well(&lab.mark());
    }
    let rows = scenarios.iter().flat_map(|scenario| {
        lab.await_bfd();
        let (mark, times) = play(&mut lab, *scenario);
        lab.sites.iter().for_each(Site::await_confirmed);
        let rows = rows(&lab, *scenario, &mark, times);
        for row in &rows {
            println!("{}: {row:?}", table::name(topology, backend));
        }
        judge(&lab, *scenario, &mark);
        if scenario.keeps_serving() {
            for router in [0, 1] {
                let (lost, asked) = lab.node_lost(router, &mark);
                println!("{scenario:?}: {lost} of {asked} queries to the node itself lost");
                assert_eq!(lost, 0, "{scenario:?}: the node itself went on serving");
            }
        }
        rows
    });
    rows.collect()
}

fn rows(lab: &Lab, scenario: Scenario, mark: &Mark, times: Times) -> [Row; 2] {
    [0, 1].map(|router| {
        let site = NEAREST[router];
        let heard = lab.heard(site, mark);
        let (lost, asked) = lab.clients_lost(router, mark);
        Row {
            topology: lab.topology,
            scenario: scenario.name(),
            node: SITES[site].kind,
            backend: lab.backend(),
            updates: heard.updates,
            withdrawals: heard.withdrawals,
            sessions: heard.sessions,
            moved: times.moved.map(|moved| moved[router]),
            back: times.back.map(|back| back[router]),
            lost,
            asked,
        }
    })
}

/// Zero withdrawals from the node to its first hop, whatever happened (but for one fault of FRR's
/// with OSPF); where no session could have ended, none has.
fn judge(lab: &Lab, scenario: Scenario, mark: &Mark) {
    for (site, place) in SITES.iter().enumerate() {
        let heard = lab.heard(site, mark);
        let what = format!("{scenario:?}: {}: {heard:?}", place.device);
        if lab.topology.protocol == Protocol::Ospf && place.kind == Kind::Frr {
            // FRR's fault, told in the sample: each flush has its new LSA behind it.
            let told = || lab.external_routes(site, mark);
            assert!(heard.withdrawals <= heard.updates, "{what}: {}", told());
        } else {
            assert_eq!(heard.withdrawals, 0, "{what}");
        }
        let untouched = site == SECOND && scenario != Scenario::Partition;
        if untouched || !scenario.ends_sessions() {
            assert_eq!(heard.sessions, 0, "{what}");
        }
        let is_abandoned = matches!(
            scenario,
            Scenario::ControllerKilled | Scenario::ControllerFrozen
        );
        let stays = is_abandoned && !lab.backend().has_dead_man();
        if stays || scenario == Scenario::ControllerRestart {
            assert_eq!(heard, Heard::default(), "{what}");
        }
    }
}

fn play(lab: &mut Lab, scenario: Scenario) -> (Mark, Times) {
    match scenario {
        Scenario::Rise => rise(lab),
        Scenario::Demote => demote(lab),
        Scenario::Recover => recover(lab),
        Scenario::ControllerRestart => controller_restart(lab),
        Scenario::AllChecksBroken => all_lowered(lab, |lab, well| {
            lab.sites
                .iter_mut()
                .for_each(|site| site.check_passes(well));
        }),
        Scenario::AllDrained => all_lowered(lab, |lab, well| {
            let verb = if well { "undrain" } else { "drain" };
            lab.sites.iter().for_each(|site| site.order(verb));
        }),
        Scenario::Drain => drained(lab),
        Scenario::ControllerKilled => abandoned(lab, |lab, well| {
            for site in NEAREST {
                if well {
                    lab.sites[site].start_controller(DEAD_MAN);
                } else {
                    lab.sites[site].controller().kill().unwrap();
                }
            }
        }),
        Scenario::ControllerFrozen => abandoned(lab, |lab, well| {
            NEAREST
                .into_iter()
                .for_each(|site| lab.sites[site].controller().signal(go(well)).unwrap());
        }),
        Scenario::ServiceFrozen => lowered(lab, |lab, well| {
            NEAREST
                .into_iter()
                .for_each(|site| lab.sites[site].service().signal(go(well)).unwrap());
        }),
        Scenario::DaemonRestart => daemon_restart(lab),
        Scenario::DaemonFrozen => left(lab, |lab, well| {
            if well {
                await_doubt(lab);
            }
            NEAREST
                .into_iter()
                .for_each(|site| lab.sites[site].node.signal(go(well)).unwrap());
        }),
        Scenario::AllFrozen => left(lab, |lab, well| {
            for site in NEAREST {
                let site = &mut lab.sites[site];
                site.node.signal(go(well)).unwrap();
                site.controller().signal(go(well)).unwrap();
                site.service().signal(go(well)).unwrap();
            }
        }),
        Scenario::LinkCut => left(lab, |lab, well| {
            for (router, site) in NEAREST.into_iter().enumerate() {
                if well {
                    lab.heal(router, SITES[site].device);
                } else {
                    lab.cut(router, SITES[site].device);
                }
            }
        }),
        Scenario::Partition => partition(lab),
    }
}

const fn go(on: bool) -> Signal {
    if on { Signal::SIGCONT } else { Signal::SIGSTOP }
}

fn rise(lab: &mut Lab) -> (Mark, Times) {
    let mark = lab.mark();
    lab.start_controllers();
    let moved = Some(lab.await_well(&mark));
    for site in &lab.sites {
        site.await_confirmed();
    }
    (mark, Times { moved, back: None })
}

fn demote(lab: &mut Lab) -> (Mark, Times) {
    let mark = lab.mark();
    NEAREST
        .into_iter()
        .for_each(|site| lab.sites[site].check_passes(false));
    let moved = Some(await_lowered(lab, &mark));
    (mark, Times { moved, back: None })
}

fn recover(lab: &mut Lab) -> (Mark, Times) {
    let mark = lab.mark();
    NEAREST
        .into_iter()
        .for_each(|site| lab.sites[site].check_passes(true));
    let back = Some(lab.await_well(&mark));
    (mark, Times { moved: None, back })
}

/// Both routers have left their nearest site, and have heard its floor.
fn await_lowered(lab: &Lab, mark: &Mark) -> [Duration; 2] {
    let moved = lab.await_best(BOTH_SECOND, mark);
    lab.await_level(&NEAREST, lab.topology.protocol.floor());
    lab.await_answers(BOTH_SECOND);
    moved
}

/// The node is lowered and serves on whoever comes to it; then it is raised again.
fn lowered(lab: &mut Lab, mut set: impl FnMut(&mut Lab, bool)) -> (Mark, Times) {
    let mark = lab.mark();
    set(lab, false);
    let moved = Some(await_lowered(lab, &mark));
    let again = lab.mark();
    set(lab, true);
    let back = Some(lab.await_well(&again));
    (mark, Times { moved, back })
}

/// The routers leave the node since they no longer hear it; then it is there again.
fn left(lab: &mut Lab, mut set: impl FnMut(&mut Lab, bool)) -> (Mark, Times) {
    let mark = lab.mark();
    set(lab, false);
    let moved = Some(lab.await_best(BOTH_SECOND, &mark));
    lab.await_answers(BOTH_SECOND);
    let again = lab.mark();
    set(lab, true);
    let back = Some(lab.await_well(&again));
    lab.await_sessions();
    (mark, Times { moved, back })
}

fn drained(lab: &mut Lab) -> (Mark, Times) {
    lowered(lab, |lab, well| {
        let verb = if well { "undrain" } else { "drain" };
        for site in NEAREST {
            lab.sites[site].order(verb);
        }
    })
}

/// A daemon that does not answer vouches for nothing, and whoever asks it says so.
fn await_doubt(lab: &Lab) {
    for site in NEAREST {
        let site = &lab.sites[site];
        if site.reads_back() {
            site.until("its decision to be unconfirmed", |site| {
                let state = site.confirmation();
                state.is_some_and(|state| state != "confirmed" && state != "pending")
            });
        }
    }
}

/// A daemon that is started again finds the boost there before anything else: it must let go of
/// it all the same.
fn daemon_restart(lab: &mut Lab) -> (Mark, Times) {
    let restarted = left(lab, |lab, well| {
        if well {
            await_doubt(lab);
        }
        for site in NEAREST {
            let node = &mut lab.sites[site].node;
            if well {
                node.start_again().unwrap();
            } else {
                node.kill().unwrap();
            }
        }
    });
    drained(lab);
    restarted
}

/// Every node is lowered: each router takes the one that it takes when all are well.
fn all_lowered(lab: &mut Lab, mut set: impl FnMut(&mut Lab, bool)) -> (Mark, Times) {
    let mark = lab.mark();
    set(lab, false);
    lab.await_level(&[0, 1, 2], lab.topology.protocol.floor());
    lab.await_best(NEAREST, &mark);
    lab.await_answers(NEAREST);
    set(lab, true);
    lab.await_well(&mark);
    (mark, Times::default())
}

/// The controllers are dead or frozen: the kernel demotes the nodes where it carries the
/// preference, and else nobody does.
fn abandoned(lab: &mut Lab, mut set: impl FnMut(&mut Lab, bool)) -> (Mark, Times) {
    if lab.backend().has_dead_man() {
        return lowered(lab, |lab, well| {
            set(lab, well);
            if !well {
                assert_dead_man_runs(lab);
            }
        });
    }
    lab.await_quiet();
    let mark = lab.mark();
    set(lab, false);
    sleep(DEAD_MAN * 2);
    lab.await_best(NEAREST, &mark);
    lab.await_answers(NEAREST);
    set(lab, true);
    lab.await_well(&mark);
    (mark, Times::default())
}

/// Nobody renews the boosts any more, and the kernel lets none live for longer than the dead man:
/// so no process has to be quick for the node to be demoted in time.
fn assert_dead_man_runs(lab: &Lab) {
    for site in NEAREST {
        let left = lab.sites[site].boost_lifetimes();
        let bound = DEAD_MAN.as_secs();
        assert!(left.iter().all(|left| *left <= bound), "{left:?}");
    }
}

fn controller_restart(lab: &mut Lab) -> (Mark, Times) {
    let restart = |lab: &mut Lab, dead_man| {
        for site in NEAREST {
            lab.sites[site].controller().kill().unwrap();
        }
        for site in NEAREST {
            lab.sites[site].start_controller(dead_man);
        }
    };
    restart(lab, LONG_DEAD_MAN);
    await_renewed(lab);
    lab.await_well(&lab.mark());
    lab.await_quiet();
    let mark = lab.mark();
    for _ in 0..3 {
        restart(lab, LONG_DEAD_MAN);
        await_renewed(lab);
    }
    restart(lab, DEAD_MAN);
    for site in NEAREST {
        lab.sites[site].await_confirmed();
        if !lab.backend().has_dead_man() {
            continue;
        }
        lab.sites[site].until("the shorter dead man", |site| {
            let left = site.boost_lifetimes();
            left.len() == 2 && left.iter().all(|left| *left <= DEAD_MAN.as_secs())
        });
    }
    (mark, Times::default())
}

/// The controller has adopted the boosts, and renews them.
fn await_renewed(lab: &Lab) {
    for site in NEAREST {
        let site = &lab.sites[site];
        site.await_confirmed();
        if !site.backend.has_dead_man() {
            continue;
        }
        let before = site.boost_lifetimes();
        let mut least = before.iter().copied().min().unwrap_or_default();
        site.until("the boosts to be renewed", |site| {
            let left = site.boost_lifetimes();
            let now = left.iter().copied().min().unwrap_or_default();
            let renewed = left.len() == 2 && now > least.max(DEAD_MAN.as_secs());
            least = now;
            renewed
        });
    }
}

/// site-a and the first router on one side, all else on the other: each client keeps its site.
fn partition(lab: &mut Lab) -> (Mark, Times) {
    let cuts = [(0, "peer"), (0, "site-b"), (0, "site-c"), (1, "site-a")];
    let mark = lab.mark();
    cuts.into_iter()
        .for_each(|(router, device)| lab.cut(router, device));
    eventually(PATIENCE, "both sides to know of the partition", || {
        [(0, 2), (2, 1)].into_iter().all(|(site, router)| {
            let namespace = lab.sites[site].namespace();
            let four = namespace.run("ip -4 route").unwrap();
            let six = namespace.run("ip -6 route").unwrap();
            !four.contains(&format!("10.1.{router}.0/24"))
                && !six.contains(&format!("fd00:1:{router}::/64"))
        })
    })
    .unwrap();
    lab.await_best(NEAREST, &mark);
    lab.await_answers(NEAREST);
    cuts.into_iter()
        .for_each(|(router, device)| lab.heal(router, device));
    lab.await_sessions();
    lab.await_well(&mark);
    (mark, Times::default())
}
