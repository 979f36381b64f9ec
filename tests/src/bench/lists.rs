//! Lists of users with few and with many tasks.

use anyhow::Context;
use uuid::Uuid;

use super::growth::OfList;
use super::peer::{Mode, Peer};
use super::plan::Plan;
use super::report::Report;
use super::requests::Request;
use super::rounds::{Series, Side, by_turns};
use super::servers::{Pair, Server, users};
use super::{sql, stage};
use crate::client::Client;

pub(super) const ROWS: &[&str] = &["list-long", "list-growth", "list-cursor"];

const CONNECTIONS: u32 = 32;
const FIRST_PAGE: &str = "/api/v1/tasks?limit=20";
/// Any version will do for tasks that are only read.
const VERSION: &str = "01900000-0000-7000-8000-000000000000";

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let world = stage::with_postgres(plan).await?;
    let port = world.postgres.port();
    let peer = Peer::start(plan, world.folder(), port, Mode::Online).await?;
    let comparable = peer.as_ref().filter(|peer| peer.is_ours_to_fill());
    let owners = users(plan.sizes.lists.len());
    for (user, count) in owners.iter().zip(plan.sizes.lists) {
        fill_ours(plan, port, *user, count).await?;
        if comparable.is_some() {
            fill_peers(plan, port, *user, count).await?;
        }
    }
    for database in ["holdfast", stage::PEER_DATABASE] {
        sql::run(plan, port, database, "VACUUM ANALYZE tasks").await?;
    }
    let pair = Pair::new(plan, &world, comparable, Mode::Online).await?;
    let longest = *owners.last().context("there are users")?;
    if plan.wants("list-long") {
        let (ours, other) = pair.compare(|server| list(plan, server, longest, FIRST_PAGE)).await?;
        report.compare("list-long", &ours, other.as_ref(), Series::rate);
    }
    if plan.wants("list-growth") || plan.grows() {
        growth(&pair, &owners, report).await?;
    }
    if plan.wants("list-cursor") {
        far_page(&pair, &owners, report).await?;
    }
    Ok(())
}

fn list(
    plan: &Plan,
    server: Server<'_>,
    user: Uuid,
    path: &str,
) -> anyhow::Result<super::wrk::Target> {
    let name = format!("list-{user}-{}", path.len());
    server.load(&name, CONNECTIONS, [Request::get(path, &server.token(plan, user))])
}

/// The lists of all users by turns: the longest against the shortest.
async fn growth(pair: &Pair<'_>, owners: &[Uuid], report: &mut Report) -> anyhow::Result<()> {
    let plan = pair.plan;
    let sides = owners.iter().map(|user| list(plan, pair.ours, *user, FIRST_PAGE));
    let sides = sides.map(|target| target.map(Side::Server)).collect::<anyhow::Result<Vec<_>>>()?;
    let series = by_turns(plan, &sides).await?;
    if let [shortest, .., longest] = series.as_slice() {
        report.compare("list-growth", longest, Some(shortest), Series::p50_ms);
    }
    let points = plan.sizes.lists.iter().zip(&series);
    report.growth.list = points.map(|(tasks, series)| OfList::new(*tasks, series)).collect();
    Ok(())
}

/// A far page of the longest list by cursor, against the first page of the shortest.
async fn far_page(pair: &Pair<'_>, owners: &[Uuid], report: &mut Report) -> anyhow::Result<()> {
    let plan = pair.plan;
    let [shortest, .., longest] = *owners else { return Ok(()) };
    let client = pair.ours.client(plan, longest);
    let Some(path) = walk(&client, plan.sizes.page).await? else {
        report.not_measured("list-cursor", "lists have no cursor");
        return Ok(());
    };
    let pages = [(longest, path.as_str()), (shortest, FIRST_PAGE)];
    let sides = pages.map(|(user, path)| list(plan, pair.ours, user, path).map(Side::Server));
    let sides = sides.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    if let [far, first] = by_turns(plan, &sides).await?.as_slice() {
        report.compare("list-cursor", far, Some(first), Series::p50_ms);
    }
    Ok(())
}

/// Follows `next_cursor` from the first page; where page `page` is, or `None` if there is no cursor.
async fn walk(client: &Client, page: u64) -> anyhow::Result<Option<String>> {
    let mut path = FIRST_PAGE.to_owned();
    for _ in 1..page {
        let answer = client.get(&path).await.expect(200);
        let Some(cursor) = answer.at("/meta/next_cursor").as_str() else { return Ok(None) };
        let url = format!("http://localhost{FIRST_PAGE}");
        let url = reqwest::Url::parse_with_params(&url, [("cursor", cursor)])?;
        path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    }
    Ok(Some(path))
}

async fn fill_ours(plan: &Plan, port: u16, user: Uuid, count: u64) -> anyhow::Result<()> {
    let statement = format!("INSERT INTO users (id) VALUES ('{user}')");
    sql::run(plan, port, "holdfast", &statement).await?;
    let statement = format!(
        "INSERT INTO tasks (id, user_id, title, description, status, title_version, \
         description_version, status_version, created_at, updated_at) \
         SELECT gen_random_uuid(), '{user}', 'Water the plants ' || n, 'All of them.', 'pending', \
         '{VERSION}', '{VERSION}', '{VERSION}', now() - n * interval '1 s', now() \
         FROM generate_series(1, {count}) n"
    );
    sql::run(plan, port, "holdfast", &statement).await.map(drop)
}

async fn fill_peers(plan: &Plan, port: u16, user: Uuid, count: u64) -> anyhow::Result<()> {
    let statement = format!(
        "INSERT INTO tasks (id, user_id, title, description, status, created_at, updated_at) \
         SELECT gen_random_uuid(), '{user}', 'Water the plants ' || n, 'All of them.', 'pending', \
         now() - n * interval '1 s', now() FROM generate_series(1, {count}) n"
    );
    sql::run(plan, port, stage::PEER_DATABASE, &statement).await.map(drop)
}
