//! How many tasks users have, as counted lately: counting takes longer than reading a page.

use std::time::Duration;

use moka::future::Cache;
use shared::store::StoreError;
use uuid::Uuid;

/// Counts that are kept at the most: about 200 bytes each.
const MOST: u64 = 10_000;
/// For how long: what other processes write is counted after that.
const FRESH: Duration = Duration::from_millis(500);

/// Counts by user and by the generation of the user's set of tasks ([`Writes::generation`]).
///
/// [`Writes::generation`]: shared::writes::Writes::generation
#[derive(Clone, Debug)]
pub struct Totals(Cache<(Uuid, u64), u64>);

impl Default for Totals {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(FRESH).build())
    }
}

impl Totals {
    /// What was counted in this generation, or else `count`, which begins now. Whoever asks meanwhile
    /// in the same generation waits for the same count.
    ///
    /// # Errors
    /// If the count fails.
    pub async fn get(
        &self,
        user_id: Uuid,
        generation: u64,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<u64, StoreError> {
        self.0.try_get_with((user_id, generation), count).await.map_err(|error| *error)
    }
}
