//! Fail-safe announcing of anycast services.
//!
//! The same service address is announced by several sites, and each site decides for itself,
//! from health checks, how strongly it announces. The rule this crate is built on: **inside a
//! controlled network never withdraw an anycast route because a check said so; make it
//! inferior.** If the checks themselves break everywhere, all nodes are equally inferior,
//! which selects exactly as if all were healthy.
//!
//! # The loop
//!
//! ```text
//!  HealthCheck ──verdict──▶ machine::Machine ──Decision──▶ reconcile::Reconciler
//!  (one task each)          (pure: rise, fall,             (pure: retry, renew,
//!                            hold-down, intent)             observe, repair)
//!                                                                │ Action ▲ result
//!                                                                ▼        │
//!                                                             Announcer ──▶ kernel, BIRD, FRR
//! ```
//!
//! | module | holds | runtime |
//! |---|---|---|
//! | [`service`] | names, addresses | none |
//! | [`health`] | [`HealthCheck`], [`Verdict`] | none |
//! | [`announce`] | [`Announcer`], [`Preference`], [`Role`], decisions | none |
//! | [`sync`] | the trait `sync::Sync` | none |
//! | [`drain`] | the order of a drain: demote, converge, finish | none |
//! | [`intent_store`] | an operator's intent over restarts: its clocks, its file | none |
//! | [`machine`] | from verdicts to a preference | none |
//! | [`reconcile`] | from a preference to what is in force | none |
//! | [`catchment`] | which client networks a node answers most | none |
//! | [`invariants`] | one function for each safety property F1 to F12 | none |
//! | `record` | a machine's inputs written down, and replayed (feature `record`) | none |
//! | `node` | the driver (feature `node`) | tokio |
//! | `mesh` | the nodes of a fleet, talking to each other (feature `mesh`) | tokio, quinn |
//! | `admin` | `/status`, `/healthz` (feature `admin`) | tokio |
//! | `config` | tables shared by the binaries' files (feature `config`) | none |
//!
//! Engines take `now` as an argument and answer to `handle_*` (inputs), `poll_*` (outputs)
//! and `poll_timeout` (when to come back, and why). After any input, ask for the output
//! again: the machine's [`decide`](machine::Machine::decide) goes to
//! [`handle_decision`](reconcile::Reconciler::handle_decision), then
//! [`poll_action`](reconcile::Reconciler::poll_action) is drained.

#[cfg(feature = "admin")]
pub mod admin;
pub mod announce;
pub mod catchment;
#[cfg(feature = "config")]
pub mod config;
pub mod drain;
pub mod health;
pub mod intent_store;
pub mod invariants;
pub mod machine;
#[cfg(feature = "mesh")]
pub mod mesh;
#[cfg(feature = "node")]
pub mod node;
pub mod reconcile;
#[cfg(feature = "record")]
pub mod record;
pub mod service;
pub mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use announce::{Announcer, Preference, Role};
pub use health::{HealthCheck, Verdict};
pub use service::{CheckName, NodeName, ServiceAddress, ServiceAddresses, ServiceName};
