//! Taking operations in.

use std::sync::Arc;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::job::{OnFullDisk, Room};
use crate::buffer::error::BufferError;
use crate::buffer::format::record::{self, Header, unix_millis};
use crate::buffer::tables::intake::Intake;
use crate::buffer::tables::lane_end::LaneEnd;
use crate::domain::{Clock, Lane, MAX_PRIORITY, Operation, Version};
use crate::metric;
use crate::settings::BufferSettings;

/// By how many operations (of at most a KiB each) the limits are higher for what is most urgent: what
/// ends a session or sets a user's rights must come in when others have filled what there is.
const RESERVE: u64 = 1000;

/// Pending operations of one entity at the most: what is laid over a read grows with them.
const LANE_LIMIT: u64 = 1000;

impl Buffer {
    /// Puts an operation at the end of its lane, durably. With a clock, the operation is one that has
    /// just been drawn, and if it would not be the newest it is first given a version past the lane's
    /// newest (two processes of one host draw versions side by side), past the one that its client
    /// asserts, and past the one that this host remembers of the entity (`ahead`); without a clock, its id
    /// is known elsewhere and stays, and it is kept once however often it comes. Returns the operation's
    /// final id.
    ///
    /// # Errors
    /// `Full`, `UserShare`, `LaneFull`, `LowDisk`: a limit is reached. `Timeout`, `Unavailable`: the file
    /// cannot be written. In each case nothing was kept. `OutcomeUnknown`: it may have been.
    pub async fn append(
        &self,
        operation: Operation,
        clock: Option<Arc<Clock>>,
    ) -> Result<Version, BufferError> {
        let gone = || BufferError::Unavailable("an operation was not appended".to_owned());
        self.append_behind(operation, clock, None).await?.ok_or_else(gone)
    }

    /// Like [`Buffer::append`] with a clock, if the lane still ends where a reader saw it end. Returns
    /// `None`, and keeps nothing, if it does not: so that a check of what is pending and the append are
    /// one step.
    ///
    /// # Errors
    /// As for [`Buffer::append`].
    pub async fn append_at(
        &self,
        operation: Operation,
        clock: Arc<Clock>,
        end: LaneEnd,
    ) -> Result<Option<Version>, BufferError> {
        self.append_behind(operation, Some(clock), Some(end)).await
    }

    async fn append_behind(
        &self,
        operation: Operation,
        clock: Option<Arc<Clock>>,
        seen: Option<LaneEnd>,
    ) -> Result<Option<Version>, BufferError> {
        let mut operation = operation;
        let keys = Arc::clone(&self.keys);
        let mut payload = record::encode_payload(&operation, &keys)?;
        let settings = Arc::clone(&self.settings);
        // Bounded by who appends it, and what others have filled must not keep it out.
        let of_cache = operation.lane() == Lane::CACHE;
        let on_full_disk = if of_cache { OnFullDisk::MakeRoom } else { OnFullDisk::Refuse };
        let append = move |intake: &mut Intake<'_>, room: &Room| {
            let lane = record::lane_bytes(operation.lane());
            // Of what has just been drawn, both the operation's id and its entity's, nothing is
            // in the file.
            let is_new = clock.is_some() && operation.opens_its_lane();
            if !is_new && intake.find(operation.id)?.is_some() {
                return Ok(Some(operation.id));
            }
            let end = if is_new { LaneEnd::default() } else { intake.lane_end(&lane)? };
            if seen.is_some_and(|seen| seen != end) {
                return Ok(None);
            }
            if !of_cache {
                admit(intake, room, &settings, &operation, payload.len(), end.count)?;
            }
            if let Some(clock) = clock.as_deref().filter(|_| !is_new) {
                let known = end.newest.max(operation.if_match()).max(intake.ahead(&lane)?);
                if let Some(known) = known.filter(|known| *known >= operation.id) {
                    operation.id = clock.past(known);
                    payload = record::encode_payload(&operation, &keys)?;
                }
            }
            intake.append(&Header::of(&operation, unix_millis()), &payload);
            Ok(Some(operation.id))
        };
        let appended = self.take_in(append, on_full_disk).await;
        match &appended {
            Ok(Some(_)) => self.appended.increment(1),
            Ok(None) => {}
            Err(error) => {
                metrics::counter!(metric::BUFFER_REFUSED.name, "reason" => reason(error))
                    .increment(1);
            }
        }
        appended
    }

    /// Whether an operation of a user with nothing pending would be taken in now.
    ///
    /// # Errors
    /// The one that it would be refused with.
    pub async fn has_room(&self) -> Result<(), BufferError> {
        let settings = Arc::clone(&self.settings);
        let look =
            move |intake: &mut Intake<'_>, room: &Room| limits(intake, room, &settings, 0, 0);
        self.take_in(look, OnFullDisk::Refuse).await
    }
}

/// Whether an operation of so many bytes may come in, of an entity of which so many are waiting.
fn admit(
    intake: &mut Intake<'_>,
    room: &Room,
    settings: &BufferSettings,
    operation: &Operation,
    length: usize,
    waiting: u64,
) -> Result<(), BufferError> {
    let reserve = if operation.priority() == MAX_PRIORITY { RESERVE } else { 0 };
    limits(intake, room, settings, length, reserve)?;
    let user = operation.actor.user_id.as_u128();
    let (count, bytes) = intake.of_user(user)?;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if count >= settings.buffer_user_share.saturating_add(reserve)
        || bytes.saturating_add(length) > settings.buffer_user_bytes.saturating_add(reserve << 10)
    {
        return Err(BufferError::UserShare);
    }
    if waiting >= LANE_LIMIT + reserve {
        return Err(BufferError::LaneFull);
    }
    Ok(())
}

/// The limits that are the same for all users.
fn limits(
    intake: &Intake<'_>,
    room: &Room,
    settings: &BufferSettings,
    length: usize,
    reserve: u64,
) -> Result<(), BufferError> {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let size = settings.buffer_max_size.saturating_add(reserve);
    let most = settings.buffer_max_bytes.saturating_add(reserve << 10);
    if !room.ballast || room.free_bytes < settings.buffer_min_free_bytes {
        return Err(BufferError::LowDisk);
    }
    let (pending, bytes) = intake.of_all()?;
    if pending >= size || bytes.saturating_add(length) > most {
        return Err(BufferError::Full);
    }
    Ok(())
}

fn reason(error: &BufferError) -> &'static str {
    match error {
        BufferError::Full => "full",
        BufferError::UserShare => "user_share",
        BufferError::LaneFull => "lane",
        BufferError::LowDisk => "low_disk",
        BufferError::Timeout => "timeout",
        BufferError::OutcomeUnknown(_) => "outcome_unknown",
        BufferError::Damaged(_) => "damaged",
        BufferError::Unavailable(_) | BufferError::Redb(_) => "unavailable",
    }
}
