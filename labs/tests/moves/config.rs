//! Configurations: the samples of `examples` with this lab's addresses, so that they cannot rot; the
//! router's own.

use std::fmt::Write as _;

use anycast_labs::node::Kind;

use super::lab::SITES;
use super::site::{Announcing, Site};
use super::{Handoff, SERVICE};

/// BGP's hold time, as the samples have it. In seconds.
const HOLD_TIME: u16 = 9;
/// Where every node listens for the others.
const MESH: u16 = 4747;

fn bfd(kind: Kind) -> &'static str {
    match kind {
        Kind::Bird => include_str!("../../../examples/routing/bird-bfd.conf"),
        Kind::Frr => include_str!("../../../examples/routing/frr-bfd.conf"),
    }
}

/// `snippet` before the first `router`.
fn before_router(text: &str, snippet: &str) -> String {
    let at = text.find("\nrouter ").unwrap() + 1;
    [&text[..at], snippet, &text[at..]].concat()
}

/// The sample with BFD, at the site of this number (from 1).
pub(crate) fn site(kind: Kind, number: usize) -> String {
    let mut text = match kind {
        Kind::Bird => include_str!("../../../examples/routing/bird.conf"),
        Kind::Frr => include_str!("../../../examples/routing/frr.conf"),
    }
    .to_owned();
    let (log, mark) = match kind {
        Kind::Bird => (("log syslog all;", "log stderr all;"), "# with BFD: "),
        Kind::Frr => (("log syslog informational", "log stdout"), "! with BFD: "),
    };
    let ours = [
        ("10.0.0.2", format!("10.10.{number}.2")),
        ("10.0.0.1", format!("10.10.{number}.1")),
        ("2001:db8:0:1::1", format!("fd00:10:{number}::1")),
        (log.0, log.1.to_owned()),
        (mark, String::new()),
    ];
    for (sample, ours) in ours {
        assert!(text.contains(sample), "the sample has no {sample:?}");
        text = text.replace(sample, &ours);
    }
    match kind {
        Kind::Bird => text + bfd(kind),
        Kind::Frr => before_router(&text, bfd(kind)),
    }
}

/// The router at the clients: iBGP and BFD with every site, in both families.
pub(crate) fn router(kind: Kind) -> String {
    match kind {
        Kind::Bird => router_bird(),
        Kind::Frr => router_frr(),
    }
}

fn router_bird() -> String {
    let mut text = format!(
        "log stderr all;\nrouter id 10.1.0.1;\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n\
         {}\ntemplate bgp site {{\n\
         local as 65000; direct; bfd on; hold time {HOLD_TIME}; graceful restart off;\n\
         connect delay time 1; connect retry time 2; error wait time 1, 2;\n}}\n",
        bfd(Kind::Bird)
    );
    for number in 1..=SITES {
        let _ = writeln!(
            text,
            "protocol bgp site{number}_4 from site {{\n\
             neighbor 10.10.{number}.2 as 65000;\nipv4 {{ import all; export none; }};\n}}\n\
             protocol bgp site{number}_6 from site {{\n\
             neighbor fd00:10:{number}::2 as 65000;\nipv6 {{ import all; export none; }};\n}}"
        );
    }
    text
}

fn router_frr() -> String {
    let mut text = format!(
        "frr defaults traditional\nhostname router\nlog stdout\n\
         router bgp 65000\n bgp router-id 10.1.0.1\n no bgp default ipv4-unicast\n\
         \x20bgp graceful-restart-disable\n timers bgp {} {HOLD_TIME}\n",
        HOLD_TIME / 3
    );
    let neighbours = |v4: bool| {
        (1..=SITES).map(move |number| {
            if v4 {
                format!("10.10.{number}.2")
            } else {
                format!("fd00:10:{number}::2")
            }
        })
    };
    for address in neighbours(true).chain(neighbours(false)) {
        let _ = writeln!(
            text,
            " neighbor {address} remote-as 65000\n neighbor {address} timers connect 2\n \
             neighbor {address} bfd profile anycast"
        );
    }
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        let _ = writeln!(
            text,
            " address-family {family} unicast\n  maximum-paths 1\n  maximum-paths ibgp 1"
        );
        for address in neighbours(v4) {
            let _ = writeln!(text, "  neighbor {address} activate");
        }
        let _ = writeln!(text, " exit-address-family");
    }
    text += "exit\nend\n";
    before_router(&text, bfd(Kind::Frr))
}

/// What an operator has of `[service]` but for the times: what these labs do to a node is more than
/// any operator would like.
const SERVICE_KEYS: &str = "rise = 2\nfall = 2\nhold_down = \"1s\"\nflap_limit = 0\n\
                            budget_refill = \"0s\"\n";

/// `anycast-tftpd`'s at this site.
pub(crate) fn tftpd(site: &Site, all: &[Site], handoff: Handoff) -> String {
    let folder = site.folder.display();
    let announce = match site.announcing {
        Announcing::Itself => format!(
            "{}\n[[check]]\nkind = \"tftp\"\nfile = \"health\"\n\
             interval = \"1s\"\ntimeout = \"1s\"\n\n[[check]]\nkind = \"file\"\n\
             path = \"{}\"\ninterval = \"500ms\"\n",
            LOOPBACK,
            site.well().display()
        ),
        Announcing::Guard => "[announce]\nkind = \"none\"\n".to_owned(),
    };
    let mode = match handoff {
        Handoff::Off => "off",
        Handoff::BeforeReply => "before-reply",
    };
    let keys = match site.announcing {
        Announcing::Itself => SERVICE_KEYS,
        Announcing::Guard => "",
    };
    format!(
        "[node]\nname = \"{}\"\nstate_dir = \"{folder}/state\"\n\
         admin = \"unix:{folder}/tftpd.sock\"\n\n\
         [service]\nname = \"tftp\"\naddresses = [\"{SERVICE}/32\", \"2001:db8::69/128\"]\n{keys}\n\
         {announce}\n[tftp]\nroot = \"{folder}/root\"\nhandoff = \"{mode}\"\n\n\
         {}\n[sync]\nmode = \"multi\"\n",
        site.name,
        mesh(site, all),
    )
}

const LOOPBACK: &str = "[announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"3s\"\n";

fn mesh(site: &Site, all: &[Site]) -> String {
    let mut text = format!("[mesh]\nlisten = \"{}:{MESH}\"\n", site.address());
    for peer in all.iter().filter(|peer| peer.number != site.number) {
        let _ = writeln!(
            text,
            "[[mesh.peer]]\nname = \"{}\"\naddress = \"{}:{MESH}\"\nfingerprints = [\"{}\"]",
            peer.name,
            peer.address(),
            peer.fingerprint
        );
    }
    text
}

/// `anycast-guard`'s, where it announces what an `anycast-tftpd` beside it serves. curl gives up before
/// the check does, so that a service that hangs is told from a check that does.
pub(crate) fn guard(site: &Site) -> String {
    let folder = site.folder.display();
    format!(
        "[node]\nname = \"{}\"\nstate_dir = \"{folder}/guard\"\n\
         admin = \"unix:{folder}/guard.sock\"\n\n{LOOPBACK}\n\
         [[service]]\nname = \"tftp\"\naddresses = [\"{SERVICE}/32\", \"2001:db8::69/128\"]\n\
         {SERVICE_KEYS}\n\
         [[service.check]]\nkind = \"exec\"\n\
         command = [\"/usr/bin/curl\", \"--silent\", \"--max-time\", \"0.8\", \"--output\", \
         \"/dev/null\", \"tftp://{SERVICE}/health\"]\n\
         interval = \"1s\"\ntimeout = \"1s\"\n",
        site.name
    )
}

#[test]
fn the_samples_have_everything_that_the_lab_replaces() {
    for kind in [Kind::Bird, Kind::Frr] {
        let text = site(kind, 2);
        for stale in ["10.0.0.", "2001:db8:0:1::1", "eth0", "syslog", "with BFD: "] {
            assert!(!text.contains(stale), "{stale}\n{text}");
        }
    }
}
