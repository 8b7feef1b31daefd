//! busybox tftp: octet mode, `blksize` and, with it, `tsize`. Its request must fit a
//! block, so it cannot do the smallest block sizes.

use std::net::SocketAddr;

use super::common::pattern;
use super::program::{Run, find, run};
use super::site::{Site, WRAPPING, contents};

fn busybox(site: &Site, address: SocketAddr, args: &[&str]) -> Run {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut all = vec!["tftp"];
    all.extend(args);
    all.extend([&*host, &port]);
    let run = run(&find("busybox", "busybox"), site.local(), &all);
    assert!(run.success, "{}", run.text);
    run
}

fn get(site: &Site, address: SocketAddr, blksize: &str, expected: &[u8]) {
    let args = ["-g", "-r", "file", "-l", "out", "-b", blksize];
    let run = busybox(site, address, &args);
    site.assert_fetched("out", expected, &run);
}

fn put(site: &Site, address: SocketAddr, blksize: &str, expected: &[u8]) {
    let args = ["-p", "-r", "sent", "-l", "in", "-b", blksize];
    let run = busybox(site, address, &args);
    site.assert_sent("sent", expected, &run);
}

#[test]
fn busybox_gets_and_puts() {
    let site = Site::new();
    for blksize in [64, 512, 1428, 65_464] {
        let option = blksize.to_string();
        for content in contents(blksize) {
            site.serve("file", &content);
            site.keep("in", &content);
            for address in site.addresses() {
                get(&site, address, &option, &content);
                put(&site, address, &option, &content);
            }
        }
    }
}

#[test]
fn busybox_wraps() {
    let site = Site::new();
    let content = pattern(64 * WRAPPING + 1);
    site.serve("file", &content);
    site.keep("in", &content);
    for address in site.addresses() {
        get(&site, address, "64", &content);
        put(&site, address, "64", &content);
    }
}
