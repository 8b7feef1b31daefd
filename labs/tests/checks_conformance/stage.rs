//! A service over TCP, TLS or UDP that behaves as it is told.

use std::cell::Cell;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anycast_core::health::BuildCheck;
use anycast_core::testing::health_suite::{Condition, HealthBench};
use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::exhaust;

/// What is answered to a request under a condition; nothing where it is `None`.
pub(crate) type Answer = fn(Condition, &[u8]) -> Option<Vec<u8>>;

/// Who shakes hands under a condition; what is answered goes out bare where it is `None`.
pub(crate) type Secured = Arc<dyn Fn(Condition) -> Option<TlsAcceptor> + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Over {
    /// The service speaks when a connection is made.
    TcpFirst,
    /// The service speaks when it was asked.
    Tcp,
    /// The service speaks when it was asked, over TLS.
    Tls(Secured),
    Udp,
}

pub(crate) struct Stage {
    pub(crate) at: SocketAddr,
    over: Over,
    answer: Answer,
    build: BuildCheck,
    conditions: Vec<Condition>,
    now: Arc<Mutex<Condition>>,
    serving: Option<JoinHandle<()>>,
    held: Vec<File>,
}

impl Stage {
    pub(crate) fn new(
        at: SocketAddr,
        over: Over,
        answer: Answer,
        conditions: &[Condition],
        build: BuildCheck,
    ) -> Self {
        Self {
            at,
            over,
            answer,
            build,
            conditions: conditions.to_vec(),
            now: Arc::new(Mutex::new(Condition::Well)),
            serving: None,
            held: Vec::new(),
        }
    }

    async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    async fn serve(&mut self) {
        let (answer, now, over) = (self.answer, Arc::clone(&self.now), self.over.clone());
        self.serving = Some(if matches!(over, Over::Udp) {
            let socket = UdpSocket::bind(self.at).await.unwrap();
            tokio::spawn(udp(socket, answer, now))
        } else {
            let listener = TcpListener::bind(self.at).await.unwrap();
            tokio::spawn(tcp(listener, over, answer, now))
        });
    }
}

async fn udp(socket: UdpSocket, answer: Answer, now: Arc<Mutex<Condition>>) {
    let mut buffer = [0; 2048];
    loop {
        // A client that has gone is told as an error.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let condition = *now.lock().unwrap();
        if let Some(said) = answer(condition, &buffer[..length]) {
            let _ = socket.send_to(&said, client).await;
        }
    }
}

async fn tcp(listener: TcpListener, over: Over, answer: Answer, now: Arc<Mutex<Condition>>) {
    let mut clients = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
        };
        let Ok((stream, _)) = stream else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let condition = *now.lock().unwrap();
        let over = over.clone();
        clients.spawn(async move {
            let acceptor = match &over {
                Over::Tls(secured) => secured(condition),
                _ => None,
            };
            let first = matches!(over, Over::TcpFirst);
            match acceptor {
                None => talk(stream, first, answer, condition).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        talk(stream, first, answer, condition).await;
                    }
                }
            }
        });
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    first: bool,
    answer: Answer,
    condition: Condition,
) {
    let mut asked = [0; 2048];
    let mut length = 0;
    if !first {
        length = stream.read(&mut asked).await.unwrap_or(0);
    }
    if let Some(said) = answer(condition, &asked[..length]) {
        let _ = stream.write_all(&said).await;
        let _ = stream.flush().await;
    }
    // Its end comes from the other side.
    while matches!(stream.read(&mut asked).await, Ok(1..)) {}
}

#[async_trait]
impl HealthBench for Stage {
    fn build(&self) -> BuildCheck {
        self.build.clone()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.conditions.clone()
    }

    async fn bring_about(&mut self, condition: Condition) {
        self.held.clear();
        self.stop().await;
        *self.now.lock().unwrap() = condition;
        if condition != Condition::Refusing {
            self.serve().await;
        }
        if condition == Condition::CheckerFails {
            *self.now.lock().unwrap() = Condition::Well;
            // What is still being closed is taken, too.
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                exhaust(&mut self.held);
            }
        }
    }
}

/// Reproducible noise.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let state = Cell::new(1_u32);
    let next = |_| {
        state.set(
            state
                .get()
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223),
        );
        state.get().to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}
