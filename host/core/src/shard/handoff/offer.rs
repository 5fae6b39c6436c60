//! The owner's side of a drain: it looks at what a fallback offers.

use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::peer::{MAX_OFFERED, Offer, OfferAnswer, OfferedObject, PeerBody};
use rejoin_proto::{LayoutRef, NodeId, ObjectId};

use crate::shard::Shard;
use crate::shard::copy::{Place, StoredRow};
use crate::shard::event::Barrier;
use crate::shard::turn::Turn;

impl Shard {
    /// Answers which of the offered objects this node has, and which it wants. It has one only if its copy is exactly
    /// the one that was offered; that is said when the copy is on the disk.
    ///
    /// Only an owner by the sender's layout and bucket version confirms anything. A node that is behind learns the
    /// newer ones as every node does, and is offered the objects again.
    pub(in crate::shard) fn serve_offer(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        trace: u64,
        layout: LayoutRef,
        offer: Offer,
    ) {
        let own_layout = self.view.layout_name();
        let bucket_version = self.view.bucket_version(offer.bucket);
        let fits = self.view.bucket(offer.bucket).is_some_and(|bucket| {
            let mut owners = self.view.layout().owners(offer.partition, bucket.props.n);
            bucket.tenant == offer.tenant && owners.any(|owner| owner.id == self.config.node)
        });
        // Rule: confirms are of one version.
        let is_current = layout == own_layout
            && offer.partition_bits == self.view.partition_bits()
            && bucket_version == offer.bucket_version
            && offer.epoch >= self.epoch();
        let answers: Vec<OfferAnswer> = if fits && is_current {
            let offered = offer.objects.iter().take(MAX_OFFERED);
            offered.map(|object| self.judge_offered(turn, &offer, object)).collect()
        } else {
            Vec::new()
        };
        let body = PeerBody::OfferReply { op: offer.op, layout: own_layout, bucket_version, answers };
        self.send_behind(turn, Barrier::Durable, from, trace, body);
    }

    fn judge_offered(&mut self, turn: &mut Turn<'_>, offer: &Offer, object: &OfferedObject) -> OfferAnswer {
        let id = ObjectId { tenant: offer.tenant, bucket: offer.bucket, key: object.key.clone() };
        let hash = id.hash();
        if self.view.layout().partition_of(hash) != offer.partition {
            return OfferAnswer::Wanted;
        }
        let store_key = Bytes::from(id.store_key_of(hash));
        let place = Place { partition: offer.partition, store_key: &store_key };
        let own = match self.load(turn, place) {
            Ok(copy) => copy.row,
            Err(_) => return OfferAnswer::Wanted,
        };
        match own {
            StoredRow::Present(row)
                if self.config.causal_key.hash_row(&store_key, &row).0.to_be_bytes() == object.hash =>
            {
                OfferAnswer::Confirmed
            }
            _ => OfferAnswer::Wanted,
        }
    }
}
