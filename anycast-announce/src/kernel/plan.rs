//! What to change in the kernel, as a pure function of what the kernel holds.
//!
//! A [`Snapshot`] and a [`Goal`] give a [`Plan`]: an ordered batch of [`Step`]s, each of which
//! may be the last one executed, and refusals. The announcer executes the batch, takes another
//! snapshot and plans again, until a plan is empty. The rules that every plan keeps:
//!
//! - An address is removed or replaced only when the snapshot shows it, it carries our protocol tag and
//!   it has a lifetime. What the snapshot does not show is created with "must not exist".
//!   An empty snapshot therefore removes nothing (F10).
//! - The boost of an address is written or removed only when a permanent copy is on another
//!   interface that is up, or an earlier step of the batch puts it there (F7). An address that
//!   would lose its only copy is left alone.
//! - The boosts of all addresses are written in one batch or none is, IPv6 first: where IPv6
//!   keeps failing IPv4 is not renewed either, and the service is demoted with all its
//!   addresses within the dead-man time. Demotions do not wait for each other.

use std::net::IpAddr;

use anycast_core::announce::InForce;
use anycast_core::service::ServiceAddress;

use super::config::ADDRESS_PROTOCOL as TAG;

/// The alias (IFLA_IFALIAS) of an interface of ours starts with this.
pub(super) const ALIAS: &str = "anycast";

/// What the kernel holds, as far as it concerns one announcer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// `lo`, the service interface, its veth peer, and every interface named by an address.
    pub(super) links: Vec<Link>,
    /// The addresses of the service wherever they are, and all of a service interface that is
    /// not marked as ours.
    pub(super) addresses: Vec<Address>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: LinkKind,
    pub(super) alias: Option<String>,
    pub(super) up: bool,
    /// It is a port of a bridge, a bond or a VRF.
    pub(super) enslaved: bool,
}

impl Link {
    pub(super) fn is_marked(&self) -> bool {
        let alias = self.alias.as_deref();
        alias.is_some_and(|alias| alias.starts_with(ALIAS))
    }
}

/// What an interface is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Loopback,
    Dummy,
    /// With the index of the other end, when that is in this namespace.
    Veth(Option<u32>),
    Other,
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    /// The other end (IFA_ADDRESS), where it is not the address itself.
    pub(super) peer: Option<IpAddr>,
    pub(super) prefix_len: u8,
    /// IFA_F_PERMANENT: it has no lifetime.
    pub(super) permanent: bool,
    /// IFA_PROTO.
    pub(super) proto: Option<u8>,
    /// Another node on the link has it (IFA_F_DADFAILED): the kernel does not answer for it.
    pub(super) dad_failed: bool,
}

impl Address {
    const fn is_host(&self) -> bool {
        match self.ip {
            IpAddr::V4(_) => self.prefix_len == 32,
            IpAddr::V6(_) => self.prefix_len == 128,
        }
    }

    /// As `ip addr` takes it.
    fn shown(&self) -> String {
        let peer = self
            .peer
            .map_or(String::new(), |peer| format!(" peer {peer}"));
        format!("{}{peer}/{}", self.ip, self.prefix_len)
    }

    /// Ours to replace or to remove.
    fn is_ours_and_temporary(&self) -> bool {
        self.proto == Some(TAG) && !self.permanent && self.is_host()
    }

    const fn is_link_local(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

/// What is wanted of the boosts; the permanent copies are always wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Present, with a fresh lifetime.
    Renewed,
    /// Present.
    Present,
    /// Absent.
    Absent,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Create the service interface; it must not exist.
    CreateLink,
    /// Mark an interface as ours, before it first comes up.
    MarkLink { index: u32, peer: Option<u32> },
    /// Set an interface of ours up.
    SetUp { index: u32 },
    /// Create a permanent copy; the address must not exist there.
    CreateCopy { index: u32, address: ServiceAddress },
    /// Take the lifetime off a copy that is ours.
    MakePermanent {
        index: u32,
        address: ServiceAddress,
        peer: Option<IpAddr>,
    },
    /// Create the boost; the address must not exist there.
    CreateBoost { index: u32, address: ServiceAddress },
    /// Renew the boost, which is ours.
    RenewBoost { index: u32, address: ServiceAddress },
    /// Remove the boost, which is ours.
    RemoveBoost { index: u32, address: ServiceAddress },
}

/// An address for which nothing can be done without touching what is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) address: ServiceAddress,
    pub(super) reason: String,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order; stop at the first failure. Take a snapshot and plan again afterwards.
    pub(super) steps: Vec<Step>,
    pub(super) refusals: Vec<Refusal>,
}

/// Plans the next batch of steps towards `goal`, with permanent copies on `interface` where
/// there are none elsewhere.
pub(super) fn plan(
    snapshot: &Snapshot,
    interface: &str,
    addresses: &[ServiceAddress],
    goal: Goal,
) -> Plan {
    let Some(lo) = snapshot.loopback() else {
        return Plan::refusing(addresses, "the kernel reports no interface lo");
    };
    if !lo.up && goal != Goal::Absent {
        return Plan::refusing(addresses, "lo is down; set it up: ip link set dev lo up");
    }
    let mut plan = Plan::default();
    let mut ready = Vec::new();
    let mut homeless = Vec::new();
    for &address in addresses {
        match snapshot.on_loopback(lo, address) {
            Err(reason) => plan.refuse(address, reason),
            Ok(boost) if snapshot.has_permanent_copy(lo, address) => ready.push((address, boost)),
            Ok(boost) => homeless.push((address, boost)),
        }
    }
    if goal == Goal::Absent {
        plan.remove_boosts(lo, &ready);
        ready.clear();
    }
    match plan.house(snapshot, interface, &homeless) {
        // The interface has no index before it exists.
        Housed::NextBatch => return plan,
        Housed::Now(housed) => ready.extend(housed),
    }
    match goal {
        Goal::Absent => plan.remove_boosts(lo, &ready),
        Goal::Present | Goal::Renewed if plan.refusals.is_empty() => {
            // IPv6 first: it fails more often (disabled, not delivered), and a batch stops at
            // its first failure, so that IPv4 does not stand renewed alone.
            ready.sort_by_key(|&(address, _)| std::cmp::Reverse(address));
            plan.write_boosts(lo, &ready, goal);
        }
        Goal::Present | Goal::Renewed => {}
    }
    plan
}

/// What is in force for an address, given whether the routing daemon holds a floor.
pub(super) fn in_force(snapshot: &Snapshot, address: ServiceAddress, floor: bool) -> InForce {
    let Some(lo) = snapshot.loopback() else {
        return InForce::Withdrawn;
    };
    if lo.up && snapshot.on_loopback(lo, address) == Ok(true) {
        InForce::Preferred
    } else if floor && snapshot.has_permanent_copy(lo, address) {
        InForce::Demoted
    } else {
        InForce::Withdrawn
    }
}

enum Housed {
    /// These addresses have a permanent copy once the steps so far are done.
    Now(Vec<(ServiceAddress, bool)>),
    /// Their copies are for the next batch.
    NextBatch,
}

impl Plan {
    fn refusing(addresses: &[ServiceAddress], reason: &str) -> Self {
        let mut plan = Self::default();
        for &address in addresses {
            plan.refuse(address, reason.to_owned());
        }
        plan
    }

    fn refuse(&mut self, address: ServiceAddress, reason: String) {
        self.refusals.push(Refusal { address, reason });
    }

    /// Gives each address without a permanent copy one on the service interface.
    fn house(
        &mut self,
        snapshot: &Snapshot,
        interface: &str,
        homeless: &[(ServiceAddress, bool)],
    ) -> Housed {
        if homeless.is_empty() {
            return Housed::Now(Vec::new());
        }
        let Some(link) = snapshot.link_named(interface) else {
            self.steps.push(Step::CreateLink);
            return Housed::NextBatch;
        };
        if let Err(reason) = snapshot.is_ours(link) {
            for &(address, _) in homeless {
                self.refuse(address, reason.clone());
            }
            return Housed::Now(Vec::new());
        }
        let mut housed = Vec::new();
        let mut copies = Vec::new();
        for &(address, boost) in homeless {
            match snapshot.copy_step(link, address) {
                Ok(step) => {
                    copies.extend(step);
                    housed.push((address, boost));
                }
                Err(reason) => self.refuse(address, reason),
            }
        }
        if !housed.is_empty() {
            self.ready_link(snapshot, link);
            self.steps.extend(copies);
        }
        Housed::Now(housed)
    }

    fn ready_link(&mut self, snapshot: &Snapshot, link: &Link) {
        let peer = match link.kind {
            LinkKind::Veth(Some(peer)) => snapshot.link_at(peer),
            LinkKind::Veth(None) | LinkKind::Dummy | LinkKind::Loopback | LinkKind::Other => None,
        };
        // Of an interface that was handed over, the other end was not.
        let peer = peer.filter(|peer| link.alias.is_none() || peer.is_marked());
        if link.alias.is_none() {
            let peer = peer.map(|peer| peer.index);
            let index = link.index;
            self.steps.push(Step::MarkLink { index, peer });
        }
        for link in peer.into_iter().chain([link]) {
            if !link.up {
                self.steps.push(Step::SetUp { index: link.index });
            }
        }
    }

    fn remove_boosts(&mut self, lo: &Link, ready: &[(ServiceAddress, bool)]) {
        let index = lo.index;
        for &(address, boost) in ready {
            if boost {
                self.steps.push(Step::RemoveBoost { index, address });
            }
        }
    }

    fn write_boosts(&mut self, lo: &Link, ready: &[(ServiceAddress, bool)], goal: Goal) {
        let index = lo.index;
        for &(address, boost) in ready {
            match (boost, goal) {
                (false, _) => self.steps.push(Step::CreateBoost { index, address }),
                (true, Goal::Renewed) => self.steps.push(Step::RenewBoost { index, address }),
                (true, Goal::Present | Goal::Absent) => {}
            }
        }
    }
}

impl Snapshot {
    fn loopback(&self) -> Option<&Link> {
        self.links
            .iter()
            .find(|link| link.kind == LinkKind::Loopback)
    }

    fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    fn addresses_on(&self, link: &Link) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .filter(|found| found.index == link.index)
    }

    /// Whether our boost is on `lo`, or why what is there must not be touched.
    fn on_loopback(&self, lo: &Link, address: ServiceAddress) -> Result<bool, String> {
        let mut boost = false;
        for found in self
            .addresses_on(lo)
            .filter(|found| found.ip == address.ip())
        {
            let prefix = found.shown();
            if found.is_ours_and_temporary() && found.peer.is_none() {
                boost = true;
            } else if found.permanent {
                return Err(format!(
                    "{prefix} is on lo for ever, so no dead man could take it away; remove it (ip addr del {prefix} dev lo) and keep the permanent copy on another interface"
                ));
            } else {
                return Err(format!(
                    "{prefix} on lo was not made by this service (its protocol tag is {}, not {TAG}; kernels before 5.18 keep none); remove it: ip addr del {prefix} dev lo",
                    found.proto.unwrap_or(0)
                ));
            }
        }
        Ok(boost)
    }

    /// Whether a copy without lifetime is on an interface that is up and is not `lo`.
    fn has_permanent_copy(&self, lo: &Link, address: ServiceAddress) -> bool {
        self.addresses.iter().any(|found| {
            found.ip == address.ip()
                && found.permanent
                && !found.dad_failed
                && found.index != lo.index
                && self.link_at(found.index).is_some_and(|link| link.up)
        })
    }

    /// Whether the interface with the configured name may be changed by us: we marked it, or
    /// it carries addresses of ours alone, or we had only just created it.
    fn is_ours(&self, link: &Link) -> Result<(), String> {
        let name = &link.name;
        let other = match (link.kind, &link.alias) {
            (LinkKind::Loopback | LinkKind::Other, _) => Some("it is neither dummy nor veth"),
            _ if link.enslaved => Some("it is a port of another interface"),
            _ if link.is_marked() => None,
            (_, Some(_)) => Some("its alias is another's"),
            (LinkKind::Dummy | LinkKind::Veth(_), None) => self.unmarked_is_foreign(link),
        };
        match other {
            None => Ok(()),
            Some(reason) => Err(format!(
                "the interface {name} is not one of ours ({reason}); configure another name, or hand it over: ip link set dev {name} alias {ALIAS}"
            )),
        }
    }

    fn unmarked_is_foreign(&self, link: &Link) -> Option<&'static str> {
        let mut own = false;
        for found in self
            .addresses_on(link)
            .filter(|found| !found.is_link_local())
        {
            if found.proto != Some(TAG) {
                return Some("it carries the addresses of others");
            }
            own = true;
        }
        let half_made = !link.up && self.addresses_on(link).next().is_none();
        (!own && !half_made).then_some("it has no alias of ours and none of our addresses")
    }

    /// The step that leaves a permanent copy on the service interface, if one is needed.
    fn copy_step(&self, link: &Link, address: ServiceAddress) -> Result<Option<Step>, String> {
        let name = &link.name;
        let index = link.index;
        let found: Vec<_> = self
            .addresses_on(link)
            .filter(|found| found.ip == address.ip())
            .collect();
        if let Some(copy) = found.iter().find(|copy| copy.dad_failed) {
            return Err(format!(
                "another node on {name} has this address (duplicate address detection failed); remove the copy there: ip addr del {} dev {name}",
                copy.shown()
            ));
        }
        if found.iter().any(|copy| copy.permanent) {
            return Ok(None);
        }
        match found
            .iter()
            .find(|copy| !copy.is_ours_and_temporary())
            .or(found.first())
        {
            None => Ok(Some(Step::CreateCopy { index, address })),
            Some(copy) if copy.is_ours_and_temporary() => Ok(Some(Step::MakePermanent {
                index,
                address,
                peer: copy.peer,
            })),
            Some(copy) => Err(format!(
                "the copy on {name} has a lifetime and was not made by this service; remove it: ip addr del {} dev {name}",
                copy.shown()
            )),
        }
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
