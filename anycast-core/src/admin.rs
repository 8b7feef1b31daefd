//! The admin endpoint: what a node is doing and why, and the operator's orders, over HTTP/1.1.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | 200, a [`NodeStatus`](crate::node::NodeStatus) as JSON, with the [sections](Admin::with_section) of the service beside it; `docs/status.schema.json` in the repository describes it |
//! | `GET /metrics` | 200, [OpenMetrics text](#metrics) |
//! | `GET /healthz` | 200 `ok` while every decision loop runs and what it decided is in force; else 503 and the reasons, a line each. It speaks of this process, not of the route: a demoted node is `ok` |
//! | `GET /services/NAME/record` | 200, the service's [record](crate::record) since the node started, for whoever may give orders |
//! | `GET /sync` | 200, every [data set](DataSet) by name: `ready`, `reason`, `lag`, `peers`, `force` (the last order to reconcile: `number`, `running`, and `did` or `error`) and `details` |
//! | `GET /sync/NAME`, `GET /sync/NAME/diff` | 200, one of them; what differs, by peer and item |
//! | `POST /sync/NAME/force` | begins to reconcile it completely, from whomever orders are taken; 200 and the state of that, to be looked at again in `GET /sync/NAME` |
//! | `POST /services/NAME/drain` | demotes the service on this node, whatever its health |
//! | `POST /services/NAME/withdraw` | withdraws its routes from this node |
//! | `POST /services/NAME/undrain` | lifts either; health decides again |
//!
//! # Orders
//!
//! The body of an order is a JSON object, of which every key may be left out: `for`, how long
//! it stands (`"30m"`, `"2h"`; without it until it is lifted), `reason`, and `force`. The
//! answer is JSON:
//!
//! | status | when | body |
//! |---|---|---|
//! | 200 | it was done | `node`, `service`, `order`, `by`, `reason`, `for_s`; `saved`: whether it outlives the process; `preference` and `in_force`: what is announced now, after at most [`SETTLE`]; `warnings`; `status`: the service's part of `/status` |
//! | 400 | the body is wrong | `error`, and so for all that follow |
//! | 401 | the token is missing or wrong | |
//! | 403 | orders are not taken this way; the error says which way they are | |
//! | 404 | there is no such service | |
//! | 409 | no other node of the fleet is preferred, and it was not forced | |
//! | 413, 415 | the body is longer than [`MAX_BODY`], or its type is not `application/json` | |
//! | 503 | the service's decision loop has ended | |
//!
//! Only an error says that nothing was done. Two nodes that are drained at one moment may each
//! take the other for preferred.
//!
//! # Records
//!
//! A record is JSON, an object a line, at most [`MAX_ENTRIES`](crate::record::MAX_ENTRIES)
//! entries; `anycastctl record` fetches it and `anycastctl replay` shows what was decided and
//! why. It names operators and their reasons, so it is given to those alone who may give
//! orders; each that is given or refused is logged with who asked. Errors are as for orders:
//! 401, 403, 404, 503.
//!
//! # Who may give orders
//!
//! It listens on Unix sockets and on loopback TCP only. Whoever may connect to a Unix socket
//! may give orders there: its mode is 0600 unless [configured](AdminConfig) otherwise. Over TCP
//! orders need a bearer token, and are refused where none is configured; reading is open to all
//! users of the host. Requests that a browser could be made to send are refused. Every order is
//! logged with who gave it, from where, what and why; so are refused ones, at most one line in
//! ten seconds.
//!
//! # Metrics
//!
//! | family | labels | meaning |
//! |---|---|---|
//! | `anycast_node_info` | node, version | always 1 |
//! | `anycast_node_working` | node | as `/healthz` |
//! | `anycast_service_info` | service, announcer | always 1 |
//! | `anycast_service_running` | service | whether the decision loop runs |
//! | `anycast_service_preference` | service, preference | what was decided |
//! | `anycast_service_state` | service, state | the [state](crate::machine::State) behind it |
//! | `anycast_service_preference_age_seconds` | service | how long ago |
//! | `anycast_service_role`, `anycast_service_backup_rank` | service, role | this node's part |
//! | `anycast_service_confirmation` | service, confirmation | whether it is in force |
//! | `anycast_service_budget_tokens` | service | route changes left |
//! | `anycast_service_order` | service, order | the operator's order in force |
//! | `anycast_service_order_age_seconds`, `anycast_service_order_saved` | service | absent while there is none |
//! | `anycast_service_drain` | service, phase | how far the drain is |
//! | `anycast_service_drain_phase_age_seconds` | service | for how long; absent while nothing is drained |
//! | `anycast_service_parked_age_seconds`, `anycast_service_failing_age_seconds` | service | absent while it is neither |
//! | `anycast_readiness_ready`, `anycast_readiness_age_seconds` | service, input | inputs of readiness |
//! | `anycast_fleet_peers` | service, state | how many are preferred, demoted, draining or were never heard |
//! | `anycast_fleet_oldest_report_age_seconds`, `anycast_fleet_grants` | service | |
//! | `anycast_mesh_up` | peer | whether there is a connection; the families of the mesh are absent where there is none |
//! | `anycast_mesh_heard_age_seconds` | peer | time since its last message; absent before the first |
//! | `anycast_mesh_clock_offset_seconds`, `anycast_mesh_clock_error_seconds` | peer | what its clock is ahead of this node's; absent before it is known |
//! | `anycast_check_severity` | service, check, severity | whether it counts |
//! | `anycast_check_phase`, `anycast_check_phase_age_seconds` | service, check, phase | what the check counts as |
//! | `anycast_check_verdict`, `anycast_check_verdict_age_seconds` | service, check, verdict | what it said last |
//! | `anycast_check_successes_in_row`, `anycast_check_failures_in_row` | service, check | as they count towards rise and fall |
//! | `anycast_admin_orders_total` | order | orders carried out |
//! | `anycast_admin_refused_orders_total` | why | orders refused for want of rights, and requests for records |
//! | `anycast_admin_dropped_connections_total` | | connections dropped to make place |
//! | `anycast_SECTION_KEY`, `…_total` | | the numbers of the service's own section |
//!
//! # The mesh
//!
//! Where the node takes part in a [mesh](crate::mesh) `/status` has the key `mesh`: for each peer
//! since when there is a connection or why there is none, when it was heard, its clock, and what it
//! said of its services and its data. Failed handshakes are in the log alone, since anybody can make
//! one fail: one in ten seconds, with how many were `untold` since the one before.
//!
//! # Limits
//!
//! [`MAX_CONNECTIONS`] at once for each address; when all are taken the oldest whose request is
//! not complete is dropped for a new one. [`MAX_REQUEST`] bytes of request head within
//! [`HEAD_TIMEOUT`], [`MAX_BODY`] bytes of body, and [`REQUEST_TIMEOUT`] from accept to the end
//! of the answer; a slower or larger client is cut off and costs nobody else anything. One
//! request a connection.
//!
//! # Tasks and cancellation
//!
//! [`Admin::run`] starts a task for each address, and each connection is one. Dropping the
//! future ends them all; an order that is being carried out is carried out. The file of a Unix
//! socket is removed when the [`Admin`], or the future of [`Admin::run`], is dropped.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a runtime module: it does IO"
)]

mod accept;
mod access;
mod answer;
mod config;
mod data_sets;
mod metrics;
mod names;
mod order;
mod socket;
mod token;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::accept::{Listener, serve};
use self::access::RefusalLog;
use self::answer::{Counts, Sources};
pub use self::config::{
    AdminAddress, AdminAddressError, AdminConfig, GROUP_SOCKET_MODE, MAX_LISTENERS, Principal,
    SOCKET_MODE,
};
pub use self::data_sets::DataSet;
pub use self::order::SETTLE;
use self::socket::SocketFile;
pub use self::token::{MAX_TOKEN, MIN_TOKEN, Token, TokenError};
use crate::node::NodeHandle;

/// Connections served at once by each listener; when all are taken, the oldest whose request
/// is not complete is dropped for a new one, or else the new one waits.
pub const MAX_CONNECTIONS: usize = 32;
/// Largest request head, in bytes; a larger one is answered with 431.
pub const MAX_REQUEST: usize = 8192;
/// Largest body of an order, in bytes; a larger one is answered with 413.
pub const MAX_BODY: usize = 4096;
/// Longest time from accept to the end of the request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time from accept to the end of the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the admin endpoint could not be opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address cannot be bound.
    #[error(
        "[node] admin = \"{address}\": cannot listen there ({source}); choose another address or stop what uses it"
    )]
    Bind {
        /// The address.
        address: AdminAddress,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Somebody answers on that socket already.
    #[error("[node] admin = \"unix:{}\": another process serves that socket; choose another path or stop it", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be given this owner, group or mode.
    #[error(
        "[node] admin = \"unix:{}\": cannot set owner, group and mode ({source}); only root can give a file away, and a group must be one of the process's own",
        path.display()
    )]
    Access {
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no such user or group.
    #[error("[node.admin]: {table} has no {name:?}; create it or name another")]
    UnknownPrincipal {
        /// The name.
        name: String,
        /// Where it was looked up.
        table: &'static str,
    },
    /// The token cannot be used.
    #[error("[node.admin] {0}")]
    Token(#[from] TokenError),
}

/// A bound admin endpoint. See the [module documentation](self).
pub struct Admin {
    listeners: Vec<Listener>,
    /// Not with their listeners, which live in tasks: a runtime that shuts down without waiting
    /// never drops what is in a task.
    files: Vec<SocketFile>,
    sections: Vec<Section>,
    data_sets: Vec<DataSet>,
    token_file: Option<PathBuf>,
}

struct Section {
    name: &'static str,
    tell: Box<dyn Fn() -> serde_json::Result<serde_json::Value> + Send + Sync>,
    gauges: &'static [&'static str],
}

impl Admin {
    /// Binds every address. A dead Unix socket at that path is replaced; a live one, or a file
    /// that is no socket, is not touched. Reads the token's file once, so that a fault in it is
    /// known at the start.
    ///
    /// # Errors
    /// [`AdminError`]; nothing is left behind.
    pub async fn bind(config: &AdminConfig) -> Result<Self, AdminError> {
        if let Some(path) = config.token_file() {
            Token::read(path)?;
        }
        let (mut listeners, mut files) = (Vec::new(), Vec::new());
        for address in config.addresses() {
            listeners.push(match address {
                AdminAddress::Tcp(tcp) => {
                    let bound = TcpListener::bind(tcp).await;
                    Listener::Tcp(bound.map_err(|source| AdminError::Bind {
                        address: address.clone(),
                        source,
                    })?)
                }
                AdminAddress::Unix(path) => {
                    let (listener, file) = socket::bind(path, config.access()).await?;
                    files.push(file);
                    Listener::Unix(listener)
                }
            });
        }
        Ok(Self {
            listeners,
            files,
            sections: Vec::new(),
            data_sets: Vec::new(),
            token_file: config.token_file().map(PathBuf::from),
        })
    }

    /// Adds a key to `/status` beside the node's own: what the service says of itself, such as
    /// its counters. `tell` is called for each request and must not block for long. A key that
    /// is taken (`node`, `services`, `mesh`) is left as it is.
    ///
    /// The whole numbers in it appear in `/metrics` as counters, `anycast_NAME_KEY_total`;
    /// name those that can fall in [`with_gauges`](Self::with_gauges).
    #[must_use]
    pub fn with_section<T: serde::Serialize>(
        mut self,
        name: &'static str,
        tell: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        let tell = Box::new(move || serde_json::to_value(tell()));
        self.sections.push(Section {
            name,
            tell,
            gauges: &[],
        });
        self
    }

    /// The keys of a section whose numbers are no counters: they can fall. They appear in
    /// `/metrics` as `anycast_SECTION_KEY`.
    #[must_use]
    pub fn with_gauges(mut self, section: &'static str, gauges: &'static [&'static str]) -> Self {
        for known in self.sections.iter_mut().filter(|s| s.name == section) {
            known.gauges = gauges;
        }
        self
    }

    /// Shows a data set, and takes the order to reconcile it. Of two of one name the first counts.
    #[must_use]
    pub fn with_data_set(mut self, data_set: DataSet) -> Self {
        self.data_sets.push(data_set);
        self
    }

    /// The first TCP address it listens on, where it does.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.iter().find_map(|listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        })
    }

    /// Serves for ever.
    pub async fn run(self, node: NodeHandle) {
        let sources = Arc::new(Sources {
            node,
            sections: self.sections,
            data_sets: self.data_sets,
            token_file: self.token_file,
            counts: Counts::default(),
            refusals: RefusalLog::default(),
            maker: Arc::new(Semaphore::new(1)),
        });
        let _files = self.files;
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            tasks.spawn(serve(listener, Arc::clone(&sources)));
        }
        while let Some(ended) = tasks.join_next().await {
            // None ends by itself; if one panics, the others go on.
            if let Err(error) = ended {
                tracing::error!(%error, "an address of the admin endpoint is served no more");
            }
        }
        std::future::pending().await
    }
}
