//! curl. It always asks for `tsize`, `blksize` and `timeout`, refuses an OACK with `tsize` 0,
//! and cannot do windows. In mode netascii it stores what travels, untranslated.

use std::net::SocketAddr;

use super::common::pattern;
use super::program::{Run, find, run};
use super::site::{Site, WRAPPING, contents, text, translated};

fn curl(site: &Site, address: SocketAddr, file: &str, args: &[&str]) -> Run {
    let url = format!("tftp://{address}/{file}");
    let mut all = vec!["--silent", "--show-error", "--globoff", "--max-time", "290"];
    all.extend(args);
    all.push(&url);
    run(&find("curl", "curl"), site.local(), &all)
}

fn get(site: &Site, address: SocketAddr, file: &str, expected: &[u8], args: &[&str]) {
    // curl creates no file for an empty one.
    site.keep("out", b"");
    let args = [args, &["--output", "out"]].concat();
    let run = curl(site, address, file, &args);
    assert!(run.success, "{}", run.text);
    site.assert_fetched("out", expected, &run);
}

fn get_all(blksize: usize, args: &[&str]) {
    let site = Site::new();
    for content in contents(blksize) {
        site.serve("file", &content);
        for address in site.addresses() {
            get(&site, address, "file", &content, args);
        }
    }
}

#[test]
fn curl_without_options() {
    get_all(512, &["--tftp-no-options"]);
}

#[test]
fn curl_with_its_default_options() {
    get_all(512, &[]);
}

#[test]
fn curl_blksize_8() {
    get_all(8, &["--tftp-blksize", "8"]);
}

#[test]
fn curl_blksize_512() {
    get_all(512, &["--tftp-blksize", "512"]);
}

#[test]
fn curl_blksize_1428() {
    get_all(1428, &["--tftp-blksize", "1428"]);
}

#[test]
fn curl_blksize_65464() {
    get_all(65_464, &["--tftp-blksize", "65464"]);
}

#[test]
fn curl_blksize_65464_capped_by_the_mtu() {
    let site = Site::with(|settings| settings.with_mtu(1500));
    for content in contents(1468) {
        site.serve("file", &content);
        for address in site.addresses() {
            get(
                &site,
                address,
                "file",
                &content,
                &["--tftp-blksize", "65464"],
            );
        }
    }
}

#[test]
fn curl_wraps_with_blksize_8() {
    let content = pattern(8 * WRAPPING + 3);
    let site = Site::new();
    site.serve("file", &content);
    for address in site.addresses() {
        get(&site, address, "file", &content, &["--tftp-blksize", "8"]);
    }
}

#[test]
fn curl_wraps_with_blksize_512() {
    let content = pattern(512 * WRAPPING);
    let site = Site::new();
    site.serve("file", &content);
    get(
        &site,
        site.addresses()[0],
        "file",
        &content,
        &["--tftp-no-options"],
    );
}

#[test]
fn curl_receives_netascii_as_it_travels() {
    let site = Site::new();
    site.serve("text", &text());
    let expected = translated(&text());
    for address in site.addresses() {
        get(&site, address, "text;mode=netascii", &expected, &[]);
        let small = &["--tftp-blksize", "8"];
        get(&site, address, "text;mode=netascii", &expected, small);
    }
}

#[test]
fn curl_puts() {
    let site = Site::new();
    for args in [&["--tftp-no-options"][..], &[], &["--tftp-blksize", "1428"]] {
        for content in contents(1428) {
            site.keep("in", &content);
            for address in site.addresses() {
                let args = [args, &["--upload-file", "in"]].concat();
                let run = curl(&site, address, "sent", &args);
                assert!(run.success, "{}", run.text);
                site.assert_sent("sent", &content, &run);
            }
        }
    }
}

#[test]
fn curl_learns_that_a_file_is_missing() {
    let site = Site::new();
    for address in site.addresses() {
        let run = curl(&site, address, "missing", &[]);
        // CURLE_TFTP_NOTFOUND.
        assert!(!run.success && run.text.contains("68"), "{}", run.text);
    }
}
