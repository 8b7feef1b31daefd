#![no_main]
#[path = "../handoff_entries.rs"]
#[allow(dead_code, reason = "one entry for each target")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::handoff_message(bytes));
