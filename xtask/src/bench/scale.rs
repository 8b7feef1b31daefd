//! What many services cost: CPU time and memory of the checkers on one CPU.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::isolate::work_dir;

use super::subject::{self, Running, Service, failed, until};
use crate::run::Failure;

/// Services under `anycast-guard`.
const SERVICES: u32 = 1000;
/// Services under the others: each check of theirs is a process or more.
const OTHERS: u32 = 50;
/// How long is measured, after a time in which everything settles.
const MEASURED: Duration = Duration::from_secs(60);
const OTHERS_MEASURED: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;

struct Row {
    name: String,
    services: u32,
    cpu: f64,
    peak: f64,
}

pub(super) fn run() -> Result<String, Failure> {
    // Each check holds a descriptor or two.
    raise_limit()?;
    let folder = work_dir().join("scale");
    let service = Service::start(&folder.join("nginx"), PORT)?;
    let mut rows = Vec::new();
    for kind in ["tcp", "http"] {
        for services in [SERVICES / 10, SERVICES] {
            rows.push(guard(&folder, &service, kind, services)?);
        }
    }
    rows.push(exabgp(&folder, &service)?);
    rows.extend(healthchecker(&folder, &service)?);
    Ok(table(&rows))
}

fn raise_limit() -> Result<(), Failure> {
    let me = std::process::id().to_string();
    let status = Command::new("prlimit")
        .args(["--pid", &me, "--nofile=16384:"])
        .status()
        .map_err(|e| failed("prlimit (util-linux)", e))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(
            "16,384 descriptors are needed; raise the limit: ulimit -Hn",
        ))
    }
}

/// From 198.18.0.0/15, which is for benchmarks (RFC 2544).
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + n)
}

fn guard(folder: &Path, service: &Service, kind: &str, services: u32) -> Result<Row, Failure> {
    let folder = folder.join(format!("{kind}{services}"));
    fs::create_dir_all(&folder).map_err(|e| failed("folder", e))?;
    let mut text = subject::guard_head(&folder, "svc0");
    for n in 0..services {
        let flag = folder.join(format!("f{n}"));
        fs::write(&flag, "ok\n").map_err(|e| failed("flag", e))?;
        text += &format!(
            "\n[[service]]\nname = \"s{n}\"\naddresses = [\"{}/32\"]\nhold_down = \"1s\"\n\
             [[service.check]]\nkind = \"{kind}\"\nport = {PORT}\ninterval = \"1s\"\n\
             [[service.check]]\nkind = \"file\"\npath = \"{}\"\ninterval = \"1s\"\n\
             [[service.check]]\nkind = \"process\"\npid_file = \"{}\"\ninterval = \"1s\"\n",
            address(n),
            flag.display(),
            service.pid_file().display(),
        );
    }
    let config = folder.join("guard.toml");
    fs::write(&config, text).map_err(|e| failed("guard.toml", e))?;
    let log = folder.join("log.txt");
    let running = Running::start(0, &subject::guard_line(&config)?, &log)?;
    let all = || on_loopback() >= services as usize;
    until("the boosts of all services", || {
        thread::sleep(Duration::from_millis(200));
        all()
    })
    .map_err(|e| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(5).collect();
        failed(
            kind,
            format!("{e}; {} of {services}; {}", on_loopback(), tail.join("\n")),
        )
    })?;
    let row = watch(
        format!("anycast-guard: `{kind}`, `file`, `process`"),
        services,
        MEASURED,
        &[running],
    )?;
    if !all() {
        return Err(Failure::new(format!(
            "{kind}: only {} boosts of {services} are left",
            on_loopback()
        )));
    }
    // The next one is to begin with nothing of this.
    for device in ["svc0", "lo"] {
        let _ = Command::new("ip")
            .args(["address", "flush", "dev", device, "to", "198.18.0.0/15"])
            .status();
    }
    Ok(row)
}

fn on_loopback() -> usize {
    let shown = Command::new("ip")
        .args([
            "-o",
            "-4",
            "address",
            "show",
            "dev",
            "lo",
            "to",
            "198.18.0.0/15",
        ])
        .output();
    shown.map_or(0, |output| {
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    })
}

/// The same three questions, as a command.
fn command(folder: &Path, service: &Service) -> String {
    let (flag, pid) = (folder.join("flag"), service.pid_file());
    format!(
        "/bin/bash -c '</dev/tcp/127.0.0.1/{PORT} && [ -e {} ] && read p <{} && kill -0 $p'",
        flag.display(),
        pid.display()
    )
}

fn exabgp(folder: &Path, service: &Service) -> Result<Row, Failure> {
    fs::write(folder.join("flag"), "").map_err(|e| failed("flag", e))?;
    let command = command(folder, service);
    let mut running = Vec::new();
    for n in 0..OTHERS {
        let line = subject::exabgp_line(&address(n).to_string(), &command);
        running.push(Running::start(0, &line, &folder.join("exabgp.txt"))?);
    }
    watch(
        "exabgp healthcheck: the same in one command, a process a service".to_owned(),
        OTHERS,
        OTHERS_MEASURED,
        &running,
    )
}

fn healthchecker(folder: &Path, service: &Service) -> Result<Option<Row>, Failure> {
    let command = command(folder, service);
    let services: Vec<_> = (0..OTHERS)
        .map(|n| (address(n).to_string(), command.clone()))
        .collect();
    let folder = folder.join("healthchecker");
    let Some(line) = subject::healthchecker_line(&folder, "1", &services)? else {
        return Ok(None);
    };
    let running = Running::start(0, &line, &folder.join("log.txt"))?;
    let has_all = || {
        let text = fs::read_to_string(folder.join("prefixes.conf")).unwrap_or_default();
        text.matches("198.18.").count() >= OTHERS as usize
    };
    until("anycast-healthchecker", has_all)?;
    watch(
        "anycast-healthchecker: the same in one command".to_owned(),
        OTHERS,
        OTHERS_MEASURED,
        &[running],
    )
    .map(Some)
}

fn watch(name: String, services: u32, time: Duration, running: &[Running]) -> Result<Row, Failure> {
    thread::sleep(SETTLE);
    let cpu = || running.iter().map(Running::cpu).sum::<f64>();
    let (start, before) = (Instant::now(), cpu());
    thread::sleep(time);
    let cpu = (cpu() - before) / start.elapsed().as_secs_f64() * 100.0;
    let peak = running.iter().map(Running::peak).sum();
    if cpu == 0.0 {
        return Err(Failure::new(format!("{name}: used no CPU; did it end?")));
    }
    Ok(Row {
        name,
        services,
        cpu,
        peak,
    })
}

fn table(rows: &[Row]) -> String {
    let each = |row: &Row| row.cpu / f64::from(row.services);
    let ours = rows.get(1).map_or(1.0, each);
    let mut text = "\n## Many services, three checks each, every 1 s, on one CPU\n\n\
                    | checker | services | CPU % | CPU % a service | ÷ guard with 1,000 | peak MiB |\n\
                    |---|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        let (cpu, each) = (row.cpu, each(row));
        text += &format!(
            "| {} | {} | {cpu:.1} | {each:.4} | {:.1} | {:.0} |\n",
            row.name,
            row.services,
            each / ours,
            row.peak
        );
    }
    text
}
