//! Applying operations: the one path to PostgreSQL, used online and at replay.
//!
//! A batch is taken apart into lanes. For each lane the entity is read (or, where the lane begins
//! with a create, supposed to be absent), its operations are folded over it in order, and the result
//! is written together with their ledger rows. Lanes that met another writer are read and folded
//! again. If PostgreSQL refuses the data of a batch, the batch is halved until the offender is alone.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use super::creates::{CREATES_OF_NEW_USERS, CreateRow, CreateRows};
use super::lanes::{LaneOf, Split, blame, by_kind, in_order, split};
use super::lookup::{profile_of, task_of};
use super::rows::{
    AskedRow, AskedRows, LedgerRow, LedgerRows, ProfileRow, ProfileRows, TaskRow, TaskRows,
};
use super::statements::{LEDGER, PROFILES, READ_PROFILES, READ_TASKS, TASKS};
use super::{Class, Store, StoreError, column, within};
use crate::domain::{
    Change, Clock, EntityKind, Lane, Operation, Outcome, Profile, ProfileVersions, Refusal,
    Standing, Task, TaskVersions, Version, apply_to_profile, apply_to_task,
};
use crate::metric;

/// How often lanes that met another writer, and batches that met a transient error, are tried.
const ROUNDS: usize = 4;

/// Where a batch comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// From clients who wait for the answer. Their refusals are answered and not kept in the
    /// ledger; a write that meets a newer version (of a node whose clock is ahead) is given one
    /// past it by this clock, so that a user's latest write never loses to a fast clock.
    Online(&'a Clock),
    /// From the buffer. Nothing is applied behind an operation of the same lane that has to wait.
    Replay,
}

/// What became of one operation.
#[derive(Clone, Debug, Default)]
pub struct Effect {
    /// The outcome; `None` if it was held back behind one of the same lane that has to wait.
    pub outcome: Option<Outcome>,
    /// The entity just after the operation, where it is there.
    pub entity: Option<Entity>,
}

/// What an operation may change.
#[derive(Clone, Debug)]
pub enum Entity {
    /// A task.
    Task(Task),
    /// A profile.
    Profile(Profile),
}

impl Entity {
    /// Its lane and its version.
    #[must_use]
    pub fn version(&self) -> (Lane, Version) {
        match self {
            Self::Task(task) => task.version(),
            Self::Profile(profile) => profile.version(),
        }
    }

    /// The task, if it is one.
    #[must_use]
    pub fn into_task(self) -> Option<Task> {
        if let Self::Task(task) = self { Some(task) } else { None }
    }

    /// The profile, if it is one.
    #[must_use]
    pub fn into_profile(self) -> Option<Profile> {
        if let Self::Profile(profile) = self { Some(profile) } else { None }
    }
}

/// What a call of [`Store::apply`] came to.
#[derive(Debug)]
pub struct Applied {
    /// One effect for each operation. Without an outcome: it was held back behind one of the same
    /// lane that has to wait, or not settled before `error`.
    pub effects: Vec<Effect>,
    /// What ended the call before everything was settled.
    pub error: Option<StoreError>,
}

impl Store {
    /// Applies operations, lane by lane in the given order within each lane. What is reported as
    /// applied is committed. After an error, any part of what has no outcome may have been applied
    /// as well: applying the same operations again settles it by the ledger. The ids of operations
    /// from online may be newer afterwards.
    ///
    /// Ends with an error if PostgreSQL does not answer within the write timeout, or in a way that
    /// concerns more than single operations.
    pub async fn apply(&self, operations: &mut [Operation], source: Source<'_>) -> Applied {
        let started = std::time::Instant::now();
        metrics::histogram!(metric::DB_BATCH_SIZE.name).record(operations.len() as f64);
        let mut run = Run {
            store: self,
            source,
            deadline: self.deadline(),
            effects: vec![Effect::default(); operations.len()],
            settled: vec![false; operations.len()],
            operations,
        };
        let error = within(self.write_timeout, run.all()).await.err();
        metrics::histogram!(metric::DB_APPLY_DURATION.name).record(started.elapsed());
        // What was folded and not written is no effect.
        let folded = run.effects.into_iter().zip(run.settled);
        let effects =
            folded.map(|(effect, settled)| if settled { effect } else { Effect::default() });
        Applied { effects: effects.collect(), error }
    }
}

/// The statements that apply operations, with the values of no operation at all but for the deadline:
/// they go through where PostgreSQL has all that they write to.
pub(super) fn writing_nothing(node: &str) -> Vec<(&'static str, Vec<Value>)> {
    let ledger = || LedgerRows::default().values_of(node);
    vec![
        (CREATES_OF_NEW_USERS.as_str(), CreateRows::default().values_of(node)),
        (TASKS.as_str(), TaskRows::default().values_with(ledger())),
        (PROFILES.as_str(), ProfileRows::default().values_with(ledger())),
    ]
}

/// One call of [`Store::apply`].
struct Run<'a> {
    store: &'a Store,
    source: Source<'a>,
    /// When it is too late for a statement to begin, by PostgreSQL's clock.
    deadline: DateTime<Utc>,
    operations: &'a mut [Operation],
    /// What folding came to; of no account until settled.
    effects: Vec<Effect>,
    settled: Vec<bool>,
}

/// What is known of a lane's entity before folding.
#[derive(Clone, Default)]
struct Known {
    task: Option<Task>,
    profile: Option<Profile>,
    suspended: HashSet<Uuid>,
    erased: HashSet<Uuid>,
    /// Users who were admins by their tokens and are none any more.
    demoted: HashSet<Uuid>,
    in_ledger: HashSet<Version>,
}

/// What folding a lane came to.
struct Folded {
    known: Known,
    changed: bool,
    was_task: Option<TaskVersions>,
    was_profile: ProfileVersions,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), StoreError> {
        let mut stack = by_kind(self.operations);
        while let Some(group) = stack.pop() {
            if self.held_back(&group) {
                continue;
            }
            let error = match self.group(group.clone()).await {
                Ok(()) => {
                    for position in group.iter().flat_map(|(_, positions)| positions) {
                        self.settled[*position] = true;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let refusal = blame(error).ok_or(error)?;
            match split(group) {
                Split::Halves(halves) => stack.extend(halves),
                Split::Alone(position) => {
                    let outcome = Some(Outcome::Refused(refusal));
                    self.effects[position] = Effect { outcome, entity: None };
                    self.settled[position] = true;
                }
            }
        }
        Ok(())
    }

    /// True for a lane that was split and whose earlier part has to wait.
    fn held_back(&self, group: &[LaneOf]) -> bool {
        let [(lane, positions)] = group else { return false };
        let Some(first) = positions.first() else { return true };
        (0..*first).filter(|earlier| self.operations[*earlier].lane() == *lane).any(|earlier| {
            matches!(self.source, Source::Replay)
                && (!self.settled[earlier] || self.must_wait(&self.effects[earlier]))
        })
    }

    /// True if what follows in the lane must not be applied now.
    fn must_wait(&self, effect: &Effect) -> bool {
        match self.source {
            Source::Online(_) => false,
            Source::Replay => match effect.outcome {
                None => true,
                Some(Outcome::Refused(refusal)) => refusal.is_retried(),
                Some(_) => false,
            },
        }
    }

    /// Reads, folds and writes lanes of one kind until each has gone through.
    async fn group(&mut self, group: Vec<LaneOf>) -> Result<(), StoreError> {
        let mut left = group;
        let mut first_round = true;
        let mut last = StoreError::Contended;
        for _ in 0..ROUNDS {
            match self.round(&left, first_round).await {
                Ok(again) if again.is_empty() => return Ok(()),
                Ok(again) => left = again,
                // Who holds the lock may hold it for long: the others need not wait with one.
                Err(error) if error == StoreError::LOCKED && left.len() > 1 => return Err(error),
                Err(error) if error.class() == Class::Transient => last = error,
                Err(error) => return Err(error),
            }
            first_round = false;
        }
        Err(last)
    }

    /// One attempt at some lanes; returns those that met another writer.
    async fn round(&mut self, lanes: &[LaneOf], suppose: bool) -> Result<Vec<LaneOf>, StoreError> {
        let begins_with_create = |(_, positions): &&LaneOf| {
            positions.first().is_some_and(|first| self.operations[*first].creates().is_some())
        };
        let (supposed, to_read): (Vec<&LaneOf>, Vec<&LaneOf>) =
            lanes.iter().partition(|lane| suppose && begins_with_create(lane));
        let is_new = |(_, positions): &&LaneOf| match positions[..] {
            [only] => self.operations[only].opens_its_lane(),
            _ => false,
        };
        let are_tasks = lanes.iter().all(|(lane, _)| lane.kind == EntityKind::Task);
        if are_tasks && to_read.is_empty() && supposed.iter().all(is_new) {
            return self.creates(lanes).await;
        }
        let mut known = self.read(&to_read).await?;
        known.extend(supposed.iter().map(|(lane, _)| (*lane, Known::default())));
        let lanes = in_order(lanes);
        let mut ledger = LedgerRows::default();
        let (mut tasks, mut profiles) = (TaskRows::default(), ProfileRows::default());
        let mut written = Vec::new();
        for (lane, positions) in &lanes {
            let folded = self.fold(positions, known.remove(lane).unwrap_or_default());
            for position in positions {
                let outcome = self.effects[*position].outcome;
                let state =
                    outcome.and_then(|outcome| self.ledger_state(*position, outcome, &folded));
                if let Some(state) = state {
                    ledger.push(LedgerRow::of(&self.operations[*position], state, folded.changed));
                }
            }
            if !folded.changed {
                continue;
            }
            written.push(*lane);
            if let Some(task) = &folded.known.task {
                tasks.push(TaskRow::of(task, folded.was_task));
            }
            if let Some(profile) = &folded.known.profile {
                profiles.push(ProfileRow::of(profile, folded.was_profile));
            }
        }
        if ledger.is_empty() {
            return Ok(Vec::new());
        }
        let ledger = ledger.values_of(&self.store.node);
        let (statement, values) = match lanes.first().map(|(lane, _)| lane.kind) {
            Some(EntityKind::Profile) => (PROFILES.as_str(), profiles.values_with(ledger)),
            Some(kind @ (EntityKind::Session | EntityKind::Cache)) => {
                (LEDGER.as_str(), ledger.into_iter().chain([kind.as_str().into()]).collect())
            }
            Some(EntityKind::Task) | None => (TASKS.as_str(), tasks.values_with(ledger)),
        };
        let done = self.store.written(statement, values, self.deadline).await?;
        let again = |(lane, _): &&LaneOf| written.contains(lane) && !done.contains(&lane.id);
        Ok(lanes.into_iter().filter(again).cloned().collect())
    }

    /// One attempt at lanes that each are one create, of a task that is supposed to be absent.
    async fn creates(&mut self, lanes: &[LaneOf]) -> Result<Vec<LaneOf>, StoreError> {
        let lanes = in_order(lanes);
        let mut rows = CreateRows::default();
        for (_, positions) in &lanes {
            let folded = self.fold(positions, Known::default());
            if let (Some(task), Some(position)) = (&folded.known.task, positions.first()) {
                rows.push(CreateRow::of(task, &self.operations[*position]));
            }
        }
        let done = self.store.create(rows, self.deadline).await?;
        Ok(lanes.into_iter().filter(|(lane, _)| !done.contains(&lane.id)).cloned().collect())
    }

    /// What the ledger is to keep of an operation. One that the ledger knows has its row; of one
    /// that was refused online the client alone is told.
    fn ledger_state(
        &self,
        position: usize,
        outcome: Outcome,
        folded: &Folded,
    ) -> Option<crate::domain::OperationState> {
        let known = folded.known.in_ledger.contains(&self.operations[position].id);
        let told = matches!(self.source, Source::Online(_)) && outcome == Outcome::Gone;
        outcome.ledger_state().filter(|_| !known && !told)
    }

    /// Folds a lane's operations over what is known of its entity.
    fn fold(&mut self, positions: &[usize], known: Known) -> Folded {
        let was_task = known.task.as_ref().map(|task| task.versions);
        let was_profile =
            known.profile.as_ref().map_or(ProfileVersions::NONE, |profile| profile.versions);
        let mut folded = Folded { known, changed: false, was_task, was_profile };
        let mut waiting = false;
        for position in self.in_order_of_effect(positions, folded.known.task.is_some()) {
            if waiting {
                self.effects[position] = Effect::default();
                continue;
            }
            let effect = self.step(position, &mut folded.known);
            folded.changed |= effect.outcome.is_some_and(Outcome::changed);
            waiting = self.must_wait(&effect);
            self.effects[position] = effect;
        }
        folded
    }

    /// A lane's operations in their order; but where the task is not there, a create with a key comes
    /// first. An edit stands before it if it is a repeated one, of a task that another node made: waiting
    /// for that node's create, the edit would hold this one up for as long.
    fn in_order_of_effect(&self, positions: &[usize], is_there: bool) -> Vec<usize> {
        let mut order = positions.to_vec();
        let is_repeatable = |position: &usize| self.operations[*position].is_repeatable_create();
        if let Some(create) = order.iter().position(is_repeatable).filter(|_| !is_there) {
            order[..=create].rotate_right(1);
        }
        order
    }

    fn step(&mut self, position: usize, known: &mut Known) -> Effect {
        let operation = &mut self.operations[position];
        if known.in_ledger.contains(&operation.id) {
            return Effect { outcome: Some(Outcome::Duplicate), entity: None };
        }
        let by = operation.actor.user_id;
        if known.suspended.contains(&by) {
            let erased = known.erased.contains(&by);
            let refusal = if erased { Refusal::Erased } else { Refusal::Suspended };
            return Effect { outcome: Some(Outcome::Refused(refusal)), entity: None };
        }
        let Lane { kind, id } = operation.lane();
        let by_admin = matches!(operation.change, Change::User(_));
        if by_admin && known.demoted.contains(&operation.actor.user_id) {
            let outcome = Some(Outcome::Refused(Refusal::NotAllowed));
            return Effect { outcome, entity: None };
        }
        if let Source::Online(clock) = self.source {
            let found = match kind {
                EntityKind::Task => known.task.as_ref().map(|task| task.versions.newest()),
                EntityKind::Profile => known.profile.as_ref().map(|p| p.versions.newest()),
                EntityKind::Session | EntityKind::Cache => None,
            };
            if let Some(found) = found.filter(|found| *found >= operation.id) {
                operation.id = clock.after(found);
            }
        }
        let outcome = match kind {
            EntityKind::Task => apply_to_task(&mut known.task, operation),
            EntityKind::Profile => {
                let first_seen = || Profile::first_seen(id, operation.accepted_at);
                apply_to_profile(known.profile.get_or_insert_with(first_seen), operation)
            }
            // It has taken effect in Redis: what is left is to say so in the ledger.
            EntityKind::Session | EntityKind::Cache => Outcome::Applied,
        };
        let entity = match self.source {
            Source::Replay => None,
            Source::Online(_) => match kind {
                EntityKind::Task => known.task.clone().map(Entity::Task),
                EntityKind::Profile => known.profile.clone().map(Entity::Profile),
                EntityKind::Session | EntityKind::Cache => None,
            },
        };
        Effect { outcome: Some(outcome), entity }
    }

    /// Reads the entities of lanes of one kind, with what the ledger knows of their operations.
    async fn read(&self, lanes: &[&LaneOf]) -> Result<HashMap<Lane, Known>, StoreError> {
        let mut known: HashMap<Lane, Known> = HashMap::new();
        let Some(kind) = lanes.first().map(|(lane, _)| lane.kind) else { return Ok(known) };
        let positions: Vec<usize> = lanes.iter().flat_map(|(_, of)| of.iter().copied()).collect();
        let operations = || positions.iter().map(|position| &self.operations[*position]);
        let mut asked = AskedRows::default();
        for operation in operations() {
            asked.push(AskedRow::of(operation));
        }
        let sql = match kind {
            EntityKind::Task => READ_TASKS.as_str(),
            EntityKind::Profile => READ_PROFILES.as_str(),
            EntityKind::Session | EntityKind::Cache => return Ok(known),
        };
        let rows = self.store.rows(sql, asked.values_with(Vec::new())).await?;
        for (row, operation) in rows.iter().zip(operations()) {
            let of = known.entry(operation.lane()).or_default();
            if column(row, "known")? {
                of.in_ledger.insert(operation.id);
            }
            if column(row, "actor_erased")? {
                of.erased.insert(operation.actor.user_id);
            }
            if column(row, "demoted")? {
                of.demoted.insert(operation.actor.user_id);
            }
            let standing: Option<String> = column(row, "actor_standing")?;
            if standing.as_deref() == Some(Standing::Suspended.as_str()) {
                of.suspended.insert(operation.actor.user_id);
            }
            if column::<Option<Uuid>>(row, "id")?.is_none() {
                continue;
            }
            match kind {
                EntityKind::Task => of.task = Some(task_of(row)?),
                EntityKind::Profile => of.profile = Some(profile_of(row)?),
                EntityKind::Session | EntityKind::Cache => {}
            }
        }
        Ok(known)
    }
}
