//! Where the named workers get their tasks from: streams of this crate, as backends of apalis.
//!
//! A stream waits inside itself until there is something to do. It never ends and never fails, because
//! apalis would take either for the end of the worker. Nothing is stored here: everything durable is in
//! the buffer file.

use std::convert::Infallible;
use std::task::{Context, Poll};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::task_id::RandomId;
use apalis_core::worker::context::WorkerContext;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tower_layer::Identity;

/// A backend that yields what a stream yields.
pub struct Source<T> {
    tasks: BoxStream<'static, T>,
}

impl<T> Source<T> {
    /// Yields what `tasks` yields.
    pub fn new(tasks: impl Stream<Item = T> + Send + 'static) -> Self {
        Self { tasks: tasks.boxed() }
    }
}

impl<T: 'static> Backend for Source<T> {
    type Task = Task<T>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<T>, Infallible>>> {
        self.tasks.poll_next_unpin(context).map(|task| task.map(|args| Ok(Task::new(args))))
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl<T: 'static> BackendConfig for Source<T> {
    type Args = T;
    type Id = RandomId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
