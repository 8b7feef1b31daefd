//! What is measured: health checkers as processes, and the service that they look at.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::run::Failure;

/// Bound of every wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// A kernel counts CPU time in these units (USER_HZ).
const TICKS: f64 = 100.0;

pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{what}: {error}"))
}

/// A process, killed on drop.
pub(super) struct Running(Child);

impl Running {
    /// Starts `line`, words separated by blanks, on one CPU; its output goes to `log`.
    pub(super) fn start(cpu: usize, line: &[String], log: &Path) -> Result<Self, Failure> {
        let log = fs::File::create(log).map_err(|e| failed("log", e))?;
        let errors = log.try_clone().map_err(|e| failed("log", e))?;
        let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Command::new("taskset")
            .args(["-c", &cpu.min(cpus - 1).to_string()])
            .args(line)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map(Self)
            .map_err(|e| failed("taskset (util-linux)", e))
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time so far, with that of the commands which it ran and waited for.
    pub(super) fn cpu(&self) -> f64 {
        cpu_of(self.id())
    }

    /// The most memory that it ever held, in MiB.
    pub(super) fn peak(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }

    /// SIGKILL; the moment just before it.
    pub(super) fn kill(&mut self) -> Result<Instant, Failure> {
        let at = Instant::now();
        self.0.kill().map_err(|e| failed("kill", e))?;
        self.0.wait().map_err(|e| failed("wait", e))?;
        Ok(at)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds of a process so far, with those of the children that it waited for.
pub(super) fn cpu_of(id: u32) -> f64 {
    ticks(id, 0, 4)
}

/// Those of the children alone.
pub(super) fn cpu_of_children(id: u32) -> f64 {
    ticks(id, 2, 2)
}

/// Of utime, stime, cutime and cstime, `count` from `first` on, in seconds.
fn ticks(id: u32, first: usize, count: usize) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11 + first)
        .take(count)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS
}

/// One nginx in one process, which a SIGKILL ends at once.
pub(super) struct Service {
    folder: PathBuf,
    port: u16,
    process: Running,
}

impl Service {
    pub(super) fn start(folder: &Path, port: u16) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(|e| failed("folder", e))?;
        let at = folder.display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             worker_rlimit_nofile 20000; events {{ worker_connections 10000; }}\n\
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; \
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen {port} reuseport backlog=4096; \
             location / {{ return 200 \"ok\\n\"; }} }} }}\n"
        );
        fs::write(folder.join("nginx.conf"), config).map_err(|e| failed("nginx.conf", e))?;
        let process = Self::spawn(folder, port)?;
        Ok(Self {
            folder: folder.to_owned(),
            port,
            process,
        })
    }

    fn spawn(folder: &Path, port: u16) -> Result<Running, Failure> {
        let config = folder.join("nginx.conf").display().to_string();
        let line = ["/usr/sbin/nginx", "-c", &config].map(str::to_owned);
        let process = Running::start(1, &line, &folder.join("nginx.log"))?;
        until("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(process)
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    pub(super) fn kill(&mut self) -> Result<Instant, Failure> {
        self.process.kill()
    }

    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        self.process = Self::spawn(&self.folder, self.port)?;
        Ok(())
    }
}

/// The kernel's own report of addresses that come to `lo` and go.
pub(super) struct Addresses {
    lines: mpsc::Receiver<(Instant, String)>,
    _monitor: Running,
}

impl Addresses {
    pub(super) fn watch(ip: &str) -> Result<Self, Failure> {
        let mut child = Command::new("ip")
            .args(["-o", "monitor", "address"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed("ip (iproute2)", e))?;
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take();
        let ip = format!(" {ip}/");
        thread::spawn(move || {
            let lines = output
                .into_iter()
                .flat_map(|output| BufReader::new(output).lines());
            for line in lines.map_while(Result::ok) {
                let at = Instant::now();
                if line.contains(&ip) && line.contains(" lo ") && sender.send((at, line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            lines,
            _monitor: Running(child),
        })
    }

    /// When the address came, or went.
    pub(super) fn next(&self, gone: bool) -> Result<Instant, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, line) = self
                .lines
                .recv_timeout(left)
                .map_err(|e| failed("ip monitor", e))?;
            if line.starts_with("Deleted") == gone {
                return Ok(at);
            }
        }
    }
}

/// Waits for `done`, looking 5,000 times a second.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<Instant, Failure> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            return Err(Failure::new(format!("{what}: nothing within {PATIENCE:?}")));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(Instant::now())
}

/// Of sorted times, in milliseconds.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted
        .get(index)
        .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

/// A configuration of `anycast-guard`, without services.
pub(super) fn guard_head(folder: &Path, interface: &str) -> String {
    format!(
        "[node]\nname = \"bench\"\nstate_dir = \"{}\"\n\n[announce]\nkind = \"loopback\"\n\
         floor = true\ninterface = \"{interface}\"\n",
        folder.join("state").display()
    )
}

pub(super) fn guard_line(config: &Path) -> Result<Vec<String>, Failure> {
    let guard = std::env::var("BENCH_GUARD").map_err(|e| failed("BENCH_GUARD", e))?;
    let line = [guard, "--config".to_owned(), config.display().to_string()];
    Ok(line.to_vec())
}

pub(super) fn exabgp_line(ip: &str, command: &str) -> Vec<String> {
    let fixed = "/usr/bin/python3 -m exabgp healthcheck --no-syslog --no-ack --interval 1 \
                 --fast-interval 1 --rise 1 --fall 1 --timeout 2 --dynamic-ip-setup --ip";
    let mut line: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    line.retain(|word| !word.is_empty());
    line.extend([format!("{ip}/32"), "--cmd".to_owned(), command.to_owned()]);
    line
}

/// The line that starts anycast-healthchecker, if `BENCH_PYTHON` names a Python that has it.
pub(super) fn healthchecker_line(
    folder: &Path,
    interval: &str,
    services: &[(String, String)],
) -> Result<Option<Vec<String>>, Failure> {
    let Ok(python) = std::env::var(super::PYTHON) else {
        return Ok(None);
    };
    fs::create_dir_all(folder).map_err(|e| failed("folder", e))?;
    let at = folder.display();
    let mut text = format!(
        "[daemon]\npidfile = {at}/pid\nbird_conf = {at}/prefixes.conf\n\
         bird_reconfigure_cmd = /bin/true\nloglevel = warning\nlog_file = {at}/log\n\
         stderr_file = {at}/err\nlog_server_port = 514\n\n[DEFAULT]\ninterface = lo\n\
         check_interval = {interval}\ncheck_timeout = 2\ncheck_rise = 1\ncheck_fail = 1\n\
         check_disabled = false\non_disabled = withdraw\nip_check_disabled = true\n"
    );
    for (n, (ip, command)) in services.iter().enumerate() {
        text += &format!("\n[s{n}]\ncheck_cmd = {command}\nip_prefix = {ip}/32\n");
    }
    // What it finds there it compares with its own state; it begins with none.
    let first = "define ACAST_PS_ADVERTISE =\n    [\n        10.189.200.255/32\n    ];\n";
    fs::write(folder.join("prefixes.conf"), first).map_err(|e| failed("prefixes.conf", e))?;
    let config = folder.join("checker.conf");
    fs::write(&config, text).map_err(|e| failed("checker.conf", e))?;
    let program = Path::new(&python).with_file_name("anycast-healthchecker");
    let line = [
        program.display().to_string(),
        "-f".to_owned(),
        config.display().to_string(),
    ];
    let empty = folder.join("d");
    fs::create_dir_all(&empty).map_err(|e| failed("folder", e))?;
    let more = ["-d".to_owned(), empty.display().to_string()];
    Ok(Some(line.into_iter().chain(more).collect()))
}
