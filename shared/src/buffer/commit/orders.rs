//! Repairs that somebody wants, and that the writer makes when it is not its turn to write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::buffer::repair::anew::{BY_ITSELF, Mode};
use crate::buffer::repair::error::{RepairError, Repaired};

/// A repair that somebody wants.
#[derive(Debug)]
pub(in crate::buffer) struct Order {
    pub(in crate::buffer) mode: Mode,
    pub(in crate::buffer) by: String,
    /// Who waits for it; whoever met damage does not.
    pub(super) reply: Option<oneshot::Sender<Result<Repaired, RepairError>>>,
}

/// Those that the writer has not looked at.
pub(in crate::buffer) type Orders = Arc<Mutex<Vec<Order>>>;

impl Order {
    /// One of a read that met damage.
    pub(super) fn of_reader() -> Self {
        Self { mode: Mode::IfDamaged, by: BY_ITSELF.to_owned(), reply: None }
    }

    pub(super) fn of_operator(
        mode: Mode,
        by: &str,
    ) -> (Self, oneshot::Receiver<Result<Repaired, RepairError>>) {
        let (reply, repaired) = oneshot::channel();
        (Self { mode, by: by.to_owned(), reply: Some(reply) }, repaired)
    }
}

/// Has a repair made with the writer's next turn.
pub(in crate::buffer) fn order(orders: &Orders, order: Order) {
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    // One that nobody waits for is enough.
    if order.reply.is_some() || orders.iter().all(|other| other.reply.is_some()) {
        orders.push(order);
    }
}
