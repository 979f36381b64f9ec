//! Load: many clients that create tasks one after another, and remember each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Client};
use tokio::task::JoinSet;

/// One create and its answer.
#[derive(Clone, Debug)]
pub struct Create {
    /// When it was sent.
    pub sent: Instant,
    /// How long the answer took.
    pub took: Duration,
    /// The answer's status; 0 if there was none because the connection broke.
    pub status: u16,
    /// The operation's id, if the create was accepted.
    pub operation: Option<String>,
    /// The task's id, if the create was accepted.
    pub task: Option<String>,
}

impl Create {
    fn new(sent: Instant, answer: Option<Answer>) -> Self {
        let Some(answer) = answer else {
            let took = sent.elapsed();
            return Self { sent, took, status: 0, operation: None, task: None };
        };
        let text = |pointer: &str| answer.at(pointer).as_str().map(str::to_owned);
        Self {
            sent,
            took: answer.took,
            status: answer.status,
            operation: text("/meta/sync/operation_id"),
            task: text("/data/id"),
        }
    }

    /// True if the client may rely on it.
    pub fn accepted(&self) -> bool {
        matches!(self.status, 201 | 202)
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    buffered: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    clients: JoinSet<Vec<Create>>,
}

impl Load {
    /// Sets `connections` clients to work, `user` giving each its user.
    pub fn start(connections: usize, client: impl Fn(usize) -> Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (buffered, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..connections {
            let (stop, buffered, accepted) =
                (Arc::clone(&stop), Arc::clone(&buffered), Arc::clone(&accepted));
            let client = client(number);
            clients.spawn(async move {
                let mut creates = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let title = format!("{number}-{}", creates.len());
                    let request = client.request(reqwest::Method::POST, "/api/v1/tasks");
                    let sent = Instant::now();
                    let answer = Answer::to(request.json(&json!({ "title": title }))).await.ok();
                    let create = Create::new(sent, answer);
                    if create.accepted() {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    } else {
                        // An api that has been killed refuses at once: do not spin.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    if create.status == 202 {
                        buffered.fetch_add(1, Ordering::Relaxed);
                    }
                    creates.push(create);
                }
                creates
            });
        }
        Self { stop, buffered, accepted, clients }
    }

    /// Creates that went to the buffer so far.
    pub fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Creates that were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends the load and returns every create.
    pub async fn stop(self) -> Vec<Create> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}
