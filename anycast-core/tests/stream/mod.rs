//! What the tests of the checks over TCP share: services made by hand, and probes of them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses some of it, in a crate of its own"
)]

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anycast_core::{HealthCheck, ServiceAddress, ServiceAddresses, Verdict};
use tokio::net::{TcpListener, TcpStream};

/// Bound of what is expected to happen; never reached where all is well.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A time-out that a healthy service always meets.
pub const PATIENT: Duration = Duration::from_secs(30);
/// A time-out that is meant to be reached, in silence.
pub const SHORT: Duration = Duration::from_millis(200);
/// A time-out that is meant to be reached after something was said.
pub const LATER: Duration = Duration::from_secs(3);

pub fn addresses(list: &[IpAddr]) -> ServiceAddresses {
    let addresses = list.iter().map(|ip| ServiceAddress::new(*ip).unwrap());
    ServiceAddresses::new(addresses.collect()).unwrap()
}

pub async fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// A service that treats each connection so.
pub async fn serve<F>(address: &str, treat: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, at) = listen(address).await;
    tokio::spawn(async move {
        loop {
            // An accept fails while descriptors are short.
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(treat(stream))),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    at
}

pub async fn probe(mut check: impl HealthCheck, timeout: Duration) -> Verdict {
    probe_with(&mut check, timeout).await
}

/// [`probe`] with a check that remembers. Where this machine was too slow to tell, again.
pub async fn probe_with(check: &mut impl HealthCheck, timeout: Duration) -> Verdict {
    let probing = async {
        loop {
            let verdict = check.check(timeout).await;
            if !verdict.to_string().contains("did not run in time") {
                return verdict;
            }
        }
    };
    tokio::time::timeout(LIMIT, probing).await.unwrap()
}

#[track_caller]
pub fn unhealthy(verdict: &Verdict, says: &str) {
    assert!(
        matches!(verdict, Verdict::Unhealthy(reason, _) if reason.as_str().contains(says)),
        "{verdict} does not say {says:?}"
    );
}

#[track_caller]
pub fn unknown(verdict: &Verdict, says: &str) {
    assert!(
        matches!(verdict, Verdict::Unknown(reason) if reason.as_str().contains(says)),
        "{verdict} does not say {says:?}"
    );
}

/// Waits until the kernel has no socket to or from `at` but the listening one; none may be in
/// TIME_WAIT meanwhile.
pub async fn nothing_left(at: SocketAddr) {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let IpAddr::V4(ip) = at.ip() else {
        panic!("{at} is not in /proc/net/tcp")
    };
    let ip = u32::from_ne_bytes(ip.octets());
    let at = format!("{ip:08X}:{:04X}", at.port());
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = lines.filter(|columns| columns[1..3].contains(&at.as_str()));
        let states = ours.map(|columns| columns[3].to_owned());
        let states: Vec<String> = states.filter(|state| state != LISTEN).collect();
        assert!(!states.contains(&TIME_WAIT.to_owned()), "{states:?}");
        if states.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs the body of the calling test in a process of its own that may open few files. The body
/// is given what takes all that are left, until it is dropped.
pub fn in_poverty<B, F>(body: B)
where
    B: FnOnce(fn() -> Vec<File>) -> F,
    F: Future<Output = ()>,
{
    const INSIDE: &str = "ANYCAST_CHECK_IN_POVERTY";
    const DONE: &str = "ran to its end in poverty";
    let path = std::any::type_name::<B>();
    let test = path.split("::{{closure}}").next().unwrap();
    let test = test.split_once("::").unwrap().1;
    if std::env::var_os(INSIDE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(body(exhaust));
        println!("{DONE}");
        return;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(DONE),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}
