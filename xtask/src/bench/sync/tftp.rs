//! A TFTP client (RFC 1350, 2347, 2348, 7440) that reads a file and forgets it: enough to see that
//! it is served.

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const DATA: u16 = 3;
const ERROR: u16 = 5;
const OACK: u16 = 6;
/// What is asked for; a server may grant less.
const BLOCK: usize = 1428;
const WINDOW: u64 = 32;
/// Without options.
const DEFAULT_BLOCK: usize = 512;
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(1);

/// Reads a file to its end; how long it is.
///
/// # Errors
/// What the server answers, among others that it has no such file; its silence.
pub(in crate::bench) fn read(server: SocketAddr, name: &str) -> Result<u64> {
    read_by(server, name, WINDOW)
}

/// The same, with windows of so many blocks.
///
/// # Errors
/// As of [`read`].
pub(in crate::bench) fn read_by(server: SocketAddr, name: &str, window: u64) -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let request = format!("\0\x01{name}\0octet\0blksize\0{BLOCK}\0windowsize\0{window}\0");
    socket.send_to(request.as_bytes(), server)?;
    let mut buffer = [0; BLOCK + 4];
    let (mut length, peer) = socket.recv_from(&mut buffer)?;
    socket.connect(peer)?;
    let (mut block, mut window) = (DEFAULT_BLOCK, 1);
    let (mut blocks, mut acknowledged, mut bytes) = (0_u64, 0_u64, 0_u64);
    loop {
        let packet = buffer.get(..length).unwrap_or_default();
        let (code, number, body) = split(packet)?;
        match code {
            OACK => {
                (block, window) = granted(packet.get(2..).unwrap_or_default());
                acknowledge(&socket, 0)?;
            }
            DATA if number == low(blocks + 1) => {
                blocks += 1;
                bytes += body.len() as u64;
                let is_last = body.len() < block;
                if is_last || blocks - acknowledged >= window {
                    acknowledge(&socket, blocks)?;
                    acknowledged = blocks;
                }
                if is_last {
                    return Ok(bytes);
                }
            }
            // One was lost, or came twice: the server goes on from there.
            DATA => {
                acknowledge(&socket, blocks)?;
                acknowledged = blocks;
            }
            ERROR => return Err(Error::other(String::from_utf8_lossy(body).into_owned())),
            _ => return Err(ErrorKind::InvalidData.into()),
        }
        length = socket.recv(&mut buffer)?;
    }
}

/// How long the first reply to a request takes; the transfer ends with it.
///
/// # Errors
/// The server's silence.
pub(in crate::bench) fn first_reply(server: SocketAddr, name: &str) -> Result<Duration> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let begun = Instant::now();
    socket.send_to(format!("\0\x01{name}\0octet\0").as_bytes(), server)?;
    let mut buffer = [0; DEFAULT_BLOCK + 4];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    let waited = begun.elapsed();
    let (code, ..) = split(buffer.get(..length).unwrap_or_default())?;
    socket.send_to(b"\0\x05\0\0enough\0", peer)?;
    if code == DATA {
        Ok(waited)
    } else {
        Err(Error::other(format!("no DATA, but packet {code}")))
    }
}

/// Block numbers wrap to 0.
fn low(number: u64) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn acknowledge(socket: &UdpSocket, blocks: u64) -> Result<()> {
    let [high, low] = low(blocks).to_be_bytes();
    socket.send(&[0, 4, high, low]).map(drop)
}

/// The code, the number after it and what follows both.
fn split(packet: &[u8]) -> Result<(u16, u16, &[u8])> {
    let [a, b, c, d, body @ ..] = packet else {
        return Err(ErrorKind::InvalidData.into());
    };
    let number = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
    Ok((number(a, b), number(c, d), body))
}

/// Block size and window of an OACK; what it does not name has not been granted.
fn granted(options: &[u8]) -> (usize, u64) {
    let text = String::from_utf8_lossy(options).to_ascii_lowercase();
    let words: Vec<_> = text.split('\0').collect();
    let value = |name: &str| {
        let pair = words.chunks_exact(2).find(|pair| pair[0] == name)?;
        pair[1].parse::<u16>().ok()
    };
    (
        value("blksize").map_or(DEFAULT_BLOCK, usize::from),
        value("windowsize").map_or(1, u64::from),
    )
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A server that sends these packets, a group at each packet of the client.
    fn server(groups: Vec<Vec<Vec<u8>>>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            for packets in groups {
                let (_, client) = socket.recv_from(&mut [0; 512]).unwrap();
                for packet in packets {
                    socket.send_to(&packet, client).unwrap();
                }
            }
        });
        address
    }

    fn data(number: u8, length: usize) -> Vec<u8> {
        [vec![0, 3, 0, number], vec![7; length]].concat()
    }

    #[test]
    fn windows_are_read_to_the_short_block_and_a_gap_is_filled() {
        let oack = b"\0\x06blksize\x00100\0windowsize\x002\0".to_vec();
        let address = server(vec![
            vec![oack],
            vec![data(1, 100), data(2, 100)],
            // The third one is lost, then comes with the rest.
            vec![data(4, 30)],
            vec![data(3, 100), data(4, 30)],
        ]);
        assert_eq!(read(address, "a").unwrap(), 330);
    }

    #[test]
    fn a_server_without_options_and_one_without_the_file_are_understood() {
        let address = server(vec![vec![data(1, 512)], vec![data(2, 0)]]);
        assert_eq!(read(address, "a").unwrap(), 512);
        let address = server(vec![vec![b"\0\x05\0\x01no such file\0".to_vec()]]);
        let error = read(address, "a").unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}
