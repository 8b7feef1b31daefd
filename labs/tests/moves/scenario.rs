//! What happens to site-a while clients read from it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::SERVICE;
use super::clients::{Outcome, read_all};
use super::lab::{Lab, SITES};
use super::site::Announcing;
use super::site::Part::{self, Controller, Routing, Service};

/// How far into the transfers it happens.
const BEGUN: Duration = Duration::from_secs(3);
/// Longer than any router here takes to leave a site: the dead man, and all the rest.
const MOVED: Duration = Duration::from_secs(25);
/// How long the route stays, where it moves by the clock.
const SECOND: Duration = Duration::from_secs(1);
/// The routing table of the first site; the others' follow.
const TABLE: usize = 101;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    CheckFails,
    Drain,
    LinkCut,
    LinkDown,
    /// SIGKILL of these.
    Killed(&'static [Part]),
    /// SIGSTOP of these.
    Frozen(&'static [Part]),
    EveryPacket,
    EveryTenPackets,
    EverySecond,
}

impl Scenario {
    const ITSELF: [Self; 11] = [
        Self::CheckFails,
        Self::Drain,
        Self::LinkCut,
        Self::LinkDown,
        Self::Killed(&[Service]),
        Self::Frozen(&[Service]),
        Self::Frozen(&[Routing]),
        Self::Frozen(&[Service, Routing]),
        Self::EveryPacket,
        Self::EveryTenPackets,
        Self::EverySecond,
    ];

    const GUARD: [Self; 8] = [
        Self::Killed(&[Controller]),
        Self::Killed(&[Service]),
        Self::Frozen(&[Controller]),
        Self::Frozen(&[Service]),
        Self::Frozen(&[Controller, Service]),
        Self::Frozen(&[Controller, Routing]),
        Self::Frozen(&[Service, Routing]),
        Self::Frozen(&[Controller, Service, Routing]),
    ];

    /// In the order in which they are run: each leaves everything well.
    pub(crate) const fn of(announcing: Announcing) -> &'static [Self] {
        match announcing {
            Announcing::Itself => &Self::ITSELF,
            Announcing::Guard => &Self::GUARD,
        }
    }

    /// Its name in the table.
    pub(crate) fn name(self, announcing: Announcing) -> String {
        let part = |part: &Part| match (part, announcing) {
            (Service | Controller, Announcing::Itself) => "anycast-tftpd",
            (Service, Announcing::Guard) => "anycast-tftpd (service)",
            (Controller, Announcing::Guard) => "anycast-guard (controller)",
            (Routing, _) => "routing daemon",
        };
        let parts = |parts: &[Part]| parts.iter().map(part).collect::<Vec<_>>().join(" and ");
        match self {
            Self::CheckFails => "demoted: its check fails".to_owned(),
            Self::Drain => "demoted: drained".to_owned(),
            Self::LinkCut => "link cut: packets are lost without a word".to_owned(),
            Self::LinkDown => "link cut: down at the router".to_owned(),
            Self::Killed(which) => format!("SIGKILL: {}", parts(which)),
            Self::Frozen(which) => format!("SIGSTOP: {}", parts(which)),
            Self::EveryPacket => "route to another site at every packet".to_owned(),
            Self::EveryTenPackets => "route to another site after every 10 packets".to_owned(),
            Self::EverySecond => "route to another site every second".to_owned(),
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// After what time the router had left site-a.
    pub(crate) moved: Option<Duration>,
    /// How often the route moved, where it goes to and fro.
    pub(crate) moves: usize,
    pub(crate) outcomes: Vec<Outcome>,
}

/// All clients read; it happens; everything is put in order again.
pub(crate) fn play(lab: &mut Lab, scenario: Scenario) -> Seen {
    let clients = std::mem::take(&mut lab.clients);
    let image = std::mem::take(&mut lab.image);
    let (mut moved, mut moves) = (None, 0);
    spread(lab, scenario);
    let outcomes = read_all(&clients, &image, lab.handoff.most(), |some_read| {
        if scenario == Scenario::EverySecond {
            moves = go_round(lab, some_read);
        } else if !scenario.is_spread() {
            sleep(BEGUN);
            happen(lab, scenario);
            moved = lab.await_left(0, MOVED);
        }
    });
    lab.clients = clients;
    lab.image = image;
    undo(lab, scenario);
    lab.await_well();
    Seen {
        moved,
        moves,
        outcomes,
    }
}

fn happen(lab: &mut Lab, scenario: Scenario) {
    let name = lab.sites[0].name.clone();
    match scenario {
        Scenario::CheckFails => lab.sites[0].check_passes(false),
        Scenario::Drain => lab.sites[0].order(&["drain", "tftp", "--reason", "lab"]),
        Scenario::LinkCut => lab.hub().cut(&name).unwrap(),
        Scenario::LinkDown => lab.hub().down(&name).unwrap(),
        Scenario::Killed(parts) => parts.iter().for_each(|part| lab.sites[0].kill(*part)),
        Scenario::Frozen(parts) => parts
            .iter()
            .for_each(|part| lab.sites[0].freeze(*part, true)),
        Scenario::EveryPacket | Scenario::EveryTenPackets | Scenario::EverySecond => {}
    }
}

fn undo(lab: &mut Lab, scenario: Scenario) {
    let name = lab.sites[0].name.clone();
    match scenario {
        Scenario::CheckFails => lab.sites[0].check_passes(true),
        Scenario::Drain => lab.sites[0].order(&["undrain", "tftp"]),
        Scenario::LinkCut => lab.hub().heal(&name).unwrap(),
        Scenario::LinkDown => lab.hub().up(&name).unwrap(),
        Scenario::Killed(parts) => {
            if parts.contains(&Routing) {
                lab.sites[0].node.start_again().unwrap();
            }
            lab.sites[0].start();
        }
        Scenario::Frozen(parts) => parts
            .iter()
            .for_each(|part| lab.sites[0].freeze(*part, false)),
        Scenario::EveryPacket | Scenario::EveryTenPackets => gather(lab),
        Scenario::EverySecond => lab.sites.iter().for_each(|site| site.boost(true)),
    }
}

impl Scenario {
    /// Where the router spreads packets over all sites.
    const fn is_spread(self) -> bool {
        matches!(self, Self::EveryPacket | Self::EveryTenPackets)
    }
}

/// The clients' packets are counted at the router, all together, and marked with the table of the site
/// that they go to.
fn spread(lab: &Lab, scenario: Scenario) {
    let (count, marks) = match scenario {
        Scenario::EveryPacket => (SITES, "0 : 101, 1 : 102, 2 : 103"),
        Scenario::EveryTenPackets => (10 * SITES, "0-9 : 101, 10-19 : 102, 20-29 : 103"),
        Scenario::CheckFails
        | Scenario::Drain
        | Scenario::LinkCut
        | Scenario::LinkDown
        | Scenario::Killed(_)
        | Scenario::Frozen(_)
        | Scenario::EverySecond => return,
    };
    for site in 0..SITES {
        let (table, via) = (TABLE + site, lab.sites[site].address());
        for line in [
            format!("ip route replace {SERVICE}/32 via {via} table {table}"),
            format!("ip rule add fwmark {table} lookup {table}"),
        ] {
            lab.hub().run(&line).unwrap();
        }
    }
    lab.hub()
        .nft(&format!(
            "table ip spread {{\nchain divide {{ type filter hook prerouting priority mangle;\n\
             ip daddr {SERVICE} meta mark set numgen inc mod {count} map {{ {marks} }}\n}}\n}}\n"
        ))
        .unwrap();
}

fn gather(lab: &Lab) {
    lab.hub().nft("delete table ip spread\n").unwrap();
    for site in 0..SITES {
        let table = TABLE + site;
        let line = format!("ip rule del fwmark {table} lookup {table}");
        lab.hub().run(&line).unwrap();
    }
}

/// The sites' routing daemons announce, in turn, so that another site is the best one each second.
fn go_round(lab: &Lab, some_read: &dyn Fn() -> bool) -> usize {
    let mut moves = 0;
    let mut next = Instant::now() + SECOND;
    while some_read() {
        sleep(next.saturating_duration_since(Instant::now()));
        next += SECOND;
        moves += 1;
        match moves % SITES {
            1 => lab.sites[0].boost(false),
            2 => lab.sites[1].boost(false),
            _ => lab.sites[..2].iter().for_each(|site| site.boost(true)),
        }
    }
    moves
}
