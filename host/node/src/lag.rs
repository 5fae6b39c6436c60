//! What the shards of a node have yet to hand over and to rebuild, for `status` and `/health`.

use std::time::Duration;

use rejoin_proto::Name;
use rejoin_proto::client::{Holdings, Rebuild};

use crate::context::NodeContext;

/// How long the shards may take to tell. One that waits for its disk must not keep an operator waiting too.
const PATIENCE: Duration = Duration::from_millis(500);

/// The sums over all shards.
#[derive(Default)]
pub(crate) struct ShardSums {
    pub(crate) holdings: Holdings,
    pub(crate) rebuild: Option<Rebuild>,
    /// Receipts of folds that went before their time.
    pub(crate) given_up: u64,
    /// Why the two are missing.
    pub(crate) warning: Option<String>,
}

impl ShardSums {
    /// Asks all shards.
    pub(crate) async fn ask(ctx: &NodeContext) -> Self {
        let mut sums = Self::default();
        let Ok(reports) = tokio::time::timeout(PATIENCE, ctx.reports()).await else {
            sums.warning = Some(format!(
                "a shard of {} does not say in time what it holds and rebuilds: its disk may be slow",
                ctx.config.name
            ));
            return sums;
        };
        let mut rebuild = Rebuild::default();
        for report in reports {
            sums.holdings.partitions.extend(report.held.partitions);
            sums.holdings.objects += report.held.objects;
            sums.given_up += report.receipts.given_up;
            let of = report.exchange.rebuild;
            rebuild.left.extend(report.exchange.incomplete);
            rebuild.partitions = rebuild.partitions.saturating_add(u32::try_from(of.partitions).unwrap_or(u32::MAX));
            rebuild.objects += of.objects;
            rebuild.bytes += of.bytes;
        }
        sums.rebuild = Some(rebuild).filter(|rebuild| !rebuild.left.is_empty());
        sums
    }

    /// What there is to say of receipts that went before their time.
    pub(crate) fn receipts_warning(&self, node: &Name) -> Option<String> {
        let given_up = Some(self.given_up).filter(|count| *count > 0)?;
        Some(format!(
            "{given_up} receipts of folds at {node} were given up before their time for want of room (receipt_bytes): \
             these folds cannot be undone"
        ))
    }

    /// A line for each, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Holdings { partitions, objects } = &self.holdings;
        if !partitions.is_empty() {
            lines.push(format!("holds {objects} objects of {} partitions for their owners", partitions.len()));
        }
        if let Some(Rebuild { left, partitions, objects, .. }) = &self.rebuild {
            let left = left.len();
            lines.push(format!("rebuilds {left} of {partitions} partitions, and has taken {objects} objects for them"));
        }
        lines.extend(self.warning.iter().map(|warning| format!("warning: {warning}")));
        lines
    }
}
