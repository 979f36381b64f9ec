//! A batch of writes: each is found a place where it is durable.

use std::collections::HashSet;
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::oneshot;

use super::generations::counted_user;
use super::{WriteError, WritePath, Written};
use crate::buffer::{BeforeWriting, BufferError};
use crate::domain::{Lane, Operation, Outcome, Refusal, Version};
use crate::host_clock::{version_of_profile, version_of_task};
use crate::store::{Applied, Effect, Entity, Source};

type Reply = oneshot::Sender<Result<Written, WriteError>>;

/// A write and where its answer goes.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) operation: Operation,
    pub(super) reply: Reply,
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

impl WritePath {
    /// Finds each write of a batch its place.
    pub(super) async fn flush(&self, batch: Vec<Ticket>) {
        if !self.link.is_up() {
            return self.keep(batch, Sent::No).await;
        }
        let asked: Vec<_> = batch
            .iter()
            .filter(|ticket| !ticket.operation.opens_its_lane())
            .map(|ticket| ticket.operation.lane())
            .collect();
        let before = if asked.is_empty() {
            Ok(BeforeWriting::default())
        } else {
            self.buffer.before_writing(asked).await
        };
        let (mut online, mut joining) = (Vec::new(), Vec::new());
        for mut ticket in batch {
            match &before {
                _ if ticket.operation.opens_its_lane() => online.push(ticket),
                Ok(before) if before.pending.contains(&ticket.operation.lane()) => {
                    joining.push(ticket);
                }
                Ok(before) => {
                    self.stamp(&mut ticket.operation, before);
                    online.push(ticket);
                }
                // Whether the lane is free cannot be told, so nothing may overtake it.
                Err(error) => {
                    let error = BufferError::Unavailable(error.to_string());
                    answer(ticket.reply, Err(error.into()));
                }
            }
        }
        tokio::join!(self.apply(online), self.keep(joining, Sent::No));
    }

    /// Gives an operation a version past those that this host knows of its entity. If its outcome comes
    /// to be unknown, it stays as it is.
    fn stamp(&self, operation: &mut Operation, before: &BeforeWriting) {
        let ahead = before.ahead.get(&operation.lane()).copied();
        let asserted = operation.if_match().filter(|asserted| asserted.is_credible(ahead));
        let known = ahead.max(asserted);
        if let Some(known) = known.filter(|known| *known >= operation.id) {
            operation.id = self.clock.of_process().past(known);
        }
    }

    /// Writes a batch to PostgreSQL; what it cannot take goes to the buffer.
    async fn apply(&self, batch: Vec<Ticket>) {
        if batch.is_empty() {
            return;
        }
        let (mut operations, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|ticket| (ticket.operation, ticket.reply)).unzip();
        let fenced = self.cache.fence(&operations).await;
        let (started, source) = (Instant::now(), Source::Online(self.clock.of_process()));
        let Applied { effects, error } = self.store.apply(&mut operations, source).await;
        match error {
            None => self.notes.note(started.elapsed()),
            Some(error) => self.link.report(error),
        }
        // If it was in vain, this process knows, and says so.
        let _ = self.cache.changed(fenced, &self.buffer).await;
        self.remember(&effects).await;
        // Whatever the outcome: some of it may have been committed.
        for operation in &operations {
            self.generations.begin(counted_user(operation));
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

    /// Takes note of what was committed before anybody is told.
    async fn remember(&self, effects: &[Effect]) {
        let entities = || effects.iter().filter_map(|effect| effect.entity.as_ref());
        for entity in entities() {
            if let Entity::Task(task) = entity {
                self.known.note(task);
            }
        }
        let versions = entities().map(|entity| match entity {
            Entity::Task(task) => version_of_task(task),
            Entity::Profile(profile) => version_of_profile(profile),
        });
        self.clock.saw(versions).await;
    }

    /// Puts writes into the buffer, in their order, in as few commits as it takes.
    async fn keep(&self, batch: Vec<Ticket>, sent: Sent) {
        let mut asserted = HashSet::new();
        join_all(batch.into_iter().map(|Ticket { operation, reply }| {
            let is_in_vain = sent == Sent::Perhaps && is_asserted_again(&operation, &mut asserted);
            async move {
                let written = if is_in_vain {
                    Err(WriteError::Refused(Refusal::PreconditionFailed(operation.lane().kind)))
                } else {
                    self.keep_one(operation, sent).await
                };
                answer(reply, written.map(|operation_id| Written::Buffered { operation_id }));
            }
        }))
        .await;
    }

    async fn keep_one(&self, operation: Operation, sent: Sent) -> Result<Version, WriteError> {
        match sent {
            Sent::No => self.append(operation).await,
            Sent::Settled if operation.if_match().is_some() => self.append(operation).await,
            Sent::Settled => Ok(self.put(operation, Some(self.process_clock())).await?),
            Sent::Perhaps => self.put_sent(operation).await,
        }
    }
}

/// Whether an earlier one of the same batch asserts the same version of the same task. Then this one has
/// not taken effect and never will: if that one has, the version is another one now, and if that one was
/// refused, so was this.
fn is_asserted_again(operation: &Operation, asserted: &mut HashSet<(Lane, Version)>) -> bool {
    operation.if_match().is_some_and(|version| !asserted.insert((operation.lane(), version)))
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
