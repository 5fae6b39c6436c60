//! What the nodes do while they are under load, second by second, by their own counters.

use std::net::SocketAddr;
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::http;

/// Counters of all nodes together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Marks {
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) merges: u64,
    pub(crate) folds: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_us: u64,
}

impl AddAssign for Marks {
    fn add_assign(&mut self, other: Self) {
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.merges += other.merges;
        self.folds += other.folds;
        self.syncs += other.syncs;
        self.sync_us += other.sync_us;
    }
}

impl Sub for Marks {
    type Output = Self;

    /// What was added since `earlier`. A node that was started again in between counts from nothing.
    fn sub(self, earlier: Self) -> Self {
        Self {
            flushes: self.flushes.saturating_sub(earlier.flushes),
            compactions: self.compactions.saturating_sub(earlier.compactions),
            merges: self.merges.saturating_sub(earlier.merges),
            folds: self.folds.saturating_sub(earlier.folds),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            sync_us: self.sync_us.saturating_sub(earlier.sync_us),
        }
    }
}

/// Asks every node once a second.
pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<Marks>, Failure>>,
}

/// The counters before anything was done.
pub(crate) struct Before {
    nodes: Vec<SocketAddr>,
    marks: Marks,
}

impl Before {
    /// Asks these admin ports.
    ///
    /// # Errors
    /// A node does not answer.
    pub(crate) async fn ask(nodes: Vec<SocketAddr>) -> Result<Self, Failure> {
        let marks = ask(&nodes).await?;
        Ok(Self { nodes, marks })
    }

    /// Goes on asking from `began` on. What was done before that, in a warm-up, is left out.
    pub(crate) fn watch(self, began: Instant) -> Watch {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let Self { nodes, marks } = self;
            let mut seen = vec![marks];
            if began > Instant::now() {
                tokio::time::sleep_until(began.into()).await;
                seen = vec![ask(&nodes).await?];
            }
            let second = Duration::from_secs(1);
            let mut due = tokio::time::interval_at((began + second).into(), second);
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stopped => {
                        seen.push(ask(&nodes).await?);
                        return Ok(seen);
                    }
                    _ = due.tick() => seen.push(ask(&nodes).await?),
                }
            }
        });
        Watch { stop, task }
    }
}

impl Watch {
    /// What was done in each second, the last one as far as it went.
    ///
    /// # Errors
    /// A node did not answer.
    pub(crate) async fn end(self) -> Result<Vec<Marks>, Failure> {
        drop(self.stop);
        let seen = self.task.await.map_err(|why| Failure::usage(format!("the nodes could not be watched: {why}")))??;
        Ok(seen.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }
}

async fn ask(nodes: &[SocketAddr]) -> Result<Marks, Failure> {
    let mut sum = Marks::default();
    for node in nodes {
        sum += marks(&http::get(*node, "/metrics").await?);
    }
    Ok(sum)
}

/// The sums over all shards of a page of metrics in Prometheus' text format.
fn marks(page: &str) -> Marks {
    let mut marks = Marks::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let counter = match name {
            "rejoin_flushes_total" => &mut marks.flushes,
            "rejoin_compactions_total" => &mut marks.compactions,
            "rejoin_merges_total" => &mut marks.merges,
            "rejoin_folds_total" => &mut marks.folds,
            "rejoin_journal_syncs_total" => &mut marks.syncs,
            "rejoin_journal_sync_microseconds_total" => &mut marks.sync_us,
            _ => continue,
        };
        *counter += value.parse::<u64>().unwrap_or(0);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_shards_and_others_left_out() {
        let page = "# TYPE rejoin_flushes_total counter\nrejoin_flushes_total{shard=\"0\"} 3\nrejoin_flushes_total{shard=\"1\"} 4\n\
                    rejoin_merges_total{shard=\"0\"} 5\nrejoin_merges_waiting 9\nrejoin_journal_syncs_total{shard=\"0\"} 2\n";
        let seen = marks(page);
        assert_eq!(seen, Marks { flushes: 7, merges: 5, syncs: 2, ..Marks::default() });
        assert_eq!((seen - Marks { flushes: 5, merges: 9, ..Marks::default() }), Marks { flushes: 2, syncs: 2, ..Marks::default() });
    }
}
