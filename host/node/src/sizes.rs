//! How many bytes there are in each partition, for the plan of a change of layout. This node knows it of what it owns,
//! and asks the other nodes for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use rejoin_proto::peer::PeerBody;
use rejoin_proto::{NodeId, PartitionId};

use crate::context::NodeContext;
use crate::lock::lock;
use crate::messages::ShardMessage;
use crate::peers::send;

/// How long the other nodes may take. What they have not told by then is estimated.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes by partition of a ring of 2^this many.
type Bytes = (u8, Vec<(PartitionId, u64)>);

/// What nodes have told of their partitions.
#[derive(Debug)]
pub(crate) struct Known {
    /// Of a ring of 2^this partitions.
    bits: u8,
    /// Of the copies of a partition the largest counts: one that is being taken, or of a former owner, has less.
    pub(crate) bytes: BTreeMap<PartitionId, u64>,
    /// Who has told.
    pub(crate) by: BTreeSet<NodeId>,
}

impl Known {
    fn new(bits: u8) -> Self {
        Self { bits, bytes: BTreeMap::new(), by: BTreeSet::new() }
    }

    fn take(&mut self, by: NodeId, bytes: Bytes) {
        self.by.insert(by);
        for (partition, bytes) in in_ring_of(self.bits, bytes) {
            let most = self.bytes.entry(partition).or_default();
            *most = bytes.max(*most);
        }
    }
}

/// The same bytes by partition of a ring of 2^`bits`: one node may have heard of a split, and another one not yet. The
/// parts of a partition are taken to be equal.
fn in_ring_of(bits: u8, (told_bits, told): Bytes) -> BTreeMap<PartitionId, u64> {
    let is_there = |partition: PartitionId| u32::from(partition.0) >> told_bits.min(16) == 0;
    // Each once, whatever was told: a partition may have many parts.
    let told: BTreeMap<PartitionId, u64> = told.into_iter().filter(|(partition, _)| is_there(*partition)).collect();
    let mut known: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for (partition, bytes) in told {
        if told_bits <= bits {
            let more = bits - told_bits;
            known.extend(partition.parts(more).map(|part| (part, bytes >> more)));
        } else {
            let whole = PartitionId(partition.0.checked_shr(u32::from(told_bits - bits)).unwrap_or(0));
            let sum = known.entry(whole).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    known
}

/// The questions of this node that wait for answers.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    questions: Mutex<Questions>,
}

#[derive(Debug, Default)]
struct Questions {
    last: u64,
    open: BTreeMap<u64, mpsc::UnboundedSender<(NodeId, Bytes)>>,
}

/// Asks every node that can be reached.
pub(crate) async fn of_partitions(ctx: &NodeContext) -> Known {
    let (answer, mut answers) = mpsc::unbounded_channel();
    let number = {
        let mut questions = lock(&ctx.sizes.questions);
        questions.last += 1;
        let number = questions.last;
        questions.open.insert(number, answer);
        number
    };
    let peers: Vec<NodeId> = ctx.peers().all().map(|(peer, _)| *peer).collect();
    peers.iter().for_each(|peer| send(ctx, *peer, PeerBody::SizesWanted(number)));
    let mut known = Known::new(ctx.cluster_view().partition_bits());
    known.take(ctx.node, own(ctx).await);
    let until = Instant::now() + PATIENCE;
    for _ in &peers {
        match tokio::time::timeout_at(until, answers.recv()).await {
            Ok(Some((peer, bytes))) => known.take(peer, bytes),
            Ok(None) | Err(_) => break,
        }
    }
    lock(&ctx.sizes.questions).open.remove(&number);
    known
}

/// What the shards of this node have.
async fn own(ctx: &NodeContext) -> Bytes {
    let (bits, mut bytes) = (ctx.cluster_view().partition_bits(), Vec::new());
    for shard in &ctx.shards {
        let (answer, answered) = oneshot::channel();
        let _ = shard.messages.send(ShardMessage::Sizes(answer));
        bytes.extend(in_ring_of(bits, answered.await.unwrap_or_default()));
    }
    (bits, bytes)
}

/// A peer asks, or answers.
pub(crate) fn handle(ctx: &Arc<NodeContext>, peer: NodeId, body: PeerBody) {
    match body {
        PeerBody::SizesWanted(number) => {
            let ctx = ctx.clone();
            tokio::spawn(async move {
                let (partition_bits, bytes) = own(&ctx).await;
                send(&ctx, peer, PeerBody::Sizes { number, partition_bits, bytes });
            });
        }
        PeerBody::Sizes { number, partition_bits, bytes } => {
            if let Some(waits) = lock(&ctx.sizes.questions).open.get(&number) {
                let _ = waits.send((peer, (partition_bits, bytes)));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_understood_by_nodes_that_have_not_heard_of_a_split_or_only_they_have() {
        let told = |bits, of: &[(u16, u64)]| (bits, of.iter().map(|(at, bytes)| (PartitionId(*at), *bytes)).collect());
        let known = |bits, told| {
            let known = in_ring_of(bits, told).into_iter();
            known.map(|(partition, bytes)| (partition.0, bytes)).collect::<Vec<_>>()
        };
        assert_eq!(known(3, told(3, &[(0, 10), (7, 20)])), [(0, 10), (7, 20)]);
        assert_eq!(known(4, told(3, &[(0, 10), (7, 20)])), [(0, 5), (1, 5), (14, 10), (15, 10)]);
        assert_eq!(known(3, told(4, &[(0, 5), (1, 6), (15, 10)])), [(0, 11), (7, 10)]);
        // What no ring of that many has, and more than any ring has.
        assert_eq!(known(3, told(3, &[(8, 10)])), vec![]);
        assert_eq!(known(3, told(200, &[(8, 10)])), [(0, 10)]);
    }
}
