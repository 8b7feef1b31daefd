//! The checks of this host.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anycast_core::health::BuildCheck;
use anycast_core::health::clock::ClockCheck;
use anycast_core::health::disk::DiskCheck;
use anycast_core::health::exec::{ExecCheck, OnTimeout};
use anycast_core::health::file::FileCheck;
use anycast_core::health::process::{ProcessCheck, Selector};
use anycast_core::testing::health_suite::Condition::{
    self, CheckerFails, Dead, Garbage, Refusing, Silent, Well, Wrong,
};
use anycast_core::testing::health_suite::HealthBench;
use anycast_labs::isolate::work_dir;
use async_trait::async_trait;

use crate::{builds, exhaust};

/// A file of the isolation, which ends with it.
fn path(name: &str) -> PathBuf {
    work_dir().join(name)
}

/// A bench whose conditions are brought about by a function.
pub(crate) struct Host {
    build: BuildCheck,
    conditions: Vec<Condition>,
    make: Box<dyn FnMut(Condition) + Send>,
    look: Box<dyn FnMut() -> String + Send>,
    pushes: bool,
    held: Vec<File>,
    /// The checker fails when it has no descriptor.
    needs_descriptors: bool,
}

impl Host {
    fn new(
        build: BuildCheck,
        conditions: &[Condition],
        make: impl FnMut(Condition) + Send + 'static,
    ) -> Self {
        Self {
            build,
            conditions: conditions.to_vec(),
            make: Box::new(make),
            look: Box::new(String::new),
            pushes: false,
            held: Vec::new(),
            needs_descriptors: true,
        }
    }
}

#[async_trait]
impl HealthBench for Host {
    fn build(&self) -> BuildCheck {
        self.build.clone()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.conditions.clone()
    }

    async fn bring_about(&mut self, condition: Condition) {
        self.held.clear();
        let exhausts = condition == CheckerFails && self.needs_descriptors;
        (self.make)(if exhausts { Well } else { condition });
        if exhausts {
            // What is still being closed is taken, too.
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                exhaust(&mut self.held);
            }
        }
    }

    fn pushes(&self) -> bool {
        self.pushes
    }

    async fn service(&mut self) -> String {
        (self.look)()
    }
}

/// A script does what a file says. It has no death to be told of, and refuses by its code.
pub(crate) async fn exec() -> Host {
    let file = path("behaviour");
    let script = format!("read behaviour <{}; eval \"$behaviour\"", file.display());
    let check = ExecCheck::new("/bin/sh").with_args(["-c", &script]);
    let check = check.with_on_timeout(OnTimeout::Unhealthy);
    let conditions = [Well, Silent, Wrong, Garbage, CheckerFails];
    Host::new(builds(check), &conditions, move |condition| {
        let line = match condition {
            Well => "exit 0",
            Silent => "sleep 1000",
            Garbage => "head -c 5000 /dev/urandom; exit 2",
            _ => "echo three of four are down; exit 1",
        };
        fs::write(&file, format!("{line}\n")).unwrap();
    })
}

struct Daemon(Option<Child>);

impl Daemon {
    fn signal(&self, name: &str) {
        let pid = self.0.as_ref().unwrap().id();
        let kill = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status();
        assert!(kill.unwrap().success());
        let stopped = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.contains(") T ")
        };
        while stopped() != (name == "STOP") {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A daemon with a pid file. A pid file that holds garbage blames nobody, so there is no such
/// condition; neither is silence: a stopped process is known to be stopped at once.
pub(crate) async fn process() -> Host {
    let file = path("daemon.pid");
    let mut daemon = Daemon(None);
    let selector = Selector::PidFile(file.clone());
    let check = ProcessCheck::new(selector).with_argument("1000");
    let conditions = [Well, Silent, Refusing, Wrong, Dead, CheckerFails];
    let mut host = Host::new(builds(check), &conditions, move |condition| {
        let seconds = if condition == Wrong { "2000" } else { "1000" };
        match condition {
            Refusing | Dead => return daemon.end(),
            _ => {
                daemon.end();
                let mut command = Command::new("/bin/sleep");
                command.arg(seconds).stdin(Stdio::null()).process_group(0);
                daemon.0 = Some(command.spawn().unwrap());
            }
        }
        let pid = daemon.0.as_ref().unwrap().id();
        fs::write(&file, format!("{pid}\n")).unwrap();
        if condition == Silent {
            daemon.signal("STOP");
        }
    });
    host.pushes = true;
    host
}

/// Needs no descriptor; what it cannot look at is a circle of links. A file system that hangs
/// cannot be had here, and a file says nothing that could be wrong but its size.
pub(crate) async fn file() -> Host {
    let file = path("zone");
    let check = FileCheck::new(&file).with_min_size(1);
    let shown = file.clone();
    let conditions = [Well, Refusing, Wrong, CheckerFails];
    let mut host = Host::new(builds(check), &conditions, move |condition| {
        let _ = fs::remove_file(&file);
        match condition {
            Refusing => {}
            CheckerFails => std::os::unix::fs::symlink(&file, &file).unwrap(),
            Wrong => fs::write(&file, "").unwrap(),
            _ => fs::write(&file, "content").unwrap(),
        }
    });
    host.needs_descriptors = false;
    host.look = Box::new(move || format!("{:?}", fs::metadata(&shown).unwrap().modified()));
    host
}

/// A small file system of its own, which is filled, made read-only, and taken away.
pub(crate) async fn disk() -> Host {
    let folder = path("disk");
    let check = DiskCheck::new(&folder).with_min_free(256 * 1024);
    let conditions = [Well, Wrong, Refusing, CheckerFails];
    let mut host = Host::new(builds(check), &conditions, move |condition| {
        let run = |line: &[&str]| Command::new(line[0]).args(&line[1..]).output().unwrap();
        let at = folder.to_str().unwrap();
        run(&["umount", at]);
        let _ = fs::remove_dir(&folder);
        if condition == CheckerFails {
            return;
        }
        fs::create_dir(&folder).unwrap();
        let mode = if condition == Refusing { "ro" } else { "rw" };
        let options = format!("size=1m,{mode}");
        let mounted = run(&["mount", "-t", "tmpfs", "-o", &options, "small", at]);
        assert!(mounted.status.success(), "{mounted:?}");
        if condition == Wrong {
            let full = fs::write(folder.join("filler"), vec![1; 2 << 20]).unwrap_err();
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        }
    });
    host.needs_descriptors = false;
    host
}

/// The host's clock is nobody's to spoil, so only an error that no clock keeps below is tried.
/// That the kernel refuses cannot be had without a filter of system calls.
pub(crate) async fn clock() -> Host {
    let check = ClockCheck::new().with_max_error(Duration::ZERO);
    Host::new(builds(check), &[Wrong], |_| {})
}
