//! Who sends which block: what the router sees come from either site.
//!
//! A packet socket at the router is given every IPv4 packet that arrives there, with the link that
//! it came by. Blocks of the service are told apart by the client's port: each request has one
//! of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anycast_labs::Netns;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::network::{SERVICE, SITES};
use crate::timeline::{Event, Moved, Stamped};
use crate::transfer::BLKSIZE;

/// How long a packet is waited for before it is looked whether to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes to ask the kernel to keep while this thread does not run; it may grant fewer.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Of each packet no more is read than the longest IPv4 header, UDP's, and TFTP's first four bytes.
const HEADERS: usize = 60 + 8 + 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const UDP: u8 = 17;
const TFTP_PORT: u16 = 69;
const OPCODE_DATA: u16 = 3;
/// Opcode and number.
const DATA_HEADER: usize = 4;

/// Blocks on their way to the client: a window is one packet until a real link needs it in pieces
/// (UDP segmentation offload).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Blocks {
    /// The client's.
    port: u16,
    first: u16,
    last: u16,
}

/// Reports each time that a block comes from another site than the one before it.
pub(crate) fn moves(
    router: &Netns,
    stop: &AtomicBool,
    events: &Sender<Stamped>,
) -> Result<(), Error> {
    router
        .enter(|| listen(stop, events))?
        .map_err(Error::system("watch the packets at the router"))
}

fn listen(stop: &AtomicBool, events: &Sender<Stamped>) -> io::Result<()> {
    let links = [if_nametoindex(SITES[0])?, if_nametoindex(SITES[1])?];
    let protocol = Protocol::from(i32::from(ETHERTYPE_IPV4.to_be()));
    let packets = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
    packets.set_recv_buffer_size(RECEIVE_BUFFER)?;
    packets.set_read_timeout(Some(PATIENCE))?;
    let mut seen = Seen::default();
    let mut buffer = [0; HEADERS];
    while !stop.load(Ordering::Relaxed) {
        let (length, from) = match recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            // A link that goes down is told to every packet socket.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        let link = from.map_or(0, |from| from.ifindex());
        let site = links.iter().position(|known| *known as usize == link);
        let blocks = parse(&buffer[..length.min(HEADERS)]);
        if let (Some(site), Some(blocks)) = (site, blocks)
            && let Some(moved) = seen.handle(site, blocks)
            && events.send((Instant::now(), Event::Moved(moved))).is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// The blocks in an IPv4 packet, if it is one of the service.
fn parse(packet: &[u8]) -> Option<Blocks> {
    let number = |at: usize| -> Option<u16> {
        let bytes = packet.get(at..at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let udp = usize::from(packet.first()? & 0xf) * 4;
    let is_ours = *packet.get(9)? == UDP
        && packet.get(12..16)? == SERVICE.octets()
        && number(udp)? == TFTP_PORT
        && number(udp + 8)? == OPCODE_DATA;
    if !is_ours {
        return None;
    }
    let length = usize::from(number(2)?).checked_sub(udp + 8)?;
    let more = length.saturating_sub(1) / (DATA_HEADER + usize::from(BLKSIZE));
    let first = number(udp + 10)?;
    Some(Blocks {
        port: number(udp + 2)?,
        first,
        last: first.saturating_add(u16::try_from(more).ok()?),
    })
}

/// How far the latest transfer is, and by whom. Its blocks are fewer than numbers are.
#[derive(Debug, Default)]
struct Seen {
    last: Option<(usize, Blocks)>,
}

impl Seen {
    /// What comes again, from whomever, moves nothing.
    fn handle(&mut self, site: usize, blocks: Blocks) -> Option<Moved> {
        let before = self.last.filter(|(_, before)| before.port == blocks.port);
        if before.is_some_and(|(_, before)| blocks.last <= before.last) {
            return None;
        }
        self.last = Some((site, blocks));
        let (from, before) = before.filter(|(from, _)| *from != site)?;
        Some(Moved {
            from,
            last: before.last,
            to: site,
            first: blocks.first,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: [u8; 4], opcode: u8, options: usize, length: usize) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + (options / 4) as u8;
        let total = (20 + options + 8 + length) as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[9] = UDP;
        packet[12..16].copy_from_slice(&source);
        packet.extend([0, 69, 0xc0, 0x01, 0, 0, 0, 0, 0, opcode, 1, 2]);
        packet
    }

    #[test]
    fn only_blocks_of_the_service_are_blocks() {
        let blocks = |last| {
            Some(Blocks {
                port: 0xc001,
                first: 0x0102,
                last,
            })
        };
        let service = [192, 0, 2, 69];
        assert_eq!(parse(&packet(service, 3, 0, 1432)), blocks(0x0102));
        assert_eq!(parse(&packet(service, 3, 8, 4)), blocks(0x0102));
        assert_eq!(parse(&packet(service, 3, 0, 1433)), blocks(0x0103));
        assert_eq!(parse(&packet(service, 3, 0, 16 * 1432)), blocks(0x0111));
        assert_eq!(parse(&packet(service, 6, 0, 1432)), None);
        assert_eq!(parse(&packet([10, 1, 0, 2], 3, 0, 1432)), None);
        let whole = packet(service, 3, 0, 1432);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
    }

    #[test]
    fn a_transfer_moves_when_another_site_sends_what_is_new() {
        let mut seen = Seen::default();
        let mut see = |site, port, first, last| seen.handle(site, Blocks { port, first, last });
        assert_eq!(see(0, 1, 1, 16), None);
        assert_eq!(see(0, 1, 17, 32), None);
        assert_eq!(see(1, 1, 32, 32), None, "an old block");
        let moved = Moved {
            from: 0,
            last: 32,
            to: 1,
            first: 33,
        };
        assert_eq!(see(1, 1, 33, 33), Some(moved));
        assert_eq!(see(1, 1, 34, 49), None);
        assert_eq!(see(0, 2, 1, 16), None, "another transfer");
    }
}
