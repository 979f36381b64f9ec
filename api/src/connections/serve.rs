//! Serves the connections that are accepted, HTTP/1 on each, until the end.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use poem::Request;
use poem::http::uri::Scheme;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Connections;
use crate::http::Site;

/// How long open requests may take once the end has come.
const GRACE: Duration = Duration::from_secs(5);

/// Answers what comes over the connections until `shutdown`, then finishes the requests that were
/// read by then.
pub async fn serve(
    mut connections: Connections,
    site: Arc<Site>,
    shutdown: impl Future<Output = ()>,
) {
    let (ending, mut serving) = (GracefulShutdown::new(), JoinSet::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (connection, peer) = tokio::select! {
            () = &mut shutdown => break,
            accepted = connections.accept() => accepted,
            Some(_) = serving.join_next() => continue,
        };
        let (site, local) = (Arc::clone(&site), connections.local.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let request = Request::from((request, local.clone(), peer.clone(), Scheme::HTTP));
            let site = Arc::clone(&site);
            async move { Ok::<_, Infallible>(site.answer(request).await.into()) }
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        // How a connection ends is the client's business.
        serving.spawn(ending.watch(served));
    }
    drop(connections);
    if timeout(GRACE, ending.shutdown()).await.is_err() {
        while serving.try_join_next().is_some() {}
        tracing::warn!(connections = serving.len(), "requests were not finished in time");
    }
    serving.shutdown().await;
}
