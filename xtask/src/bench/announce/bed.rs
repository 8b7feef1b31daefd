//! The router and its two sites.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::isolate::work_dir;
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, link};

use super::super::subject::failed;
use super::{Subject, config};
use crate::run::Failure;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Bed {
    /// Site a, where a daemon routes there; its namespace else.
    first: Result<Node, Netns>,
    _second: Node,
    pub(super) router: Node,
    pub(super) routes: Routes,
    pub(super) folder: PathBuf,
    count: u32,
}

impl Bed {
    pub(super) fn build(subject: Subject, count: u32) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| failed("the network", error);
        let [router, a, b] = ["router", "site-a", "site-b"].map(Netns::new);
        let router = router.map_err(|e| wrong(&e))?;
        let (a, b) = (a.map_err(|e| wrong(&e))?, b.map_err(|e| wrong(&e))?);
        for (site, device, number) in [(&a, "a", 1), (&b, "b", 2)] {
            link(site, "up", &router, device).map_err(|e| wrong(&e))?;
            for (namespace, device, host) in [(site, "up", 2), (&router, device, 1)] {
                let address = format!("10.10.{number}.{host}/24");
                namespace.address(device, &address).map_err(|e| wrong(&e))?;
            }
        }
        let folder = work_dir().join("announce");
        // What an earlier bed has left.
        for left in ["announce", "router", "site-a", "site-b"] {
            let _ = fs::remove_dir_all(work_dir().join(left));
        }
        fs::create_dir_all(&folder).map_err(|e| failed("folder", e))?;
        let include = folder.join("level.conf");
        let demoted = "# Written by anycast, and replaced at every change of preference.\n\
                       define anycast_level = 50;\n";
        fs::write(&include, demoted).map_err(|e| failed("include", e))?;
        let routes = Routes::watch(&router)?;
        let text = config::router(&dump_path(&router));
        let router = Node::start(router, Kind::Bird, &text).map_err(|e| wrong(&e))?;
        let second = Node::start(b, Kind::Bird, &config::second(count)).map_err(|e| wrong(&e))?;
        let first = match subject.kind() {
            None => Err(a),
            Some(kind) => {
                let text = config::first(subject, kind, count, &include);
                Ok(Node::start(a, kind, &text).map_err(|e| wrong(&e))?)
            }
        };
        Ok(Self {
            first,
            _second: second,
            router,
            routes,
            folder,
            count,
        })
    }

    /// Site a's.
    pub(super) fn namespace(&self) -> &Netns {
        match &self.first {
            Ok(node) => node.namespace(),
            Err(namespace) => namespace,
        }
    }

    pub(super) fn include(&self) -> PathBuf {
        self.folder.join("level.conf")
    }

    /// Where site a's daemon has its sockets.
    pub(super) fn sockets(&self) -> PathBuf {
        work_dir().join(self.namespace().name())
    }

    /// Waits until the router's every route goes to this device, and forgets what was reported.
    pub(super) fn await_best(&self, device: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let router = self.router.namespace();
        let wanted = usize::try_from(self.count).unwrap_or(usize::MAX);
        loop {
            let listed = router.run("ip -4 route").map_err(|e| failed("routes", e))?;
            let ours = listed.lines().filter(|line| line.starts_with("10.128."));
            let there = ours.filter(|line| line.contains(&format!(" dev {device} ")));
            if there.count() == wanted {
                break;
            }
            if Instant::now() > deadline {
                return Err(failed(
                    "the router",
                    format!("no best path by {device}: {listed}"),
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.routes.forget();
        Ok(())
    }
}

/// The kernel's own report of the routes that the router lays.
pub(super) struct Routes {
    lines: mpsc::Receiver<(Instant, String)>,
    monitor: Child,
}

impl Routes {
    fn watch(router: &Netns) -> Result<Self, Failure> {
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "route"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor = router
            .spawn(&mut command)
            .map_err(|e| failed("ip (iproute2)", e))?;
        let (sender, lines) = mpsc::channel();
        let output = monitor.stdout.take();
        thread::spawn(move || {
            let lines = output
                .into_iter()
                .flat_map(|output| BufReader::new(output).lines());
            for line in lines.map_while(Result::ok) {
                if line.starts_with("10.128.") && sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { lines, monitor })
    }

    fn forget(&self) {
        thread::sleep(Duration::from_millis(20));
        while self.lines.try_recv().is_ok() {}
    }

    /// When the last of `count` routes was laid that go to this device.
    pub(super) fn next(&self, device: &str, count: u32) -> Result<Instant, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let mut seen = HashSet::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, line) = self
                .lines
                .recv_timeout(left)
                .map_err(|e| failed("ip monitor", format!("{} of {count}: {e}", seen.len())))?;
            if !line.contains(&format!(" dev {device} ")) {
                continue;
            }
            seen.extend(line.split(' ').next().map(str::to_owned));
            if seen.len() == wanted {
                return Ok(at);
            }
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}
