//! Times as JSON has them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Writes a time as chrono does (RFC 3339, as many digits as it takes), but in one piece: chrono hands
/// its text over character by character, and JSON looks at each as if it were a text of its own.
///
/// # Errors
/// If the serializer fails.
pub fn time_as_text<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_chrono_writes_it() {
        for nanos in [0, 1_700_000_000_000_000_000, 1_700_000_000_120_000_000, 1_234_567_891] {
            let time = DateTime::from_timestamp_nanos(nanos);
            let mut json = serde_json::Serializer::new(Vec::new());
            time_as_text(&time, &mut json).unwrap();
            assert_eq!(json.into_inner(), serde_json::to_vec(&time).unwrap());
        }
    }
}
