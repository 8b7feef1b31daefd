//! Who decides: `anycast-guard` by an operator's order, a script, exabgp by its health checker.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anycast_labs::Proc;

use super::super::subject::{cpu_of, cpu_of_children, failed, until};
use super::bed::Bed;
use super::{Subject, config};
use crate::run::Failure;

pub(super) struct Controller {
    subject: Subject,
    folder: PathBuf,
    include: PathBuf,
    sockets: PathBuf,
    /// Not for the script.
    process: Option<Proc>,
}

impl Controller {
    /// Starts it at site a, where the service is well. It reaches the daemon's sockets `through`
    /// another folder than their own, if one is given.
    pub(super) fn start(
        subject: Subject,
        bed: &Bed,
        count: u32,
        through: Option<&Path>,
    ) -> Result<Self, Failure> {
        let mut controller = Self {
            subject,
            folder: bed.folder.clone(),
            include: bed.include(),
            sockets: bed.sockets(),
            process: None,
        };
        fs::write(controller.health(), "").map_err(|e| failed("health", e))?;
        let mut command = match subject {
            Subject::Script => {
                controller.decide(true)?;
                return Ok(controller);
            }
            Subject::Exabgp => controller.exabgp()?,
            Subject::Loopback(_)
            | Subject::Daemon(_)
            | Subject::Protocol
            | Subject::Include
            | Subject::RouteMap => controller.guard(count, through.unwrap_or(&bed.sockets()))?,
        };
        let process = Proc::start(bed.namespace(), "controller", &mut command);
        controller.process = Some(process.map_err(|e| failed("controller", e))?);
        Ok(controller)
    }

    fn health(&self) -> PathBuf {
        self.folder.join("health")
    }

    /// exabgp's health checker touches it when it has decided.
    fn decided(&self) -> PathBuf {
        self.folder.join("decided")
    }

    fn guard(&self, count: u32, sockets: &Path) -> Result<Command, Failure> {
        let folder = self.folder.display();
        let (own, sockets) = (self.sockets.display(), sockets.display());
        let kernel = "floor = true\n";
        let bird = format!(
            "kind = \"bird\"\nsocket = \"{sockets}/bird.ctl\"\nchannels = [\"router4.ipv4\"]\n"
        );
        let frr = format!(
            "kind = \"frr\"\nsocket = \"{sockets}/bgpd.vty\"\nneighbours = [\"10.10.1.1\"]\n"
        );
        let announce = match self.subject {
            Subject::Loopback(_) => format!("kind = \"loopback\"\n{kernel}"),
            Subject::Daemon(anycast_labs::node::Kind::Bird) => bird + kernel,
            Subject::Daemon(anycast_labs::node::Kind::Frr) => frr + kernel,
            Subject::Protocol => {
                bird + "carrier = \"protocol\"\nfloor = true\nboost = [\"boost4\"]\n"
            }
            Subject::Include => {
                let include = self.include.display();
                bird + &format!(
                    "carrier = \"include\"\ninclude = \"{include}\"\n\
                     main_config = \"{own}/bird.conf\"\n"
                )
            }
            Subject::RouteMap => {
                frr + &format!(
                    "carrier = \"route-map\"\nroute_maps = [\"TO-ROUTER4 10\"]\n\
                     vtysh_config_dir = \"{own}\"\n"
                )
            }
            Subject::Script | Subject::Exabgp => String::new(),
        };
        let addresses: Vec<_> = config::addresses(count)
            .map(|address| format!("\"{address}/32\""))
            .collect();
        let text = format!(
            "[node]\nname = \"bench\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n\n[announce]\n{announce}\n\
             [[service]]\nname = \"dns\"\naddresses = [{}]\nrise = 1\nfall = 1\n\
             hold_down = \"0s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
             [[service.check]]\nkind = \"file\"\npath = \"{}\"\n",
            addresses.join(", "),
            self.health().display(),
        );
        let config = self.folder.join("guard.toml");
        fs::create_dir_all(self.folder.join("state")).map_err(|e| failed("state", e))?;
        fs::write(&config, text).map_err(|e| failed("guard.toml", e))?;
        let guard = std::env::var("BENCH_GUARD").map_err(|e| failed("BENCH_GUARD", e))?;
        let mut command = Command::new(guard);
        command.arg("--config").arg(config);
        Ok(command)
    }

    fn exabgp(&self) -> Result<Command, Failure> {
        let path = self.folder.join("exabgp.conf");
        let text = config::exabgp(&self.health(), &self.decided());
        fs::write(&path, text).map_err(|e| failed("exabgp.conf", e))?;
        let program = anycast_labs::require("exabgp", &["/usr/sbin"], "exabgp");
        let mut command = Command::new(program.map_err(|e| failed("exabgp", e))?);
        command.arg(path);
        command.env("exabgp.daemon.user", "root");
        command.env("exabgp.api.ack", "false");
        command.env("exabgp.api.cli", "false");
        Ok(command)
    }

    /// Has it decided; answers when.
    pub(super) fn decide(&mut self, is_up: bool) -> Result<Instant, Failure> {
        match self.subject {
            Subject::Script => self.script(is_up),
            Subject::Exabgp => self.fail_or_pass(is_up),
            Subject::Loopback(_)
            | Subject::Daemon(_)
            | Subject::Protocol
            | Subject::Include
            | Subject::RouteMap => {
                let now = Instant::now();
                let (verb, body) = if is_up {
                    ("undrain", "{}")
                } else {
                    ("drain", "{\"force\":true}")
                };
                let answer = self.http(&format!(
                    "POST /services/dns/{verb} HTTP/1.0\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                ))?;
                if answer.contains(" 200 ") {
                    return Ok(now);
                }
                Err(failed(verb, answer))
            }
        }
    }

    /// As a shell script of an operator does it.
    fn script(&self, is_up: bool) -> Result<Instant, Failure> {
        let level = if is_up { 200 } else { 50 };
        let (include, socket) = (self.include.display(), self.sockets.join("bird.ctl"));
        let line = format!(
            "printf 'define anycast_level = {level};\\n' >{include}.new && \
             mv {include}.new {include} && birdc -s {} configure",
            socket.display()
        );
        let now = Instant::now();
        let output = Command::new("sh").args(["-c", &line]).output();
        let output = output.map_err(|e| failed("sh", e))?;
        if output.status.success() {
            return Ok(now);
        }
        Err(failed("script", String::from_utf8_lossy(&output.stderr)))
    }

    fn fail_or_pass(&self, is_up: bool) -> Result<Instant, Failure> {
        let _ = fs::remove_file(self.decided());
        let done = if is_up {
            fs::write(self.health(), "")
        } else {
            fs::remove_file(self.health())
        };
        done.map_err(|e| failed("health", e))?;
        let seen = until("exabgp's decision", || self.decided().exists())?;
        // The file's own time is nearer to the decision.
        let touched = fs::metadata(self.decided()).and_then(|found| found.modified());
        let ago = touched
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        Ok(ago.map_or(seen, |ago| Instant::now().checked_sub(ago).unwrap_or(seen)))
    }

    /// Waits until it is done with the change: what follows is measured by itself.
    pub(super) fn settle(&self, is_up: bool) -> Result<(), Failure> {
        if matches!(self.subject, Subject::Script | Subject::Exabgp) {
            return Ok(());
        }
        let preference = if is_up { "preferred" } else { "demoted" };
        let is_done = || {
            let status = self.http("GET /status HTTP/1.0\r\n\r\n");
            let Ok(status) = status else { return false };
            let Some((_, body)) = status.split_once("\r\n\r\n") else {
                return false;
            };
            let status: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let service = &status["services"][0];
            service["confirmation"]["state"] == "confirmed"
                && service["preference"].as_str() == Some(preference)
        };
        let settled = until("its change to be confirmed", is_done);
        std::thread::sleep(Duration::from_millis(10));
        settled
            .map(drop)
            .map_err(|e| failed("controller", format!("{e}; {}", self.said())))
    }

    fn http(&self, request: &str) -> Result<String, Failure> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.folder.join("admin.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|e| failed("admin.sock", e))
    }

    /// CPU seconds so far, its children's included. The scripts are our only children that end.
    pub(super) fn cpu(&self) -> f64 {
        let Some(process) = &self.process else {
            return cpu_of_children(std::process::id());
        };
        let id = process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        cpu_of(id) + children.map(cpu_of).sum::<f64>()
    }

    pub(super) fn said(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, |process| process.tail(8))
    }
}
