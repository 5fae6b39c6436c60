//! Encodes messages and replies as frames, and chooses the frame's class.

use rejoin_core::shard::event::ReplyTo;
use rejoin_proto::client::{Reply, ReplyEnvelope, StartId};
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::{LayoutRef, codec};
use rejoin_wire::{Class, Frame};

/// Larger messages use a class of their own, so that small ones do not queue behind them.
pub(crate) const LARGE_BYTES: usize = 64 << 10;

// Frame ids between nodes. All but `MESSAGE` are used on the control class only.

/// The first frame on a connection.
pub(crate) const HELLO: u64 = 0;
/// An encoded [`PeerEnvelope`], in any class.
pub(crate) const MESSAGE: u64 = 1;
/// The sender has sent all its objections to the receiver's actors.
pub(crate) const READY: u64 = 2;
/// The sender's wall clock.
pub(crate) const CLOCK: u64 = 3;
/// The sender is about to stop.
pub(crate) const STOPPING: u64 = 4;
/// The sender waits for nothing more from the receiver, which is about to stop.
pub(crate) const RELEASED: u64 = 5;
/// The sender is rebuilt, after its data directory was replaced.
pub(crate) const REBUILT: u64 = 6;

/// Encodes a message to a peer.
pub(crate) fn frame(envelope: &PeerEnvelope) -> Frame {
    let body = codec::encode(envelope);
    let class = match &envelope.body {
        bulk if bulk.is_bulk() => Class::Bulk,
        _ if body.len() > LARGE_BYTES => Class::Large,
        PeerBody::Observed { .. }
        | PeerBody::Holdings { .. }
        | PeerBody::Ring(_)
        | PeerBody::CatalogSummary(_)
        | PeerBody::CatalogRecords { .. }
        | PeerBody::CatalogTaken { .. } => Class::Control,
        _ => Class::Request,
    };
    Frame { class, id: MESSAGE, body: body.into() }
}

/// Encodes a reply to a client. The frame has the id of the request.
pub(crate) fn answer(reply_to: ReplyTo, layout: LayoutRef, start: StartId, reply: Reply) -> Frame {
    let body = codec::encode(&ReplyEnvelope { layout, start, reply });
    Frame { class: Class::Request, id: reply_to.request, body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rejoin_proto::catalog::Durability;
    use rejoin_proto::peer::{Offer, OpId, Replicate};
    use rejoin_proto::{
        ActorId, BucketId, Content, Dot, DotSet, DotSpan, Entry, Hlc, Object, ObjectId, PartitionId, ReapEpoch,
        TenantId,
    };

    const OP: OpId = OpId { shard: 0, number: 1 };
    const DOT: Dot = Dot { actor: ActorId(1), counter: 1 };

    fn class(body: PeerBody) -> Class {
        frame(&PeerEnvelope { layout: LayoutRef::default(), trace: 0, body }).class
    }

    /// An object with a value of so many bytes, as a write if it has a dot.
    fn replicate(dot: Option<Dot>, bytes: usize) -> PeerBody {
        let dots: DotSet = [DotSpan { actor: DOT.actor, lo: 0, hi: DOT.counter }].into_iter().collect();
        let entry = Entry {
            dots: dots.clone(),
            covers: dots,
            content: Content::Value(vec![0; bytes].into()),
            stamp: Hlc::default(),
            expires: None,
            folded_by: None,
        };
        PeerBody::Replicate(Replicate {
            op: Some(OP),
            object: ObjectId { tenant: TenantId(1), bucket: BucketId(1), key: Bytes::from_static(b"k") },
            bucket_version: 1,
            epoch: ReapEpoch::default(),
            dot,
            durability: Durability::Fsync,
            state: Object { context: [DOT].into_iter().collect(), entries: vec![entry] },
        })
    }

    #[test]
    fn what_a_fallback_hands_over_travels_as_bulk_and_writes_do_not() {
        assert_eq!(class(replicate(Some(DOT), 10)), Class::Request);
        assert_eq!(class(replicate(Some(DOT), LARGE_BYTES)), Class::Large);
        for bytes in [10, LARGE_BYTES] {
            assert_eq!(class(replicate(None, bytes)), Class::Bulk);
        }
        let (tenant, bucket, epoch) = (TenantId(1), BucketId(1), ReapEpoch::default());
        let offer = Offer {
            op: OP,
            partition_bits: 8,
            partition: PartitionId(0),
            tenant,
            bucket,
            bucket_version: 1,
            epoch,
            objects: Vec::new(),
        };
        assert_eq!(class(PeerBody::Offer(offer)), Class::Bulk);
    }
}
