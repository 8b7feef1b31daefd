//! Transfers that survive a route move: any node goes on with what another began.
//!
//! For a read the answer to ACK *n* is a pure function of an immutable [`Record`] and *n*. So it
//! is enough that whoever the client comes to has the record and the content. [`Node`] is the
//! server engine of one node together with what it needs of the others; it is pure, and the mesh
//! is one transport for its messages.
//!
//! # Contract
//!
//! As of the [server engine](crate::proto::server), with two more inputs,
//! [`Node::handle_peer`] and [`Node::handle_message`], and one more output,
//! [`Node::poll_message`]. Messages may be lost, doubled, late and out of order; they must be
//! authentic. Nothing waits for a peer longer than this page says, and every table is bounded
//! ([`limits`]).
//!
//! # Clauses
//!
//! 1. **Holders.** A flow is a client's address and port and the service address. Its *directory*
//!    is the two configured nodes with the highest rendezvous hashes, in different failure domains
//!    where possible; among up to three nodes it is all of them. Owner and directory store the
//!    record, and hold its content open. While a node of the directory is down, the next one that
//!    is up keeps the record too.
//! 2. **First reply** (`before-reply`). A request gets a record with a fresh nonce and an order
//!    above that of any older record of its flow; a node that did not know of that one hears so,
//!    and says it again. The directory stores it, forgets the older one and revokes its owner. The
//!    reply goes out once a holder in another domain that has the content has acknowledged, or
//!    after `hold_wait`; then it is counted `unprotected` until one does. Where an older transfer
//!    of the flow is known, the reply also waits until every holder that may still answer for it
//!    has acknowledged its end, at most [`limits::REVOKE_WAIT`]. Of two records that did not know
//!    of each other the one stands whose client was heard of later; an owner whose reply is out
//!    goes on with it, as does a node that has just repeated it (9).
//! 3. **Answering is not owning.** A holder answers an ACK, once, from its own socket, and tells
//!    the owner (at once, then a few times in a round trip, and until the owner knows), whose timer
//!    begins anew. An ACK that another node is known to have answered is not answered again, unless
//!    the client repeats it later than the network would. What follows a move is one block, then
//!    windows. An ACK of a block that the client can hardly have yet, as any of a block before the
//!    options are acknowledged, may be a late double, of the transfer before: the others are asked
//!    what they know, and one that came before the client was heard there with less is dropped. A
//!    client that says twice that it has less than is known of it is believed.
//! 4. **Takeover.** Timers belong to the owner. A node that answers takes them over, at the next
//!    epoch, when the owner is draining, is down, or has said nothing of the flow for max(500 ms,
//!    RTO) after three ACKs that advanced here. Of two owners the one with the higher epoch stays,
//!    then the one with the higher number.
//! 5. **Heir.** The first live directory node takes over [`limits::HEIR_AFTER`] after the owner was
//!    last heard of, and sends one block, up to [`limits::HEIR_PROBES`] times,
//!    [`limits::HEIR_EVERY`] apart, to a client that has acknowledged one before: some never repeat
//!    an ACK. Clients that do have done so by then; some of these begin to wait anew with each
//!    packet, so that probes that are early or many hold them up.
//! 6. **Unknown flow.** One packet of a flow is kept for a bounded time while the directory is
//!    asked; where nobody knows the flow it is dropped in silence. Questions are limited for each
//!    prefix and in all. What was kept before a transfer began is not of that transfer.
//! 7. **Leases.** Who is neither owner nor directory answers for [`limits::LEASE`] after it asked,
//!    and lets nobody else answer. A new record of that flow waits for it. Where nobody who could
//!    allow it can be reached, nobody has to.
//! 8. **Hints.** Holders hear how far a transfer is when it begins, every [`limits::HINT_EVERY`]
//!    while it moves and every [`limits::HINT_BLOCKS`] blocks. In a transfer whose block numbers
//!    wrap nobody sends more than [`limits::AHEAD`] blocks past what every holder has acknowledged
//!    to know; a silent holder is left behind after [`limits::HINT_LIFE`] and a margin, and a
//!    holder trusts what it knows for [`limits::HINT_LIFE`] after the owner has last heard it, or
//!    for as long as the client, at the fastest pace that was seen, stays in sight. Afterwards, and
//!    where a number could mean two blocks, it is silent.
//! 9. **The request again.** While nothing is acknowledged and the transfer is younger than
//!    [`limits::YOUNG`], whoever has its timers by now, the same request gets the same bytes, at
//!    any node, not within one RTO. While the transfer moves, it is a late double. Otherwise it is
//!    a new transfer, and its name is opened afresh.
//! 10. **Ends.** The last ACK, or an ERROR, at any node ends the transfer at all holders. So does a
//!     content that no node has any more, once all were asked: the node that the client is at, its
//!     owner or not, says so by ERROR 0. What a node that is down may have is waited for in
//!     silence. A client that is silent is forgotten by the owner and ends nothing: it may be at
//!     another node.
//! 11. **A pause.** A node that finds that it did not run for [`limits::PAUSE`] trusts no record of
//!     its own before a holder has confirmed it, and answers nothing that arrived meanwhile. Where
//!     no holder is left, every node that took part when it stopped must have run since, and know
//!     of no other transfer; what one that has begun anew may have forgotten is given up. Where
//!     none took part and none can be asked, it waits for [`limits::REVOKE_WAIT`]. What such a node
//!     says of a record nobody takes up. A cut-off owner sends again of its own accord for
//!     [`limits::ALONE_AFTER`] after the client's last packet, and later as long as it has done so
//!     less than [`limits::ALONE_RESENDS`] times.
//! 12. **Writes** go on at the node where they began: others pass the client's packets on to it. A
//!     write whose node is gone ends with an ERROR.
//!
//! # Known limits
//!
//! - Where the mesh is partitioned, the client crosses between the halves *and* uses its port for
//!   another file, the half that it comes back to cannot know; its block numbers alone protect the
//!   client then. A request that is repeated after [`limits::YOUNG`] in the other half is such
//!   another one. The same holds for an heir in the other half of a partition, whose few probes may
//!   meet the next transfer of the port.
//! - In files of more than 65,535 blocks: where the mesh is partitioned, and the client gets more
//!   than [`limits::AHEAD`] blocks in one half and comes back to the other.
//! - Where a round trip between nodes takes longer than `hold_wait`, an older transfer of the port
//!   may become known after the reply. Set `hold_wait` above it.
//! - A node that did not run for a while, while all other holders of a transfer died or began anew,
//!   gives it up: its client begins again. What it has forgotten may be that the client uses its
//!   port for another file.
//! - The same follows, in a fleet that is being upgraded, from a node of wire version 1, which does
//!   not say how long it has run.
//! - A pause is seen by the monotonic clock, which stands still while a host is suspended: a node
//!   that is suspended and resumed, or restored from a snapshot, goes on with what it knew. Restart
//!   it.
//! - A NAT that changes the client's port between sites makes another flow.

mod entry;
pub mod fleet;
pub mod limits;
mod node;
pub mod record;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
pub mod wire;

pub use fleet::{Fleet, Mode};
pub use node::Node;
pub use record::Record;
