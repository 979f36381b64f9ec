//! Sessions that were revoked on this host: their access tokens are refused here at once, and also
//! while Redis, which knows the sessions, is away or has lost its memory. A revocation is forgotten
//! when the last access token of its session has expired.
//!
//! It counts for the sessions of the user who asked for it alone: with Redis away nobody can tell
//! whose a session is, and nobody must be able to end somebody else's by its id.

use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::REVOKED;
use crate::buffer::tables::keys_before;

/// Revocations that one transaction forgets at the most.
const SWEEP: usize = 1000;

impl Buffer {
    /// Keeps in mind, durably, that a user's session was revoked, until `until` (Unix milliseconds).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn revoke(
        &self,
        user_id: Uuid,
        session_id: Uuid,
        until: i64,
    ) -> Result<(), BufferError> {
        let session = key(user_id, session_id);
        self.write(move |tables, _| {
            let known = tables.revoked.open()?.insert(session, until)?.map(|before| before.value());
            if let Some(before) = known {
                tables.revoked_until.open()?.remove((before, session))?;
            }
            tables.revoked_until.open()?.insert((until, session), ())?;
            Ok(())
        })
        .await
    }

    /// Whether a user's session was revoked on this host lately.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn is_revoked(&self, user_id: Uuid, session_id: Uuid) -> Result<bool, BufferError> {
        let session = key(user_id, session_id);
        self.read(move |snapshot| Ok(snapshot.open_table(REVOKED)?.get(session)?.is_some())).await
    }

    /// Forgets revocations from before `now` (Unix milliseconds), a limited number at a time.
    /// Returns how many there were.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn purge_revoked(&self, now: i64) -> Result<usize, BufferError> {
        self.write(move |tables, room| {
            let old = keys_before(tables.revoked_until.open()?, now, room.most(SWEEP))?;
            for key in &old {
                tables.revoked_until.open()?.remove(key)?;
                tables.revoked.open()?.remove(key.1)?;
            }
            Ok(old.len())
        })
        .await
    }
}

/// A hash of both, so that no choice of a session's id meets another user's.
fn key(user_id: Uuid, session_id: Uuid) -> u128 {
    Uuid::new_v5(&user_id, session_id.as_bytes()).as_u128()
}
