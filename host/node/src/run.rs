//! The tasks of a running node, and what they report to it.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use rejoin_proto::client::StartId;
use rejoin_store::Maintenance;
use rejoin_wire::{Accepted, CloseCode, Endpoint};

use crate::admin::AdminListener;
use crate::driver::{Driver, Notice, Work};
use crate::metrics::Metrics;
use crate::parts::Parts;
use crate::{peers, session};

/// How often the metrics are folded, whether or not somebody reads them.
const METRICS_UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// Sets a shard going.
pub(crate) fn run_shard(driver: Driver, inbox: mpsc::Receiver<Work>, notices: mpsc::UnboundedReceiver<Notice>) -> JoinHandle<()> {
    let (what, failures) = (format!("shard-{}", driver.index), driver.failures.clone());
    tokio::spawn(async move { guarded(&what, failures, driver.run(inbox, notices)).await })
}

/// Does a store's maintenance when work is due, and every few seconds.
pub(crate) async fn maintain(maintenance: Maintenance, due: Arc<Notify>) {
    while let Some(pause) = maintenance.turn() {
        // Either way it is time to look again.
        let _ = tokio::time::timeout(pause, due.notified()).await;
    }
}

/// A task without which the node is not whole.
pub(crate) async fn guarded(what: &str, failures: mpsc::UnboundedSender<String>, task: impl Future<Output = ()>) {
    let _guard = PanicGuard { what: what.to_owned(), failures };
    task.await;
}

/// Stops the node when a shard or another task of its own ends in a panic: an invariant was broken, and going on would
/// answer for what nobody guards any more.
struct PanicGuard {
    what: String,
    failures: mpsc::UnboundedSender<String>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // If nobody listens, the node is stopping already.
            let _ = self.failures.send(format!("{} has panicked; its message is in the log", self.what));
        }
    }
}

/// One start id for the node, made of those of its shards: renewed when any of them is.
pub(crate) fn combined(starts: &[u64]) -> StartId {
    let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 start id");
    for start in starts {
        hasher.update(&start.to_le_bytes());
    }
    let mut word = [0; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    StartId(u64::from_le_bytes(word))
}

pub(crate) async fn combine_starts(
    parts: Arc<Parts>,
    mut starts: Vec<u64>,
    out: watch::Sender<StartId>,
    mut renewed: mpsc::UnboundedReceiver<(u16, u64)>,
) {
    parts.tell_all(|| Notice::Start(combined(&starts)));
    while let Some((shard, start)) = renewed.recv().await {
        starts[usize::from(shard)] = start;
        out.send_replace(combined(&starts));
        parts.tell_all(|| Notice::Start(combined(&starts)));
    }
}

/// The first failure closes the network, so that nothing more is promised.
pub(crate) async fn watch_failures(mut failures: mpsc::UnboundedReceiver<String>, out: watch::Sender<Option<String>>, endpoint: Endpoint) {
    if let Some(why) = failures.recv().await {
        tracing::error!(why, "the node cannot go on");
        out.send_replace(Some(why));
        endpoint.close(CloseCode::SHUTDOWN, "the node has failed").await;
        // Kept, so that shards which fail later still find somebody.
        while failures.recv().await.is_some() {}
    }
}

pub(crate) async fn upkeep(metrics: Arc<Metrics>) {
    let mut due = tokio::time::interval(METRICS_UPKEEP);
    loop {
        due.tick().await;
        metrics.upkeep();
    }
}

pub(crate) async fn accept(parts: Arc<Parts>, endpoint: Endpoint) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = served.join_next(), if !served.is_empty() => {}
            accepted = endpoint.accept() => match accepted {
                None => return,
                Some(Accepted::Peer(connection, name)) => {
                    let parts = parts.clone();
                    served.spawn(async move { peers::serve(&parts, connection, name, false).await });
                }
                Some(Accepted::Client(connection)) => {
                    served.spawn(session::serve(parts.clone(), connection));
                }
            }
        }
    }
}

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
        guarded("the first", failures.clone(), async {}).await;
        let panics = tokio::spawn(guarded("the second", failures, async { panic!("as the test wants it") }));
        assert!(panics.await.is_err_and(|error| error.is_panic()));
        assert!(reported.recv().await.is_some_and(|why| why.starts_with("the second has panicked")));
        assert_eq!(reported.recv().await, None);
    }

    #[test]
    fn a_start_id_is_renewed_with_any_shards() {
        assert_ne!(combined(&[1, 2]), combined(&[1, 3]));
        assert_eq!(combined(&[1, 2]), combined(&[1, 2]));
    }
}
