//! Configurations of the routing daemons.

use std::path::Path;

use super::HOLD_TIME;
use crate::node::Kind;

pub(super) fn router(kind: Kind, dump: &Path) -> String {
    match kind {
        Kind::Bird => router_bird(dump),
        Kind::Frr => router_frr(dump),
    }
}

fn router_bird(dump: &Path) -> String {
    let mut config = format!(
        "log stderr all;\n\
         debug protocols {{ states, events }};\n\
         mrtdump \"{dump}\";\n\
         mrtdump protocols {{ messages }};\n\
         router id 10.1.0.1;\n\
         protocol device {{ scan time 1; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; }}\n\
         template bgp site {{\n\
         \x20 local as 65000; direct; hold time {HOLD_TIME}; keepalive time {keepalive};\n\
         \x20 connect delay time 1; connect retry time 2; error wait time 1, 2;\n\
         }}\n",
        dump = dump.display(),
        keepalive = HOLD_TIME / 3,
    );
    for number in [1, 2] {
        config += &format!(
            "protocol bgp site{number}_4 from site {{\n\
             \x20 neighbor 10.10.{number}.2 as 65000;\n\
             \x20 ipv4 {{ import all; export none; }};\n}}\n\
             protocol bgp site{number}_6 from site {{\n\
             \x20 neighbor fd00:10:{number}::2 as 65000;\n\
             \x20 ipv6 {{ import all; export none; }};\n}}\n"
        );
    }
    config
}

fn router_frr(dump: &Path) -> String {
    let mut config = format!(
        "hostname router\n\
         dump bgp all {dump}\n\
         router bgp 65000\n\
         \x20bgp router-id 10.1.0.1\n\
         \x20no bgp default ipv4-unicast\n\
         \x20timers bgp {keepalive} {HOLD_TIME}\n",
        dump = dump.display(),
        keepalive = HOLD_TIME / 3,
    );
    for number in [1, 2] {
        for address in [format!("10.10.{number}.2"), format!("fd00:10:{number}::2")] {
            config += &format!(
                " neighbor {address} remote-as 65000\n neighbor {address} timers connect 2\n"
            );
        }
    }
    config += " address-family ipv4 unicast\n  maximum-paths ibgp 1\n  \
               neighbor 10.10.1.2 activate\n  neighbor 10.10.2.2 activate\n exit-address-family\n \
               address-family ipv6 unicast\n  maximum-paths ibgp 1\n  \
               neighbor fd00:10:1::2 activate\n  neighbor fd00:10:2::2 activate\n exit-address-family\n";
    config
}

/// The sample configuration that operators start from, with this lab's
/// addresses: so it cannot rot.
///
/// # Errors
/// The text that the sample no longer has.
pub(super) fn site(kind: Kind, number: u8) -> Result<String, &'static str> {
    let (id, router4) = (format!("10.10.{number}.2"), format!("10.10.{number}.1"));
    let router6 = format!("fd00:10:{number}::1");
    let hold = format!("hold time {HOLD_TIME};");
    let timers = format!("timers bgp {} {HOLD_TIME}", HOLD_TIME / 3);
    let mut text = match kind {
        Kind::Bird => include_str!("../../../examples/routing/bird.conf"),
        Kind::Frr => include_str!("../../../examples/routing/frr.conf"),
    }
    .to_owned();
    let common = [
        ("10.0.0.2", id.as_str()),
        ("10.0.0.1", &router4),
        ("2001:db8:0:1::1", &router6),
    ];
    let own = match kind {
        Kind::Bird => [
            ("log syslog all;", "log stderr all;"),
            ("hold time 9;", &hold),
        ],
        Kind::Frr => [
            ("log syslog informational", "log stdout"),
            ("timers bgp 3 9", &timers),
        ],
    };
    for (sample, ours) in common.into_iter().chain(own) {
        if !text.contains(sample) {
            return Err(sample);
        }
        text = text.replace(sample, ours);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_have_everything_that_a_lab_replaces() {
        for kind in [Kind::Bird, Kind::Frr] {
            let text = site(kind, 2).unwrap();
            assert!(
                text.contains("10.10.2.1") && !text.contains("10.0.0."),
                "{text}"
            );
            assert!(!text.contains("syslog"), "{text}");
        }
    }
}
