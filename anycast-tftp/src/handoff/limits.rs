//! Every bound and every time of handoff, and what happens beyond it.

use std::time::Duration;

/// Longest wait for the holders of an older transfer of the same flow.
pub const REVOKE_WAIT: Duration = Duration::from_secs(2);
/// How long a node that is no holder may answer after it asked one.
pub const LEASE: Duration = Duration::from_secs(2);
/// How often holders hear of a transfer that moves.
pub const HINT_EVERY: Duration = Duration::from_millis(250);
/// And at the latest after so many blocks.
pub const HINT_BLOCKS: u64 = 8192;
/// Blocks that may be sent past what every holder is known to know: less than half of the block
/// numbers, so that a number means one block.
pub const AHEAD: u64 = 32_767;
/// How long a holder trusts what it heard of a transfer whose block numbers wrap.
pub const HINT_LIFE: Duration = Duration::from_secs(8);
/// How much longer it is waited for: clocks run differently.
pub const HINT_MARGIN: Duration = Duration::from_millis(500);
/// The heir begins so long after the owner was last heard of: clients that repeat themselves have
/// done so by then. Some of them begin to wait anew with each packet, also with one of no use.
pub const HEIR_AFTER: Duration = Duration::from_millis(5500);
/// A write whose node was last heard of so long ago is given up when its client says something.
pub const WRITE_LOST_AFTER: Duration = Duration::from_secs(3);
/// How often the heir sends the next block of its own accord.
pub const HEIR_PROBES: u8 = 3;
/// How long it waits in between.
pub const HEIR_EVERY: Duration = Duration::from_millis(6500);
/// A cut-off owner sends again of its own accord for so long after the client's last packet.
pub const ALONE_AFTER: Duration = Duration::from_secs(3);
/// Afterwards it sends one block at a time, until it has sent so many times since then and before.
pub const ALONE_RESENDS: u8 = 6;
/// A node that did not run for so long trusts nothing of its own.
pub const PAUSE: Duration = Duration::from_secs(1);
/// While a transfer is younger than this and nothing is acknowledged, the same request gets the same
/// bytes; later it begins another transfer, and the file that has the name by then.
pub const YOUNG: Duration = Duration::from_secs(5);
/// How long a packet of an unknown flow is kept.
pub const HOLD: Duration = Duration::from_millis(500);
/// Packets that are kept at once; further ones are dropped, and their clients repeat them.
pub const MAX_HELD: usize = 4096;
/// Records of all flows. Each peer's share is refused beyond an equal part of it; this node's own
/// are bounded by its sessions, and the ends of them are not remembered beyond it.
pub const MAX_RECORDS: usize = 65_536;
/// How long a record that nobody mentions is kept.
pub const RECORD_LIFE: Duration = Duration::from_secs(90);
/// How long the end of a transfer is remembered.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(30);
/// Questions about unknown flows of one prefix: so many at once.
pub const ASKS_OF_PREFIX: u32 = 256;
/// And so many a second.
pub const ASKS_OF_PREFIX_RATE: u32 = 128;
/// Questions about all unknown flows: so many at once.
pub const ASKS: u32 = 4096;
/// And so many a second.
pub const ASKS_RATE: u32 = 2048;
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 1150;
/// Datagrams to one peer that wait to be sent; of more the oldest is dropped, as one that is lost.
pub const OUTBOX: usize = 1024;
/// Contents that are held open, or being opened, for records.
pub const MAX_CONTENTS: usize = 1024;
