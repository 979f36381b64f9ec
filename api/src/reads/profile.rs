//! A user's own profile.

use std::sync::Arc;

use shared::cache::Look;
use shared::domain::{EntityKind, Operation, Profile, apply_to_profile};
use uuid::Uuid;

use super::error::ReadError;
use super::{Found, pending_and_cached, source};
use crate::shapes::ProfileView;
use crate::state::State;

/// A user's own profile. A user who has not been seen before has the profile of a new one.
///
/// # Errors
/// If none of PostgreSQL, the cache and the buffer can tell.
pub async fn profile(state: &State, user_id: Uuid) -> Result<Found<ProfileView>, ReadError> {
    let kind = EntityKind::Profile;
    let was_up = state.link.is_up();
    let (mut pending, look) =
        pending_and_cached(&state.buffer, &state.cache, kind, &[user_id]).await?;
    let pending = pending.pop().unwrap_or_default();
    let found = look.as_ref().and_then(|look| look.found.get(&user_id)).cloned();
    let cached = found.is_some();
    let base = match found {
        Some(profile) => Some(Some(profile)),
        None => stored(state, user_id, look).await,
    };
    let source = source(&pending, cached);
    match (base, newest(&pending)) {
        (Some(stored), _) => {
            let first_seen = || Profile::first_seen(user_id, chrono::Utc::now());
            let mut profile = stored.unwrap_or_else(first_seen);
            for operation in &pending {
                apply_to_profile(&mut profile, operation);
            }
            state.clock.saw([profile.version()]).await;
            let stale = cached && !(was_up && state.link.is_up());
            Ok(Found { view: ProfileView::of(&profile), source, stale })
        }
        (None, Some(newest)) => Ok(Found { view: ProfileView::asked(newest), source, stale: true }),
        (None, None) => Err(ReadError::Unknown),
    }
}

/// The operation that counts where nothing but what is pending is known: the newest that sets the
/// preferences, whatever the order, or one that sets none.
fn newest(pending: &[Operation]) -> Option<&Operation> {
    pending.iter().max_by_key(|operation| (operation.change.preferences().is_some(), operation.id))
}

/// What PostgreSQL has of a profile, if it can be asked; it is put into the cache.
async fn stored(
    state: &State,
    user_id: Uuid,
    look: Option<Look<Profile>>,
) -> Option<Option<Profile>> {
    if !state.link.is_up() {
        return None;
    }
    let stored = state.store.profile(user_id).await;
    let stored = stored.inspect_err(|error| state.link.report(*error)).ok()?;
    if let (Some(look), Some(profile)) = (look, stored.clone()) {
        let cache = Arc::clone(&state.cache);
        state.tasks.spawn(async move { cache.fill(&look, [(user_id, &profile)]).await });
    }
    Some(stored)
}
