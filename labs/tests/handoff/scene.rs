//! Three sites in step, a router between them that sends clients' packets now here, now there, and
//! the clients.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::thread;
use std::time::Duration;

use anycast_labs::Netns;

use crate::clients::{self, ALL, Client, Outcome};
use crate::lab::{Lab, SERVICE, noise};

pub(crate) const NAMES: [&str; 3] = ["ams1", "fra1", "lon1"];
pub(crate) const MULTI: &str = "mode = \"multi\"";
/// Twelve seconds at a client's rate.
pub(crate) const SIZE: usize = 6 << 20;
/// After so long without a change every site is certain of what it has.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);
/// What a moved route may cost where both nodes live; machines are noisy.
pub(crate) const HICCUP: Duration = Duration::from_secs(2);
/// And where a node died in the middle of what the client waits for: the heir begins after five and a half
/// seconds, and a client repeats itself after five.
pub(crate) const LOSS: Duration = Duration::from_secs(8);

/// The sites in step, and the clients' packets on their way to the first.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) clients: Vec<Client>,
    pub(crate) image: Vec<u8>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with("", ALL.into())
    }

    /// `keys` are further ones of `[tftp]`.
    pub(crate) fn with(keys: &str, programs: Vec<clients::Program>) -> Self {
        let lab = Lab::new(&NAMES, MULTI);
        lab.configure_tftp(MULTI, keys);
        Self::of(lab, programs)
    }

    /// Sites of which none runs yet.
    pub(crate) fn of(mut lab: Lab, programs: Vec<clients::Program>) -> Self {
        lab.start_all();
        let image = noise(1, SIZE);
        lab.sites[0].write("image", &image);
        for site in &lab.sites {
            site.until("the file to be there", |site| {
                site.read("image").as_ref() == Some(&image)
            });
        }
        lab.await_agreed();
        thread::sleep(SETTLED);
        let clients = programs.into_iter().enumerate();
        let clients = clients.map(|(number, program)| Client::new(&lab.hub, number, program));
        let clients = clients.collect();
        let scene = Self {
            lab,
            clients,
            image,
        };
        scene.lead_to(0);
        scene
    }

    pub(crate) fn hub(&self) -> &Netns {
        &self.lab.hub
    }

    /// The route of all clients.
    pub(crate) fn lead_to(&self, site: usize) {
        self.lab.lead_to(site);
    }

    /// What was counted at a site.
    pub(crate) fn counted(&self, site: usize, counter: &str) -> u64 {
        let count = &self.lab.sites[site].ask("/status")["tftp"][counter];
        count.as_u64().unwrap_or_default()
    }

    /// Each has the whole file, and never waited longer than this.
    pub(crate) fn assert_complete(&self, outcomes: &[Outcome], most: Duration) {
        for outcome in outcomes {
            println!(
                "{}: {} bytes in {:?}, stalls {:?}, {}",
                outcome.program,
                outcome.bytes.len(),
                outcome.took,
                outcome.stalls,
                outcome.failure.as_deref().unwrap_or("well")
            );
        }
        for outcome in outcomes {
            assert_eq!(outcome.failure, None, "{}", outcome.program);
            assert!(
                outcome.bytes == self.image,
                "{}: other bytes",
                outcome.program
            );
            let stall = outcome.stall();
            assert!(stall < most, "{}: {stall:?}", outcome.program);
        }
    }

    /// As the sample has it: a host is silent where nobody listens any more.
    pub(crate) fn silence(&self) {
        let rules = include_str!("../../../examples/tftpd/anycast-tftpd.nft");
        assert!(rules.contains(SERVICE));
        for site in &self.lab.sites {
            site.namespace.nft(rules).unwrap();
        }
    }

    /// Counts how often a client hears that the port of the service is closed.
    pub(crate) fn watch_unreachable(&self) {
        let count = format!(
            "ip saddr {SERVICE} icmp type destination-unreachable icmp code port-unreachable \
             counter name ports"
        );
        self.hub()
            .nft(&format!(
                "table ip unreachable {{\ncounter ports {{ }}\n\
                 chain seen {{ type filter hook forward priority 0;\n{count}\n}}\n}}\n"
            ))
            .unwrap();
    }

    pub(crate) fn unreachable(&self) -> String {
        self.hub()
            .run("nft list counter ip unreachable ports")
            .unwrap()
    }

    pub(crate) fn assert_none_unreachable(&self) {
        let said = self.unreachable();
        assert!(said.contains("packets 0 "), "{said}");
    }
}
