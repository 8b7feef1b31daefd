//! The checks against nginx, as Debian ships it.

use std::fs;
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anycast_core::Verdict;
use anycast_core::health::http::{HttpCheck, Tls};
use anycast_core::health::tcp::TcpCheck;

use super::stream::{LIMIT, PATIENT, SHORT, addresses, probe, unhealthy};
use super::tls::{Authority, NAME};

const ADDRESS: &str = "127.0.0.85";

/// A running nginx. Dropping it kills it; so does the end of the thread that started it.
struct Nginx {
    child: Child,
    port: NonZeroU16,
    authority: Authority,
}

impl Nginx {
    /// nginx with `server` in its configuration, where `PORT` stands for its port.
    async fn start(server: &str) -> Self {
        let authority = Authority::new();
        let folder = authority.folder.path().to_owned();
        let (certificate, key) = authority.sign(|_| {});
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        // Of both families, and rarely another program is faster.
        let port = loop {
            let v4 = TcpListener::bind((ADDRESS, 0)).unwrap();
            let port = v4.local_addr().unwrap().port();
            if TcpListener::bind(("::1", port)).is_ok() {
                break port;
            }
        };
        let server = server.replace("PORT", &port.to_string());
        fs::write(folder.join("nginx.conf"), configuration(&folder, &server)).unwrap();
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(Path::new);
        let Some(program) = program.into_iter().find(|path| path.is_file()) else {
            panic!("nginx is not installed: apt install nginx");
        };
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg("-p")
            .arg(&folder)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Self {
            child,
            port: NonZeroU16::new(port).unwrap(),
            authority,
        };
        nginx.wait().await;
        nginx
    }

    async fn wait(&mut self) {
        let listening = async {
            while probe(self.tcp(), PATIENT).await != Verdict::Healthy {
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}: {}", self.errors());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, listening).await.unwrap();
    }

    fn tcp(&self) -> TcpCheck {
        let both = [ADDRESS, "::1"].map(|ip| ip.parse().unwrap());
        TcpCheck::new(&addresses(&both), self.port)
    }

    fn http(&self) -> HttpCheck {
        let both = [ADDRESS, "::1"].map(|ip| ip.parse().unwrap());
        HttpCheck::new(&addresses(&both), self.port)
            .with_host(NAME)
            .unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.authority.folder.path().join("error.log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, all files in `folder`.
fn configuration(folder: &Path, server: &str) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log warn;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n  access_log {folder}/access.log;\n{temporary}{server}}}\n"
    )
}

const PLAIN: &str = "  server {
    listen 127.0.0.85:PORT;
    listen [::1]:PORT;
    add_header X-Node ams1 always;
    location / { return 200 'all is ready'; }
    location /down { return 503; }
    location /moved { return 301 /; }
  }
";

#[tokio::test]
async fn nginx_is_healthy_while_it_answers() {
    let mut nginx = Nginx::start(PLAIN).await;
    let good = nginx.http().with_body("ready").unwrap();
    let good = good.with_header("X-Node", "ams1").unwrap();
    for _ in 0..20 {
        assert_eq!(probe(good.clone(), PATIENT).await, Verdict::Healthy);
        let head = nginx.http().with_head_only();
        assert_eq!(probe(head, PATIENT).await, Verdict::Healthy);
    }
    let wrong = nginx.http().with_header("X-Node", "fra1").unwrap();
    let verdict = probe(wrong, PATIENT).await;
    unhealthy(&verdict, "answered with x-node: \"ams1\", not \"fra1\"");
    let down = nginx.http().with_path("/down").unwrap();
    let verdict = probe(down, PATIENT).await;
    unhealthy(&verdict, "answered 503 Service Unavailable, not 200-299");
    let moved = nginx.http().with_path("/moved").unwrap();
    unhealthy(&probe(moved.clone(), PATIENT).await, "answered 301");
    let moved = moved.with_status("301".parse().unwrap());
    assert_eq!(probe(moved, PATIENT).await, Verdict::Healthy);
    assert_eq!(nginx.errors(), "", "it takes no offence");

    nginx.signal("-STOP");
    // Its kernel still accepts.
    assert_eq!(probe(nginx.tcp(), PATIENT).await, Verdict::Healthy);
    unhealthy(&probe(good.clone(), SHORT).await, "no answer within 200ms");
    nginx.signal("-CONT");
    assert_eq!(probe(good.clone(), PATIENT).await, Verdict::Healthy);

    nginx.child.kill().unwrap();
    nginx.child.wait().unwrap();
    unhealthy(&probe(good, PATIENT).await, "Connection refused");
}

const SECURE: &str = "  server {
    listen 127.0.0.85:PORT ssl;
    listen [::1]:PORT ssl;
    ssl_certificate cert.pem;
    ssl_certificate_key key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / { return 200 'all is ready'; }
  }
";

#[tokio::test]
async fn nginx_is_healthy_over_tls() {
    for secure in [SECURE.to_owned(), SECURE.replace(" TLSv1.3", "")] {
        let nginx = Nginx::start(&secure).await;
        let verified = Tls::verified(nginx.authority.file());
        let good = nginx.http().with_tls(verified.clone());
        for _ in 0..5 {
            assert_eq!(probe(good.clone(), PATIENT).await, Verdict::Healthy);
        }
        let other = good.clone().with_host("other.example.com").unwrap();
        unhealthy(&probe(other, PATIENT).await, "not valid for name");
        let stranger = Authority::new();
        let foreign = nginx.http().with_tls(Tls::verified(stranger.file()));
        unhealthy(&probe(foreign, PATIENT).await, "UnknownIssuer");
        // It answers a plain question over TLS's port in plain, with 400.
        unhealthy(&probe(nginx.http(), PATIENT).await, "answered 400");
        let errors = nginx.errors();
        assert!(!errors.contains("[error]"), "{errors}");
        nginx.signal("-STOP");
        unhealthy(&probe(good, SHORT).await, "no TLS handshake within 200ms");
    }
}
