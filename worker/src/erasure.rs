//! Erases users from the buffer of this host, after PostgreSQL has committed their erasure.
//!
//! It does so when their erasure is replayed. It does so again when an operation of theirs turns up
//! afterwards: from a request that was on its way, or on a host other than the one that was asked to
//! erase them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use uuid::Uuid;

use crate::context::Context;

/// How the audit log names who emptied the buffer.
const WORKER: &str = "worker";

/// Removes what is left of users. It is done before the operations that call for it are settled, so
/// that a crash in between repeats it.
///
/// # Errors
/// If PostgreSQL or the buffer does not do it.
pub async fn carry_out(context: &Context, users: &BTreeSet<Uuid>) -> anyhow::Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    while context.store.purge_erased().await.context("tasks of erased users")? > 0 {}
    for user_id in users {
        // With Redis away their sessions end by themselves, and are of no use before.
        let _ = context.sessions.revoke_all(*user_id).await;
        let erased = context.buffer.erase_user(*user_id, WORKER).await.context("the buffer")?;
        tracing::warn!(%user_id, ?erased, "what the buffer held of an erased user is gone");
    }
    Ok(())
}
