//! Traps in the kernel's settings and in the rights of the service's processes. Pure.

use std::net::IpAddr;

use anycast_core::service::ServiceAddress;

use super::{Finding, Report, Severity, Sight, Trap};

/// What an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterfaceKind {
    /// `lo`.
    Loopback,
    /// A dummy.
    Dummy,
    /// An end of a veth pair.
    Veth,
    /// Anything else.
    Other,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Its alias says that the kernel announcer made it or may use it.
    pub is_marked: bool,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The other end, where it is not the address itself.
    pub peer: Option<IpAddr>,
    /// It is a /32 or /128.
    pub is_host: bool,
    /// It has no lifetime.
    pub is_permanent: bool,
    /// It carries the kernel announcer's protocol tag.
    pub is_ours: bool,
    /// Where it is.
    pub interface: Interface,
}

/// A process of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Whether CAP_NET_ADMIN is in its effective set.
    pub may_change_addresses: Sight<bool>,
}

/// A systemd unit of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its file.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What was read of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFacts {
    /// All addresses.
    pub addresses: Sight<Vec<Address>>,
    /// Whether dummy interfaces can be made.
    pub has_dummy: Sight<bool>,
    /// `rp_filter` that is in force on each interface but `lo`: the greater of its own and
    /// that of `all`.
    pub reverse_path: Sight<Vec<(String, u8)>>,
    /// The service's processes.
    pub processes: Vec<Process>,
    /// Its units.
    pub units: Vec<Unit>,
}

/// The addresses that the kernel announcer holds, for whom nobody named the service.
#[must_use]
pub fn services(addresses: &[Address]) -> Vec<ServiceAddress> {
    let held =
        |address: &&Address| address.is_host && (address.is_ours || address.interface.is_marked);
    let mut found: Vec<_> = addresses
        .iter()
        .filter(held)
        .filter_map(|address| ServiceAddress::new(address.ip).ok())
        .collect();
    found.sort();
    found.dedup();
    found
}

pub(super) fn examine(
    facts: &KernelFacts,
    services: &[ServiceAddress],
    has_frr: bool,
    report: &mut Report,
) {
    match &facts.addresses {
        Sight::Absent => {}
        Sight::Unseen(why) => report.unseen("the kernel's addresses", why),
        Sight::Seen(addresses) => {
            report.seen.push("the kernel's addresses".to_owned());
            for address in addresses {
                if services.iter().any(|service| service.ip() == address.ip) {
                    examine_address(address, has_frr, report);
                }
            }
        }
    }
    match &facts.has_dummy {
        Sight::Seen(false) => report.add(
            Finding::new(Trap::NoDummy, Severity::Note, "kernel")
                .what("this kernel has no dummy interfaces")
                .why("the permanent copy is put on one end of a veth pair, which serves as well")
                .fix("nothing; or `modprobe dummy`, where the distribution has the module"),
        ),
        Sight::Unseen(why) => report.add(
            Finding::new(Trap::NoDummy, Severity::Note, "kernel")
                .what(format!(
                    "whether there are dummy interfaces is not known: {why}"
                ))
                .why("where there are none, a veth pair is used, which serves as well")
                .fix("nothing"),
        ),
        Sight::Absent | Sight::Seen(true) => {}
    }
    match &facts.reverse_path {
        Sight::Absent => {}
        Sight::Unseen(why) => report.unseen("rp_filter", why),
        Sight::Seen(filters) => {
            report.seen.push("rp_filter".to_owned());
            for (interface, _) in filters.iter().filter(|(_, value)| *value == 1) {
                report.add(reverse_path(interface));
            }
        }
    }
    for process in &facts.processes {
        examine_process(process, report);
    }
    for unit in &facts.units {
        examine_unit(unit, report);
    }
}

fn reverse_path(interface: &str) -> Finding {
    Finding::new(
        Trap::ReversePath,
        Severity::Warning,
        format!("kernel, interface {interface}"),
    )
    .what("rp_filter is strict (1)")
    .why(
        "a request for the service that comes in here, from a client whose way back is another \
         interface, is dropped without a word; on an anycast node ways are often asymmetric",
    )
    .fix(format!(
        "`net.ipv4.conf.{interface}.rp_filter = 2` in /etc/sysctl.d/90-anycast.conf"
    ))
}

fn examine_address(address: &Address, has_frr: bool, report: &mut Report) {
    let (ip, name) = (address.ip, &address.interface.name);
    let place = format!("kernel, {ip} on {name}");
    if address.interface.kind == InterfaceKind::Loopback {
        if address.is_permanent || !address.is_ours {
            let how = if address.is_permanent {
                "has no lifetime"
            } else {
                "was not put there by the kernel announcer"
            };
            report.add(
                Finding::new(Trap::PermanentBoost, Severity::Trap, place)
                    .what(format!("the service address on {name} {how}"))
                    .why(
                        "the copy on lo is the boost: the kernel announcer does not touch one \
                         that is not its own, and so the node is never demoted",
                    )
                    .fix(format!(
                        "remove it where it is configured, and `ip addr del {ip} dev {name}`"
                    )),
            );
        }
    } else if has_frr && address.is_permanent && address.peer.is_none() {
        report.add(
            Finding::new(Trap::CopyWithoutPeer, Severity::Trap, place)
                .what("the permanent copy has no peer, and so is a connected route of the prefix")
                .why(
                    "of two connected routes for one prefix zebra 8.4 removes the newer, \
                     whichever address is gone: after a restart of zebra the boost stays \
                     announced for ever",
                )
                .fix(format!(
                    "give it a peer that no host can have: {}",
                    with_peer(ip, name)
                )),
        );
    }
}

fn with_peer(ip: IpAddr, interface: &str) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let peer = std::net::Ipv4Addr::from_bits(ip.to_bits() | 0xf000_0000);
            format!("`ip addr add {ip} peer {peer}/32 dev {interface}`")
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.segments();
            let peer = std::net::Ipv6Addr::new(0x100, 0, 0, 0, a, b, c, d);
            format!("`ip addr add {ip} peer {peer}/128 dev {interface} nodad noprefixroute`")
        }
    }
}

fn examine_process(process: &Process, report: &mut Report) {
    let place = format!("process {} ({})", process.name, process.pid);
    match &process.may_change_addresses {
        Sight::Seen(false) => report.add(
            Finding::new(Trap::Capability, Severity::Trap, place)
                .what("CAP_NET_ADMIN is not in its effective set")
                .why("it can neither raise nor renew the boost: the node stays demoted")
                .fix("`AmbientCapabilities=CAP_NET_ADMIN` in its unit's [Service], and restart it"),
        ),
        Sight::Seen(true) => report.seen.push(format!("{place}: CAP_NET_ADMIN")),
        Sight::Unseen(why) => report.unseen(format!("the capabilities of {place}"), why),
        Sight::Absent => {}
    }
}

/// A unit that runs as a user of its own needs the capability given, and any unit needs it
/// not taken.
fn examine_unit(unit: &Unit, report: &mut Report) {
    const NEEDED: &str = "CAP_NET_ADMIN";
    let values = |key: &str| -> Option<String> {
        let mut all: Option<String> = None;
        for line in unit.text.lines() {
            if let Some((name, value)) = line.split_once('=')
                && name.trim() == key
            {
                let all = all.get_or_insert_default();
                all.push(' ');
                all.push_str(value.trim());
            }
        }
        all
    };
    let has = |value: &str| {
        value.trim_start().strip_prefix('~').map_or_else(
            || value.split_whitespace().any(|word| word == NEEDED),
            |taken| !taken.split_whitespace().any(|word| word == NEEDED),
        )
    };
    let user = values("User").unwrap_or_default();
    let is_root = matches!(user.trim(), "" | "root" | "0");
    let bounded = values("CapabilityBoundingSet").is_some_and(|value| !has(&value));
    let not_given = !is_root && !values("AmbientCapabilities").is_some_and(|value| has(&value));
    let key = match (bounded, not_given) {
        (_, true) => "AmbientCapabilities",
        (true, false) => "CapabilityBoundingSet",
        (false, false) => {
            report.seen.push(format!("unit {}", unit.path));
            return;
        }
    };
    report.add(
        Finding::new(
            Trap::Capability,
            Severity::Trap,
            format!("unit {}", unit.path),
        )
        .what(format!("{key}= does not hold {NEEDED}"))
        .why("the service cannot change addresses: the node stays demoted")
        .fix(format!("add {NEEDED} to `{key}=` in its [Service]")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, kind: InterfaceKind) -> Interface {
        Interface {
            name: name.to_owned(),
            kind,
            is_marked: kind != InterfaceKind::Loopback,
        }
    }

    fn boost() -> Address {
        Address {
            ip: "192.0.2.69".parse().unwrap(),
            peer: None,
            is_host: true,
            is_permanent: false,
            is_ours: true,
            interface: interface("lo", InterfaceKind::Loopback),
        }
    }

    fn copy() -> Address {
        Address {
            peer: Some("240.0.2.69".parse().unwrap()),
            is_permanent: true,
            interface: interface("svc0", InterfaceKind::Veth),
            ..boost()
        }
    }

    fn clean() -> KernelFacts {
        KernelFacts {
            addresses: Sight::Seen(vec![copy(), boost()]),
            has_dummy: Sight::Seen(true),
            reverse_path: Sight::Seen(vec![("eth0".to_owned(), 2)]),
            processes: vec![Process {
                name: "anycast-tftpd".to_owned(),
                pid: 7,
                may_change_addresses: Sight::Seen(true),
            }],
            units: vec![unit(include_str!(
                "../../../examples/tftpd/anycast-tftpd.service"
            ))],
        }
    }

    fn unit(text: &str) -> Unit {
        Unit {
            path: "x.service".to_owned(),
            text: text.to_owned(),
        }
    }

    fn found(facts: &KernelFacts) -> Report {
        let mut report = Report::default();
        let service = ["192.0.2.69/32".parse().unwrap()];
        examine(facts, &service, true, &mut report);
        report
    }

    fn only(facts: &KernelFacts) -> Finding {
        let mut report = found(facts);
        assert_eq!(report.findings.len(), 1, "{report:?}");
        report.findings.remove(0)
    }

    #[test]
    fn as_the_announcer_leaves_it_nothing_is_found() {
        let report = found(&clean());
        assert_eq!((report.findings, report.unseen), (vec![], vec![]));
        let addresses = [copy(), boost()];
        assert_eq!(services(&addresses), ["192.0.2.69/32".parse().unwrap()]);
    }

    #[test]
    fn a_boost_without_end_is_found() {
        for boost in [
            Address {
                is_permanent: true,
                ..boost()
            },
            Address {
                is_ours: false,
                ..boost()
            },
        ] {
            let addresses = Sight::Seen(vec![copy(), boost]);
            let found = only(&KernelFacts {
                addresses,
                ..clean()
            });
            assert_eq!(found.trap, Trap::PermanentBoost);
            assert!(found.fix.contains("ip addr del 192.0.2.69 dev lo"));
        }
    }

    #[test]
    fn a_copy_without_a_peer_is_found_under_frr() {
        let copy = Address {
            peer: None,
            ..copy()
        };
        let facts = KernelFacts {
            addresses: Sight::Seen(vec![copy]),
            ..clean()
        };
        let found = only(&facts);
        assert_eq!(found.trap, Trap::CopyWithoutPeer);
        assert!(found.fix.contains("peer 240.0.2.69/32 dev svc0"));
        let mut report = Report::default();
        let service = ["192.0.2.69/32".parse().unwrap()];
        examine(&facts, &service, false, &mut report);
        assert_eq!(report.findings, []);
    }

    #[test]
    fn a_kernel_without_dummy_is_a_note() {
        for has_dummy in [Sight::Seen(false), Sight::Unseen("no modules".to_owned())] {
            let found = only(&KernelFacts {
                has_dummy,
                ..clean()
            });
            assert_eq!(
                (found.trap, found.severity),
                (Trap::NoDummy, Severity::Note)
            );
        }
    }

    #[test]
    fn a_strict_reverse_path_filter_is_found() {
        let filters = vec![("eth0".to_owned(), 1), ("eth1".to_owned(), 0)];
        let found = only(&KernelFacts {
            reverse_path: Sight::Seen(filters),
            ..clean()
        });
        assert_eq!(found.trap, Trap::ReversePath);
        assert!(found.fix.contains("net.ipv4.conf.eth0.rp_filter = 2"));
    }

    #[test]
    fn a_missing_capability_is_found_on_the_process_and_in_the_unit() {
        let mut facts = clean();
        facts.processes[0].may_change_addresses = Sight::Seen(false);
        assert_eq!(only(&facts).trap, Trap::Capability);
        for text in [
            "[Service]\nUser=x\n",
            "[Service]\nUser=x\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
            "[Service]\nCapabilityBoundingSet=CAP_NET_RAW\n",
            "[Service]\nCapabilityBoundingSet=~CAP_NET_ADMIN\n",
        ] {
            let facts = KernelFacts {
                units: vec![unit(text)],
                ..clean()
            };
            assert_eq!(only(&facts).trap, Trap::Capability, "{text}");
        }
        for text in [
            "[Service]\n",
            "[Service]\nCapabilityBoundingSet=~CAP_SYS_ADMIN\n",
        ] {
            let facts = KernelFacts {
                units: vec![unit(text)],
                ..clean()
            };
            assert_eq!(found(&facts).findings, [], "{text}");
        }
    }

    #[test]
    fn what_may_not_be_seen_is_said() {
        let no = || "Permission denied".to_owned();
        let mut facts = KernelFacts {
            addresses: Sight::Unseen(no()),
            reverse_path: Sight::Unseen(no()),
            ..clean()
        };
        facts.processes[0].may_change_addresses = Sight::Unseen(no());
        let report = found(&facts);
        assert_eq!(report.unseen.len(), 3, "{report:?}");
        assert_eq!(report.verdict(), super::super::Verdict::Blind);
    }
}
