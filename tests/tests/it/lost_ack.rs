//! PostgreSQL commits a write, and the answer is lost: by a reset, by a line that ends in good order,
//! by silence. The client has its answer, and the write its effect, once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::{Answer, Client, Ending, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, drained, ledger_in_lane_order, user};

/// Acknowledgements that are lost in each test.
const LOSSES: u64 = 500;
/// Of these many in a row the last is answered with silence, which costs a write timeout.
const SILENT: u64 = 50;
/// Requests that are sent at once.
const VOLLEY: usize = 4;

/// So many that a user's profile has been replayed when it is that user's turn again.
const USERS: usize = 96;

const API: &str = "holdfast-api";
const WORKER: &str = "holdfast-worker";

/// Every time a task's row is written, with what it then says.
const TRAIL: &str = "
    CREATE TABLE trail (id uuid, title_version uuid, description_version uuid,
        status_version uuid, deleted boolean);
    CREATE FUNCTION leave_trail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trail VALUES (NEW.id, NEW.title_version, NEW.description_version,
            NEW.status_version, NEW.deleted_at IS NOT NULL);
        RETURN NEW;
    END $$;
    CREATE TRIGGER trail AFTER INSERT OR UPDATE ON tasks
        FOR EACH ROW EXECUTE FUNCTION leave_trail()";

/// A world that comes back from each loss at once, and waits little for an answer.
async fn world(batch: &str) -> World {
    let world = World::builder()
        .env("PROBE_INTERVAL_MS", "20")
        .env("DB_WRITE_TIMEOUT_MS", "400")
        .env("REPLAY_TIMEOUT_MS", "400")
        .env("REPLAY_BATCH_SIZE", batch)
        .start()
        .await;
    world.postgres.psql(TRAIL).await;
    world
}

fn ending(loss: u64) -> Ending {
    match loss {
        loss if loss % SILENT == SILENT - 1 => Ending::Silence,
        loss if loss.is_multiple_of(2) => Ending::Reset,
        _ => Ending::Fin,
    }
}

/// A task as its user knows it.
#[derive(Clone, Debug)]
struct Known {
    owner: usize,
    title: String,
    status: &'static str,
    deleted: bool,
}

/// Users, and all that they have been told.
struct Users {
    clients: Vec<Client>,
    ids: Vec<Uuid>,
    tasks: BTreeMap<String, Known>,
    /// Tasks that live, the one longest left alone first.
    alive: VecDeque<String>,
    preferences: Vec<u64>,
    /// Operations that were accepted, by entity and action.
    accepted: BTreeMap<(String, &'static str), u64>,
    /// Their ids, of those that were told them.
    operations: Vec<String>,
    buffered: usize,
    step: usize,
}

/// What a user asks for.
#[derive(Clone, Debug)]
enum Wish {
    Create { owner: usize, title: String },
    Retitle { id: String, title: String },
    Complete { id: String },
    Delete { id: String },
    Profile { owner: usize, mark: u64 },
}

impl Users {
    fn new(world: &World, number: usize) -> Self {
        let ids: Vec<Uuid> = (0..number).map(|_| user()).collect();
        Self {
            clients: ids.iter().map(|id| world.client(*id)).collect(),
            preferences: vec![0; number],
            ids,
            tasks: BTreeMap::new(),
            alive: VecDeque::new(),
            accepted: BTreeMap::new(),
            operations: Vec::new(),
            buffered: 0,
            step: 0,
        }
    }

    fn next(&mut self) -> usize {
        self.step += 1;
        self.step
    }

    fn create(&mut self) -> Wish {
        let step = self.next();
        Wish::Create { owner: step % self.clients.len(), title: format!("created {step}") }
    }

    fn retitle(&mut self, id: String) -> Wish {
        Wish::Retitle { id, title: format!("changed {}", self.next()) }
    }

    fn profile(&mut self) -> Wish {
        let step = self.next();
        Wish::Profile { owner: step % self.clients.len(), mark: step as u64 }
    }

    /// The living task that was left alone longest; it is then the one that was not.
    fn oldest(&mut self) -> String {
        let id = self.alive.pop_front().expect("a task that lives");
        self.alive.push_back(id.clone());
        id
    }

    /// Wishes of one kind, of another for each `turn`, at last of all kinds at once; no two of them
    /// for the same entity.
    fn volley(&mut self, turn: u64) -> Vec<Wish> {
        let poor = self.alive.len() < 20 * VOLLEY;
        let kinds: [u64; VOLLEY] = match turn % 6 {
            5 => [0, 1, 2, 4],
            _ if poor => [0; VOLLEY],
            kind => [kind; VOLLEY],
        };
        kinds
            .into_iter()
            .map(|kind| match kind {
                0 => self.create(),
                1 => {
                    let id = self.oldest();
                    self.retitle(id)
                }
                2 => Wish::Complete { id: self.oldest() },
                3 => Wish::Delete { id: self.alive.pop_front().expect("a task that lives") },
                _ => self.profile(),
            })
            .collect()
    }

    /// Asks for all of them at once, and keeps what was answered.
    async fn ask(&mut self, wishes: Vec<Wish>) {
        let asked = wishes.iter().map(|wish| self.send(wish));
        let answers = join_all(asked).await;
        for (wish, answer) in wishes.into_iter().zip(answers) {
            self.note(wish, &answer);
        }
    }

    async fn send(&self, wish: &Wish) -> Answer {
        let of = |id: &String| &self.clients[self.tasks[id].owner];
        let (client, method, path, body) = match wish {
            Wish::Create { owner, title } => {
                let body = json!({ "title": title });
                (&self.clients[*owner], Method::POST, "/api/v1/tasks".to_owned(), Some(body))
            }
            Wish::Retitle { id, title } => (
                of(id),
                Method::PATCH,
                format!("/api/v1/tasks/{id}"),
                Some(json!({ "title": title })),
            ),
            Wish::Complete { id } => {
                let body = json!({ "status": "completed" });
                (of(id), Method::PATCH, format!("/api/v1/tasks/{id}"), Some(body))
            }
            Wish::Delete { id } => (of(id), Method::DELETE, format!("/api/v1/tasks/{id}"), None),
            Wish::Profile { owner, mark } => {
                let body = json!({ "preferences": { "mark": mark } });
                (&self.clients[*owner], Method::PUT, "/api/v1/profile".to_owned(), Some(body))
            }
        };
        let answer =
            client.send(method, &path, body.as_ref()).await.expect("every request is answered");
        assert!(matches!(answer.status, 200 | 201 | 202 | 204), "{wish:?}: {answer:#?}");
        answer
    }

    fn note(&mut self, wish: Wish, answer: &Answer) {
        let (entity, action) = match wish {
            Wish::Create { owner, title } => {
                let id = answer.text("/data/id").to_owned();
                let known = Known { owner, title, status: "pending", deleted: false };
                self.tasks.insert(id.clone(), known);
                self.alive.push_back(id.clone());
                (id, "create")
            }
            Wish::Retitle { id, title } => {
                self.tasks.get_mut(&id).unwrap().title = title;
                (id, "patch")
            }
            Wish::Complete { id } => {
                self.tasks.get_mut(&id).unwrap().status = "completed";
                (id, "patch")
            }
            Wish::Delete { id } => {
                self.tasks.get_mut(&id).unwrap().deleted = true;
                (id, "delete")
            }
            Wish::Profile { owner, mark } => {
                self.preferences[owner] = mark;
                (self.ids[owner].to_string(), "replace")
            }
        };
        *self.accepted.entry((entity, action)).or_default() += 1;
        self.buffered += usize::from(answer.status == 202);
        let id = answer.at("/meta/sync/operation_id");
        self.operations.extend(id.as_str().map(str::to_owned));
    }

    /// What was accepted took effect, each operation once, and nothing else did.
    async fn have_what_they_were_told(&self, world: &World) {
        let rows = "SELECT id, title, status, deleted_at IS NOT NULL FROM tasks";
        let stored = fields(&world.postgres.psql(rows).await);
        assert_eq!(stored.len(), self.tasks.len(), "tasks lost, or tasks that nobody asked for");
        for row in stored {
            let known = &self.tasks[&row[0]];
            let title = if known.deleted { "" } else { known.title.as_str() };
            let deleted = if known.deleted { "t" } else { "f" };
            assert_eq!((&*row[1], &*row[3]), (title, deleted), "{known:?}");
            assert!(known.deleted || row[2] == known.status, "{known:?}: {row:?}");
        }
        let rows = "SELECT id, preferences ->> 'mark' FROM users";
        for row in fields(&world.postgres.psql(rows).await) {
            let owner = self.ids.iter().position(|id| id.to_string() == row[0]).unwrap();
            let mark = Some(self.preferences[owner]).filter(|mark| *mark > 0);
            assert_eq!(row[1], mark.map(|mark| mark.to_string()).unwrap_or_default());
        }
        self.ledger_tells(world).await;
        let again = "SELECT count(*) - count(DISTINCT (id, title_version, description_version, \
            status_version, deleted)) FROM trail";
        assert_eq!(world.postgres.psql(again).await, "0", "rows that were written twice");
        ledger_in_lane_order(world).await;
        assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/dead"), 0);
    }

    async fn ledger_tells(&self, world: &World) {
        let rows = "SELECT entity_id, action, count(*) FROM operations \
            WHERE outcome = 'applied' AND entity <> 'cache' GROUP BY 1, 2";
        let mut ledger = BTreeMap::new();
        for row in fields(&world.postgres.psql(rows).await) {
            ledger.insert((row[0].clone(), row[1].clone()), row[2].parse().unwrap());
        }
        let accepted: BTreeMap<(String, String), u64> = self
            .accepted
            .iter()
            .map(|((entity, action), times)| ((entity.clone(), (*action).to_owned()), *times))
            .collect();
        assert_eq!(ledger, accepted, "the ledger is not what was accepted");
        let all: u64 = accepted.values().sum();
        // A Redis that is slow for a moment has the cache emptied, which nobody asked for.
        let rows = "SELECT count(*) FROM operations WHERE entity <> 'cache'";
        assert_eq!(world.postgres.psql(rows).await, all.to_string());
        let ids = fields(&world.postgres.psql("SELECT id FROM operations").await).concat();
        let ids: std::collections::HashSet<String> = ids.into_iter().collect();
        let unknown = self.operations.iter().find(|id| !ids.contains(*id));
        assert_eq!(unknown, None, "accepted, and not in the ledger under its id");
    }
}

fn fields(rows: &str) -> Vec<Vec<String>> {
    rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
}

/// How many operations replay has met that the ledger knew already.
async fn met_again(world: &World) -> u64 {
    let metrics = world.http().get(format!("{}/metrics", world.worker_url())).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("replay_operations_total") && line.contains("\"duplicate\""));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn lost(world: &World) -> u64 {
    world.postgres_line.counts().acknowledgements_lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_five_hundred_lost_acknowledgements_online_leave_nothing_lost_and_nothing_twice() {
    let world = world("500").await;
    let mut users = Users::new(&world, USERS);
    let started = Instant::now();
    for loss in 0..LOSSES {
        let mut turn = loss;
        if users.alive.len() < 20 * VOLLEY && turn % 6 != 5 {
            turn = 0;
        }
        // One that is not lost, if the line has recovered by now.
        let wishes = users.volley(turn);
        users.ask(wishes).await;
        world.postgres_line.lose_acknowledgements(API, [ending(loss)]);
        let ordered = Instant::now();
        while lost(&world) <= loss {
            assert!(ordered.elapsed() < DRAIN, "{} acknowledgements were lost", lost(&world));
            let wishes = users.volley(turn);
            users.ask(wishes).await;
        }
    }
    let took = started.elapsed();
    drained(&world).await;
    let again = met_again(&world).await;
    eprintln!(
        "{} losses in {took:?}: {} operations, {} of them buffered, {again} met again",
        lost(&world),
        users.accepted.values().sum::<u64>(),
        users.buffered
    );
    assert!(lost(&world) >= LOSSES);
    assert!(again >= LOSSES, "{again} operations were settled by the ledger");
    users.have_what_they_were_told(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_five_hundred_lost_acknowledgements_in_replay_leave_nothing_lost_and_nothing_twice() {
    let world = world("2").await;
    let mut users = Users::new(&world, USERS);
    world.postgres_line.cut().await;
    // Lanes of four operations: two batches each, with an end that a step back would undo.
    for _ in 0..320 / VOLLEY {
        let creates = (0..VOLLEY).map(|_| users.create()).collect();
        users.ask(creates).await;
    }
    let ids: Vec<String> = users.tasks.keys().cloned().collect();
    for (number, ids) in ids.chunks(4 * VOLLEY).enumerate() {
        let wishes = ids.iter().map(|id| users.retitle(id.clone())).collect();
        users.ask(wishes).await;
        users.ask(ids.iter().map(|id| Wish::Complete { id: id.clone() }).collect()).await;
        let last = |users: &mut Users, id: &String| match number % 2 {
            0 => users.retitle(id.clone()),
            _ => Wish::Delete { id: id.clone() },
        };
        let wishes = ids.iter().map(|id| last(&mut users, id)).collect();
        users.ask(wishes).await;
    }
    assert_eq!(users.buffered as u64, users.accepted.values().sum::<u64>());

    let started = Instant::now();
    // All at once: between one loss and the next wish replay would get batches through.
    world.postgres_line.lose_acknowledgements(WORKER, (0..LOSSES).map(ending));
    world.postgres_line.heal().await;
    for loss in 0..LOSSES {
        wait_until(DRAIN, "an acknowledgement is lost", async || lost(&world) > loss).await;
    }
    let took = started.elapsed();
    drained(&world).await;
    let again = met_again(&world).await;
    eprintln!("{} losses in {took:?}, {again} operations met again", lost(&world));
    assert!(lost(&world) >= LOSSES);
    assert!(again >= LOSSES, "{again} operations were settled by the ledger");
    users.have_what_they_were_told(&world).await;
}

/// One loss of each kind, step by step.
#[tokio::test]
async fn i2_a_committed_write_whose_answer_was_lost_is_buffered_and_stays_as_it_is() {
    let mut world = world("500").await;
    world.worker.kill();
    let client = world.client(user());
    let mut tasks = Vec::new();
    for (before, ending) in (0..).zip([Ending::Reset, Ending::Fin, Ending::Silence]) {
        wait_until(DRAIN, "PostgreSQL is there again", async || {
            world.anonymous().get("/health").await.text("/data/postgres") == "up"
        })
        .await;
        world.postgres_line.lose_acknowledgements(API, [ending]);
        let answer = client.post("/api/v1/tasks", &json!({ "title": "once" })).await.expect(202);
        assert_eq!(lost(&world), before + 1, "{ending:?}");
        let (task, operation) = (answer.text("/data/id"), answer.text("/meta/sync/operation_id"));
        let state = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
        assert_eq!(state.text("/data/state"), "pending", "{ending:?}");
        let committed = format!(
            "SELECT title FROM tasks t, operations o \
             WHERE t.id = '{task}' AND o.id = '{operation}' AND o.entity_id = t.id"
        );
        let committed = world.postgres.psql(&committed).await;
        assert_eq!(committed, "once", "{ending:?}: committed, under the id that was told");
        tasks.push(task.to_owned());
    }
    tasks.reverse();
    let list = client.get("/api/v1/tasks").await.expect(200);
    let listed: Vec<&str> =
        list.at("/data").as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap()).collect();
    assert_eq!(listed, tasks, "each is listed once: {list:#?}");

    let all = "SELECT count(*), max(updated_at), max(applied_at) FROM tasks, operations";
    let before = world.postgres.psql(all).await;
    world.worker.restart().await;
    drained(&world).await;
    assert_eq!(world.postgres.psql(all).await, before, "replay changed what was committed");
    assert_eq!(met_again(&world).await, 3);
}
