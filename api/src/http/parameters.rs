//! Parameters that several routes have.

use super::error::ApiError;

/// A number that must be between 1 and `max`.
pub(super) fn in_range(name: &str, value: u64, max: u64) -> Result<u64, ApiError> {
    if (1..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::parameter(name, format!("must be between 1 and {max}")))
    }
}
