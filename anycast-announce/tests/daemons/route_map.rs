//! FRR with the level in the neighbours' outgoing route-maps, through vtysh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anycast_announce::frr::route_map::{Entry, RouteMaps};
use anycast_announce::frr::{Carrier, FrrAnnouncer, FrrConfig};
use anycast_core::announce::{AnnounceError, Announcer, Applied, InForce, Preference, Role};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_core::testing::withdrawn_by_operator;
use anycast_labs::node::Kind;
use anycast_labs::{eventually, isolate, isolated};
use async_trait::async_trait;

use crate::support::{BOTH, Lab, PATIENCE, folder, in_force, name, now, sample, service};

const ENTRIES: [&str; 2] = ["TO-ROUTER4 10", "TO-ROUTER6 10"];

/// The sample with one route for each family, whose preference the outgoing route-map sets.
fn config() -> String {
    let mut text = sample("frr.conf");
    for family in ["4", "6"] {
        let boost = format!("  redistribute connected route-map BOOST{family}\n");
        assert!(text.contains(&boost));
        text = text.replace(&boost, "");
        let entry = format!("route-map TO-ROUTER{family} permit 10\n");
        assert!(text.contains(&entry));
        text = text.replace(&entry, &format!("{entry} set local-preference 50\n"));
    }
    text
}

fn announcer(lab: &Lab, entries: &[&str], vtysh: Option<PathBuf>) -> FrrAnnouncer {
    let folder = folder(lab.node.namespace());
    let entries = entries.iter().map(|entry| Entry::new(entry).unwrap());
    let mut maps = RouteMaps::new(entries.collect()).with_config_dir(folder.clone());
    if let Some(vtysh) = vtysh {
        maps = maps.with_vtysh(vtysh);
    }
    let neighbours = ["10.0.0.1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
    let config = FrrConfig::carried(Carrier::RouteMap(maps), neighbours.into())
        .unwrap()
        .with_socket(folder.join("bgpd.vty"));
    FrrAnnouncer::new(config, Role::Primary)
}

fn frr(lab: &Lab) -> FrrAnnouncer {
    announcer(lab, &ENTRIES, None)
}

/// As an operator at a vtysh of his own.
fn vtysh(lab: &Lab, lines: &[&str]) {
    let (namespace, folder) = (lab.node.namespace(), folder(lab.node.namespace()));
    let mut vtysh = Command::new("vtysh");
    vtysh.arg("--vty_socket").arg(&folder);
    vtysh.arg("--config_dir").arg(&folder);
    for line in lines {
        vtysh.args(["-c", line]);
    }
    let output = namespace.output(&mut vtysh).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Both entries set to this by somebody else, and sent.
fn set_by_hand(lab: &Lab, local_pref: u32) {
    let set = format!("set local-preference {local_pref}");
    for entry in [
        "route-map TO-ROUTER4 permit 10",
        "route-map TO-ROUTER6 permit 10",
    ] {
        vtysh(lab, &["configure terminal", entry, &set]);
    }
    vtysh(lab, &["clear bgp * soft out"]);
    let what = format!("bgpd to send {local_pref}");
    let sent = || {
        BOTH.iter()
            .all(|address| lab.best(address) == Some(local_pref))
    };
    eventually(PATIENCE, &what, sent).unwrap();
}

/// A vtysh that counts its runs, and that a test may make behave otherwise before or after.
fn wrapped(before: &str) -> PathBuf {
    let path = isolate::work_dir().join("vtysh");
    let log = isolate::work_dir().join("vtysh.runs");
    let text = format!(
        "#!/bin/sh\necho run >> {}\n{before}\nexec /usr/bin/vtysh \"$@\"\n",
        log.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn runs() -> usize {
    let log = fs::read_to_string(isolate::work_dir().join("vtysh.runs"));
    log.unwrap_or_default().lines().count()
}

async fn refused(frr: &mut FrrAnnouncer, preference: Preference, hint: &str) {
    let error = frr.apply(&now(preference)).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let said = format!("{error}: {}", source.unwrap_or_default());
    assert!(said.contains(hint), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

struct Bench<'a>(&'a Lab);

#[async_trait]
impl AnnouncerBench for Bench<'_> {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(frr(self.0))
    }

    fn service(&self) -> ServiceName {
        name()
    }

    fn addresses(&self) -> ServiceAddresses {
        service()
    }

    async fn meddle(&mut self) {
        set_by_hand(self.0, 50);
    }

    /// Everything but the two lines that are to change, and no file written.
    async fn state_of_others(&mut self) -> String {
        let running = self.0.node.ask("show running-config").unwrap();
        let ours = |line: &&str| {
            ["200", "50"]
                .iter()
                .any(|level| *line == format!(" set local-preference {level}"))
        };
        let kept: Vec<_> = running.lines().filter(|line| !ours(line)).collect();
        let file = folder(self.0.node.namespace()).join("frr.conf");
        let links = self.0.node.namespace().run("ip -o addr show").unwrap();
        format!(
            "{}\n{}\n{links}",
            kept.join("\n"),
            fs::read_to_string(file).unwrap()
        )
    }
}

#[test]
fn the_suite_passes() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &config());
        lab.run(async || run(&mut Bench(&lab)).await.unwrap());
    });
}

#[test]
fn a_level_is_sent_without_a_withdrawal_and_set_once() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &config());
        lab.run(async || {
            let mut frr = announcer(&lab, &ENTRIES, Some(wrapped("")));
            frr.probe().await.unwrap();
            assert_eq!(frr.capabilities().dead_man, None);
            for _ in 0..3 {
                lab.confirm(&mut frr, Preference::Preferred).await;
                lab.router_has(Some(200));
                let before = runs();
                lab.confirm(&mut frr, Preference::Preferred).await;
                assert_eq!(runs(), before, "what is in force was set again");
                lab.confirm(&mut frr, Preference::Demoted).await;
                lab.router_has(Some(50));
            }
            let refused = frr.apply(&now(withdrawn_by_operator())).await;
            let is_refused = matches!(refused, Err(AnnounceError::Inexpressible { .. }));
            assert!(is_refused, "{refused:?}");
            assert_eq!(in_force(&mut frr).await, Some(InForce::Demoted));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

#[test]
fn an_entry_that_is_not_there_is_never_made() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &config());
        lab.run(async || {
            let before = lab.node.ask("show running-config").unwrap();
            for entry in ["TO-ROUTER4 20", "NONESUCH 10", "FROM-ROUTER4 10"] {
                let mut frr = announcer(&lab, &[entry], Some(wrapped("")));
                refused(&mut frr, Preference::Preferred, "there is no such entry").await;
                let error = frr.probe().await.unwrap_err();
                assert!(
                    error.to_string().contains(entry.split(' ').next().unwrap()),
                    "{error}"
                );
            }
            assert_eq!(runs(), 0);
            assert_eq!(lab.node.ask("show running-config").unwrap(), before);
        });
    });
}

#[test]
fn vtysh_that_is_missing_complains_or_hangs_is_told() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &config());
        lab.run(async || {
            let mut frr = announcer(&lab, &ENTRIES, Some("/nonexistent/vtysh".into()));
            refused(&mut frr, Preference::Preferred, "install FRR's vtysh").await;
            assert!(frr.probe().await.is_err());
            for (before, hint) in [
                (
                    "echo '% VTY configuration is locked by other VTY'; exit 0",
                    "locked by other",
                ),
                (
                    "echo 'Exiting: failed to connect' >&2; exit 0",
                    "failed to connect",
                ),
                ("exit 3", "does not say why"),
                ("exec sleep 60", "did not end"),
            ] {
                let mut frr = announcer(&lab, &ENTRIES, Some(wrapped(before)));
                refused(&mut frr, Preference::Preferred, hint).await;
                lab.router_has(Some(50));
            }
            // One that claims to have done it has not.
            let mut frr = announcer(&lab, &ENTRIES, Some(wrapped("exit 0")));
            refused(&mut frr, Preference::Preferred, "does not say so").await;
            let mut frr = announcer(&lab, &ENTRIES, Some(wrapped("")));
            lab.confirm(&mut frr, Preference::Preferred).await;
            lab.router_has(Some(200));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

/// FRR has no lock: the last of two who configure at once wins, and that is repaired.
#[test]
fn an_operator_who_configures_at_once_is_neither_hindered_nor_believed() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &config());
        lab.run(async || {
            let mut frr = frr(&lab);
            lab.confirm(&mut frr, Preference::Preferred).await;
            set_by_hand(&lab, 77);
            let error = frr.observe(&service()).await.unwrap_err();
            assert!(
                std::error::Error::source(&error)
                    .unwrap()
                    .to_string()
                    .contains("77")
            );
            lab.confirm(&mut frr, Preference::Preferred).await;
            lab.router_has(Some(200));
            // Another vty is in the midst of a configuration of its own.
            let (namespace, folder) = (lab.node.namespace(), folder(lab.node.namespace()));
            let mut other = Command::new("sh");
            let folder = folder.display();
            other.arg("-c").arg(format!(
                "(echo 'configure terminal'; echo 'route-map OTHERS permit 10'; sleep 60) | \
                 vtysh --vty_socket {folder} --config_dir {folder}"
            ));
            let _other = anycast_labs::Proc::start(namespace, "other", &mut other).unwrap();
            eventually(PATIENCE, "the other's route-map", || {
                lab.node
                    .ask("show running-config")
                    .unwrap()
                    .contains("OTHERS")
            })
            .unwrap();
            lab.confirm(&mut frr, Preference::Demoted).await;
            lab.router_has(Some(50));
            assert!(
                lab.node
                    .ask("show running-config")
                    .unwrap()
                    .contains("OTHERS")
            );
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

/// Half of it was done: the entries are set, and nothing was sent of it.
#[test]
fn what_was_set_and_not_sent_is_sent() {
    isolated(|| {
        let text = config();
        let lab = Lab::start(
            Kind::Frr,
            &text.replace(
                "router bgp 65000\n",
                "bgp route-map delay-timer 600\nrouter bgp 65000\n",
            ),
        );
        lab.run(async || {
            for entry in [
                "route-map TO-ROUTER4 permit 10",
                "route-map TO-ROUTER6 permit 10",
            ] {
                vtysh(
                    &lab,
                    &["configure terminal", entry, "set local-preference 200"],
                );
            }
            let mut frr = frr(&lab);
            let applied = frr.apply(&now(Preference::Preferred)).await.unwrap();
            assert_eq!(applied, Applied::Confirmed);
            lab.router_has(Some(200));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}
