//! Round trips, and whatever else comes in.
