//! What operators meet: a disk that is full, a site that is behind or cut off, a new key.

use anycast_labs::isolated_with;

use crate::lab::{Lab, noise, prepare};
use crate::{MULTI, NAMES};

/// It is reported, the site stays up and serves what it has, and is not preferred until there is
/// room.
#[test]
fn a_full_disk_is_told_and_the_site_goes_on_serving() {
    isolated_with(prepare, || {
        let mut lab = Lab::new(&NAMES, MULTI);
        lab.sites[1].disk("8m");
        for site in &mut lab.sites {
            site.start();
        }
        lab.await_agreed();
        let [ams1, fra1, lon1] = &lab.sites[..] else {
            panic!("three sites");
        };
        let small = noise(1, 100_000);
        ams1.write("small", &small);
        fra1.until("the small file", |site| {
            site.read("small").as_ref() == Some(&small)
        });
        fra1.until("to be preferred", |site| site.preference() == "preferred");
        let large = noise(2, 12 << 20);
        ams1.write("large", &large);
        lon1.until("the large file", |site| {
            site.read("large").as_ref() == Some(&large)
        });
        fra1.until("not to be preferred", |site| {
            site.preference() != "preferred"
        });
        let status = fra1.ctl(&["sync", "status"]);
        assert!(status.contains("no space left on the disk"), "{status}");
        assert!(!status.contains("files  ready"), "{status}");
        let diff = fra1.ctl(&["sync", "diff"]);
        assert!(diff.contains("large"), "{diff}");
        let diff = ams1.ctl(&["sync", "diff"]);
        assert!(diff.contains("1 missing"), "{diff}");
        // It serves what it has, and what it has not from the others.
        assert_eq!(fra1.fetch("small").as_ref(), Some(&small));
        assert!(fra1.fetch("large").as_ref() == Some(&large), "read through");
        assert_eq!(fra1.read("large"), None);
        for other in [ams1, lon1] {
            assert_eq!(other.preference(), "preferred", "{}", other.name);
        }
        fra1.disk("64m");
        let forced = fra1.ctl(&["sync", "force"]);
        assert!(forced.contains("1 fetched, 0 sent, 0 removed"), "{forced}");
        assert!(fra1.read("large").as_ref() == Some(&large));
        fra1.until("to be preferred", |site| site.preference() == "preferred");
        lab.await_agreed();
        let status = fra1.ctl(&["sync", "status"]);
        assert!(status.contains("files  ready"), "{status}");
        assert!(!status.contains("no space"), "{status}");
    });
}

/// A site that is cut off says so, and what it is ordered to do it cannot; nothing is changed by
/// that.
#[test]
fn a_site_that_is_cut_off_says_so() {
    isolated_with(prepare, || {
        let lab = Lab::start(&NAMES, MULTI);
        let [ams1, fra1, lon1] = &lab.sites[..] else {
            panic!("three sites");
        };
        ams1.write("file", b"content");
        lab.sites[2].until("the file", |site| site.read("file").is_some());
        lab.await_agreed();
        lab.hub.cut("lon1").unwrap();
        lon1.until("to be alone", |site| {
            site.ctl(&["sync", "diff"]).matches("it is not up").count() == 2
        });
        let refused = lon1.try_ctl(&["sync", "force"]).unwrap_err();
        assert!(refused.contains("no peer can be reached"), "{refused}");
        assert_eq!(lon1.fetch("file").as_deref(), Some(&b"content"[..]));
        lon1.until("to be preferred", |site| site.preference() == "preferred");
        // An order reconciles those who are there.
        fra1.until("the others to know", |site| {
            site.ctl(&["sync", "diff"]).contains("it is not up")
        });
        fra1.write("other", b"content");
        let forced = fra1.ctl(&["sync", "force"]);
        assert!(forced.contains("0 fetched, 1 sent, 0 removed"), "{forced}");
        assert_eq!(ams1.read("other").as_deref(), Some(&b"content"[..]));
        assert_eq!(lon1.read("other"), None);
        let diff = fra1.ctl(&["sync", "diff"]);
        assert_eq!(diff.matches("it is not up").count(), 1, "{diff}");
        lab.hub.heal("lon1").unwrap();
        lon1.until("what came meanwhile", |site| site.read("other").is_some());
        lab.await_agreed();
        for site in &lab.sites {
            site.until("it to know that nothing differs", |site| {
                site.ctl(&["sync", "diff"])
                    .matches("nothing differs")
                    .count()
                    == 2
            });
        }
    });
}

/// One site after another learns of the new key; then its owner takes it; then the old one goes.
#[test]
fn a_key_is_exchanged_and_no_file_is_lost() {
    isolated_with(prepare, || {
        let mut lab = Lab::start(&NAMES, MULTI);
        let mut written = 0;
        let mut write = |lab: &Lab| {
            for site in &lab.sites {
                site.write(&format!("file-{written}"), &noise(written, 50_000));
                written += 1;
            }
        };
        write(&lab);
        // The key is made, and not used yet by the process that runs.
        lab.sites[2].renew_key();
        lab.configure(MULTI);
        for number in [0, 1, 2] {
            lab.sites[number].kill();
            lab.sites[number].start();
            write(&lab);
        }
        lab.await_agreed();
        lab.sites[2].forget_old_keys();
        lab.configure(MULTI);
        for number in [0, 1] {
            lab.sites[number].kill();
            lab.sites[number].start();
            write(&lab);
        }
        for site in &lab.sites {
            site.until("all files", |site| {
                (0..18).all(|number| {
                    site.read(&format!("file-{number}")) == Some(noise(number, 50_000))
                })
            });
        }
        lab.await_agreed();
        assert_eq!(lab.sites[0].files().len(), 19);
    });
}
