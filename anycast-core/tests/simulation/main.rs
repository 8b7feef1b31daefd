//! A fleet of three to seven nodes in virtual time: first everything goes wrong that can, then
//! all heals. Each rule of `anycast_core::invariants` is judged on what every node was told,
//! decided and had in force, and on the fleet; after the healing every node must be preferred
//! again.
//!
//! Everything depends on the seed alone. `SIMULATION_SEEDS=5000` runs more of them,
//! `SIMULATION_SEED=17` one. A seed that fails is run again with a trace, up to the event that
//! broke the rule, whose end is printed.

#![cfg(feature = "testing")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test starts somewhere in real time, and fails by panicking"
)]

mod chaos;
mod message;
mod node;
mod rng;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::{Counts, Failure, SECOND, Setting, World};

const SEEDS: u64 = 500;
const CHAOS: u64 = 240 * SECOND;

fn setting(seed: u64) -> Setting {
    Setting {
        seed,
        jumps: true,
        reboots: true,
        tracing: false,
        chaos: CHAOS,
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

fn one(base: Instant, setting: Setting) -> Result<Counts, Failure> {
    let mut world = World::new(base, setting);
    world.run()?;
    world.restart_quietly()?;
    Ok(world.counts)
}

/// Runs a seed, and if it fails once more to tell how.
fn judge(base: Instant, seed: u64) -> Result<Counts, String> {
    let first = match one(base, setting(seed)) {
        Ok(counts) => return Ok(counts),
        Err(first) => first,
    };
    let traced = Setting {
        tracing: true,
        ..setting(seed)
    };
    let failure = one(base, traced).err().unwrap_or(first);
    let tail = failure.tail.join("\n");
    Err(format!(
        "SIMULATION_SEED={seed}: {}\n{tail}\n{}",
        failure.violation, failure.violation
    ))
}

/// Runs all seeds on every core, and adds up what happened in them.
fn all(seeds: std::ops::Range<u64>) -> Counts {
    let base = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut total = Counts::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(total);
            }
            let counts = judge(base, seed).inspect_err(|_| {
                next.store(seeds.end, Ordering::Relaxed);
            })?;
            for (what, count) in counts {
                *total.entry(what).or_default() += count;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let results: Vec<Result<Counts, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let mut total = Counts::new();
    for result in results {
        for (what, count) in result.unwrap_or_else(|failure| panic!("{failure}")) {
            *total.entry(what).or_default() += count;
        }
    }
    total
}

#[test]
fn every_rule_holds_and_every_node_comes_back() {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS).max(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let began = Instant::now();
    let counts = all(seeds.clone());
    println!(
        "{} seeds in {:?}: {counts:?}",
        seeds.end - seeds.start,
        began.elapsed()
    );
    // Each state was reached, and each misfortune had its chance, many times over.
    let wanted = [
        "adopted",
        "healthy",
        "held",
        "waiting",
        "parked",
        "rising",
        "failed",
        "yielded",
        "drained",
        "withdrawn",
        "drained to the end",
        "kill",
        "reboot",
        "stall",
        "grant",
    ];
    for what in wanted {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(
            !many || count >= 100,
            "{what} happened {count} times only: {counts:?}"
        );
    }
}
