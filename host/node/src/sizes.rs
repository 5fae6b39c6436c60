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

/// Bytes by partition.
type Bytes = Vec<(PartitionId, u64)>;

/// What nodes have told of their partitions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of the copies of a partition the largest counts: one that is being taken, or of a former owner, has less.
    pub(crate) bytes: BTreeMap<PartitionId, u64>,
    /// Who has told.
    pub(crate) by: BTreeSet<NodeId>,
}

impl Known {
    fn take(&mut self, by: NodeId, bytes: Bytes) {
        self.by.insert(by);
        for (partition, bytes) in bytes {
            let most = self.bytes.entry(partition).or_default();
            *most = bytes.max(*most);
        }
    }
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
    let mut known = Known::default();
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
    let mut bytes = Vec::new();
    for shard in &ctx.shards {
        let (answer, answered) = oneshot::channel();
        let _ = shard.messages.send(ShardMessage::Sizes(answer));
        bytes.extend(answered.await.unwrap_or_default());
    }
    bytes
}

/// A peer asks, or answers.
pub(crate) fn handle(ctx: &Arc<NodeContext>, peer: NodeId, body: PeerBody) {
    match body {
        PeerBody::SizesWanted(number) => {
            let ctx = ctx.clone();
            tokio::spawn(async move {
                let bytes = own(&ctx).await;
                send(&ctx, peer, PeerBody::Sizes { number, bytes });
            });
        }
        PeerBody::Sizes { number, bytes } => {
            if let Some(waits) = lock(&ctx.sizes.questions).open.get(&number) {
                let _ = waits.send((peer, bytes));
            }
        }
        _ => {}
    }
}
