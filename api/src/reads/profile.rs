//! A user's own profile.

use shared::domain::{EntityKind, Lane, Profile, apply_to_profile};
use uuid::Uuid;

use super::view::{Found, ProfileView};
use crate::http::{ApiError, Source};
use crate::state::State;

/// A user's own profile. A user who has not been seen before has the profile of a new one.
///
/// # Errors
/// If neither PostgreSQL nor the buffer can tell.
pub async fn profile(state: &State, user_id: Uuid) -> Result<Found<ProfileView>, ApiError> {
    let pending = state.buffer.lane(Lane { kind: EntityKind::Profile, id: user_id }).await?;
    let source = if pending.is_empty() { Source::Database } else { Source::Overlay };
    let stored = if state.link.is_up() {
        state.store.profile(user_id).await.inspect_err(|error| state.link.report(*error)).ok()
    } else {
        None
    };
    match (stored, pending.last()) {
        (Some(stored), _) => {
            let first_seen = || Profile::first_seen(user_id, chrono::Utc::now());
            let mut profile = stored.unwrap_or_else(first_seen);
            for operation in &pending {
                apply_to_profile(&mut profile, operation);
            }
            state.clock.observe(profile.versions.newest());
            Ok(Found { view: ProfileView::of(&profile), source, stale: false })
        }
        (None, Some(newest)) => Ok(Found { view: ProfileView::asked(newest), source, stale: true }),
        (None, None) => Err(ApiError::DATABASE_UNAVAILABLE),
    }
}
