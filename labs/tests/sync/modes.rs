//! One site's files are everybody's.

use std::fs;

use anycast_labs::isolated_with;

use crate::NAMES;
use crate::lab::{Lab, noise, prepare};

const ORIGIN: &str = "mode = \"origin\"\norigin = \"ams1\"";

#[test]
fn a_mirror_is_what_its_origin_is() {
    isolated_with(prepare, || {
        let lab = Lab::start(&NAMES, ORIGIN);
        let [ams1, fra1, lon1] = &lab.sites[..] else {
            panic!("three sites");
        };
        let image = noise(1, 300_000);
        ams1.write("boot/image", &image);
        for site in &lab.sites {
            site.until("the image", |site| {
                site.read("boot/image").as_ref() == Some(&image)
            });
        }
        // Changed, and deleted, by hand.
        fra1.write("boot/image", b"tampered");
        fs::remove_file(lon1.root.join("boot/image")).unwrap();
        for site in [fra1, lon1] {
            site.until("it to be repaired", |site| {
                site.fetch("boot/image").as_ref() == Some(&image)
                    && site.read("boot/image").as_ref() == Some(&image)
            });
        }
        assert_eq!(ams1.read("boot/image").as_ref(), Some(&image));
        let status = fra1.ctl(&["sync", "status"]);
        assert!(status.contains("only the origin may"), "{status}");
        // By clients: at the origin alone.
        assert!(!fra1.put("boot/written", b"at a mirror"));
        assert!(ams1.put("boot/written", b"at the origin"));
        let image = noise(2, 300_000);
        ams1.write("boot/image", &image);
        for site in &lab.sites {
            site.until("what is new at the origin", |site| {
                site.fetch("boot/image").as_ref() == Some(&image)
                    && site.fetch("boot/written").as_deref() == Some(b"at the origin")
            });
        }
        // What only a mirror has stays there, and goes nowhere.
        fra1.write("notes", b"of fra1");
        fs::remove_file(ams1.root.join("boot/written")).unwrap();
        for site in &lab.sites {
            site.until("the deletion", |site| site.read("boot/written").is_none());
        }
        lab.await_agreed();
        assert_eq!(ams1.files(), ["boot/image", "health"]);
        assert_eq!(lon1.files(), ["boot/image", "health"]);
        assert_eq!(fra1.files(), ["boot/image", "health", "notes"]);
    });
}
