//! `quickstart`: a TFTP service on an anycast address, at two sites, and what happens when
//! one of them fails. No configuration, no root.
//!
//! | module | what it is |
//! |---|---|
//! | [`launch`] | outside: finds or builds `anycast-tftpd`, makes the namespaces, passes signals on |
//! | [`demo`] | inside: the two runs, from the first packet to the summary |
//! | [`network`] | client, router and two sites; BIRD, or the follower |
//! | [`site`] | `anycast-tftpd` at one site |
//! | [`follower`] | a small stand-in for a routing daemon |
//! | [`watch`] | what the kernel says: the boost at a site, the route at the router |
//! | [`blocks`] | what the router sees: who sends which block |
//! | [`transfer`] | the client |
//! | [`timeline`] | what was seen, in order, and whether it is what should be seen |
//! | [`screen`] | lines and the progress bar |

mod blocks;
mod demo;
mod error;
mod follower;
mod launch;
mod network;
mod screen;
mod site;
mod timeline;
mod transfer;
mod watch;

use std::process::ExitCode;

use anycast_labs::isolate;
use clap::Parser;

/// Shows a TFTP service on an anycast address survive the loss of its daemon and of a site.
///
/// In namespaces of its own it builds a client, a router and two sites that run
/// anycast-tftpd, lets the client fetch a large file, and breaks the site that serves it:
/// first by killing the daemon, then by cutting the whole site off. The transfer goes on at the
/// other site. It takes about half a minute, needs neither root nor configuration, and leaves
/// nothing behind.
#[derive(Debug, Clone, Parser)]
#[command(version)]
struct Options {
    /// Use the built-in route follower even where BIRD is installed.
    #[arg(long)]
    follower: bool,
    /// When something goes wrong, show the daemons' logs too.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if isolate::inside().is_some() {
        demo::run(&options).map(|()| 0)
    } else {
        launch::run(&options)
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            screen::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
