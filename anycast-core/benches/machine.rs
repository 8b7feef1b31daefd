//! How many events a second one machine takes: `cargo bench -p anycast-core --bench machine`.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark starts somewhere in real time"
)]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anycast_core::announce::InForce;
use anycast_core::machine::{Budget, CheckId, CheckRule, FlapPolicy, Identity, Machine, Policy};
use anycast_core::{CheckName, Role, ServiceAddresses, ServiceName, Verdict};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const EVENTS: u32 = 1000;
const MILLISECOND: Duration = Duration::from_millis(1);

fn machine(start: Instant) -> Option<Machine> {
    let address = "192.0.2.53/32".parse().ok()?;
    let identity = Identity {
        service: ServiceName::new("dns").ok()?,
        addresses: ServiceAddresses::new(vec![address]).ok()?,
        role: Role::Primary,
    };
    let names = ["tcp", "file", "process"];
    let rules: Vec<CheckRule> = names
        .iter()
        .filter_map(|name| CheckName::new(name).ok())
        .map(CheckRule::from)
        .collect();
    let policy = Policy {
        fall: NonZeroU32::MIN,
        rise: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        budget: Budget::OFF,
        flap: FlapPolicy::OFF,
        ..Policy::default()
    };
    let mut machine =
        Machine::new(identity, policy, &rules, Some(InForce::Preferred), start).ok()?;
    for check in 0..3 {
        machine.handle_verdict(start, CheckId::new(check), Verdict::Healthy);
    }
    Some(machine)
}

fn events(criterion: &mut Criterion) {
    let start = Instant::now();
    let Some(steady) = machine(start) else {
        return;
    };
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(u64::from(EVENTS)));
    let mut run = |name: &str, each: fn(&mut Machine, Instant, u32)| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || steady.clone(),
                |machine| {
                    for n in 0..EVENTS {
                        each(machine, start + MILLISECOND * n, n);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    };
    run("healthy", |machine, now, n| {
        let check = CheckId::new((n % 3) as usize);
        machine.handle_verdict(now, check, black_box(Verdict::Healthy));
    });
    run("healthy, and the decision", |machine, now, n| {
        let check = CheckId::new((n % 3) as usize);
        machine.handle_verdict(now, check, black_box(Verdict::Healthy));
        black_box(machine.decide(now));
    });
    run(
        "one in two fails: every event changes the route",
        |machine, now, n| {
            let verdict = if n % 2 == 0 {
                Verdict::gone("exited")
            } else {
                Verdict::Healthy
            };
            machine.handle_verdict(now, CheckId::new(0), black_box(verdict));
            while machine.poll_event().is_some() {}
        },
    );
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
