//! Encodes messages and replies as frames, and chooses the frame's class.

use bytes::{Bytes, BytesMut};

use rejoin_core::shard::event::ReplyTo;
use rejoin_proto::client::{Reply, ReplyEnvelope, StartId};
use rejoin_proto::codec::Versioned;
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

/// The room that an [`Encoder`] takes at a time.
const ROOM_BYTES: usize = 16 << 10;
/// A larger body keeps the room that it is in for itself: it is not copied into the queue of its connection, and might
/// keep the bodies beside it in memory for long.
const SMALL_BYTES: usize = 4 << 10;

/// Gives a body that shares the room of an [`Encoder`] one of its own: it waits for long.
pub(crate) fn unshare(body: &mut Bytes) {
    if body.len() < ROOM_BYTES {
        *body = Bytes::copy_from_slice(body);
    }
}

/// Encodes frames one behind the other. Nearly all of them are copied into the queue of a connection before the next
/// batch, so that this takes their room again and asks for none.
pub(crate) struct Encoder {
    room: BytesMut,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { room: BytesMut::with_capacity(ROOM_BYTES) }
    }
}

impl Encoder {
    /// As [`frame`].
    pub(crate) fn frame(&mut self, envelope: &PeerEnvelope) -> Frame {
        let body = self.encoded(envelope);
        framed(envelope, body)
    }

    /// As [`answer`].
    pub(crate) fn answer(&mut self, reply_to: ReplyTo, layout: LayoutRef, start: StartId, reply: Reply) -> Frame {
        let body = self.encoded(&ReplyEnvelope { layout, start, reply });
        Frame { class: Class::Request, id: reply_to.request, body }
    }

    fn encoded<T: Versioned>(&mut self, value: &T) -> Bytes {
        codec::encode_into(value, &mut self.room);
        let body = self.room.split().freeze();
        if body.len() > SMALL_BYTES {
            self.room = BytesMut::with_capacity(ROOM_BYTES);
        }
        body
    }
}

/// Encodes a message to a peer.
pub(crate) fn frame(envelope: &PeerEnvelope) -> Frame {
    framed(envelope, codec::encode(envelope).into())
}

fn framed(envelope: &PeerEnvelope, body: Bytes) -> Frame {
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
    Frame { class, id: MESSAGE, body }
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
            state: Object { context: [DOT].into_iter().collect(), entries: vec![entry] }.into(),
        })
    }

    #[test]
    fn frames_that_share_their_room_are_those_that_have_their_own() {
        let mut encoder = Encoder::default();
        let mut frames = Vec::new();
        for bytes in [0, 10, SMALL_BYTES, 3 * ROOM_BYTES, 10, LARGE_BYTES + 1].repeat(20) {
            let envelope = PeerEnvelope { layout: LayoutRef::default(), trace: 1, body: replicate(Some(DOT), bytes) };
            frames.push((encoder.frame(&envelope), frame(&envelope)));
            let (reply_to, reply) = (ReplyTo { connection: 1, request: 7 }, || Reply::Records(Vec::new()));
            let shared = encoder.answer(reply_to, LayoutRef::default(), StartId(3), reply());
            frames.push((shared, answer(reply_to, LayoutRef::default(), StartId(3), reply())));
        }
        for (shared, own) in frames {
            assert_eq!((shared.class, shared.id, shared.body), (own.class, own.id, own.body));
        }
    }

    #[test]
    fn the_room_of_frames_that_are_gone_is_used_again() {
        let mut encoder = Encoder::default();
        let small = PeerEnvelope { layout: LayoutRef::default(), trace: 1, body: replicate(Some(DOT), 100) };
        let rooms: std::collections::BTreeSet<usize> =
            (0..10_000).map(|_| encoder.frame(&small).body.as_ptr() as usize / ROOM_BYTES).collect();
        assert!(rooms.len() <= 2, "{} rooms", rooms.len());
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
