//! The checks `tcp` and `http` while another site holds the same service address: whatever
//! leads their probes there, its answer does not count as the local node's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::thread;
use std::time::Duration;

use anycast_core::health::http::HttpCheck;
use anycast_core::health::probe::Source;
use anycast_core::health::tcp::TcpCheck;
use anycast_core::{HealthCheck, ServiceAddresses, Verdict};
use anycast_labs::{Netns, isolated, link};

const PORT: NonZeroU16 = NonZeroU16::new(80).unwrap();
/// A time-out that a healthy service always meets.
const PATIENT: Duration = Duration::from_secs(30);
/// A time-out that is meant to be reached.
const SHORT: Duration = Duration::from_secs(1);

/// Two sites with the service address, and the service on `far` alone.
struct Sites {
    near: Netns,
    far: Netns,
}

impl Sites {
    fn new() -> Self {
        let (near, far) = (Netns::new("near").unwrap(), Netns::new("far").unwrap());
        link(&near, "eth0", &far, "eth0").unwrap();
        for (site, last) in [(&near, 1), (&far, 2)] {
            site.address("eth0", &format!("10.0.0.{last}/24")).unwrap();
            site.address("eth0", &format!("fd00::{last}/64")).unwrap();
            site.address("lo", "192.0.2.80/32").unwrap();
            site.address("lo", "2001:db8::80/128").unwrap();
            // As obliging as a host can be made.
            site.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
            site.sysctl("net.ipv4.conf.eth0.rp_filter", "0").unwrap();
            site.sysctl("net.ipv4.conf.eth0.accept_local", "1").unwrap();
        }
        let sites = Self { near, far };
        serve(&sites.far, "far");
        sites
    }

    /// What a check on the near site says.
    fn check(&self, mut check: impl HealthCheck, timeout: Duration) -> Verdict {
        let probe = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                loop {
                    let verdict = check.check(timeout).await;
                    // This machine was too slow to tell.
                    if !verdict.to_string().contains("did not run in time") {
                        return verdict;
                    }
                }
            })
        };
        self.near.enter(probe).unwrap()
    }
}

/// A web server that names its node, on every address of a site. It ends with the test.
fn serve(site: &Netns, node: &'static str) {
    let listener = site
        .enter(|| TcpListener::bind("[::]:80"))
        .unwrap()
        .unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, node));
        }
    });
}

fn answer(mut stream: TcpStream, node: &str) {
    let mut question = Vec::new();
    let mut byte = [0];
    while !question.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => question.extend(byte),
            _ => return,
        }
    }
    let said = format!("HTTP/1.1 200 OK\r\nX-Node: {node}\r\nContent-Length: 0\r\n\r\n");
    // The probe may have gone.
    let _ = stream.write_all(said.as_bytes());
    let _ = stream.read(&mut byte);
}

fn addresses(list: &[&str]) -> ServiceAddresses {
    ServiceAddresses::new(list.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

/// Each address alone, so that one cannot hide behind the other's failure.
fn each_address() -> [ServiceAddresses; 2] {
    ["192.0.2.80/32", "2001:db8::80/128"].map(|one| addresses(&[one]))
}

fn http(addresses: &ServiceAddresses) -> HttpCheck {
    HttpCheck::new(addresses, PORT)
}

fn named(addresses: &ServiceAddresses) -> HttpCheck {
    http(addresses).with_header("X-Node", "near").unwrap()
}

#[track_caller]
fn unhealthy(verdict: &Verdict, says: &str) {
    assert!(
        matches!(verdict, Verdict::Unhealthy(reason, _) if reason.as_str().contains(says)),
        "{verdict} does not say {says:?}"
    );
}

#[test]
fn a_local_service_is_healthy_and_its_absence_is_not_made_up_for() {
    isolated(|| {
        let sites = Sites::new();
        for address in each_address() {
            let refused = "Connection refused";
            unhealthy(
                &sites.check(TcpCheck::new(&address, PORT), PATIENT),
                refused,
            );
            unhealthy(&sites.check(http(&address), PATIENT), refused);
        }
        serve(&sites.near, "near");
        let both = addresses(&["192.0.2.80/32", "2001:db8::80/128"]);
        let verdict = sites.check(TcpCheck::new(&both, PORT), PATIENT);
        assert_eq!(verdict, Verdict::Healthy);
        assert_eq!(sites.check(named(&both), PATIENT), Verdict::Healthy);
    });
}

/// The address is gone here, and the network knows it elsewhere.
#[test]
fn a_missing_address_is_not_looked_for_elsewhere() {
    isolated(|| {
        let sites = Sites::new();
        let near = &sites.near;
        near.run("ip addr del 192.0.2.80/32 dev lo").unwrap();
        near.run("ip addr del 2001:db8::80/128 dev lo").unwrap();
        near.run("ip route add 192.0.2.80/32 via 10.0.0.2").unwrap();
        near.run("ip -6 route add 2001:db8::80/128 via fd00::2")
            .unwrap();
        for address in each_address() {
            // It would be found.
            let any = TcpCheck::new(&address, PORT).with_source(Source::Any);
            assert_eq!(sites.check(any, PATIENT), Verdict::Healthy);
            let missing = "the address is not on this node";
            unhealthy(
                &sites.check(TcpCheck::new(&address, PORT), PATIENT),
                missing,
            );
            unhealthy(&sites.check(http(&address), PATIENT), missing);
            // Not even where the kernel lends out addresses that it has not.
            near.sysctl("net.ipv4.ip_nonlocal_bind", "1").unwrap();
            near.sysctl("net.ipv6.ip_nonlocal_bind", "1").unwrap();
            unhealthy(&sites.check(TcpCheck::new(&address, PORT), SHORT), "");
            unhealthy(&sites.check(http(&address), SHORT), "");
            near.sysctl("net.ipv4.ip_nonlocal_bind", "0").unwrap();
            near.sysctl("net.ipv6.ip_nonlocal_bind", "0").unwrap();
        }
    });
}

/// A rule of routing before the local table: the route to the local address is not used.
#[test]
fn a_rule_that_leads_elsewhere_is_found_out() {
    isolated(|| {
        let sites = Sites::new();
        serve(&sites.near, "near");
        for (family, address, via, source) in [
            ("-4", "192.0.2.80/32", "10.0.0.2", "10.0.0.1"),
            ("-6", "2001:db8::80/128", "fd00::2", "fd00::1"),
        ] {
            for command in [
                format!("ip {family} rule add pref 32765 lookup local"),
                format!("ip {family} rule del pref 0"),
                format!("ip {family} rule add pref 10 to {address} lookup 100"),
                format!("ip {family} route add {address} via {via} src {source} table 100"),
            ] {
                sites.near.run(&command).unwrap();
            }
        }
        for address in each_address() {
            // From anywhere, the other site answers, and the header alone tells.
            let any = http(&address).with_source(Source::Any);
            assert_eq!(sites.check(any, PATIENT), Verdict::Healthy);
            let any = named(&address).with_source(Source::Any);
            let verdict = sites.check(any, PATIENT);
            unhealthy(&verdict, "answered with x-node: \"far\", not \"near\"");
            let tcp = TcpCheck::new(&address, PORT);
            unhealthy(&sites.check(tcp, SHORT), "no connection within 1s");
            unhealthy(
                &sites.check(http(&address), SHORT),
                "no connection within 1s",
            );
        }
    });
}

const TRANSLATION: &str = "table inet lab_nat {
  chain output { type nat hook output priority -100;
    ip daddr 192.0.2.80 tcp dport 80 dnat ip to 10.0.0.2
    ip6 daddr 2001:db8::80 tcp dport 80 dnat ip6 to fd00::2
  }
}
";

#[test]
fn a_translated_destination_is_found_out() {
    isolated(|| {
        let sites = Sites::new();
        serve(&sites.near, "near");
        sites.near.nft(TRANSLATION).unwrap();
        for address in each_address() {
            let tcp = TcpCheck::new(&address, PORT);
            unhealthy(&sites.check(tcp, SHORT), "no connection within 1s");
            unhealthy(
                &sites.check(http(&address), SHORT),
                "no connection within 1s",
            );
        }
    });
}

/// Where both addresses are translated, only an answer that names its node helps: the limit
/// that the checks' documentation tells.
#[test]
fn behind_a_full_translation_the_header_tells() {
    isolated(|| {
        let sites = Sites::new();
        serve(&sites.near, "near");
        let masquerade =
            "chain out { type nat hook postrouting priority 100; oifname eth0 masquerade\n }\n}\n";
        let full = TRANSLATION.trim_end().trim_end_matches('}');
        sites.near.nft(&format!("{full}{masquerade}")).unwrap();
        for address in each_address() {
            let tcp = TcpCheck::new(&address, PORT);
            assert_eq!(sites.check(tcp, PATIENT), Verdict::Healthy);
            assert_eq!(sites.check(http(&address), PATIENT), Verdict::Healthy);
            let verdict = sites.check(named(&address), PATIENT);
            unhealthy(&verdict, "answered with x-node: \"far\", not \"near\"");
        }
    });
}
