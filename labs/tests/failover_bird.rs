//! Failover with real BIRD at the router and at both sites.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells its times by printing"
)]

mod failover;

use anycast_labs::node::{Kind, service};
use anycast_labs::{isolated, isolated_with};

#[test]
fn killed_daemon_falls_to_the_floor_and_withdraws_nothing() {
    isolated_with(service::build, || failover::daemon_killed(Kind::Bird));
}

#[test]
fn stopped_daemon_falls_to_the_floor_and_withdraws_nothing() {
    isolated_with(service::build, || failover::daemon_stopped(Kind::Bird));
}

#[test]
fn site_cut_off_without_a_word_is_left_and_taken_again() {
    isolated_with(service::build, || failover::site_cut(Kind::Bird));
}

#[test]
fn site_whose_link_goes_down_is_left() {
    isolated_with(service::build, || failover::link_down(Kind::Bird));
}

#[test]
fn failing_check_demotes_a_node_that_goes_on_serving() {
    isolated_with(service::build, || failover::check_failed(Kind::Bird));
}

#[test]
fn nobody_hears_of_a_closed_port_while_a_daemon_starts_and_stops() {
    isolated_with(service::build, || failover::nobody_is_refused(Kind::Bird));
}

#[test]
fn withdrawal_is_counted() {
    let remove = ["disable anycast_floor4", "disable anycast_floor6"];
    isolated(|| failover::withdrawal_is_counted(Kind::Bird, &remove));
}
