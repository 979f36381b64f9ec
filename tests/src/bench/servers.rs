//! The servers under load: our api, and the other one if there is one.

use std::path::Path;

use anyhow::ensure;
use uuid::Uuid;

use super::peer::{Mode, Peer};
use super::plan::Plan;
use super::requests::{BODY, Request, prepare};
use super::rounds::{Series, Side, by_turns};
use super::wrk::Target;
use crate::client::Client;
use crate::token::{self, Algorithm, EncodingKey};
use crate::world::World;

/// New users.
pub(super) fn users(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

/// Which server a load is for.
#[derive(Clone, Copy)]
pub(super) enum Server<'a> {
    /// Our api.
    Ours(&'a World),
    /// The other one; its requests are kept in this folder.
    Peer(&'a Peer, &'a Path),
}

impl Server<'_> {
    pub(super) fn url(self) -> String {
        match self {
            Self::Ours(world) => world.api_url(),
            Self::Peer(peer, _) => peer.url().to_owned(),
        }
    }

    /// A token for a user, good for a quarter of an hour.
    pub(super) fn token(self, plan: &Plan, user: Uuid) -> String {
        let claims = token::claims(user, "user");
        match self {
            Self::Ours(world) => world.token(&claims, &world.key(), Algorithm::HS256),
            Self::Peer(..) => {
                let key = EncodingKey::from_secret(plan.arguments.peer_secret.as_bytes());
                token::sign(&claims, &key, Algorithm::HS256)
            }
        }
    }

    /// A client for a user.
    pub(super) fn client(self, plan: &Plan, user: Uuid) -> Client {
        Client::new(reqwest::Client::new(), self.url(), Some(self.token(plan, user)))
    }

    /// A load of these requests.
    pub(super) fn load(
        self,
        name: &str,
        connections: u32,
        requests: impl IntoIterator<Item = Request>,
    ) -> anyhow::Result<Target> {
        let (folder, side) = match self {
            Self::Ours(world) => (world.folder(), "ours"),
            Self::Peer(_, folder) => (folder, "peer"),
        };
        let requests = prepare(folder, &format!("{name}-{side}"), requests)?;
        Ok(Target { url: self.url(), requests, connections })
    }

    /// Creates of many users.
    pub(super) fn creates(self, plan: &Plan, connections: u32) -> anyhow::Result<Target> {
        let users = users(plan.sizes.users);
        let requests = users.iter().map(|user| Request::create(&self.token(plan, *user)));
        self.load("creates", connections, requests)
    }

    /// Makes sure that a create is answered with `status`: what is measured is what is meant.
    async fn answers_creates_with(self, plan: &Plan, status: u16) -> anyhow::Result<()> {
        let client = self.client(plan, Uuid::new_v4());
        let answer = client.post("/api/v1/tasks", &serde_json::from_str(BODY)?).await;
        ensure!(answer.status == status, "{} answers a create with {answer:?}", self.url());
        Ok(())
    }
}

/// Our api, and the other server if there is one.
pub(super) struct Pair<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ours: Server<'a>,
    pub(super) peer: Option<Server<'a>>,
}

impl<'a> Pair<'a> {
    /// Both, seen to answer creates as they should in this mode.
    pub(super) async fn new(
        plan: &'a Plan,
        world: &'a World,
        peer: Option<&'a Peer>,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        let ours = Server::Ours(world);
        let peer = peer.map(|peer| Server::Peer(peer, world.folder()));
        let status = if mode == Mode::Online { 201 } else { 202 };
        for server in std::iter::once(ours).chain(peer) {
            server.answers_creates_with(plan, status).await?;
        }
        Ok(Self { plan, ours, peer })
    }

    /// The same load for each.
    pub(super) fn targets(
        &self,
        target: impl Fn(Server<'a>) -> anyhow::Result<Target>,
    ) -> anyhow::Result<Vec<Side>> {
        let servers = std::iter::once(self.ours).chain(self.peer);
        servers.map(|server| target(server).map(Side::Server)).collect()
    }

    /// The rounds of both, ours first, under the same load.
    pub(super) async fn compare(
        &self,
        target: impl Fn(Server<'a>) -> anyhow::Result<Target>,
    ) -> anyhow::Result<(Series, Option<Series>)> {
        let sides = self.targets(target)?;
        let mut series = by_turns(self.plan, &sides).await?.into_iter();
        Ok((series.next().unwrap_or_default(), series.next()))
    }
}
