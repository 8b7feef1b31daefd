//! Files that are the same at every site, with three real daemons: changed at one and read by curl at
//! the others, edited on both sides of a partition, killed in the middle, joined later;
//! and sites that know of each other by a bucket alone.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bucket;
mod groups;
mod lab;
mod modes;
mod operations;

use std::fs;

use anycast_labs::isolated_with;

use crate::lab::{Lab, noise, prepare};

const NAMES: [&str; 3] = ["ams1", "fra1", "lon1"];
const MULTI: &str = "mode = \"multi\"";

/// New, changed and deleted files, from every site to every site.
#[test]
fn what_changes_at_one_site_is_read_at_the_others() {
    isolated_with(prepare, || {
        let lab = Lab::start(&NAMES, MULTI);
        for (number, site) in lab.sites.iter().enumerate() {
            let file = format!("boot/from-{}", site.name);
            let content = noise(number as u64 + 1, 300_000);
            site.write(&file, &content);
            for other in &lab.sites {
                other.until(&format!("{file} to be there"), |site| {
                    site.fetch(&file).as_ref() == Some(&content)
                });
            }
        }
        let changed = noise(9, 100_001);
        lab.sites[1].write("boot/from-ams1", &changed);
        for other in &lab.sites {
            other.until("the change to be there", |site| {
                site.fetch("boot/from-ams1").as_ref() == Some(&changed)
            });
        }
        fs::remove_file(lab.sites[2].root.join("boot/from-fra1")).unwrap();
        for other in &lab.sites {
            other.until("the deletion to be there", |site| {
                site.fetch("boot/from-fra1").is_none() && site.read("boot/from-fra1").is_none()
            });
        }
        lab.await_agreed();
        let files = lab.sites[0].files();
        assert_eq!(files, ["boot/from-ams1", "boot/from-lon1", "health"]);
        for site in &lab.sites {
            assert_eq!(site.files(), files);
            let status = site.ctl(&["sync", "status"]);
            assert!(status.contains("files  ready"), "{status}");
            site.until("it to know that nothing differs", |site| {
                site.ctl(&["sync", "diff"])
                    .matches("nothing differs")
                    .count()
                    == 2
            });
            // What was done a moment ago counts to the first order.
            site.ctl(&["sync", "force"]);
            let again = site.ctl(&["sync", "force"]);
            assert!(again.contains("0 fetched, 0 sent, 0 removed"), "{again}");
        }
    });
}

/// Edits on both sides of a partition: both are there afterwards, at every site under the same
/// names; and an edit outlives a deletion that did not know of it.
#[test]
fn a_partition_that_heals_keeps_both_edits() {
    isolated_with(prepare, || {
        let lab = Lab::start(&NAMES, MULTI);
        for file in ["config", "menu"] {
            lab.sites[0].write(file, b"before");
            for site in &lab.sites {
                site.until("it to be there", |site| {
                    site.read(file).as_deref() == Some(b"before")
                });
            }
        }
        lab.await_agreed();
        lab.hub.cut("lon1").unwrap();
        let (ams1, fra1, lon1) = (&lab.sites[0], &lab.sites[1], &lab.sites[2]);
        lon1.write("config", b"edited at lon1");
        ams1.write("config", b"edited at ams1");
        fs::remove_file(ams1.root.join("menu")).unwrap();
        lon1.write("menu", b"edited, not deleted");
        fra1.until("the other side to agree", |site| {
            site.read("config").as_deref() == Some(b"edited at ams1") && site.read("menu").is_none()
        });
        lab.hub.heal("lon1").unwrap();
        for site in &lab.sites {
            site.until("both edits to be there", |site| {
                let files = site.files();
                let both = |content: &[u8]| {
                    let has = |file: &&String| site.read(file).as_deref() == Some(content);
                    files.iter().any(|file| has(&file))
                };
                both(b"edited at ams1")
                    && both(b"edited at lon1")
                    && site.read("menu").as_deref() == Some(b"edited, not deleted")
            });
        }
        lab.await_agreed();
        let files = ams1.files();
        assert_eq!(files.len(), 4, "{files:?}");
        assert!(files[1].starts_with("config.conflict-"), "{files:?}");
        for site in &lab.sites {
            assert_eq!(site.files(), files);
            for file in &files {
                assert_eq!(site.read(file), ams1.read(file), "{file}");
            }
            let status = site.ctl(&["sync", "status"]);
            assert!(status.contains("config.conflict-"), "{status}");
        }
    });
}

/// Killed in the middle of a large file: under its name there is nothing, or the old version, or
/// the new one; and it is completed after the restart.
#[test]
fn a_kill_in_the_middle_leaves_no_part_of_a_file() {
    isolated_with(prepare, || {
        let mut lab = Lab::start(&NAMES, MULTI);
        let old = noise(1, 20 << 20);
        lab.sites[0].write("image", &old);
        lab.sites[2].until("the first version", |site| {
            site.read("image").as_ref() == Some(&old)
        });
        for round in 0..4_u64 {
            let before = lab.sites[2].read("image").unwrap();
            let new = noise(10 + round, 120 << 20);
            lab.sites[0].write("image", &new);
            lab.sites[2].until("the transfer to begin", |site| {
                let staging = site.root.join(".anycast-tftp-sync/staging");
                let staged = fs::read_dir(staging).into_iter().flatten().flatten();
                let sizes = staged.filter_map(|file| file.metadata().ok());
                sizes.map(|file| file.len()).sum::<u64>() > round * (8 << 20)
                    || site.read("image").as_ref() == Some(&new)
            });
            lab.sites[2].kill();
            let found = lab.sites[2].read("image").unwrap();
            assert!(
                found == before || found == new,
                "a part of it, round {round}"
            );
            assert_eq!(lab.sites[2].files(), ["health", "image"]);
            lab.sites[2].start();
            lab.sites[2].until("the rest", |site| site.read("image").as_ref() == Some(&new));
        }
        lab.await_agreed();
    });
}

/// A site with an empty disk is not preferred before it has caught up, then is; and it takes
/// nothing from the others.
#[test]
fn a_fresh_site_is_not_preferred_before_it_has_caught_up() {
    isolated_with(prepare, || {
        let mut lab = Lab::new(&NAMES, MULTI);
        for site in &mut lab.sites[..2] {
            site.start();
        }
        for number in 0..200 {
            let content = noise(number + 1, 50_000);
            lab.sites[0].write(&format!("many/{number}"), &content);
        }
        lab.sites[0].write("large", &noise(7, 200 << 20));
        for site in &lab.sites[..2] {
            site.until("to be preferred, with all files", |site| {
                site.preference() == "preferred" && site.files().len() == 202
            });
        }
        let fresh = &mut lab.sites[2];
        fresh.start();
        fresh.until("to be preferred", |site| {
            let has_all = site.files().len() == 202;
            assert!(
                has_all || site.preference() != "preferred",
                "preferred before it has caught up: {:#}",
                site.sync()
            );
            site.preference() == "preferred"
        });
        lab.await_agreed();
        for site in &lab.sites {
            assert_eq!(site.files().len(), 202);
        }
    });
}
