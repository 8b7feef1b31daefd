//! What a transfer is: everything that the answer to an ACK depends on.

/// An immutable record of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {}
