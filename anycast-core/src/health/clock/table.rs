//! The table of a check of kind `clock`.

use std::sync::Arc;

use serde::Deserialize;

use super::{ClockCheck, LIMIT};
use crate::config::Period;
use crate::config::check::CheckContext;
use crate::health::BuildCheck;

/// The keys of a check of kind `clock`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ClockTable {
    /// Largest error that the clock may have, by the kernel's upper bound: above 0, below 16 s.
    /// Default: none but the kernel's own, 16 s. Well-kept servers stay below `"100ms"`.
    pub max_error: Option<Period>,
}

impl ClockTable {
    /// What builds the check.
    ///
    /// # Errors
    /// One line that names the key, what is wrong and what to do.
    pub fn build(&self, _: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let check = match self.max_error.map(Period::get) {
            None => ClockCheck::new(),
            Some(error) if error.is_zero() || error >= LIMIT => {
                return Err(
                    "max_error: must be above 0s and below 16s, where the kernel calls its clock \
                     unsynchronised"
                        .to_owned(),
                );
            }
            Some(error) => ClockCheck::new().with_max_error(error),
        };
        Ok(Arc::new(move || Box::new(check)))
    }
}
