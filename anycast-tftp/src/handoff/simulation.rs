//! Several nodes, clients of all kinds and the network between them in virtual time: routes move at
//! any packet, nodes die, stand still and drain, the mesh falls apart. What must be true of it is in
//! `invariants`, and what is promised of a transfer in `promise`.
//!
//! Everything depends on the seed alone. `HANDOFF_SEEDS=20000` runs more of them, `HANDOFF_SEED=17`
//! one; a seed that fails is run again with a trace, whose end is printed. `HANDOFF_TRACE=1` prints
//! it in any case.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

mod client;
mod faults;
mod files;
mod host;
mod invariants;
mod jobs;
mod mesh;
mod owners;
mod plan;
mod promise;
mod random;
mod routes;
mod scenes;
mod setting;
mod world;

use setting::Setting;
use world::{Counts, Failure, World};

/// Seeds in an ordinary run.
const SEEDS: u64 = 2000;
/// Lines of the trace of a failure, unless all are asked for.
const SHOWN: usize = 300;
/// Failures that are told.
const TOLD: usize = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// One run; a panic of a node is a failure of it.
fn run(seed: u64, setting: &Setting, is_tracing: bool) -> Result<World, Failure> {
    let world = World::new(seed, setting.clone(), is_tracing);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure {
            rule: format!("a panic: {}", text.unwrap_or_default()),
            tail: Vec::new(),
        })
    })
}

/// A run that must hold; told with a trace if it does not.
fn holds(seed: u64, setting: &Setting) -> World {
    let is_tracing = number("HANDOFF_TRACE").is_some();
    match run(seed, setting, is_tracing) {
        Ok(world) => {
            if is_tracing {
                println!("{}", world.trace());
            }
            world
        }
        Err(failure) => {
            let again = run(seed, setting, true).err().unwrap_or(failure);
            let from = again.tail.len().saturating_sub(SHOWN);
            let lines = number("HANDOFF_TRACE").map_or(from, |_| 0);
            let lines = again.tail[lines..].join("\n");
            panic!("{setting:?}\n{lines}\n{}", again.rule);
        }
    }
}

/// Runs all seeds on every core, and adds up what happened in them.
fn all(plan: fn(u64) -> Setting) -> Counts {
    if let Some(seed) = number("HANDOFF_SEED") {
        return holds(seed, &plan(seed)).counts;
    }
    let seeds = number("HANDOFF_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let results = Mutex::new((Counts::new(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let result = run(seed, &plan(seed), false);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(world) => {
                    for (what, count) in world.counts {
                        *results.0.entry(what).or_default() += count;
                    }
                }
                Err(failure) => results.1.push((seed, failure.rule)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (counts, mut failed) = results.into_inner().unwrap();
    println!("{counts:#?}");
    failed.sort();
    for (seed, rule) in failed.iter().take(TOLD) {
        println!("HANDOFF_SEED={seed}: {rule}");
    }
    if let Some((seed, _)) = failed.first() {
        println!("{} of {seeds} seeds failed", failed.len());
        holds(*seed, &plan(*seed));
    }
    counts
}

/// Seeds of which each once showed a fault that the first [`SEEDS`] do not, for as long as they draw
/// the same.
const FOUND: [u64; 23] = [
    2_462, 8_774, 12_464, 13_301, 14_152, 19_699, 29_057, 33_674, 34_634, 36_190, 36_416, 40_486,
    44_447, 51_494, 52_728, 60_403, 65_178, 68_689, 78_071, 81_504, 81_665, 84_219, 96_754,
];

#[test]
fn what_was_found_once_stays_mended() {
    for seed in FOUND {
        holds(seed, &plan::random(seed));
    }
}

/// What the server engine alone can do as well.
#[test]
fn where_routes_never_move_every_file_is_read() {
    let counts = all(plan::still);
    assert!(!counts.contains_key("failed") && counts["whole"] > 0);
}

#[test]
fn transfers_survive_what_is_promised_and_no_byte_is_ever_wrong() {
    let counts = all(plan::random);
    if number("HANDOFF_SEED").is_some() {
        return;
    }
    for what in [
        "moves", "deaths", "pauses", "cuts", "drains", "replaced", "lost",
    ] {
        assert!(counts.contains_key(what), "{what} never happened");
    }
}
