//! BIRD with the level in an include file: every trap of loading a configuration.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anycast_announce::bird::command::{Channel, Symbol};
use anycast_announce::bird::include::IncludeFile;
use anycast_announce::bird::{BirdAnnouncer, BirdConfig, Carrier};
use anycast_core::announce::{Announcer, Applied, InForce, Preference, Role};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_core::testing::withdrawn_by_operator;
use anycast_labs::node::Kind;
use anycast_labs::{isolate, isolated};
use async_trait::async_trait;

use crate::support::{BOTH, Lab, PATIENCE, folder, in_force, name, now, runtime, sample, service};

const HEADER: &str = "# Written by anycast, and replaced at every change of preference.\n";
const FLOOR: [&str; 2] = ["anycast_floor4", "anycast_floor6"];

fn levels() -> PathBuf {
    isolate::work_dir().join("levels")
}

fn level() -> PathBuf {
    levels().join("tftp.conf")
}

fn written(value: u32) -> String {
    format!("{HEADER}define anycast_level = {value};\n")
}

/// The sample with one route for each family, whose preference is in the include file, and
/// with another include file of the operator's.
fn config() -> String {
    let text = sample("bird.conf");
    let text = text.replace("next hop self; };", "next hop self; export table on; };");
    let from = "if proto = \"anycast_boost\" then { bgp_local_pref = 200; accept; }";
    assert!(text.contains(from));
    let to = "{ bgp_local_pref = anycast_level; accept; }";
    let folder = levels().display().to_string();
    format!(
        "include \"{folder}/tftp.conf\";\n{}\ninclude \"{folder}/o*r.conf\";\n",
        text.replace(from, to)
    )
}

fn lab() -> Lab {
    fs::create_dir_all(levels()).unwrap();
    fs::set_permissions(levels(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(level(), written(50)).unwrap();
    let other = "protocol static others { ipv4; route 198.51.100.0/24 blackhole; }\n";
    fs::write(levels().join("other.conf"), other).unwrap();
    Lab::start(Kind::Bird, &config())
}

fn announcer(main: PathBuf, socket: PathBuf, path: PathBuf) -> BirdAnnouncer {
    let channels = ["router4.ipv4", "router6.ipv6"];
    let channels = channels.map(|name| Channel::new(name).unwrap());
    let file = IncludeFile::new(path).unwrap().with_main(main).unwrap();
    let floor = FLOOR.map(|name| Symbol::new(name).unwrap());
    let config = BirdConfig::new(Carrier::Include(file), channels.into())
        .unwrap()
        .with_floor(floor.into())
        .unwrap()
        .with_socket(socket);
    BirdAnnouncer::new(config, Role::Primary)
}

fn bird(lab: &Lab) -> BirdAnnouncer {
    let folder = folder(lab.node.namespace());
    announcer(folder.join("bird.conf"), folder.join("bird.ctl"), level())
}

/// It fails, for a reason in which this occurs.
async fn refused(bird: &mut BirdAnnouncer, preference: Preference, hint: &str) {
    let error = bird.apply(&now(preference)).await.unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains(hint), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

struct Bench<'a>(&'a Lab);

#[async_trait]
impl AnnouncerBench for Bench<'_> {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(bird(self.0))
    }

    fn service(&self) -> ServiceName {
        name()
    }

    fn addresses(&self) -> ServiceAddresses {
        service()
    }

    async fn meddle(&mut self) {
        fs::write(level(), written(50)).unwrap();
        self.0.node.ask("configure").unwrap();
        let what = "BIRD to have exported what was undone";
        let done = || BOTH.iter().all(|address| self.0.best(address) != Some(200));
        anycast_labs::eventually(PATIENCE, what, done).unwrap();
    }

    async fn state_of_others(&mut self) -> String {
        let main = folder(self.0.node.namespace()).join("bird.conf");
        let texts =
            [main, levels().join("other.conf")].map(|path| fs::read_to_string(path).unwrap());
        let links = self.0.node.namespace().run("ip -o addr show").unwrap();
        let routes = self.0.node.ask("show route 198.51.100.0/24").unwrap();
        let routes: Vec<_> = routes.split_whitespace().take(6).collect();
        format!("{}\n{links}\n{routes:?}", texts.concat())
    }
}

#[test]
fn the_suite_passes() {
    isolated(|| {
        let lab = lab();
        lab.run(async || run(&mut Bench(&lab)).await.unwrap());
    });
}

#[test]
fn a_level_is_loaded_and_sent_without_a_withdrawal_and_written_once() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            let mut bird = bird(&lab);
            bird.probe().await.unwrap();
            assert_eq!(bird.capabilities().dead_man, None);
            for _ in 0..3 {
                lab.confirm(&mut bird, Preference::Preferred).await;
                lab.router_has(Some(200));
                let file = fs::metadata(level()).unwrap();
                lab.confirm(&mut bird, Preference::Preferred).await;
                assert_eq!(
                    fs::metadata(level()).unwrap().ino(),
                    file.ino(),
                    "written again"
                );
                assert_eq!(file.mode() & 0o7777, 0o644);
                lab.confirm(&mut bird, Preference::Demoted).await;
                lab.router_has(Some(50));
            }
            assert_eq!(fs::read_to_string(level()).unwrap(), written(50));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
        lab.run(async || {
            let mut bird = bird(&lab);
            lab.confirm(&mut bird, withdrawn_by_operator()).await;
            lab.router_has(None);
            assert_eq!(in_force(&mut bird).await, Some(InForce::Withdrawn));
            lab.confirm(&mut bird, Preference::Preferred).await;
            lab.router_has(Some(200));
        });
    });
}

/// Nobody's half-edited file is loaded, whichever of the configuration's it is.
#[test]
fn an_operators_unloaded_change_is_never_loaded_for_him() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            let mut bird = bird(&lab);
            lab.confirm(&mut bird, Preference::Preferred).await;
            let main = folder(lab.node.namespace()).join("bird.conf");
            for file in [main, levels().join("other.conf")] {
                std::thread::sleep(std::time::Duration::from_millis(100));
                let text = fs::read_to_string(&file).unwrap();
                fs::write(&file, text + "protocol static half_edited { ipv4; }\n").unwrap();
                let text = fs::read_to_string(&file).unwrap();
                refused(
                    &mut bird,
                    Preference::Demoted,
                    "is newer than what BIRD has loaded",
                )
                .await;
                assert_eq!(fs::read_to_string(level()).unwrap(), written(200));
                assert_eq!(in_force(&mut bird).await, Some(InForce::Preferred));
                assert!(lab.node.ask("show protocols half_edited").is_err());
                let finished = text.replace("protocol static half_edited { ipv4; }\n", "");
                fs::write(&file, finished).unwrap();
                refused(&mut bird, Preference::Demoted, "birdc configure").await;
                lab.node.ask("configure").unwrap();
                lab.confirm(&mut bird, Preference::Demoted).await;
                lab.confirm(&mut bird, Preference::Preferred).await;
            }
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

#[test]
fn what_bird_refuses_is_undone_in_the_file() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            let mut bird = bird(&lab);
            lab.confirm(&mut bird, Preference::Preferred).await;
            // The operator's own include file is gone, so that the whole cannot be loaded.
            let main = folder(lab.node.namespace()).join("bird.conf");
            let text = fs::read_to_string(&main).unwrap();
            fs::write(&main, text.replace("o*r.conf", "other.conf")).unwrap();
            lab.node.ask("configure").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            let other = levels().join("other.conf");
            fs::rename(&other, levels().join("away")).unwrap();
            refused(&mut bird, Preference::Demoted, "8002").await;
            assert_eq!(fs::read_to_string(level()).unwrap(), written(200));
            assert_eq!(in_force(&mut bird).await, Some(InForce::Preferred));
            let left: Vec<_> = fs::read_dir(levels()).unwrap().collect();
            assert_eq!(left.len(), 2, "{left:?}");
            // What comes back may have come back changed.
            fs::rename(levels().join("away"), &other).unwrap();
            refused(&mut bird, Preference::Demoted, "other.conf is newer").await;
            lab.node.ask("configure").unwrap();
            lab.confirm(&mut bird, Preference::Demoted).await;
            lab.router_has(Some(50));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

#[test]
fn what_is_not_ours_is_never_written_over_or_through() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            let mut bird = bird(&lab);
            lab.confirm(&mut bird, Preference::Preferred).await;
            let victim = isolate::work_dir().join("victim");
            fs::write(&victim, written(200)).unwrap();
            fs::remove_file(level()).unwrap();
            symlink(&victim, level()).unwrap();
            refused(&mut bird, Preference::Demoted, "symbolic link").await;
            assert_eq!(fs::read_to_string(&victim).unwrap(), written(200));
            fs::remove_file(level()).unwrap();

            let own = "define anycast_level = 200;\n";
            fs::write(level(), own).unwrap();
            refused(&mut bird, Preference::Demoted, "not written by anycast").await;
            assert_eq!(fs::read_to_string(level()).unwrap(), own);

            fs::write(level(), "").unwrap();
            fs::set_permissions(levels(), fs::Permissions::from_mode(0o777)).unwrap();
            refused(&mut bird, Preference::Demoted, "everybody may write").await;
            fs::set_permissions(levels(), fs::Permissions::from_mode(0o755)).unwrap();
            // A link at the place of the temporary file is removed, not followed.
            symlink(&victim, levels().join(".tftp.conf.new")).unwrap();
            lab.confirm(&mut bird, Preference::Demoted).await;
            assert_eq!(fs::read_to_string(&victim).unwrap(), written(200));
            assert_eq!(fs::read_to_string(level()).unwrap(), written(50));
            lab.router_has(Some(50));
        });
    });
}

#[test]
fn a_write_that_was_not_loaded_is_found_and_loaded() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            lab.confirm(&mut bird(&lab), Preference::Preferred).await;
            // A process ended between the two.
            fs::write(level(), written(50)).unwrap();
            let before = fs::metadata(level()).unwrap().ino();
            let mut next = bird(&lab);
            assert_eq!(in_force(&mut next).await, Some(InForce::Preferred));
            lab.confirm(&mut next, Preference::Demoted).await;
            assert_eq!(fs::metadata(level()).unwrap().ino(), before);
            lab.router_has(Some(50));
        });
    });
}

#[test]
fn a_file_that_nothing_includes_is_told() {
    isolated(|| {
        let lab = lab();
        lab.run(async || {
            let folder = folder(lab.node.namespace());
            let (main, socket) = (folder.join("bird.conf"), folder.join("bird.ctl"));
            let mut bird = announcer(main, socket, levels().join("nobody.conf"));
            refused(&mut bird, Preference::Preferred, "nobody.conf in it, once").await;
            lab.router_has(Some(50));
        });
    });
}

/// What the daemon below was asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// A BIRD that takes its time: a load is in progress for a few looks.
fn slow_bird(folder: &Path, level: PathBuf, looks: u32) -> (PathBuf, Asked) {
    let path = folder.join("bird.ctl");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    let loaded = Arc::new(AtomicU32::new(50));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"0001 BIRD 3.3.2 ready.\n").unwrap();
            let mut left = looks;
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(line.clone());
                let value = loaded.load(Ordering::Relaxed);
                let answer = if line.starts_with("eval") {
                    format!("0023 {value}\n")
                } else if line == "show status" {
                    "1011- \n Current server time is 2030-01-01 00:00:01.000\n \
                     Last reconfiguration on 2030-01-01 00:00:01.000\n0013 Daemon is up\n"
                        .to_owned()
                } else if line == "configure check" {
                    "0020 Configuration OK\n".to_owned()
                } else if line == "configure" {
                    "0002-Reading configuration\n0004 Reconfiguration in progress\n".to_owned()
                } else if line == "configure status" && left > 0 {
                    left -= 1;
                    "0004-Reconfiguration in progress\n0000 \n".to_owned()
                } else if line == "configure status" {
                    let text = fs::read_to_string(&level).unwrap();
                    let value = if text.contains("200") { 200 } else { 50 };
                    loaded.store(value, Ordering::Relaxed);
                    "0003-Daemon is up and running\n0000 \n".to_owned()
                } else if line.starts_with("show protocols") {
                    let name = line.rsplit(' ').next().unwrap();
                    format!("1002-{name} BGP --- up 0 Established\n0000 \n")
                } else if line.starts_with("show route export") {
                    let prefix = line.rsplit(' ').next().unwrap();
                    format!(
                        "1007-{prefix} blackhole [floor 0] * (180)\n1012-\tbgp_local_pref: {value}\n\
                         0000 \n"
                    )
                } else {
                    "0010 ok\n".to_owned()
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (path, asked)
}

#[test]
fn a_load_in_progress_is_waited_for_and_then_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let (main, level) = (
        folder.path().join("bird.conf"),
        folder.path().join("level.conf"),
    );
    fs::write(&main, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let (socket, asked) = slow_bird(folder.path(), level.clone(), 3);
    let mut bird = announcer(main, socket, level);
    runtime().block_on(async {
        let applied = bird.apply(&now(Preference::Preferred)).await.unwrap();
        assert_eq!(applied, Applied::Confirmed);
    });
    let asked = asked.lock().unwrap();
    let count = |wanted: &str| asked.iter().filter(|line| *line == wanted).count();
    assert_eq!(count("configure status"), 4, "{asked:#?}");
    assert_eq!(
        (count("configure"), count("configure check")),
        (1, 1),
        "{asked:#?}"
    );
}

#[test]
fn a_load_that_does_not_end_is_told_and_not_repeated_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (main, level) = (
        folder.path().join("bird.conf"),
        folder.path().join("level.conf"),
    );
    fs::write(&main, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let (socket, asked) = slow_bird(folder.path(), level.clone(), u32::MAX);
    let mut bird = announcer(main, socket, level);
    runtime().block_on(async {
        refused(&mut bird, Preference::Preferred, "still loading").await;
    });
    let asked = asked.lock().unwrap();
    let loads = asked.iter().filter(|line| *line == "configure").count();
    assert_eq!(loads, 1, "{asked:#?}");
}
