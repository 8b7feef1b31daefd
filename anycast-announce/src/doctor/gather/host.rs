//! The kernel's settings, the processes, and the unit files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Sight;
use super::super::kernel::{KernelFacts, Process, Unit};
use super::Places;
use crate::kernel::look;

/// CAP_NET_ADMIN in `CapEff`.
const NET_ADMIN: u64 = 1 << 12;
/// What the kernel keeps of a program's name.
const COMM: usize = 15;

pub(super) async fn kernel(places: &Places) -> KernelFacts {
    let addresses = match look::addresses().await {
        Ok(addresses) => Sight::Seen(addresses),
        Err(error) => Sight::Unseen(error.to_string()),
    };
    let units = places.units.iter().filter_map(|path| {
        Some(Unit {
            path: path.display().to_string(),
            text: fs::read_to_string(path).ok()?,
        })
    });
    KernelFacts {
        addresses,
        has_dummy: has_dummy(),
        reverse_path: match reverse_path() {
            Ok(found) => Sight::Seen(found),
            Err(error) => Sight::Unseen(error.to_string()),
        },
        processes: processes(&places.programs),
        units: units.collect(),
    }
}

/// Loaded, built in, or there to be loaded.
fn has_dummy() -> Sight<bool> {
    if Path::new("/sys/module/dummy").exists() {
        return Sight::Seen(true);
    }
    let release = match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(error) => return Sight::Unseen(error.to_string()),
    };
    let folder = Path::new("/lib/modules").join(release.trim());
    let mut texts = Vec::new();
    for name in ["modules.dep", "modules.builtin"] {
        match fs::read_to_string(folder.join(name)) {
            Ok(text) => texts.push(text),
            Err(error) => {
                return Sight::Unseen(format!("{}: {error}", folder.join(name).display()));
            }
        }
    }
    Sight::Seen(texts.iter().any(|text| text.contains("/dummy.ko")))
}

fn reverse_path() -> io::Result<Vec<(String, u8)>> {
    let folder = Path::new("/proc/sys/net/ipv4/conf");
    let value = |name: &str| -> io::Result<u8> {
        let text = fs::read_to_string(folder.join(name).join("rp_filter"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    let all = value("all")?;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "all" | "default" | "lo") {
            let own = value(&name)?;
            found.insert(name, own.max(all));
        }
    }
    Ok(found.into_iter().collect())
}

/// Its network namespace, where it may be known.
fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let number = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse().ok()
    };
    let mut all: Vec<u32> = entries.filter_map(number).collect();
    all.sort_unstable();
    all
}

/// The processes of these programs in this network namespace. One whose namespace may not be
/// known is taken for one of this.
pub(super) fn processes(programs: &[String]) -> Vec<Process> {
    let here = namespace("thread-self");
    let mut found = Vec::new();
    for pid in pids() {
        let Ok(comm) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
            continue; // gone
        };
        let comm = comm.trim_end();
        let program = programs.iter().find(|name| {
            let kept: String = name.chars().take(COMM).collect();
            kept == comm
        });
        let elsewhere = namespace(&pid.to_string()).is_some_and(|one| Some(one) != here);
        if let (Some(program), false) = (program, elsewhere) {
            found.push(Process {
                name: program.clone(),
                pid,
                may_change_addresses: capability(pid),
            });
        }
    }
    found
}

fn capability(pid: u32) -> Sight<bool> {
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(error) => return Sight::Unseen(error.to_string()),
    };
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let value = value.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    value.map_or_else(
        || Sight::Unseen(format!("/proc/{pid}/status has no CapEff")),
        |set| Sight::Seen(set & NET_ADMIN != 0),
    )
}

/// The file that the BIRD of this socket was started with, as its command line says.
pub(super) fn bird_config(socket: &Path) -> Option<PathBuf> {
    let birds = processes(&["bird".to_owned()]);
    let lines: Vec<Vec<String>> = birds
        .iter()
        .filter_map(|bird| {
            let bytes = fs::read(format!("/proc/{}/cmdline", bird.pid)).ok()?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Some(text.split('\0').map(str::to_owned).collect())
        })
        .collect();
    let after = |line: &[String], key: &str| -> Option<PathBuf> {
        let mut words = line.iter();
        words.find(|word| *word == key)?;
        words.next().map(PathBuf::from)
    };
    let has_socket = |line: &&Vec<String>| after(line, "-s").as_deref() == Some(socket);
    let line = lines.iter().find(has_socket).or(match &lines[..] {
        [only] => Some(only),
        _ => None,
    })?;
    after(line, "-c")
}
