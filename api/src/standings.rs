//! What users may do now: their standing, and the role an admin has given them, as far as this node
//! can tell.
//!
//! It is asked for with every request, so it is kept for a moment: what an admin sets takes effect
//! within that time on all nodes, and at once in the process that was asked. With PostgreSQL away the
//! last that was known counts, with pending operations laid over it; of a user of whom nothing is
//! known the token is believed, and replay checks again.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use shared::buffer::{Buffer, BufferError};
use shared::domain::{EntityKind, Lane, Preferences, Profile, Role, Standing, apply_to_profile};
use shared::host_clock::HostClock;
use shared::store::{Link, Store};
use thiserror::Error;
use uuid::Uuid;

/// For how long an answer is good.
const FRESH: Duration = Duration::from_secs(2);
/// Users whose rights are kept for that time at the most: some 250 bytes each, 5 MB in all. Further ones
/// are asked for with each request.
const USERS: u64 = 20_000;
/// Users of whom it is kept what PostgreSQL had last, for an outage: some 400 bytes each, 20 MB in all.
const LAST_USERS: u64 = 50_000;

/// What is pending for a user cannot be read, so it is not known whether they are suspended.
#[derive(Clone, Debug, Error)]
#[error("what is pending for a user cannot be read")]
pub struct StandingUnknown(#[source] pub Arc<BufferError>);

/// What counts for a user now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Whether the user is welcome.
    pub standing: Standing,
    /// The role that counts.
    pub role: Role,
}

/// What was found of a user, whatever a token says.
#[derive(Clone, Copy, Debug)]
struct Known {
    standing: Standing,
    /// The role that an admin has given, if one has.
    role: Option<Role>,
}

/// What users may do now.
#[derive(Clone, Debug)]
pub struct Standings {
    store: Arc<Store>,
    buffer: Arc<Buffer>,
    link: Arc<Link>,
    clock: Arc<HostClock>,
    fresh: Cache<Uuid, Known>,
    last: Cache<Uuid, Arc<Profile>>,
}

impl Standings {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        buffer: Arc<Buffer>,
        link: Arc<Link>,
        clock: Arc<HostClock>,
    ) -> Self {
        Self {
            store,
            buffer,
            link,
            clock,
            fresh: Cache::builder().max_capacity(USERS).time_to_live(FRESH).build(),
            last: Cache::builder().max_capacity(LAST_USERS).build(),
        }
    }

    /// What counts for a user whose token says `claimed`.
    ///
    /// # Errors
    /// If the buffer cannot be read: what is pending there may be a suspension.
    pub async fn of(&self, user_id: Uuid, claimed: Role) -> Result<Rights, StandingUnknown> {
        let known = match self.fresh.get(&user_id).await {
            Some(known) => known,
            // Of many requests of one user at once, one asks.
            None => Box::pin(self.fresh.try_get_with(user_id, self.ask(user_id)))
                .await
                .map_err(|error| StandingUnknown::clone(&error))?,
        };
        Ok(Rights { standing: known.standing, role: known.role.unwrap_or(claimed) })
    }

    /// Whether what is in PostgreSQL of a user has been read by this process.
    pub fn knows(&self, user_id: Uuid) -> bool {
        self.last.contains_key(&user_id)
    }

    /// Forgets what was read of a user whose standing or role has just been set here.
    pub async fn forget(&self, user_id: Uuid) {
        self.fresh.invalidate(&user_id).await;
    }

    async fn ask(&self, user_id: Uuid) -> Result<Known, StandingUnknown> {
        let lane = Lane { kind: EntityKind::Profile, id: user_id };
        let pending = self.buffer.lane(lane).await;
        let pending = pending.map_err(|error| StandingUnknown(Arc::new(error)))?;
        let mut profile = Profile::clone(&*self.stored(user_id).await);
        for operation in &pending {
            apply_to_profile(&mut profile, operation);
        }
        Ok(Known { standing: profile.standing, role: profile.given_role() })
    }

    async fn stored(&self, user_id: Uuid) -> Arc<Profile> {
        if self.link.is_up() {
            match self.store.profile(user_id).await {
                Ok(found) => {
                    let unseen = || Profile::first_seen(user_id, chrono::Utc::now());
                    let profile = found.unwrap_or_else(unseen);
                    self.clock.saw([profile.version()]).await;
                    let profile =
                        Arc::new(Profile { preferences: Preferences::default(), ..profile });
                    self.last.insert(user_id, Arc::clone(&profile)).await;
                    return profile;
                }
                Err(error) => self.link.report(error),
            }
        }
        let unseen = || Arc::new(Profile::first_seen(user_id, chrono::Utc::now()));
        self.last.get(&user_id).await.unwrap_or_else(unseen)
    }
}
