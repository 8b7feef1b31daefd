#![allow(
    clippy::disallowed_methods,
    reason = "virtual time begins at an arbitrary instant"
)]

use super::*;

mod pair;
mod scripted;
