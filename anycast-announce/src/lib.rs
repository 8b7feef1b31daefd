//! Announcers: what puts a decision of [`anycast_core`] into force on a router.
//!
//! | module | `kind` | needs | on the death of this process |
//! |---|---|---|---|
//! | [`kernel`] | `loopback` | Linux 5.18 or later, CAP_NET_ADMIN, a routing daemon that imports `lo` | the kernel removes the boost within the dead-man time: demoted, never withdrawn |
//! | [`bird`] | `bird` | the same, BIRD 2 or later and its control socket | the same; demoted by hand stays demoted where BIRD's own protocols carry the preference |
//! | [`frr`] | `frr` | the same, FRR and bgpd's vty socket | as `loopback` |
//!
//! `bird` and `frr` say that a preference is in force only when the daemon has sent it.
//! `doctor` (feature of that name) inspects the daemons, the kernel and the node's settings, and
//! names the traps in them.
//! Sample configurations of BIRD and FRR with floor and boost are in `examples/routing/`.

#[cfg(feature = "loopback")]
pub mod kernel;

pub mod attributes;
#[cfg(feature = "bird")]
pub mod bird;
#[cfg(feature = "doctor")]
pub mod doctor;
#[cfg(feature = "frr")]
pub mod frr;
#[cfg(any(feature = "bird", feature = "frr"))]
mod readback;
