//! Routes a peer's message to a shard, the catalog, the store of plugins, or whoever wants sizes of partitions.

use rejoin_proto::PartitionId;
use rejoin_proto::layout::MAX_PARTITIONS;
use rejoin_proto::peer::PeerBody;

use crate::view::{ClusterView, shard_of};

/// The receiver of a message within the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// That shard, behind the requests that wait there.
    Shard(u16),
    /// That shard, ahead of its requests: which nodes hold something it must know before the next read.
    Ahead(u16),
    /// Every shard, ahead of its requests: an objection must be handled before the peer's *ready*. It names an actor by
    /// a partition that may have been split since.
    All,
    /// The catalog.
    Control,
    /// The plugins of the node.
    Modules,
    /// Whoever asks or tells how large partitions are.
    Sizes,
    /// None: it names a shard or a partition that this node does not have.
    Nowhere,
}

/// The shard of a partition that a peer names, whose ring has 2^`bits` partitions. `None` if it has no such one, or
/// this node more shards.
pub(crate) fn shard_of_named(bits: u8, partition: PartitionId, shards: u16) -> Option<u16> {
    let partitions = 1_u32.checked_shl(bits.into()).filter(|partitions| *partitions <= MAX_PARTITIONS)?;
    let is_there = u32::from(partition.0) < partitions && u32::from(shards) <= partitions;
    is_there.then(|| shard_of(partition, partitions, shards))
}

/// The receiver of a peer's message in a node with so many shards.
#[must_use]
pub fn route(body: &PeerBody, view: &ClusterView, shards: u16) -> Route {
    let layout = view.layout();
    let of_partition = |partition| shard_of(partition, layout.partitions(), shards);
    match body {
        PeerBody::Forward(forward) => {
            let (bucket, key) = forward.request.bucket_and_key();
            // An unknown bucket is answered by whichever shard gets it.
            Route::Shard(view.partition(forward.tenant, bucket, key).map_or(0, of_partition))
        }
        PeerBody::Read { object, .. } => Route::Shard(of_partition(layout.partition(object))),
        PeerBody::Replicate(message) => Route::Shard(of_partition(layout.partition(&message.object))),
        PeerBody::ViewAsk(ask) => Route::Shard(of_partition(layout.partition(&ask.object))),
        PeerBody::ForwardReply { op, .. }
        | PeerBody::ReadReply { op, .. }
        | PeerBody::ReadSame { op, .. }
        | PeerBody::Replicated { op, .. }
        | PeerBody::OfferReply { op, .. }
        | PeerBody::ViewAnswer { op, .. } => {
            if op.shard < shards {
                Route::Shard(op.shard)
            } else {
                Route::Nowhere
            }
        }
        PeerBody::Observed { .. } => Route::All,
        PeerBody::Holdings { partition_bits, partition, .. } => {
            shard_of_named(*partition_bits, *partition, shards).map_or(Route::Nowhere, Route::Ahead)
        }
        PeerBody::Offer(offer) => {
            shard_of_named(offer.partition_bits, offer.partition, shards).map_or(Route::Nowhere, Route::Shard)
        }
        PeerBody::CatalogSummary(_)
        | PeerBody::CatalogRecords { .. }
        | PeerBody::CatalogTaken { .. }
        | PeerBody::Ring(_) => Route::Control,
        PeerBody::ModuleWanted(_)
        | PeerBody::Module { .. }
        | PeerBody::PluginAsk { .. }
        | PeerBody::PluginAnswer { .. } => Route::Modules,
        PeerBody::SizesWanted(_) | PeerBody::Sizes { .. } => Route::Sizes,
        PeerBody::ExchangeAsk(asked) => {
            shard_of_named(asked.partition_bits, asked.partition, shards).map_or(Route::Nowhere, Route::Shard)
        }
        PeerBody::ExchangeAnswer(answer) => {
            if answer.walk.shard < shards {
                Route::Shard(answer.walk.shard)
            } else {
                Route::Nowhere
            }
        }
    }
}
