//! What may be asked of the thread that writes. Each request is answered within `BUFFER_TIMEOUT_MS`, or by the
//! outcome of its commit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::buffer::Buffer;
use super::job::{Needs, OnFullDisk, Request, Room};
use crate::buffer::error::BufferError;
use crate::buffer::tables::Tables;
use crate::buffer::tables::intake::Intake;

impl Buffer {
    /// Changes the tables in the writer's next commit, after a checkpoint. Returns the result once that is
    /// durable.
    pub(in crate::buffer) async fn write<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        let mut work = work;
        let work = move |intake: &mut Intake<'_>, room: &Room| work(intake.checkpoint()?, room);
        self.take_in(work, OnFullDisk::MakeRoom).await
    }

    /// Takes something in with the writer's next commit, or looks at what is there. Returns the result once
    /// all that was done and seen is durable.
    pub(in crate::buffer) async fn take_in<T, F>(
        &self,
        work: F,
        on_full_disk: OnFullDisk,
    ) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Intake<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        self.request(work, Needs::Disk, on_full_disk).await
    }

    /// Brings the tables up to the WAL, durably.
    pub(in crate::buffer) async fn checkpoint(&self) -> Result<(), BufferError> {
        self.write(|_, _| Ok(())).await
    }

    /// Does something that changes nothing in the file while it is this process's turn to write.
    pub(in crate::buffer) async fn at_turn<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut() -> Result<T, BufferError> + Send + 'static,
    {
        let mut work = work;
        let work = move |_: &mut Intake<'_>, _: &Room| work();
        self.request(work, Needs::Turn, OnFullDisk::Refuse).await
    }

    async fn request<T, F>(
        &self,
        work: F,
        needs: Needs,
        on_full_disk: OnFullDisk,
    ) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Intake<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        let gone = || BufferError::Unavailable("its writer has ended".to_owned());
        let (request, mut result, claimed) = Request::new(work, needs, on_full_disk);
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.try_send(Box::new(request)).map_err(|_| BufferError::Timeout)?;
        let limit = Duration::from_millis(self.settings.buffer_timeout_ms);
        let answer = match tokio::time::timeout(limit, &mut result).await {
            Ok(answer) => answer,
            Err(_) if !claimed.swap(true, Ordering::AcqRel) => return Err(BufferError::Timeout),
            // Its commit is on the way to the disk: only the outcome of that is the truth.
            Err(_) => result.await,
        };
        answer.unwrap_or_else(|_| match claimed.load(Ordering::Acquire) {
            true => Err(BufferError::OutcomeUnknown("its writer has ended".to_owned())),
            false => Err(gone()),
        })
    }
}
