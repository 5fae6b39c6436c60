//! The nodes' own counters, for each second of a run.

use std::net::SocketAddr;
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::http;

/// Counters, summed over all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) merges: u64,
    pub(crate) folds: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_us: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.merges += other.merges;
        self.folds += other.folds;
        self.syncs += other.syncs;
        self.sync_us += other.sync_us;
    }
}

impl Sub for Counters {
    type Output = Self;

    /// The increase since `earlier`. The counters of a restarted node begin at 0.
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

/// Reads the counters of all nodes once a second.
pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<Counters>, Failure>>,
}

/// The counters before the load.
pub(crate) struct Baseline {
    nodes: Vec<SocketAddr>,
    counters: Counters,
}

impl Baseline {
    /// Reads the counters from these admin ports.
    ///
    /// # Errors
    /// A node does not answer.
    pub(crate) async fn ask(nodes: Vec<SocketAddr>) -> Result<Self, Failure> {
        let counters = ask(&nodes).await?;
        Ok(Self { nodes, counters })
    }

    /// Reads the counters from `began` on, so that the warm-up is not counted.
    pub(crate) fn watch(self, began: Instant) -> Watch {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let Self { nodes, counters } = self;
            let mut seen = vec![counters];
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
    /// The counters of each second. The last one may be a part of a second.
    ///
    /// # Errors
    /// A node did not answer.
    pub(crate) async fn end(self) -> Result<Vec<Counters>, Failure> {
        drop(self.stop);
        let seen =
            self.task.await.map_err(|why| Failure::usage(format!("the nodes could not be watched: {why}")))??;
        Ok(seen.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }
}

async fn ask(nodes: &[SocketAddr]) -> Result<Counters, Failure> {
    let mut sum = Counters::default();
    for node in nodes {
        sum += counters(&http::get(*node, "/metrics").await?);
    }
    Ok(sum)
}

/// The sums over all shards of a page of metrics in Prometheus' text format.
fn counters(page: &str) -> Counters {
    let mut counters = Counters::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let counter = match name {
            "rejoin_flushes_total" => &mut counters.flushes,
            "rejoin_compactions_total" => &mut counters.compactions,
            "rejoin_merges_total" => &mut counters.merges,
            "rejoin_folds_total" => &mut counters.folds,
            "rejoin_journal_syncs_total" => &mut counters.syncs,
            "rejoin_journal_sync_microseconds_total" => &mut counters.sync_us,
            _ => continue,
        };
        *counter += value.parse::<u64>().unwrap_or(0);
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_shards_and_others_left_out() {
        let page = "# TYPE rejoin_flushes_total counter\nrejoin_flushes_total{shard=\"0\"} 3\nrejoin_flushes_total{shard=\"1\"} 4\n\
                    rejoin_merges_total{shard=\"0\"} 5\nrejoin_merges_waiting 9\nrejoin_journal_syncs_total{shard=\"0\"} 2\n";
        let seen = counters(page);
        assert_eq!(seen, Counters { flushes: 7, merges: 5, syncs: 2, ..Counters::default() });
        assert_eq!(
            (seen - Counters { flushes: 5, merges: 9, ..Counters::default() }),
            Counters { flushes: 2, syncs: 2, ..Counters::default() }
        );
    }
}
