//! Sites that know nothing of each other but a bucket of a real S3 server, which keeps it in memory:
//! when the server ends, the bucket is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anycast_labs::process::require_python;
use anycast_labs::{Netns, Proc, eventually, isolate, isolated_with};
use serde_json::Value;

use crate::lab::{Lab, PATIENCE, Site, noise, prepare};

const NAMES: [&str; 3] = ["ams1", "fra1", "lon1"];
/// Between the sites, where all of them reach it.
const SERVER: &str = "http://10.30.0.1:9000";

struct S3 {
    /// Dropped, it ends.
    _server: Proc,
}

impl S3 {
    /// A server with the bucket `boot`, in which there is nothing.
    fn start(hub: &Netns) -> Self {
        let mut command = Command::new(require_python("moto_server").unwrap());
        command.args(["--host", "0.0.0.0", "--port", "9000"]);
        let server = Proc::start(hub, "s3", &mut command).unwrap();
        eventually(PATIENCE, "the bucket to be made", || {
            curl(hub, &["-X", "PUT"], "boot").is_some()
        })
        .unwrap();
        Self { _server: server }
    }
}

/// What anyone with the key may do.
fn curl(hub: &Netns, arguments: &[&str], path: &str) -> Option<String> {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--fail", "--max-time", "10"])
        .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "id:secret"])
        .args(arguments)
        .arg(format!("{SERVER}/{path}"));
    let output = hub.output(&mut command).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// How many contents the bucket has.
fn contents(hub: &Netns) -> usize {
    let listing = curl(hub, &[], "boot?list-type=2&prefix=tftp%2Fobjects%2F");
    listing.map_or(0, |listing| listing.matches("<Key>").count())
}

/// The sites, of which none runs, and the server.
fn lab() -> (Lab, S3) {
    let credentials = isolate::work_dir().join("credentials");
    let text = "[default]\naws_access_key_id = id\naws_secret_access_key = secret\n";
    fs::write(&credentials, text).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let sync = format!(
        "mode = \"multi\"\n[sync.bucket]\nname = \"boot\"\nendpoint = \"{SERVER}\"\n\
         region = \"us-east-1\"\nprefix = \"tftp\"\ncredentials = \"{}\"\ninterval = \"500ms\"\n",
        credentials.display()
    );
    let lab = Lab::apart(&NAMES, &sync);
    let server = S3::start(&lab.hub);
    (lab, server)
}

/// These sites are ready and have the same, and so has the bucket.
fn await_agreed(sites: &[Site]) {
    let said = |site: &Site| site.ask("/status")["sync"]["digest"].clone();
    for site in sites {
        site.until("all to be in step by the bucket", |site| {
            let peers = site.sync()["peers"].as_array().cloned().unwrap_or_default();
            let in_step = |peer: &Value| peer["lag"]["state"] == "none";
            site.sync()["ready"] == true
                && peers.len() == 1
                && peers.iter().all(in_step)
                && sites.iter().all(|other| said(other) == said(site))
        });
    }
}

/// New, changed and deleted files, small ones and one of several parts.
#[test]
fn what_is_put_at_one_site_comes_to_the_others_by_a_bucket_alone() {
    isolated_with(prepare, || {
        let (mut lab, _server) = lab();
        for site in &mut lab.sites {
            site.start();
        }
        let large = noise(3, (20 << 20) + 1);
        lab.sites[0].write("boot/image", &large);
        lab.sites[1].write("boot/menu", b"one");
        lab.sites[2].write("boot/empty", b"");
        for site in &lab.sites {
            site.until("all files to be read by curl", |site| {
                site.fetch("boot/image").as_ref() == Some(&large)
                    && site.fetch("boot/menu").as_deref() == Some(b"one")
                    && site.fetch("boot/empty").as_deref() == Some(b"")
            });
        }
        await_agreed(&lab.sites);
        lab.sites[2].write("boot/menu", b"two");
        fs::remove_file(lab.sites[1].root.join("boot/image")).unwrap();
        for site in &lab.sites {
            site.until("the change and the deletion", |site| {
                site.fetch("boot/menu").as_deref() == Some(b"two")
                    && site.read("boot/image").is_none()
            });
        }
        await_agreed(&lab.sites);
        for site in &lab.sites {
            assert_eq!(site.files(), ["boot/empty", "boot/menu", "health"]);
            assert_eq!(site.preference(), "preferred");
            let status = site.ctl(&["sync", "status"]);
            assert!(status.contains("files  ready"), "{status}");
            site.until("it to know that nothing differs", |site| {
                site.ctl(&["sync", "diff"]).contains("nothing differs")
            });
            // What was done a moment ago counts to the first order.
            site.ctl(&["sync", "force"]);
            let again = site.ctl(&["sync", "force"]);
            assert!(again.contains("0 fetched, 0 sent, 0 removed"), "{again}");
        }
    });
}

/// A server that is away costs no site its files or its clients; one that comes back with nothing is
/// given all, and a site that is new then gets all from it before it is preferred.
#[test]
fn a_bucket_that_is_lost_is_filled_again_and_nothing_is_deleted() {
    isolated_with(prepare, || {
        let (mut lab, server) = lab();
        for site in &mut lab.sites[..2] {
            site.start();
        }
        for number in 0..100 {
            let content = noise(number + 1, 20_000);
            lab.sites[0].write(&format!("many/{number}"), &content);
        }
        for site in &lab.sites[..2] {
            site.until("to be preferred, with all files", |site| {
                site.preference() == "preferred" && site.files().len() == 101
            });
        }
        await_agreed(&lab.sites[..2]);
        // `health` is the same everywhere, and a content of its own.
        assert_eq!(contents(&lab.hub), 101);
        drop(server);
        lab.sites[0].write("while-it-is-away", &noise(500, 30 << 20));
        for site in &lab.sites[..2] {
            site.until("to say that it is away", |site| {
                site.ctl(&["sync", "status"]).contains(SERVER)
            });
            assert_eq!(site.preference(), "preferred");
            assert!(site.files().len() >= 101);
            assert!(site.fetch("many/7").is_some());
        }
        let _server = S3::start(&lab.hub);
        lab.sites[1].until("what was put meanwhile", |site| {
            site.files().len() == 102 && site.fetch("while-it-is-away").is_some()
        });
        await_agreed(&lab.sites[..2]);
        eventually(PATIENCE, "the bucket to have all again", || {
            contents(&lab.hub) == 102
        })
        .unwrap();
        lab.sites[2].start();
        lab.sites[2].until("to be preferred", |site| {
            let has_all = site.files().len() == 102;
            assert!(
                has_all || site.preference() != "preferred",
                "preferred before it has caught up: {:#}",
                site.sync()
            );
            site.preference() == "preferred"
        });
        await_agreed(&lab.sites);
        for site in &lab.sites {
            assert_eq!(site.files(), lab.sites[0].files());
            assert_eq!(site.files().len(), 102);
        }
    });
}

/// Both versions are at both sites afterwards, under the same names.
#[test]
fn edits_while_the_bucket_is_away_are_both_kept() {
    isolated_with(prepare, || {
        let (mut lab, server) = lab();
        for site in &mut lab.sites[..2] {
            site.start();
        }
        lab.sites[0].write("config", b"before");
        lab.sites[1].until("it to be there", |site| {
            site.read("config").as_deref() == Some(b"before")
        });
        await_agreed(&lab.sites[..2]);
        drop(server);
        lab.sites[0].write("config", b"edited at ams1");
        lab.sites[1].write("config", b"edited at fra1");
        for site in &lab.sites[..2] {
            site.until("to have published its edit", |site| {
                let counts = &site.ask("/status")["sync"]["counts"];
                counts["edits"].as_u64() >= Some(2)
            });
        }
        let _server = S3::start(&lab.hub);
        for site in &lab.sites[..2] {
            site.until("both edits to be there", |site| {
                let files = site.files();
                let has = |content: &[u8]| {
                    let mut found = files.iter();
                    found.any(|file| site.read(file).as_deref() == Some(content))
                };
                has(b"edited at ams1") && has(b"edited at fra1")
            });
        }
        await_agreed(&lab.sites[..2]);
        let (ams1, fra1) = (&lab.sites[0], &lab.sites[1]);
        let files = ams1.files();
        assert_eq!(fra1.files(), files);
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files[1].starts_with("config.conflict-"), "{files:?}");
        for file in &files {
            assert_eq!(ams1.read(file), fra1.read(file), "{file}");
        }
    });
}
