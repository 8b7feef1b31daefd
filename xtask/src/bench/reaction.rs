//! From SIGKILL of the guarded process to the change of its address: on `lo` for those that
//! move addresses, in BIRD's include file for anycast-healthchecker. One clock for both ends.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::isolate::work_dir;

use super::subject::{self, Addresses, Running, Service, failed, until};
use crate::run::Failure;

/// Kills of the service under the check `process`, which is told of a death.
const KILLS: usize = 200;
/// Kills under checks that ask once a second; each costs seconds.
const POLLED_KILLS: usize = 60;

/// One measured checker.
struct Row {
    name: &'static str,
    latencies: Vec<Duration>,
    cpu: f64,
    wall: f64,
    peak: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Guard(&'static str),
    Exabgp,
    Healthchecker(&'static str),
}

pub(super) fn run() -> Result<String, Failure> {
    let asked = std::env::var("BENCH_POLLED_KILLS").ok();
    let polled_kills = asked.and_then(|n| n.parse().ok()).unwrap_or(POLLED_KILLS);
    let process = "kind = \"process\"\npid_file = \"{pid}\"\ninterval = \"200ms\"\n";
    let tcp = "kind = \"tcp\"\nport = {port}\ninterval = \"1s\"\ntimeout = \"500ms\"\n";
    let fast = "kind = \"tcp\"\nport = {port}\ninterval = \"100ms\"\ntimeout = \"90ms\"\n";
    let first = [("anycast-guard, `process`", Kind::Guard(process), KILLS)];
    let polled = [
        (
            "anycast-guard, `tcp` every 1 s",
            Kind::Guard(tcp),
            polled_kills,
        ),
        (
            "exabgp healthcheck, every 1 s (its shortest)",
            Kind::Exabgp,
            polled_kills,
        ),
        (
            "anycast-healthchecker, every 1 s",
            Kind::Healthchecker("1"),
            polled_kills,
        ),
        (
            "anycast-guard, `tcp` every 100 ms",
            Kind::Guard(fast),
            polled_kills,
        ),
        (
            "anycast-healthchecker, every 100 ms",
            Kind::Healthchecker("0.1"),
            polled_kills,
        ),
    ];
    let mut rows = Vec::new();
    // Those that poll run side by side: they wait, and hardly touch the CPU.
    let mut number = 0;
    let mut missing = String::new();
    // The last by itself: only one anycast-healthchecker runs in a network namespace.
    let (polled, last) = polled.split_at(4);
    for group in [&first[..], polled, last] {
        let measured: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = group
                .iter()
                .map(|&(name, kind, kills)| {
                    number += 1;
                    scope.spawn(move || measure(name, kind, kills, number))
                })
                .collect();
            running
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for row in measured {
            match row.map_err(|_| Failure::new("a measurement panicked"))? {
                Ok(row) => rows.extend(row),
                Err(error) => missing += &format!("\nNot measured: {error}\n"),
            }
        }
    }
    Ok(table(&rows) + &missing)
}

fn measure(name: &'static str, kind: Kind, kills: usize, n: u16) -> Result<Option<Row>, Failure> {
    let folder = work_dir().join(format!("r{n}"));
    let port = 8000 + n;
    let ip = format!("198.51.100.{n}");
    let mut service = Service::start(&folder.join("nginx"), port)?;
    let addresses = Addresses::watch(&ip)?;
    let prefixes = folder.join("prefixes.conf");
    let command = format!("/bin/bash -c '</dev/tcp/127.0.0.1/{port}'");
    let line = match kind {
        Kind::Guard(check) => guard(&folder, check, &service, &ip, n, port)?,
        Kind::Exabgp => subject::exabgp_line(&ip, &command),
        Kind::Healthchecker(interval) => {
            let services = [(ip.clone(), command)];
            match subject::healthchecker_line(&folder, interval, &services)? {
                Some(line) => line,
                None => return Ok(None),
            }
        }
    };
    let has = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(&ip));
    let next = |gone: bool| match kind {
        Kind::Guard(_) | Kind::Exabgp => addresses.next(gone),
        Kind::Healthchecker(_) => until("prefixes.conf", || has(&prefixes) != gone),
    };
    let log = folder.join("log.txt");
    let checker = Running::start(0, &line, &log)?;
    let said = |e: Failure| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        failed(name, format!("{e}; it said: {log}"))
    };
    next(false).map_err(said)?;
    let (start, before) = (Instant::now(), checker.cpu());
    let mut latencies = Vec::with_capacity(kills);
    let mut random = u64::from(n) + 1;
    for _ in 0..kills {
        // Anywhere within a polling period.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let period = if kills == KILLS { 200 } else { 1000 };
        thread::sleep(Duration::from_millis((random >> 33) % period));
        let killed = service.kill()?;
        latencies.push(next(true).map_err(said)?.saturating_duration_since(killed));
        service.restart()?;
        next(false).map_err(said)?;
    }
    latencies.sort();
    Ok(Some(Row {
        name,
        latencies,
        cpu: checker.cpu() - before,
        wall: start.elapsed().as_secs_f64(),
        peak: checker.peak(),
    }))
}

fn guard(
    folder: &Path,
    check: &str,
    service: &Service,
    ip: &str,
    n: u16,
    port: u16,
) -> Result<Vec<String>, Failure> {
    let check = check
        .replace("{pid}", &service.pid_file().display().to_string())
        .replace("{port}", &port.to_string());
    let text = subject::guard_head(folder, &format!("svc{n}"))
        + &format!(
            "\n[[service]]\nname = \"s{n}\"\naddresses = [\"{ip}/32\"]\nrise = 1\nfall = 1\n\
             hold_down = \"0s\"\nbudget_burst = 1000\nbudget_refill = \"1ms\"\nflap_limit = 0\n\n\
             [[service.check]]\n{check}"
        );
    let config = folder.join("guard.toml");
    fs::write(&config, text).map_err(|e| failed("guard.toml", e))?;
    subject::guard_line(&config)
}

fn table(rows: &[Row]) -> String {
    let at = |row: &Row, percent| subject::percentile(&row.latencies, percent);
    let ours = rows.first().map_or(1.0, |row| at(row, 50));
    let mut text = "\n## From the death of the service to the change of its address\n\n\
                    | checker | kills | p50 ms | p99 ms | max ms | p50 ÷ `process` | its CPU % | peak MiB |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        text += &format!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.2} | {:.0} |\n",
            row.name,
            row.latencies.len(),
            at(row, 50),
            at(row, 99),
            at(row, 100),
            at(row, 50) / ours,
            row.cpu / row.wall * 100.0,
            row.peak,
        );
    }
    text
}
