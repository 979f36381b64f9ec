//! Which acknowledgements are to be lost on a line, and how.

use std::collections::VecDeque;
use std::sync::Mutex;

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

    /// Whether the acknowledgement that has just come to `application` is to be lost.
    pub(super) fn catch(&self, application: &str) -> Option<Ending> {
        let mut armed = self.armed.lock().unwrap();
        let armed = armed.as_mut().filter(|armed| armed.application == application)?;
        armed.endings.pop_front()
    }
}
