//! A batch of writes: each is found a place where it is durable.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::oneshot;

use super::admission::Admission;
use super::generations::counted_user;
use super::{WriteError, Written};
use crate::buffer::BufferError;
use crate::cache::EntityCache;
use crate::domain::{Clock, Operation, Outcome, Refusal};
use crate::online::OnlineNotes;
use crate::store::{Applied, Effect, Source};

type Reply = oneshot::Sender<Result<Written, WriteError>>;

/// A write and where its answer goes.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) operation: Operation,
    pub(super) reply: Reply,
}

/// What the tasks that write do with a batch.
pub(super) struct Flusher {
    pub(super) admission: Arc<Admission>,
    pub(super) notes: OnlineNotes,
    pub(super) cache: Arc<EntityCache>,
    pub(super) clock: Arc<Clock>,
}

/// Whether PostgreSQL may have been told of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It was not asked.
    No,
    /// It was, and did nothing.
    Settled,
    /// It was, and may have done it: the id must stay, the ledger tells by it.
    Perhaps,
}

impl Flusher {
    /// Finds each write of a batch its place.
    pub(super) async fn flush(&self, batch: Vec<Ticket>) {
        if !self.admission.link.is_up() {
            return self.keep(batch, Sent::No).await;
        }
        let asked: Vec<_> = batch
            .iter()
            .filter(|ticket| !ticket.operation.opens_its_lane())
            .map(|ticket| ticket.operation.lane())
            .collect();
        let pending = if asked.is_empty() {
            Ok(Default::default())
        } else {
            self.admission.buffer.pending_lanes(asked).await
        };
        let (mut online, mut joining) = (Vec::new(), Vec::new());
        for ticket in batch {
            match &pending {
                _ if ticket.operation.opens_its_lane() => online.push(ticket),
                Ok(lanes) if lanes.contains(&ticket.operation.lane()) => joining.push(ticket),
                Ok(_) => online.push(ticket),
                // Whether the lane is free cannot be told, so nothing may overtake it.
                Err(error) => {
                    let error = BufferError::Unavailable(error.to_string());
                    answer(ticket.reply, Err(error.into()));
                }
            }
        }
        tokio::join!(self.apply(online), self.keep(joining, Sent::No));
    }

    /// Writes a batch to PostgreSQL; what it cannot take goes to the buffer.
    async fn apply(&self, batch: Vec<Ticket>) {
        if batch.is_empty() {
            return;
        }
        let (mut operations, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|ticket| (ticket.operation, ticket.reply)).unzip();
        let fenced = self.cache.fence(&operations).await;
        let started = Instant::now();
        let Applied { effects, error } =
            self.admission.store.apply(&mut operations, Source::Online(&self.clock)).await;
        match error {
            None => self.notes.note(started.elapsed()),
            Some(error) => self.admission.link.report(error),
        }
        // If it was in vain, this process knows, and says so.
        let _ = self.cache.changed(fenced, &self.admission.buffer).await;
        // Whatever the outcome: some of it may have been committed.
        for operation in &operations {
            self.admission.generations.begin(counted_user(operation));
        }
        let mut unfinished = Vec::new();
        for ((operation, reply), effect) in operations.into_iter().zip(replies).zip(effects) {
            match verdict(&operation, effect) {
                Some(result) => answer(reply, result),
                None => unfinished.push(Ticket { operation, reply }),
            }
        }
        // After an error, whatever has no outcome may have been committed all the same.
        let sent = if error.is_some() { Sent::Perhaps } else { Sent::Settled };
        self.keep(unfinished, sent).await;
    }

    /// Puts writes into the buffer, in their order, in as few commits as it takes.
    async fn keep(&self, batch: Vec<Ticket>, sent: Sent) {
        join_all(batch.into_iter().map(|Ticket { operation, reply }| async move {
            if sent == Sent::No
                && let Err(refused) = self.admission.check(&operation).await
            {
                return answer(reply, Err(refused));
            }
            let clock = (sent != Sent::Perhaps).then(|| Arc::clone(&self.clock));
            let kept = self.admission.append(operation, clock).await;
            let written = kept.map(|operation_id| Written::Buffered { operation_id });
            answer(
                reply,
                written.map_err(|error| match sent {
                    Sent::No | Sent::Settled => WriteError::Buffer(error),
                    Sent::Perhaps => WriteError::Unknown(error),
                }),
            );
        }))
        .await;
    }
}

/// The answer to an operation that PostgreSQL has dealt with; `None` if it has not.
fn verdict(operation: &Operation, effect: Effect) -> Option<Result<Written, WriteError>> {
    match effect.outcome? {
        Outcome::Refused(Refusal::Internal(_) | Refusal::Busy) => None,
        Outcome::Refused(refusal) => Some(Err(WriteError::Refused(refusal))),
        outcome => Some(Ok(Written::Committed {
            operation_id: operation.id,
            outcome,
            entity: effect.entity,
        })),
    }
}

fn answer(reply: Reply, result: Result<Written, WriteError>) {
    // A client that hung up needs no answer; its write stands.
    let _ = reply.send(result);
}
