//! Counts answers and their durations. The metric handles of each route are kept, because looking them
//! up by their labels costs more than counting.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram};
use poem::http::Method;
use poem::{PathPattern, Response};

use crate::memo::Memo;

use crate::metric;

/// What tells the answers of one kind from others: the route's pattern (none if there is no such
/// route), the method, the status.
type Kind = (Option<Arc<str>>, &'static str, u16);

/// The metrics of all answers.
#[derive(Debug, Default)]
pub struct Metered {
    handles: Memo<Kind, (Counter, Histogram)>,
}

impl Metered {
    /// Takes note of an answer.
    pub fn record(&self, response: &Response, method: &Method, took: Duration) {
        let pattern = response.data::<PathPattern>().map(|pattern| Arc::clone(&pattern.0));
        let kind = (pattern, known_method(method), response.status().as_u16());
        let (answers, durations) = self.handles.of(kind, handles_of);
        answers.increment(1);
        durations.record(took);
    }
}

fn handles_of((pattern, method, status): &Kind) -> (Counter, Histogram) {
    let route = pattern.as_deref().unwrap_or("unmatched").to_owned();
    let labels =
        [("method", (*method).to_owned()), ("route", route), ("status", status.to_string())];
    (
        metrics::counter!(metric::HTTP_REQUESTS.name, &labels),
        metrics::histogram!(metric::HTTP_REQUEST_DURATION.name, &labels[..2]),
    )
}

/// Methods as metrics name them: a client must not be able to invent labels.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
