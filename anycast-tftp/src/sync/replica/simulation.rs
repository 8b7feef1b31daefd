//! Several replicas in virtual time, with disks, crashes and a network that fails; and what must be
//! true of them at every step, and once everything is healed.

use super::*;
use crate::sync::manifest::Key;

mod invariants;
mod operator;
mod random;
mod world;

use random::Random;
use world::{Faults, World};

/// Seeds in an ordinary run; `SYNC_SEEDS` says otherwise.
const SEEDS: u64 = 600;

fn seeds() -> u64 {
    let seeds = std::env::var("SYNC_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// One life of a fleet: faults and edits, then peace, then what must be true.
fn run(seed: u64, is_origin: bool) -> Counts {
    let mut random = Random::new(seed);
    let nodes = 2 + random.below(5);
    let mut world = World::new(random, nodes, is_origin);
    world.faults = Faults::some(&mut world.random);
    let until = 20_000 + world.random.below(40_000) as u64;
    while world.step(until) {
        invariants::groups_are_whole(&world);
    }
    world.heal();
    let until = world.now + 400_000;
    while world.step(until) {
        invariants::groups_are_whole(&world);
    }
    invariants::manifests_are_equal(&world);
    invariants::disks_are_as_the_view_says(&world);
    invariants::nothing_is_lost(&world);
    invariants::a_manifest_is_what_its_entries_are(&world);
    invariants::all_are_ready(&mut world);
    world.counts()
}

fn run_all(is_origin: bool) {
    let only = std::env::var("SYNC_SEED").ok();
    if let Some(seed) = only.and_then(|seed| seed.parse().ok()) {
        run(seed, is_origin);
        return;
    }
    let mut sum = Counts::default();
    for seed in 0..seeds() {
        let result = std::panic::catch_unwind(|| run(seed, is_origin));
        let Ok(counts) = result else {
            panic!("seed {seed} (SYNC_SEED={seed} runs it alone)");
        };
        sum.edits += counts.edits;
        sum.deletions += counts.deletions;
        sum.installed += counts.installed;
        sum.removed += counts.removed;
        sum.merged += counts.merged;
        sum.lost += counts.lost;
        sum.repaired += counts.repaired;
        sum.failed += counts.failed;
    }
    println!("{sum:?}");
    assert!(sum.edits > 0 && sum.installed > 0 && sum.removed > 0 && sum.lost > 0);
}

#[test]
fn in_mode_multi_all_come_to_the_same_and_nothing_is_lost() {
    run_all(false);
}

#[test]
fn in_mode_origin_all_come_to_be_as_the_origin() {
    run_all(true);
}

impl Replica {
    /// For the message of a test that failed.
    fn explain(&self) -> String {
        let (work, groups) = (&self.work, &self.groups);
        let (vanished, is_held) = (&self.vanished, self.is_held);
        let (scan, troubles) = (&self.scan, &self.troubles);
        format!("{work:#?} {groups:#?} {vanished:?} {is_held} {scan:?} {troubles:?}")
    }
}
