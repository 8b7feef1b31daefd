//! FRR's configuration, as far as the doctor reads it. Pure and total.

use std::collections::BTreeSet;

/// A part that has lines below it: `router bgp 65000`, `route-map BOOST4 permit 10`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// Its first line.
    pub head: String,
    /// The lines below it, with `address-family …` where they stand in one.
    pub lines: Vec<(Option<String>, String)>,
}

impl Section {
    /// What follows `start` in its lines of any address family.
    pub fn after<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |(_, line)| {
            let rest = line.strip_prefix(start)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim())
        })
    }

    /// Whether this very line is there.
    #[must_use]
    pub fn has(&self, wanted: &str) -> bool {
        self.lines.iter().any(|(_, line)| line == wanted)
    }
}

/// A configuration, of a file or as it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Lines of their own.
    pub lines: Vec<String>,
    /// Parts.
    pub sections: Vec<Section>,
    /// Whether parts are indented; without, they cannot be told apart.
    pub is_indented: bool,
}

impl Config {
    /// Reads `show running-config`, or frr.conf.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        let mut family: Option<String> = None;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let plain = words.join(" ");
            if plain.is_empty() || plain.starts_with(['!', '#', '%']) || plain == "end" {
                continue;
            }
            if !line.starts_with([' ', '\t']) {
                family = None;
                if [
                    "router ",
                    "route-map ",
                    "interface ",
                    "bfd",
                    "vrf ",
                    "line ",
                ]
                .iter()
                .any(|head| plain.starts_with(head))
                {
                    config.sections.push(Section {
                        head: plain,
                        lines: Vec::new(),
                    });
                } else if plain != "exit" {
                    config.lines.push(plain);
                }
                continue;
            }
            config.is_indented = true;
            let Some(section) = config.sections.last_mut() else {
                continue;
            };
            if plain.starts_with("address-family ") {
                family = Some(plain);
            } else if plain == "exit-address-family" {
                family = None;
            } else if plain != "exit" {
                section.lines.push((family.clone(), plain));
            }
        }
        config
    }

    /// Its BGP instances.
    pub fn bgp(&self) -> impl Iterator<Item = &Section> {
        let is_bgp = |one: &&Section| one.head.starts_with("router bgp ");
        self.sections.iter().filter(is_bgp)
    }

    /// The entries of a route-map.
    pub fn route_map<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Section> {
        let is_it = move |one: &&Section| {
            let mut words = one.head.split(' ');
            words.next() == Some("route-map") && words.next() == Some(name)
        };
        self.sections.iter().filter(is_it)
    }

    /// Every line that concerns BGP, with what it stands in: to be compared.
    #[must_use]
    pub fn about_bgp(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for line in &self.lines {
            let mut words = line.split(' ');
            let (first, second) = (words.next(), words.next());
            if first == Some("bgp") || matches!(second, Some("prefix-list" | "community-list")) {
                all.insert(line.clone());
            }
        }
        for section in &self.sections {
            let mut words = section.head.split(' ');
            let (first, second) = (words.next(), words.next());
            if first == Some("route-map") || (first, second) == (Some("router"), Some("bgp")) {
                all.insert(section.head.clone());
                for (family, line) in &section.lines {
                    let family = family.iter().map(|family| format!("{family} / "));
                    let family: String = family.collect();
                    all.insert(format!("{} / {family}{line}", section.head));
                }
            }
        }
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As bgpd 8.4.4 prints the sample.
    pub(crate) const RUNNING: &str = include_str!("data/frr_running.txt");
    pub(crate) const SAMPLE: &str = include_str!("../../../examples/routing/frr.conf");

    #[test]
    fn sections_families_and_maps_are_told_apart() {
        let config = Config::parse(RUNNING);
        let bgp: Vec<_> = config.bgp().collect();
        assert_eq!(bgp.len(), 1);
        assert_eq!(bgp[0].head, "router bgp 65000");
        assert!(bgp[0].has("no bgp network import-check"));
        let networks: Vec<_> = bgp[0].after("network").collect();
        assert_eq!(
            networks,
            [
                "192.0.2.69/32 route-map FLOOR",
                "2001:db8::69/128 route-map FLOOR"
            ]
        );
        assert_eq!(config.route_map("FROM-ROUTER4").count(), 2);
        let boost: Vec<_> = config.route_map("BOOST4").collect();
        assert!(boost[0].has("match interface lo"));
    }

    #[test]
    fn the_sample_runs_as_it_is_written() {
        let (runs, stands) = (Config::parse(RUNNING), Config::parse(SAMPLE));
        assert!(stands.is_indented && runs.is_indented);
        assert_eq!(runs.about_bgp(), stands.about_bgp());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(router bgp|route-map|address-family| |\n|exit|[a-z]{0,3}|!){0,60}") {
            let config = Config::parse(&text);
            let _ = config.about_bgp();
            for section in &config.sections {
                let _ = section.after("network").count();
            }
        }
    }
}
