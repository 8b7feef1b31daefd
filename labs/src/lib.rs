//! Network-namespace labs: real routing daemons, the real service and real
//! clients, on one machine, as root or as an ordinary user.
//!
//! # Contract
//!
//! A lab runs inside namespaces that it made itself ([`isolate`]): mount,
//! network and PID namespace, and a user namespace where the caller is not
//! root. Nothing outside is touched, and nothing can stay behind: everything
//! lives in a PID namespace whose first process is the lab, so that the kernel
//! ends it all when the lab ends, whether it passes, panics, is interrupted or
//! is killed. Files go to `/run`, which inside is an empty file system in
//! memory ([`isolate::work_dir`]).
//!
//! Where namespaces are not permitted, or a program is not installed, the lab
//! fails with one line that says what to do. It never skips silently.
//!
//! # A test
//!
//! ```no_run
//! use anycast_labs::{Netns, isolated, link};
//!
//! # /*
//! #[test]
//! # */
//! fn two_namespaces_reach_each_other() {
//!     isolated(|| {
//!         let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
//!         link(&a, "eth0", &b, "eth0").unwrap();
//!         a.address("eth0", "10.0.0.1/24").unwrap();
//!         b.address("eth0", "10.0.0.2/24").unwrap();
//!         a.run("ping -c 1 -W 2 10.0.0.2").unwrap();
//!     });
//! }
//! ```
//!
//! A program enters by [`isolate::reexec`] instead.

pub mod cargo;
pub mod corpora;
pub mod diag;
pub mod document;
pub mod fib;
pub mod isolate;
pub mod logged;
pub mod lsa;
pub mod mrt;
pub mod netns;
pub mod node;
mod noise;
pub mod process;
pub mod slots;
pub mod topo;
pub mod wait;

pub use isolate::{isolated, isolated_for, isolated_with, isolated_with_for};
pub use netns::{Netns, NetnsError, link};
pub use noise::noise;
pub use process::{Proc, ProcError, require};
pub use wait::{TimedOut, eventually};
