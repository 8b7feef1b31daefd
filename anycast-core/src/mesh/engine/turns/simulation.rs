//! Nodes that take turns, in virtual time: real machines behind real engines, over connections that
//! lose, delay and double what is said, with deaths, restarts, cuts and clocks that do not run alike.
//! First everything goes wrong that can, then all heals, and everybody must be preferred.
//!
//! Everything depends on the seed alone. `TURNS_SEEDS=20000` runs more of them, `TURNS_SEED=17` one.

mod node;
mod world;

use self::world::{Counts, World};

const SEEDS: u64 = 600;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

#[test]
fn one_changes_at_a_time_and_everybody_joins_in_the_end() {
    let seeds = match number("TURNS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TURNS_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut total = Counts::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match World::run(seed) {
            Ok(counts) => total.add(&counts),
            Err(failure) => panic!("TURNS_SEED={seed}: {failure}"),
        }
    }
    println!("{count} seeds: {total:?}");
    if many {
        for (what, count) in total.all() {
            assert!(
                count >= 200,
                "{what} happened {count} times only: {total:?}"
            );
        }
    }
}
