//! The tables of `docs/handoff.md`.
