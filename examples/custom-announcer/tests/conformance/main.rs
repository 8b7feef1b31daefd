//! The announcer and the check against the suites, in namespaces of their own, with the
//! kernel's real nftables; and the program as an operator runs it.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod program;
mod redis;
mod sets;

/// One thread, so that everything stays in the namespaces that it is in.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn nft(arguments: &[&str]) -> String {
    let output = std::process::Command::new("nft").args(arguments).output();
    let output = output.expect("apt install nftables");
    assert!(output.status.success(), "nft {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
