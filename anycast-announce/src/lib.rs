//! Announcers: what puts a decision of [`anycast_core`] into force on a router.
//!
//! | module | `kind` | needs | on the death of this process |
//! |---|---|---|---|
//! | [`kernel`] | `loopback` | Linux 5.18 or later, CAP_NET_ADMIN, a routing daemon that imports `lo` | the kernel removes the boost within the dead-man time: demoted, never withdrawn |
//! | [`bird`] | `bird` | the same, BIRD 2 or later and its control socket | the same; where BIRD's protocols or an include file carry: what is in force stays |
//! | [`frr`] | `frr` | the same, FRR 8 or later and bgpd's vty socket; vtysh where route-maps carry | the same; where route-maps carry: what is in force stays |
//!
//! `bird` and `frr` say that a preference is in force only when the daemon has sent it. Only
//! the kernel as carrier has a dead man, and only it needs CAP_NET_ADMIN. `doctor` (feature of
//! that name) inspects the daemons, the kernel and the node's settings, and names the traps in
//! them.
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
#[cfg(any(feature = "bird", feature = "frr"))]
mod socket;
