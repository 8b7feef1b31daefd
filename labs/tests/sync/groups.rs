//! Files that belong together: no client gets the kernel of one generation and the initrd of another.

use std::collections::BTreeSet;

use anycast_labs::isolated_with;

use crate::NAMES;
use crate::lab::{Lab, Site, noise, prepare};

const GROUP: &str = "mode = \"multi\"\nsettle = \"1s\"\nhold = \"60s\"\n\
                     [[sync.group]]\nname = \"boot\"\nfiles = [\"boot/kernel\", \"boot/initrd\"]";
const FILES: [&str; 2] = ["boot/kernel", "boot/initrd"];

fn content(generation: u64, file: &str) -> Vec<u8> {
    noise(generation * 2 + u64::from(file == FILES[1]), 400_000)
}

/// Which generation a client gets of a file.
fn generation(site: &Site, client: u8, file: &str) -> u64 {
    let found = site.fetch_as(client, file).unwrap();
    let is_it = |generation: &u64| content(*generation, file) == found;
    (1..=2).find(is_it).unwrap()
}

#[test]
fn a_client_boots_with_one_generation_whichever_sites_it_comes_to() {
    isolated_with(prepare, || {
        let lab = Lab::start(&NAMES, GROUP);
        let [ams1, fra1, lon1] = &lab.sites[..] else {
            panic!("three sites");
        };
        for file in FILES {
            ams1.write(file, &content(1, file));
        }
        for site in &lab.sites {
            site.until("the first generation", |site| {
                FILES
                    .iter()
                    .all(|file| site.read(file).as_ref() == Some(&content(1, file)))
            });
        }
        lab.await_agreed();
        let early = 2;
        assert_eq!(generation(ams1, early, FILES[0]), 1);
        for file in FILES {
            ams1.write(file, &content(2, file));
        }
        // New clients all the while, each of which begins at one site and ends at another.
        let mut new_at = BTreeSet::new();
        for client in 10..250_u8 {
            let first = usize::from(client) % 3;
            let (begins, ends) = (&lab.sites[first], &lab.sites[(first + 1) % 3]);
            let kernel = generation(begins, client, FILES[0]);
            let initrd = generation(ends, client, FILES[1]);
            assert_eq!(kernel, initrd, "{} and {}", begins.name, ends.name);
            if kernel == 2 {
                new_at.insert(begins.name.clone());
            }
            if new_at.len() == 3 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(new_at.len(), 3, "new clients get the new one: {new_at:?}");
        // The one that began before goes on with what it began with, at every site.
        assert_eq!(generation(fra1, early, FILES[1]), 1);
        assert_eq!(generation(lon1, early, FILES[1]), 1);
        assert_eq!(generation(lon1, early, FILES[0]), 1);
        lab.await_agreed();
        for site in &lab.sites {
            assert_eq!(site.files(), ["boot/initrd", "boot/kernel", "health"]);
        }
    });
}
