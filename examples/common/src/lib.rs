//! What the reference deployments share.
//!
//! | module | holds |
//! |---|---|
//! | [`announce`] | the table `[announce]` |
//! | [`mesh`] | the table `[mesh]` |
//! | [`log`] | the log on stderr that never delays the service |
//! | [`privileges`] | dropping every capability that is not needed |
//! | [`signals`] | SIGTERM, SIGINT and SIGHUP |
//! | [`terminal`] | what a program answers, and how it fails |
//!
//! It is no part of the published library: an engineer who builds another deployment may take
//! it as a sample.

pub mod announce;
pub mod log;
pub mod mesh;
pub mod privileges;
pub mod signals;
pub mod terminal;

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Threads of each runtime. One socket is served by one task, so more would idle.
const WORKER_THREADS: usize = 2;

/// A runtime whose threads have this name. Make two: one for probes alone, so that a check
/// that blocks its thread delays neither service nor decisions.
///
/// # Errors
/// The system's, when threads cannot be started.
pub fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name(name)
        .enable_all()
        .build()
}
