//! The client of tftp-hpa. It asks for no options, and its exit status says nothing.

use std::net::SocketAddr;

use super::common::pattern;
use super::program::{Run, find, run};
use super::site::{Site, WRAPPING, contents, text};

fn tftp(site: &Site, address: SocketAddr, mode: &str, command: [&str; 3]) -> Run {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut args = vec![family, "-m", mode, &host, &port, "-c"];
    args.extend(command);
    run(&find("tftp", "tftp-hpa"), site.local(), &args)
}

fn get(site: &Site, address: SocketAddr, mode: &str, expected: &[u8]) {
    let run = tftp(site, address, mode, ["get", "file", "out"]);
    site.assert_fetched("out", expected, &run);
}

fn put(site: &Site, address: SocketAddr, mode: &str, expected: &[u8]) {
    let run = tftp(site, address, mode, ["put", "in", "sent"]);
    site.assert_sent("sent", expected, &run);
}

#[test]
fn tftp_hpa_gets_binary() {
    let site = Site::new();
    for content in contents(512) {
        site.serve("file", &content);
        for address in site.addresses() {
            get(&site, address, "binary", &content);
        }
    }
}

#[test]
fn tftp_hpa_puts_binary() {
    let site = Site::new();
    for content in contents(512) {
        site.keep("in", &content);
        for address in site.addresses() {
            put(&site, address, "binary", &content);
        }
    }
}

#[test]
fn tftp_hpa_gets_and_puts_ascii() {
    let site = Site::new();
    let mut texts = vec![Vec::new(), b"\n".to_vec(), text()];
    // The two bytes of a pair on either side of a block's end.
    for len in [510, 511, 512, 513] {
        for pair in [&b"\n"[..], b"\r", b"\r\n"] {
            let mut text = vec![b'x'; len];
            text.extend(pair);
            text.extend(b"end\n");
            texts.push(text);
        }
    }
    for text in texts {
        site.serve("file", &text);
        site.keep("in", &text);
        for address in site.addresses() {
            get(&site, address, "ascii", &text);
            put(&site, address, "ascii", &text);
        }
    }
}

#[test]
fn tftp_hpa_wraps() {
    let content = pattern(512 * WRAPPING);
    let site = Site::new();
    site.serve("file", &content);
    site.keep("in", &content);
    get(&site, site.addresses()[0], "binary", &content);
    put(&site, site.addresses()[1], "binary", &content);
}

#[test]
fn tftp_hpa_learns_that_a_file_is_missing() {
    let site = Site::new();
    for address in site.addresses() {
        let run = tftp(&site, address, "binary", ["get", "missing", "out"]);
        assert!(run.text.contains("code 1"), "{}", run.text);
    }
}
