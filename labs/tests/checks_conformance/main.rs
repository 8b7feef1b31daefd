//! Every check of ours against the suite that every check must pass, each in namespaces and
//! in a process of its own: the suite takes its last descriptor.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod host;
mod net;
mod secure;
mod stage;

use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use anycast_core::HealthCheck;
use anycast_core::health::BuildCheck;
use anycast_core::testing::health_suite::{Condition, HealthBench, run};
use anycast_labs::isolated_for;

/// Far beyond what a suite takes, also where each of its waits goes to its end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// Descriptors of a test's process: enough for the suite and a service, soon used up.
const DESCRIPTORS: &str = "--nofile=256:256";

/// Runs the suite on a bench that is made inside.
fn conforms<B: HealthBench, F: Future<Output = B>>(bench: impl FnOnce() -> F) {
    limit_descriptors(DESCRIPTORS);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = bench().await;
        run(&mut bench).await.unwrap();
    });
}

fn limit_descriptors(argument: &str) {
    let pid = std::process::id().to_string();
    let limit = Command::new("prlimit")
        .args(["--pid", &pid, argument])
        .status();
    assert!(limit.unwrap().success(), "install util-linux");
}

fn builds<C: HealthCheck + Clone + Send + Sync + 'static>(check: C) -> BuildCheck {
    Arc::new(move || Box::new(check.clone()))
}

/// Every descriptor that is left.
fn exhaust(held: &mut Vec<File>) {
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
}

macro_rules! conform {
    ($($test:ident: $bench:path;)*) => {$(
        #[test]
        fn $test() {
            isolated_for(PATIENCE, || conforms($bench));
        }
    )*};
}

conform! {
    tcp: net::tcp;
    http: net::http;
    http_over_tls: secure::https;
    certificate: secure::certificate;
    dns: net::dns;
    dns_over_tcp: net::dns_over_tcp;
    ntp: net::ntp;
    icmp: net::icmp;
    tftp: net::tftp;
    all_of_two: net::all;
    any_of_two: net::any;
    quorum: net::quorum;
    weighted: net::weighted;
    not: net::not;
    exec: host::exec;
    process: host::process;
    file: host::file;
    disk: host::disk;
    clock: host::clock;
}

/// A daemon with ten thousand sockets open and none to be had.
#[test]
fn with_ten_thousand_sockets_open_nobody_is_blamed() {
    use anycast_core::Verdict;
    use std::net::UdpSocket;
    use std::time::Duration;
    const SOCKETS: usize = 10_000;
    const TIMEOUT: Duration = Duration::from_secs(20);
    isolated_for(PATIENCE, || {
        limit_descriptors(&format!("--nofile={0}:{0}", SOCKETS + 50));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let mut benches = [net::dns().await, net::ntp().await];
            let mut tcp = net::tcp().await;
            tcp.bring_about(Condition::Well).await;
            let socket = |_| UdpSocket::bind("127.0.0.1:0").unwrap();
            let sockets: Vec<_> = (0..SOCKETS).map(socket).collect();
            // One service at a time: all are on the same port.
            for bench in &mut benches {
                bench.bring_about(Condition::CheckerFails).await;
                let verdict = (bench.build())().check(TIMEOUT).await;
                assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
                let verdict = (tcp.build())().check(TIMEOUT).await;
                assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
                bench.bring_about(Condition::Well).await;
                let verdict = (bench.build())().check(TIMEOUT).await;
                assert_eq!(verdict, Verdict::Healthy);
                bench.bring_about(Condition::Refusing).await;
            }
            assert_eq!(sockets.len(), SOCKETS);
        });
    });
}
