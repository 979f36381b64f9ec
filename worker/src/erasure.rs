//! Erasing users from the buffer of this host, once PostgreSQL has it that they are erased: when their
//! erasure is replayed, and whenever something of theirs turns up afterwards, from a request that was
//! on its way or on a node that the erasure was not asked of.

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
