//! What the kernel dropped because a socket's receive buffer was full. No call tells it for
//! one socket without a packet coming in, but `/proc/net/udp` does.

use std::io;
use std::net::SocketAddr;

/// Reads the drops of sockets, by inode, in order; 0 for one that is not listed. May take as
/// long as the host has sockets.
///
/// # Errors
/// `/proc` cannot be read.
pub(in crate::server) fn read(sockets: &[(SocketAddr, u64)]) -> io::Result<Vec<u64>> {
    let mut tables = [None, None];
    sockets
        .iter()
        .map(|(address, inode)| {
            let (index, path) = if address.is_ipv4() {
                (0, "/proc/thread-self/net/udp")
            } else {
                (1, "/proc/thread-self/net/udp6")
            };
            let table: &mut Option<String> = &mut tables[index];
            let text = match table {
                Some(text) => text,
                None => table.insert(std::fs::read_to_string(path)?),
            };
            Ok(find(text, *inode).unwrap_or(0))
        })
        .collect()
}

/// The last column of the line whose tenth is the inode.
fn find(table: &str, inode: u64) -> Option<u64> {
    let wanted = inode.to_string();
    let line = table
        .lines()
        .find(|line| line.split_ascii_whitespace().nth(9) == Some(&wanted))?;
    line.split_ascii_whitespace().nth(12)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  471: 0100007F:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30341 2 0000000000000000 17
 1058: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30342 2 0000000000000000 0
";

    #[test]
    fn drops_are_found_by_inode() {
        assert_eq!(find(TABLE, 30_341), Some(17));
        assert_eq!(find(TABLE, 30_342), Some(0));
        assert_eq!(find(TABLE, 471), None);
        assert_eq!(find("", 1), None);
    }
}
