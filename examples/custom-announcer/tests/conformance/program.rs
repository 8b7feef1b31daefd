//! The program, from its start over a failure to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anycast_labs::isolate::work_dir;
use anycast_labs::isolated;

use crate::nft;

const PATIENCE: Duration = Duration::from_secs(60);

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn holds(set: &str) -> bool {
    nft(&["list", "table", "inet", "anycast"])
        .split(&format!("set {set} "))
        .nth(1)
        .is_some_and(|rest| rest.split("\n\t}").next().unwrap().contains("192.0.2.69"))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_service_is_preferred_demoted_and_left_demoted() {
    isolated(|| {
        let socket = work_dir().join("redis.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let healthy = Arc::new(AtomicBool::new(true));
        let answers = Arc::clone(&healthy);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 64]);
                if answers.load(Ordering::Relaxed) {
                    let _ = stream.write_all(b"+PONG\r\n");
                }
            }
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_anycast-custom-announcer"));
        command.arg("ams1").arg(&socket).arg("192.0.2.69");
        let mut program = Program(command.stdout(Stdio::piped()).spawn().unwrap());
        let output = BufReader::new(program.0.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let mut says = |text: &str| {
            let found = lines.find(|line| line.contains(text));
            assert!(found.is_some(), "it ended without saying {text:?}");
        };
        says("redis: preferred");
        eventually("the preferred element", || holds("preferred4"));
        healthy.store(false, Ordering::Relaxed);
        says("redis: demoted");
        eventually("its removal", || !holds("preferred4"));
        assert!(holds("announced4"), "demoted, and still announced");
        healthy.store(true, Ordering::Relaxed);
        says("redis: preferred");
        eventually("the preferred element again", || holds("preferred4"));

        let pid = program.0.id().to_string();
        let kill = Command::new("kill").arg(&pid).status().unwrap();
        assert!(kill.success() && program.0.wait().unwrap().success());
        assert!(!holds("preferred4") && holds("announced4"));
    });
}
