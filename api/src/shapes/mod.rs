//! What answers are made of: values that may be null, words of closed sets, tasks and profiles as clients
//! see them.

mod schema;
mod view;
mod words;

pub use schema::{JsonObject, Nullable, nullable_time};
pub use view::{ProfileView, TaskView};
pub use words::{ActionName, EntityName, OperationState, Role, Source, TaskStatus, UserStatus};
