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
