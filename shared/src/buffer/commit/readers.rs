//! The threads that read the file, so that no async thread waits for the disk.
//!
//! They are few and their own. The runtime's threads for blocking work come and go by the dozen under
//! load, and each keeps memory of its own for what it has allocated. They may also all be stuck in a
//! name server that does not answer, which must not keep anybody from the buffer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::buffer::error::BufferError;

/// Threads: a read takes some microseconds, and more at once would only wait for each other.
const THREADS: usize = 4;
/// Reads that may wait for them before new ones are refused.
const QUEUE: usize = 4096;

type Work = Box<dyn FnOnce() + Send>;

/// The threads that read. They end when this is dropped, each after the read that it is at.
#[derive(Debug)]
pub(in crate::buffer) struct Readers(SyncSender<Work>);

impl Readers {
    /// Starts the threads.
    pub(in crate::buffer) fn start() -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel::<Work>(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name("buffer-read".to_owned())
                .spawn(move || while work_once(&waiting) {})?;
        }
        Ok(Self(queue))
    }

    /// Runs `work` on one of the threads. A caller who stops waiting before its turn has nothing done.
    pub(in crate::buffer) async fn run<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let work = move || {
            if !reply.is_closed() {
                // Whoever has stopped waiting in the meantime needs no answer.
                drop(reply.send(work()));
            }
        };
        self.0.try_send(Box::new(work)).map_err(|_| BufferError::Timeout)?;
        result.await.map_err(|_| BufferError::Unavailable("a read ended early".to_owned()))
    }
}

/// Does what has waited longest; false once nothing more will come.
fn work_once(waiting: &Mutex<Receiver<Work>>) -> bool {
    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let Ok(work) = next else { return false };
    // Its caller is told by the reply, which is dropped. The panic itself has been logged.
    let _ = catch_unwind(AssertUnwindSafe(work));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_that_panic_are_answered_and_leave_their_threads_to_others() {
        let readers = Readers::start().unwrap();
        for _ in 0..2 * THREADS {
            let ended = readers.run(|| -> u8 { panic!("a read that panics, on purpose") }).await;
            assert!(matches!(ended, Err(BufferError::Unavailable(_))), "{ended:?}");
        }
        assert_eq!(readers.run(|| 7).await.unwrap(), 7);
    }
}
