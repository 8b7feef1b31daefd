//! Counters of a server engine.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a server engine did since it began. Counters only rise.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// Every counter with its name, in a fixed order: for metrics and logs.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds the counters of another engine.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Datagrams that came in.
    datagrams,
    /// Of them: read requests, repeated ones included.
    read_requests,
    /// Of them: write requests, repeated ones included.
    write_requests,
    /// Of them: requests that repeated one whose session exists already.
    repeated_requests,
    /// Of them: not TFTP, or broken.
    malformed,
    /// Of them: from an address or port that is never answered.
    refused_sources,
    /// Of them: ACK, DATA, ERROR or OACK of no session here. Never answered.
    unknown_flow,
    /// Of them: ACKs that acknowledged nothing new, and blocks that were here already.
    duplicates,
    /// Of them: packets that make no sense in their session. Ignored.
    strays,
    /// Requests dropped because all sessions were taken by clients that had answered.
    dropped_sessions,
    /// Requests dropped because the sessions of the client's prefix were taken by clients that
    /// had answered.
    dropped_prefix,
    /// Requests dropped because too many files were open or being opened, or uploads held too
    /// much memory.
    dropped_opens,
    /// Requests refused: no such file.
    refused_not_found,
    /// Requests refused: the name, the policy or the file system forbids it.
    refused_access,
    /// Requests refused: the file exists.
    refused_exists,
    /// Requests refused for another reason: disk full, disk broken.
    refused_other,
    /// Sessions begun.
    sessions,
    /// Sessions that ended with the whole file read by the client.
    completed_reads,
    /// Sessions that ended with the whole file written and durable.
    completed_writes,
    /// Sessions that the client ended with ERROR after it had asked for options only.
    probes,
    /// Sessions that the client ended with ERROR later.
    aborted,
    /// Sessions given up because the client fell silent.
    timed_out,
    /// Sessions that ended because the file changed, the disk failed or the client broke the
    /// protocol.
    failed,
    /// Sessions superseded by another request from the same client port.
    replaced,
    /// Sessions whose client had sent nothing but its request, given up for a new request
    /// because all were taken.
    evicted,
    /// Blocks sent, repeated ones included.
    blocks_sent,
    /// Of them: sent before.
    blocks_resent,
    /// Bytes of blocks sent, repeated ones included.
    bytes_sent,
    /// Blocks taken in.
    blocks_received,
    /// Bytes of blocks taken in.
    bytes_received,
    /// OACKs and ACKs sent again, because the client was silent or repeated itself.
    acks_resent,
    /// ERRORs sent.
    errors_sent,
    /// ERRORs not sent because too many were waiting.
    errors_dropped,
    /// Reads that had to wait for the disk.
    disk_waits,
    /// Sessions that went on or ended at another node.
    moved,
    /// Transfers of other nodes that this node went on with.
    adopted,
    /// Of them: whose timers it took over.
    taken_over,
    /// Of them: as the heir of a node that is gone.
    inherited,
    /// First replies that waited for another node in vain: until one has the record, a route that
    /// moves ends the transfer.
    unprotected,
    /// Packets of unknown flows that were kept until another node was asked.
    held,
    /// Of them: dropped, since nobody knew the flow.
    held_in_vain,
    /// Packets of unknown flows that nobody was asked about: too many.
    not_asked,
    /// Packets of which it is not certain what they acknowledge. Ignored.
    ambiguous,
    /// Messages to other nodes.
    messages_sent,
    /// Messages of other nodes.
    messages_received,
    /// Of them: not understood, or not allowed.
    messages_refused,
    /// Times that this node found that it had not run for a while.
    pauses,
}
