//! The check.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anycast_core::health::BuildCheck;
use anycast_core::testing::health_suite::Condition::{
    self, CheckerFails, Garbage, Refusing, Silent, Well, Wrong,
};
use anycast_core::testing::health_suite::{HealthBench, run};
use anycast_custom_announcer::redis::RedisCheck;
use anycast_labs::isolate::work_dir;
use anycast_labs::isolated;
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::runtime;

/// Speaks as much of Redis as the check hears, and misbehaves as no real one would.
struct Server {
    socket: PathBuf,
    serving: Option<JoinHandle<()>>,
    held: Vec<File>,
}

impl Server {
    fn serve(&mut self, condition: Condition) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.serving = Some(tokio::spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = clients.join_next() => continue,
                };
                let Ok((mut stream, _)) = accepted else {
                    continue;
                };
                clients.spawn(async move {
                    let mut asked = [0; 64];
                    let length = stream.read(&mut asked).await.unwrap_or(0);
                    let said: &[u8] = match condition {
                        Silent => b"",
                        Garbage => &[0xa5; 5000],
                        Wrong => b"-LOADING the dataset is being loaded\r\n",
                        _ if asked.starts_with(b"PING\r\n") => b"+PONG\r\n",
                        _ => b"-ERR\r\n",
                    };
                    let _ = stream.write_all(said).await;
                    while length > 0 && matches!(stream.read(&mut asked).await, Ok(1..)) {}
                });
            }
        }));
    }
}

#[async_trait]
impl HealthBench for Server {
    fn build(&self) -> BuildCheck {
        let check = RedisCheck::new(&self.socket);
        Arc::new(move || Box::new(check.clone()))
    }

    fn conditions(&self) -> Vec<Condition> {
        vec![Well, Silent, Refusing, Wrong, Garbage, CheckerFails]
    }

    async fn bring_about(&mut self, condition: Condition) {
        self.held.clear();
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        // With nobody behind it the socket's file stays, and refuses.
        if condition != Refusing {
            self.serve(condition);
        }
        if condition == CheckerFails {
            while let Ok(file) = File::open("/dev/null") {
                self.held.push(file);
            }
        }
    }
}

#[test]
fn it_conforms() {
    isolated(|| {
        let pid = std::process::id().to_string();
        let mut limit = Command::new("prlimit");
        let limit = limit.args(["--pid", &pid, "--nofile=256:256"]).status();
        assert!(limit.unwrap().success(), "install util-linux");
        runtime().block_on(async {
            let mut server = Server {
                socket: work_dir().join("redis.sock"),
                serving: None,
                held: Vec::new(),
            };
            run(&mut server).await.unwrap();
        });
    });
}
