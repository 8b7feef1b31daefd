//! DHCP for anycast services: one service address at several sites, and no address leased
//! twice, whatever the routes do.
//!
//! **This release holds the contract and no engine.** There is nothing to call yet. The
//! contract is published first because everything in the crate will be judged by it: the
//! rule below, and the properties L1 to L11, each of which becomes one function shared by
//! property tests, simulation and labs.
//!
//! # What the crate will hold
//!
//! | module | what it is |
//! |---|---|
//! | `codec` | DHCPv4 (RFC 2131, RFC 2132), DHCPv6 (RFC 8415) and relay framing that survives any input |
//! | `proto` | the engines, sans-IO: time and randomness come in as arguments |
//! | `store` | the lease log: durable before a reply leaves, one `fdatasync` for many leases |
//! | `sync` | leases kept equal between sites, behind `anycast_core::sync::Sync` |
//! | `server` | sockets, and ping before assign |
//! | `balance` | a relay on the anycast address in front of existing DHCP servers |
//! | `health` | the `dhcp` check |
//!
//! # Why DHCP fails on an anycast address
//!
//! A renewal is a unicast packet to the address that granted the lease. With anycast it may
//! reach another site. A server that has never heard of the lease refuses it, and the client
//! loses its address; a server that answers anyway may have given the address to somebody
//! else. Two sites with one pool lease one address twice as soon as they cannot talk.
//!
//! # The rule
//!
//! - **Slots.** Every address belongs to a slot (a fixed, aligned block). A slot has one
//!   owner node at an epoch. Only the owner binds a free address to a client.
//! - **Horizon.** For every bound address the owner keeps, durably, the horizon *H*: "nobody
//!   but client *k* before *H*". Only the owner raises it, and it leaves the node only after
//!   it is on disk.
//! - **Grant.** At time *C* the owner grants *L* with *C + L ≤ min(H, max(H acknowledged by a
//!   peer, C + MCLT))*; any other holder of the record renews with *C + L ≤ H*. MCLT is the
//!   maximum client lead time of RFC 8156. *H* runs ahead of the lease, so that other sites
//!   can renew at full length. While a site is cut off, its new leases shrink towards MCLT.
//! - **Silence.** A node without the record asks the owner, for at most 500 ms, and is
//!   otherwise silent. It refuses (NAK) only with authority, L5.
//! - **Loss of a node** needs no takeover: the others renew up to *H* and allocate from their
//!   own slots. A takeover fences every other member first, and waits until no client can
//!   still hold an older promise.
//! - **Reserve.** Each node owns one slot that is never taken over, so that a site that boots
//!   while cut off can still lease.
//! - **One server** to the client: every node uses the same server identifier.
//!
//! # The properties
//!
//! *g* is the guard time, *s* the greatest clock skew, *d* the greatest message delay, *ρ* the
//! greatest clock drift.
//!
//! | # | property |
//! |---|---|
//! | L1 | no address is visible to two clients at overlapping real times, given skew ≤ *s*, delay ≤ *d*, drift ≤ *ρ*, dead nodes stopped (not paused) when they are declared dead, and no undetected rollback of state; for IA_NA by function: but for a hash collision, ≤ n²/2⁶⁵ |
//! | L2 | at most one allocator per slot; epochs are unique by node id; the recipient of a transfer holds the donor's full suffix durably |
//! | L3 | every reply, replays included, obeys **Grant**; *H* is durable at the owner before the record or the reply leaves |
//! | L4 | reuse only after the written *H* + *g*, or the takeover bound + *g*, or valid release acknowledgements from every configured member, dead ones included; *g* ≥ 2*s* + *d* + *ρ*·(longest lease) |
//! | L5 | NAK only: wrong link with a configuration equal in the fleet; an owner in standing that sees a conflict; SELECTING without a record while the owner is unreachable. Else silent |
//! | L6 | records merge by (epoch, incarnation, sequence), the incarnation raised durably at each start; the owner never merges foreign writes; fenced epochs are rejected |
//! | L7 | same input, configuration generation, secrets and decline set give the same bytes; a valid RENEW never changes the address |
//! | L8 | a holder with *H − C* ≥ the minimum lease ACKs the same address, unless it is only fenced or the record is released |
//! | L9 | disk loss is a takeover from oneself; never "synced with some peer" |
//! | L10 | a crash at any fsync boundary, sent-but-unacknowledged included, keeps L1 |
//! | L11 | a clock step, skew > *s* or an unsynchronised boot freezes reuse, foreign renewals and the raising of *H*; own renewals last at most min(MCLT, *H − C*) with *C* anchored to the monotonic clock |
