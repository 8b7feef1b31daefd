//! Runs that are written by hand, each for one way to fail.

use super::client::Kind;
use super::holds;
use super::setting::Setting;

#[test]
fn one_client_of_each_kind_reads_at_one_node() {
    for kind in Kind::ALL {
        let setting = Setting::peaceful(2).with_file(5000).with_file(0);
        holds(1, &setting.with_guest(kind, 512, &[0, 1, 0]));
    }
}
