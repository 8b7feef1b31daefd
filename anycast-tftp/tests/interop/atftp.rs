//! atftp: the one of these clients that does windows (RFC 7440).

use std::net::SocketAddr;

use super::common::pattern;
use super::program::{Run, find, run};
use super::site::{Site, WRAPPING, contents};

fn atftp(site: &Site, address: SocketAddr, options: &[&str], args: &[&str]) -> Run {
    let mut all = Vec::new();
    for option in options {
        all.extend(["--option", option]);
    }
    all.extend(args);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    all.extend([&*host, &port]);
    run(&find("atftp", "atftp"), site.local(), &all)
}

fn get(site: &Site, address: SocketAddr, options: &[&str], expected: &[u8]) {
    let args = ["--get", "--remote-file", "file", "--local-file", "out"];
    let run = atftp(site, address, options, &args);
    assert!(run.success, "{}", run.text);
    site.assert_fetched("out", expected, &run);
}

fn put(site: &Site, address: SocketAddr, options: &[&str], expected: &[u8]) {
    let args = ["--put", "--remote-file", "sent", "--local-file", "in"];
    let run = atftp(site, address, options, &args);
    assert!(run.success, "{}", run.text);
    site.assert_sent("sent", expected, &run);
}

fn get_all(windowsize: u16) {
    let site = Site::new();
    for blksize in [8, 512, 1428, 65_464] {
        let blksize_option = format!("blksize {blksize}");
        let windowsize = format!("windowsize {windowsize}");
        for content in contents(blksize) {
            site.serve("file", &content);
            for address in site.addresses() {
                get(&site, address, &[&blksize_option, &windowsize], &content);
            }
        }
    }
}

#[test]
fn atftp_without_options() {
    let site = Site::new();
    for content in contents(512) {
        site.serve("file", &content);
        for address in site.addresses() {
            get(&site, address, &[], &content);
        }
    }
}

#[test]
fn atftp_windowsize_1() {
    get_all(1);
}

#[test]
fn atftp_windowsize_4() {
    get_all(4);
}

#[test]
fn atftp_windowsize_64() {
    get_all(64);
}

#[test]
fn atftp_tsize_and_timeout() {
    let site = Site::new();
    let content = pattern(5000);
    site.serve("file", &content);
    for address in site.addresses() {
        get(
            &site,
            address,
            &["tsize", "timeout 3", "blksize 1024"],
            &content,
        );
    }
}

#[test]
fn atftp_wraps_in_windows() {
    let site = Site::new();
    let content = pattern(8 * WRAPPING);
    site.serve("file", &content);
    for (address, windowsize) in site.addresses().into_iter().zip(["1", "64"]) {
        let windowsize = format!("windowsize {windowsize}");
        get(&site, address, &["blksize 8", &windowsize], &content);
    }
}

#[test]
fn atftp_puts() {
    let site = Site::new();
    for options in [
        &[][..],
        &["blksize 1428"],
        &["blksize 1428", "windowsize 4"],
    ] {
        for content in contents(1428) {
            site.keep("in", &content);
            for address in site.addresses() {
                put(&site, address, options, &content);
            }
        }
    }
}
