//! The background tasks of a running node that have no file of their own, and how their failures stop the node.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use rejoin_proto::client::StartId;
use rejoin_store::Maintenance;
use rejoin_wire::{Accepted, CloseCode, Endpoint};

use crate::admin::AdminListener;
use crate::context::NodeContext;
use crate::driver::{Driver, ShardQueues};
use crate::loops::{self, Loops};
use crate::messages::ShardMessage;
use crate::metrics::Metrics;
use crate::{peers, session};

/// How often the histograms' values are sorted into buckets.
const METRICS_UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// Starts a shard's task on its loop.
pub(crate) fn spawn_shard(loops: &Loops, driver: Driver, queues: ShardQueues) -> JoinHandle<()> {
    let (what, failures) = (format!("shard-{}", driver.index), driver.failures.clone());
    let on = loops.of_shard(driver.index).cloned();
    let task = async move { supervised(&what, failures, driver.run(queues)).await };
    match on {
        Some(on) => on.spawn(task),
        None => tokio::spawn(task),
    }
}

/// Runs a store's maintenance as a task: when work is due, and every few seconds.
pub(crate) async fn maintain(maintenance: Maintenance, due: Arc<Notify>) {
    while let Some(pause) = maintenance.turn() {
        // Whether woken or timed out, look for work again.
        let _ = tokio::time::timeout(pause, due.notified()).await;
    }
}

/// Runs a task that the node cannot do without: a panic stops the node.
pub(crate) async fn supervised(what: &str, failures: mpsc::UnboundedSender<String>, task: impl Future<Output = ()>) {
    let _guard = PanicGuard { what: what.to_owned(), failures };
    task.await;
}

/// Reports a panic as a failure of the node: an invariant was broken, so no further request may be answered.
struct PanicGuard {
    what: String,
    failures: mpsc::UnboundedSender<String>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Without a receiver the node is stopping already.
            let _ = self.failures.send(format!("{} has panicked; its message is in the log", self.what));
        }
    }
}

/// The node's start id: a hash of its shards' ids, so that it changes when any of them does.
pub(crate) fn node_start_id(starts: &[u64]) -> StartId {
    let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 start id");
    for start in starts {
        hasher.update(&start.to_le_bytes());
    }
    let mut word = [0; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    StartId(u64::from_le_bytes(word))
}

/// Sends the node's start id to all shards and sessions, and again when a shard has a new one.
pub(crate) async fn publish_start_ids(
    ctx: Arc<NodeContext>,
    mut starts: Vec<u64>,
    out: watch::Sender<StartId>,
    mut renewed: mpsc::UnboundedReceiver<(u16, u64)>,
) {
    ctx.broadcast(|| ShardMessage::Start(node_start_id(&starts)));
    while let Some((shard, start)) = renewed.recv().await {
        starts[usize::from(shard)] = start;
        out.send_replace(node_start_id(&starts));
        ctx.broadcast(|| ShardMessage::Start(node_start_id(&starts)));
    }
}

/// Closes the network at the first failure, so that the node acknowledges nothing more.
pub(crate) async fn watch_failures(
    mut failures: mpsc::UnboundedReceiver<String>,
    out: watch::Sender<Option<String>>,
    endpoint: Endpoint,
) {
    if let Some(why) = failures.recv().await {
        tracing::error!(why, "the node cannot continue and stops");
        out.send_replace(Some(why));
        endpoint.close(CloseCode::SHUTDOWN, "the node has failed").await;
        // Keep the receiver: shards that fail later still send.
        while failures.recv().await.is_some() {}
    }
}

/// Keeps the histograms small.
pub(crate) async fn upkeep(metrics: Arc<Metrics>) {
    let mut due = tokio::time::interval(METRICS_UPKEEP);
    loop {
        due.tick().await;
        metrics.upkeep();
    }
}

/// Accepts connections and starts a task for each, on the loop of the connection.
pub(crate) async fn accept(ctx: Arc<NodeContext>, endpoint: Endpoint) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = served.join_next(), if !served.is_empty() => {}
            accepted = endpoint.accept() => match accepted {
                None => return,
                Some(Accepted::Peer(connection, name)) => {
                    let (ctx, on) = (ctx.clone(), connection.runtime().cloned());
                    let task = async move { peers::serve(&ctx, connection, name, false).await };
                    loops::spawn(&mut served, on.as_ref(), task);
                }
                Some(Accepted::Client(connection)) => {
                    let session = session::serve(ctx.clone(), connection.clone());
                    loops::spawn(&mut served, connection.runtime(), connection.task(session));
                }
            }
        }
    }
}

/// Serves the admin port.
pub(crate) async fn admin(listener: tokio::net::TcpListener, routes: axum::Router) {
    if let Err(error) = axum::serve(AdminListener::new(listener), routes).await {
        tracing::error!(%error, "the admin port has failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_reported_and_one_that_ends_is_not() {
        let (failures, mut reported) = mpsc::unbounded_channel();
        supervised("the first", failures.clone(), async {}).await;
        let panics = tokio::spawn(supervised("the second", failures, async { panic!("as the test wants it") }));
        assert!(panics.await.is_err_and(|error| error.is_panic()));
        assert!(reported.recv().await.is_some_and(|why| why.starts_with("the second has panicked")));
        assert_eq!(reported.recv().await, None);
    }

    #[test]
    fn a_start_id_is_renewed_with_any_shards() {
        assert_ne!(node_start_id(&[1, 2]), node_start_id(&[1, 3]));
        assert_eq!(node_start_id(&[1, 2]), node_start_id(&[1, 2]));
    }
}
