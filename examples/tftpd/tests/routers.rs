//! The real server with `kind = "bird"` and `"frr"`, before real daemons and a router that counts.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its state by printing; shared with the guard"
)]

#[path = "../../common/tests/stage/mod.rs"]
mod stage;

use std::path::Path;

use anycast_labs::isolated;
use anycast_labs::node::Kind;

use stage::{Binary, socket_story, story};

fn config(folder: &Path, announce: &str) -> String {
    let folder = folder.display();
    format!(
        "{announce}\n[service]\nname = \"tftp\"\n\
         addresses = [\"192.0.2.69/32\", \"2001:db8::69/128\"]\n\
         rise = 1\nhold_down = \"100ms\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\
         [[check]]\nkind = \"tftp\"\nfile = \"health\"\n\
         [tftp]\nroot = \"{folder}/root\"\n"
    )
}

const TFTPD: Binary = Binary {
    path: env!("CARGO_BIN_EXE_anycast-tftpd"),
    config,
    file: "root/health",
};

#[test]
fn bird_confirms_what_it_exported() {
    isolated(|| story(Kind::Bird, TFTPD));
}

#[test]
fn frr_confirms_what_it_sent() {
    isolated(|| story(Kind::Frr, TFTPD));
}

#[test]
fn bird_that_is_not_there_or_not_for_us_is_named() {
    isolated(|| socket_story(Kind::Bird, TFTPD));
}

#[test]
fn frr_that_is_not_there_or_not_for_us_is_named() {
    isolated(|| socket_story(Kind::Frr, TFTPD));
}
