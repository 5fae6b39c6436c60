//! Routes a peer's message to a shard, the catalog, the store of plugins, or whoever wants sizes of partitions.

use rejoin_proto::peer::PeerBody;

use crate::view::{ClusterView, shard_of};

/// The receiver of a message within the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// That shard, behind the requests that wait there.
    Shard(u16),
    /// That shard, ahead of its requests: an objection must be handled before the peer's *ready*, and which nodes hold
    /// something before the next read.
    Ahead(u16),
    /// The catalog.
    Control,
    /// The store of plugins.
    Modules,
    /// Whoever asks or tells how large partitions are.
    Sizes,
    /// None: it names a shard or a partition that this node does not have.
    Nowhere,
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
        | PeerBody::Replicated { op, .. }
        | PeerBody::OfferReply { op, .. }
        | PeerBody::ViewAnswer { op, .. } => {
            if op.shard < shards {
                Route::Shard(op.shard)
            } else {
                Route::Nowhere
            }
        }
        PeerBody::Observed { actor, .. } => {
            if u32::from(actor.partition.0) < layout.partitions() {
                Route::Ahead(of_partition(actor.partition))
            } else {
                Route::Nowhere
            }
        }
        PeerBody::Holdings { partition, .. } => {
            if u32::from(partition.0) < layout.partitions() {
                Route::Ahead(of_partition(*partition))
            } else {
                Route::Nowhere
            }
        }
        PeerBody::Offer(offer) => {
            if u32::from(offer.partition.0) < layout.partitions() {
                Route::Shard(of_partition(offer.partition))
            } else {
                Route::Nowhere
            }
        }
        PeerBody::CatalogSummary(_)
        | PeerBody::CatalogRecords { .. }
        | PeerBody::CatalogTaken { .. }
        | PeerBody::Ring(_) => Route::Control,
        PeerBody::ModuleWanted(_) | PeerBody::Module { .. } => Route::Modules,
        PeerBody::SizesWanted(_) | PeerBody::Sizes { .. } => Route::Sizes,
        PeerBody::ExchangeAsk(asked) => {
            let is_there = u32::from(asked.partition.0) < layout.partitions();
            if is_there { Route::Shard(of_partition(asked.partition)) } else { Route::Nowhere }
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
