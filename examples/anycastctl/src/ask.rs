//! One request to a node's admin endpoint, bounded in time and size.

use std::io;
use std::time::Duration;

use anycast_core::admin::{AdminAddress, Token};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest time from connecting to the end of the answer. The node itself takes no longer.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Largest answer but a record, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a node could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(
        "no node answers at {address}: is it running, and does its [node] admin name that address?"
    )]
    NoAnswer { address: AdminAddress },
    #[error("{address}: permission denied; run as root or as a member of the socket's group")]
    Permission { address: AdminAddress },
    #[error("{address}: cannot connect: {source}")]
    Connect {
        address: AdminAddress,
        source: io::Error,
    },
    #[error("{address}: no complete answer within {} s", TIMEOUT.as_secs())]
    Slow { address: AdminAddress },
    #[error("{address}: what listens there answered {status}; is it an anycast node?")]
    Status {
        address: AdminAddress,
        status: StatusCode,
    },
    #[error("{reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("{address}: the answer cannot be read: {reason}; is it an anycast node?")]
    Unreadable {
        address: AdminAddress,
        reason: String,
    },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) address: &'a AdminAddress,
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// JSON.
    pub(crate) body: String,
    /// Presented over TCP.
    pub(crate) token: Option<Token>,
    /// Largest answer, in bytes; a larger one is refused.
    pub(crate) limit: usize,
}

impl<'a> Question<'a> {
    /// A GET.
    pub(crate) const fn read(address: &'a AdminAddress, path: &'a str) -> Self {
        Self {
            address,
            method: Method::GET,
            path,
            body: String::new(),
            token: None,
            limit: MAX_ANSWER,
        }
    }

    /// The body of the answer.
    pub(crate) fn ask(&self) -> Result<String, AskError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AskError::Runtime)?
            .block_on(async {
                match tokio::time::timeout(TIMEOUT, self.connect()).await {
                    Ok(answer) => answer,
                    Err(_) => Err(AskError::Slow {
                        address: self.address.clone(),
                    }),
                }
            })
    }

    async fn connect(&self) -> Result<String, AskError> {
        let failed = |error| connect_error(self.address, error);
        match self.address {
            AdminAddress::Tcp(tcp) => {
                let stream = TcpStream::connect(tcp).await.map_err(failed)?;
                self.exchange(stream).await
            }
            AdminAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(failed)?;
                self.exchange(stream).await
            }
        }
    }

    fn unreadable(&self, reason: impl ToString) -> AskError {
        AskError::Unreadable {
            address: self.address.clone(),
            reason: reason.to_string(),
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<String, AskError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreadable(error))?;
        // Ends with the runtime; what it fails with, the request below fails with too.
        tokio::spawn(connection);
        let response = sender.send_request(self.request()?).await;
        let response = response.map_err(|error| {
            if error.is_canceled() {
                self.unreadable("it did not wait for a request")
            } else {
                self.unreadable(error)
            }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), self.limit)
            .collect()
            .await
            .map_err(|error| self.unreadable(error))?
            .to_bytes();
        if status == StatusCode::OK {
            return String::from_utf8(body.to_vec()).map_err(|error| self.unreadable(error));
        }
        Err(match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => AskError::Refused {
                status,
                reason: clean(&refusal.error),
            },
            Err(_) => AskError::Status {
                address: self.address.clone(),
                status,
            },
        })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, AskError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header(HOST, "localhost");
        if self.method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let (Some(token), AdminAddress::Tcp(_)) = (&self.token, self.address) {
            let bearer = format!("Bearer {}", token.expose());
            request = request.header(AUTHORIZATION, bearer);
        }
        let body = Full::new(Bytes::from(self.body.clone()));
        request.body(body).map_err(|error| self.unreadable(error))
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// One line, whatever the node wrote.
fn clean(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(1024).map(clean).collect()
}

fn connect_error(address: &AdminAddress, source: io::Error) -> AskError {
    let address = address.clone();
    let kind = source.kind();
    if matches!(
        kind,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    ) {
        AskError::NoAnswer { address }
    } else if kind == io::ErrorKind::PermissionDenied {
        AskError::Permission { address }
    } else {
        AskError::Connect { address, source }
    }
}
