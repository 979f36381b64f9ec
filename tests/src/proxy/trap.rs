//! Which acknowledgements are to be lost on a line, and how; which write is to be held on its way.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::watch;

/// How a connection ends whose acknowledgement was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is reset (RST).
    Reset,
    /// The server seems to have closed it in good order (FIN).
    Fin,
    /// It stands, and nothing comes any more.
    Silence,
}

#[derive(Debug, Default)]
pub(super) struct Trap {
    armed: Mutex<Option<Armed>>,
    /// The application whose next write is to be held.
    to_hold: Mutex<Option<String>>,
    /// True while what was held is kept back.
    holding: watch::Sender<bool>,
}

#[derive(Debug)]
struct Armed {
    application: String,
    endings: VecDeque<Ending>,
}

impl Trap {
    /// Each of `endings` is for one acknowledgement, in their order.
    pub(super) fn arm(&self, application: &str, endings: impl IntoIterator<Item = Ending>) {
        let application = application.to_owned();
        let endings = endings.into_iter().collect();
        *self.armed.lock().unwrap() = Some(Armed { application, endings });
    }

    /// The next write of an application is to be held.
    pub(super) fn hold(&self, application: &str) {
        *self.to_hold.lock().unwrap() = Some(application.to_owned());
        self.holding.send_replace(true);
    }

    /// What is held is to go on.
    pub(super) fn release(&self) {
        self.holding.send_replace(false);
    }

    /// Whether the write that has just come from `application` is to be held.
    pub(super) fn holds(&self, application: &str) -> bool {
        self.to_hold.lock().unwrap().take_if(|name| name == application).is_some()
    }

    /// Waits until what is held is to go on.
    pub(super) async fn released(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.holding.subscribe().wait_for(|holding| !holding).await;
    }

    /// Whether the acknowledgement that has just come to `application` is to be lost.
    pub(super) fn catch(&self, application: &str) -> Option<Ending> {
        let mut armed = self.armed.lock().unwrap();
        let armed = armed.as_mut().filter(|armed| armed.application == application)?;
        armed.endings.pop_front()
    }
}
