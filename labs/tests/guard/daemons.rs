//! The daemons in front of which the guard is put, each with one that answers wrongly.
//!
//! Each stays one process in the foreground, so that a signal meets all of it.

use std::path::Path;
use std::process::Command;

use anycast_labs::{Netns, Proc, require};
use nix::sys::signal::Signal;

use super::node::{folder, write};

/// A daemon, as the labs need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daemon {
    pub(crate) name: &'static str,
    /// Its tables `[[service.check]]`; the first one is called `service`.
    pub(crate) checks: &'static str,
    /// What the check says of an answer that is wrong.
    pub(crate) wrong: &'static str,
    /// Writes its files, right or wrong.
    pub(crate) lay: fn(&Path, bool),
    command: fn(&Path) -> Command,
    /// Whether SIGHUP has it read its files again.
    pub(crate) reloads: bool,
}

impl Daemon {
    pub(crate) fn start(&self, namespace: &Netns) -> Proc {
        let folder = folder(namespace);
        let name = format!("{}-{}", namespace.name(), self.name);
        Proc::start(namespace, &name, &mut (self.command)(&folder)).unwrap()
    }

    /// Has it answer rightly or wrongly from now on.
    pub(crate) fn change(&self, namespace: &Netns, running: &mut Proc, right: bool) {
        (self.lay)(&folder(namespace), right);
        if self.reloads {
            running.signal(Signal::SIGHUP).unwrap();
        } else {
            running.kill().unwrap();
            *running = self.start(namespace);
        }
    }
}

const DNS: &str = r#"
[[service.check]]
kind = "dns"
name = "service"
query = "health.example"
answers = ["192.0.2.1"]
match = "equal"
interval = "2s"
timeout = "2s"
recheck = "300ms"
"#;

pub(crate) const UNBOUND: Daemon = Daemon {
    name: "unbound",
    checks: r#"
[[service.check]]
kind = "dns"
name = "service"
query = "health.example"
answers = ["192.0.2.1"]
match = "equal"
id = "nsid"
interval = "2s"
timeout = "2s"
recheck = "300ms"
"#,
    wrong: "192.0.2.66",
    lay: |folder, right| {
        let here = folder.display();
        let answer = answer(right);
        let text = format!(
            "server:\n\
             directory: \"{here}\"\nusername: \"\"\nchroot: \"\"\npidfile: \"\"\n\
             use-syslog: no\nlogfile: \"\"\ndo-daemonize: no\nnum-threads: 1\n\
             module-config: \"iterator\"\n\
             interface: 0.0.0.0\ninterface: ::0\ninterface-automatic: yes\n\
             access-control: 0.0.0.0/0 allow\naccess-control: ::/0 allow\n\
             nsid: \"ascii_ams1\"\n\
             local-zone: \"example.\" static\n\
             local-data: \"health.example. IN A {answer}\"\n\
             remote-control:\ncontrol-enable: no\n"
        );
        write(folder, "unbound.conf", &text);
    },
    command: |folder| {
        let mut command = Command::new(require("unbound", &[], "unbound").unwrap());
        command.arg("-d").arg("-c").arg(folder.join("unbound.conf"));
        command
    },
    reloads: true,
};

pub(crate) const DNSMASQ: Daemon = Daemon {
    name: "dnsmasq",
    checks: DNS,
    wrong: "192.0.2.66",
    lay: |folder, right| {
        write(
            folder,
            "hosts",
            &format!("{} health.example\n", answer(right)),
        );
    },
    command: |folder| {
        let mut command = Command::new(require("dnsmasq", &[], "dnsmasq-base").unwrap());
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
        ]);
        command.args([
            "--no-resolv",
            "--user=root",
            "--pid-file",
            "--log-facility=-",
        ]);
        command.arg(format!("--addn-hosts={}", folder.join("hosts").display()));
        command
    },
    reloads: true,
};

pub(crate) const NGINX: Daemon = Daemon {
    name: "nginx",
    checks: r#"
[[service.check]]
kind = "http"
name = "service"
path = "/health"
header = "X-Node: {node}"
body = "well"
interval = "2s"
timeout = "2s"
recheck = "300ms"
"#,
    wrong: "503",
    lay: |folder, right| {
        let here = folder.display();
        let status = if right { 200 } else { 503 };
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log stderr;\n\
             events {{}}\n\
             http {{\n access_log off;\n client_body_temp_path {here}/body;\n\
             proxy_temp_path {here}/proxy;\n fastcgi_temp_path {here}/fastcgi;\n\
             uwsgi_temp_path {here}/uwsgi;\n scgi_temp_path {here}/scgi;\n\
             server {{\n listen 80;\n listen [::]:80;\n\
             location = /health {{ add_header X-Node ams1 always; return {status} well; }}\n\
             }}\n}}\n"
        );
        write(folder, "nginx.conf", &text);
    },
    command: |folder| {
        let mut command = Command::new(require("nginx", &[], "nginx").unwrap());
        command.arg("-e").arg("stderr").arg("-p").arg(folder);
        command.arg("-c").arg(folder.join("nginx.conf"));
        command
    },
    // Without a master, which would leave its workers behind, nginx does not take the place of
    // its own sockets.
    reloads: false,
};

/// `-x`: it never touches a clock.
pub(crate) const CHRONYD: Daemon = Daemon {
    name: "chronyd",
    checks: r#"
[[service.check]]
kind = "ntp"
name = "service"
max_stratum = 8
interval = "2s"
timeout = "2s"
recheck = "300ms"
"#,
    wrong: "stratum 12",
    lay: |folder, right| {
        let stratum = if right { 8 } else { 12 };
        let text = format!(
            "local stratum {stratum}\nallow\ncmdport 0\nbindcmdaddress /\n\
             pidfile {}/chronyd.pid\n",
            folder.display()
        );
        write(folder, "chrony.conf", &text);
    },
    command: |folder| {
        let mut command = Command::new(require("chronyd", &[], "chrony").unwrap());
        command.args(["-x", "-d", "-F", "0", "-u", "root", "-f"]);
        command.arg(folder.join("chrony.conf"));
        command
    },
    reloads: false,
};

const fn answer(right: bool) -> &'static str {
    if right { "192.0.2.1" } else { "192.0.2.66" }
}
