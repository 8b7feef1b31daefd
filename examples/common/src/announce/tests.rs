use std::path::Path;

use super::*;

const BIRD_SAMPLE: &str = "kind = 'bird'\nfloor = true\nchannels = ['r4.ipv4', 'r6.ipv6']\n";
const FRR_SAMPLE: &str = "kind = 'frr'\nfloor = true\nneighbours = ['10.0.0.1', '2001:db8::1']\n";

const INCLUDE_SAMPLE: &str =
    "kind = 'bird'\nchannels = ['r4.ipv4', 'r6.ipv6']\ncarrier = 'include'\n";

const ROUTE_MAP_SAMPLE: &str = "kind = 'frr'\nneighbours = ['10.0.0.1']\ncarrier = 'route-map'\n";

fn addresses(texts: &[&str]) -> ServiceAddresses {
    ServiceAddresses::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

fn table(text: &str) -> AnnounceTable {
    anycast_core::config::parse(Path::new("x.toml"), text).unwrap()
}

fn resolve(text: &str) -> Result<Announce, String> {
    let both = addresses(&["192.0.2.69/32", "2001:db8::69/128"]);
    let resolved = table(text).resolve(Path::new("x.toml"), "[announce]", &both);
    resolved.map_err(|error| error.to_string())
}

#[test]
fn a_few_keys_are_enough_for_each_kind() {
    let bird = resolve(BIRD_SAMPLE).unwrap();
    assert!(bird.kernel().is_some() && bird.steered().is_empty());
    assert_eq!(
        bird.to_string(),
        "bird at /run/bird/bird.ctl, confirmed from the exports of r4.ipv4, r6.ipv6"
    );
    let frr = resolve(FRR_SAMPLE).unwrap();
    assert!(frr.kernel().is_some());
    assert!(
        frr.to_string().starts_with("frr at /run/frr/bgpd.vty"),
        "{frr}"
    );
    let maps = resolve(&format!(
        "{ROUTE_MAP_SAMPLE}route_maps = ['OUT4 10', 'OUT6 10']"
    ))
    .unwrap();
    assert_eq!((maps.kernel(), maps.steered().len()), (None, 2));
    assert!(
        maps.to_string().contains("route-map OUT4 permit 10"),
        "{maps}"
    );
    let own = "carrier = 'protocol'\nboost = ['b4', 'b6']\nfloor_protocols = ['f4']\n";
    let own = resolve(&(BIRD_SAMPLE.to_owned() + own)).unwrap();
    assert_eq!(own.kernel(), None);
    assert_eq!(own.steered().len(), 3);
    let file = resolve(&format!(
        "{INCLUDE_SAMPLE}include = '/etc/bird/anycast/x.conf'"
    ))
    .unwrap();
    assert_eq!((file.kernel(), file.steered().len()), (None, 1));
    assert!(
        file.to_string()
            .ends_with("the level in /etc/bird/anycast/x.conf"),
        "{file}"
    );
}

/// A sample, what is added to it, the key that is at fault, and a word of the remedy.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    (
        BIRD_SAMPLE,
        "neighbours = ['10.0.0.1']",
        "neighbours",
        "remove it",
    ),
    (
        FRR_SAMPLE,
        "channels = ['r4.ipv4']",
        "channels",
        "remove it",
    ),
    (
        "kind = 'loopback'\nfloor = true\n",
        "socket = '/x'",
        "socket",
        "remove it",
    ),
    (
        "kind = 'none'\n",
        "med = { preferred = 1, demoted = 2 }",
        "med",
        "remove it",
    ),
    (BIRD_SAMPLE, "socket = 'bird.ctl'", "socket", "absolute"),
    (
        BIRD_SAMPLE,
        "boost = ['b4']",
        "boost",
        "carrier = \"protocol\"",
    ),
    (
        BIRD_SAMPLE,
        "carrier = 'protocol'",
        "boost",
        "names no protocol",
    ),
    (
        BIRD_SAMPLE,
        "floor_protocols = ['a b']",
        "floor_protocols",
        "no name of BIRD's",
    ),
    (
        BIRD_SAMPLE,
        "local_pref = { preferred = 50, demoted = 50 }",
        "local_pref",
        "lower",
    ),
    (
        BIRD_SAMPLE,
        "med = { preferred = 9, demoted = 1 }",
        "med",
        "higher",
    ),
    (
        BIRD_SAMPLE,
        "ospf_metric1 = { preferred = 9, demoted = 1 }",
        "ospf_metric1",
        "higher",
    ),
    (
        BIRD_SAMPLE,
        "ospf_metric2 = { preferred = 9, demoted = 16777215 }",
        "ospf_metric2",
        "16777214",
    ),
    (
        FRR_SAMPLE,
        "ospf_metric2 = { preferred = 1, demoted = 9 }",
        "ospf_metric2",
        "remove it",
    ),
    (
        BIRD_SAMPLE,
        "prepend = { preferred = 1, demoted = 1 }",
        "prepend",
        "longer",
    ),
    (
        BIRD_SAMPLE,
        "prepend = { preferred = 1, demoted = 99 }",
        "prepend",
        "at most",
    ),
    (BIRD_SAMPLE, "community = '65536:0'", "community", "65535:0"),
    (BIRD_SAMPLE, "community = '+1:0'", "community", "65535:0"),
    (
        FRR_SAMPLE,
        "community = '65535:0'",
        "community",
        "local_pref",
    ),
    (
        BIRD_SAMPLE,
        "community = '1:1'\nmed = { preferred = 1, demoted = 2 }",
        "community",
        "remove one",
    ),
    (
        BIRD_SAMPLE,
        "carrier = 'protocol'\nboost = ['b']\ndead_man = '5s'",
        "dead_man",
        "no dead man",
    ),
    (
        BIRD_SAMPLE,
        "carrier = 'protocol'\nboost = ['b']\nfloor_protocols = ['b']",
        "floor_protocols",
        "both",
    ),
    (
        "kind = 'bird'\nfloor = true\n",
        "",
        "channels",
        "names no channel",
    ),
    (
        "kind = 'bird'\nfloor = true\n",
        "channels = ['r4']",
        "channels",
        "PROTOCOL.ipv4",
    ),
    (
        "kind = 'bird'\nfloor = true\n",
        "channels = ['r4.ipv4']",
        "channels",
        "2001:db8::69",
    ),
    (
        "kind = 'bird'\nchannels = ['r4.ipv4', 'r6.ipv6']\n",
        "",
        "floor",
        "is missing",
    ),
    (
        "kind = 'frr'\nfloor = true\n",
        "",
        "neighbours",
        "names no neighbour",
    ),
    (
        "kind = 'frr'\nfloor = false\n",
        "",
        "floor",
        "would withdraw",
    ),
    ("floor = true\n", "", "kind", "is missing"),
    (ROUTE_MAP_SAMPLE, "", "route_maps", "names no entry"),
    (
        ROUTE_MAP_SAMPLE,
        "route_maps = ['A']",
        "route_maps",
        "TO-ROUTER4 10",
    ),
    (
        ROUTE_MAP_SAMPLE,
        "route_maps = ['A\\nwrite 10']",
        "route_maps",
        "no entry",
    ),
    (
        ROUTE_MAP_SAMPLE,
        "route_maps = ['A 1']\nvtysh = 'vtysh'",
        "vtysh",
        "absolute",
    ),
    (
        ROUTE_MAP_SAMPLE,
        "route_maps = ['A 1']\nfloor = true",
        "floor",
        "neither floor",
    ),
    (
        ROUTE_MAP_SAMPLE,
        "route_maps = ['A 1']\nprepend = { preferred = 1, demoted = 2 }",
        "prepend",
        "MED",
    ),
    (
        FRR_SAMPLE,
        "route_maps = ['A 1']",
        "route_maps",
        "carrier = \"route-map\"",
    ),
    (FRR_SAMPLE, "carrier = 'include'", "carrier", "BIRD's"),
    (BIRD_SAMPLE, "carrier = 'route-map'", "carrier", "FRR's"),
];

#[test]
fn every_fault_is_one_line_with_its_key() {
    for (sample, more, key, hint) in FAULTS {
        let said = resolve(&format!("{sample}{more}\n")).unwrap_err();
        assert_eq!(said.lines().count(), 1, "{said}");
        let start = format!("x.toml: [announce] {key}: ");
        assert!(said.starts_with(&start), "{said}");
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn a_table_takes_over_what_it_does_not_say() {
    let defaults = table(&format!(
        "{BIRD_SAMPLE}med = {{ preferred = 1, demoted = 2 }}\n"
    ));
    let own = table("local_pref = { preferred = 9, demoted = 8 }").or(&defaults);
    assert_eq!(
        (own.med, own.local_pref.map(|levels| levels.demoted)),
        (None, Some(8))
    );
    assert_eq!(own.channels, defaults.channels);
    // Another kind has other keys, and the kernel's are of all.
    let other = table("kind = 'loopback'").or(&defaults);
    assert_eq!(
        (other.channels, other.med, other.floor),
        (None, None, Some(true))
    );
}
