//! What one call of [`Shard::handle`](super::Shard::handle) works with, and the small verbs that all rooms share.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::client::Reply;
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, NodeFailure, NodeId, Object, PartitionId, ReapEpoch, VersionVector, codec};

use super::Shard;
use super::event::{Alarm, Barrier, Effect, Now};
use super::op::{Op, Origin};
use crate::port::{Change, Space, Store, StoreFault};
use crate::quorum::Tally;

/// The most damaged copies that are remembered one by one. What is lost with a range of keys is not among them.
const MAX_UNREADABLE: usize = 10_000;

/// One call.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) store: &'a mut dyn Store,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Shard {
    /// Sends a message that only needs its batch to be written.
    pub(super) fn send(&self, turn: &mut Turn<'_>, to: NodeId, trace: u64, body: PeerBody) {
        self.send_behind(turn, Barrier::Written, to, trace, body);
    }

    pub(super) fn send_behind(&self, turn: &mut Turn<'_>, barrier: Barrier, to: NodeId, trace: u64, body: PeerBody) {
        let envelope = PeerEnvelope { layout: self.view.layout_name(), trace, body };
        turn.effects.push(Effect::Send { to, barrier, envelope });
    }

    pub(super) fn reply(&self, turn: &mut Turn<'_>, op: &Op, reply: Reply) {
        for &origin in &op.origins {
            self.reply_to(turn, origin, op.trace, reply.clone());
        }
    }

    pub(super) fn reply_to(&self, turn: &mut Turn<'_>, origin: Origin, trace: u64, reply: Reply) {
        match origin {
            Origin::Client(reply_to) => turn.effects.push(Effect::Reply { reply_to, reply }),
            Origin::Peer { node, op } => self.send(turn, node, trace, PeerBody::ForwardReply { op, reply }),
        }
    }

    /// Reads this node's copy. One that has seen more of this node's actor than the actor knows of shows that the disk
    /// went back. One that cannot be read ends the tenure, see [`heed_damage`](Self::heed_damage).
    pub(super) fn load(&mut self, turn: &mut Turn<'_>, partition: PartitionId, store_key: &[u8]) -> Result<Object, ErrorCode> {
        let fault = match turn.store.get(Space::Objects, store_key) {
            Ok(None) => return Ok(self.readable(store_key, Object::default())),
            Ok(Some(bytes)) => match codec::decode::<Object>(&bytes) {
                Ok(object) => {
                    // Rule: copies end a tenure.
                    if self.tenures.is_outrun(partition, &object.context) {
                        self.end_outrun(turn, partition, &object.context, "its own copy of an object has seen later writes of the old one");
                    }
                    return Ok(self.readable(store_key, object));
                }
                Err(error) => StoreFault::Damaged(error.to_string()),
            },
            Err(fault) => fault,
        };
        // Rule: unreadable is not absent. Every fault goes to the caller as an error.
        self.heed_damage(turn, partition, store_key, &fault);
        Err(fault_code(turn, fault))
    }

    /// A copy that cannot be read ends the tenure, because the actor's own writes may be gone. It does so once and not
    /// with every read, or a key that is often asked for would cost its partition an actor each time. While a copy is
    /// unreadable nothing is minted for its key, so the actors that follow have nothing to lose in it.
    ///
    /// Damaged copies are told apart by their keys. Of a lost range it is enough to know how far the store's count of
    /// writes had come: what an actor writes after the end has a higher number than all that was lost until then.
    fn heed_damage(&mut self, turn: &mut Turn<'_>, partition: PartitionId, store_key: &[u8], fault: &StoreFault) {
        let what = match fault {
            StoreFault::Damaged(what) if self.is_new_damage(store_key) => what,
            StoreFault::Lost { upto, what } => {
                // Given up: it is not damaged any more.
                self.unreadable.remove(store_key);
                // Rule: losses end a tenure once. They are one loss up to the newest row that may be gone.
                if self.knows_loss(partition, *upto) {
                    return;
                }
                self.lost_upto.insert(partition, *upto);
                what
            }
            _ => return,
        };
        turn.effects.push(Effect::Alarm(Alarm::Damaged { partition, what: what.clone() }));
        self.end_for_damage(turn, partition);
    }

    /// Whether a damaged copy was not known of, and is from now on. Those above the bound are not told apart and never
    /// new: they end the tenure when something takes their place.
    fn is_new_damage(&mut self, store_key: &[u8]) -> bool {
        self.unreadable.len() < MAX_UNREADABLE && self.unreadable.insert(Bytes::copy_from_slice(store_key))
    }

    fn end_for_damage(&mut self, turn: &mut Turn<'_>, partition: PartitionId) {
        // Rule: damage ends a tenure. Without an actor nothing was minted since the last end, so nothing has to end.
        if self.tenures.has_actor(partition) {
            self.end_tenure(turn, partition, "its copy of an object cannot be read");
        }
    }

    /// To be called before something takes the place of a copy that cannot be read: of one that is not told apart from
    /// others the tenure has not ended yet.
    pub(super) fn replaces_unreadable(&mut self, turn: &mut Turn<'_>, partition: PartitionId, store_key: &[u8]) {
        self.counters.replaced += 1;
        let known_loss = lost_upto(turn, store_key).is_some_and(|upto| self.knows_loss(partition, upto));
        // Rule: untold damage ends a tenure.
        if !known_loss && !self.unreadable.contains(store_key) {
            self.end_for_damage(turn, partition);
        }
    }

    /// Whether a loss has ended the tenure of its partition's actor.
    fn knows_loss(&self, partition: PartitionId, upto: u64) -> bool {
        self.lost_upto.get(&partition).is_some_and(|&known| known >= upto)
    }

    fn readable(&mut self, store_key: &[u8], object: Object) -> Object {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(store_key);
        }
        object
    }

    /// Writes a change, and with it what is owed of ended tenures: so nothing is minted, or takes the place of a
    /// damaged copy, but in one record with the end that has to come before it. A failure for good is also told to the
    /// shell.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>, change: Change) -> Result<(), ErrorCode> {
        if !self.tenures.owes() {
            return turn.store.write(change).map_err(|fault| fault_code(turn, fault));
        }
        let mut with_ends = Change::default();
        self.tenures.settle(&mut with_ends);
        with_ends.rows.extend(change.rows);
        turn.store.write(with_ends).map_err(|fault| fault_code(turn, fault))?;
        self.tenures.settled();
        Ok(())
    }

    pub(super) fn object_row(change: &mut Change, store_key: &Bytes, object: &Object) {
        change.put(Space::Objects, store_key.clone(), codec::encode(object));
    }

    /// Ends the tenure of an actor of which someone has seen more than it has written. That is noted as what is seen of
    /// others is: should the end be lost with this process, the next start knows it from there.
    pub(super) fn end_outrun(&mut self, turn: &mut Turn<'_>, partition: PartitionId, seen: &VersionVector, why: &'static str) {
        self.observed.note(partition, seen, |_| false);
        self.end_tenure(turn, partition, why);
    }

    /// Ends the tenure of the partition's actor, now. If the store does not take that, it is owed.
    pub(super) fn end_tenure(&mut self, turn: &mut Turn<'_>, partition: PartitionId, why: &'static str) {
        self.tenures.end(partition);
        self.counters.tenures_ended += 1;
        turn.effects.push(Effect::Alarm(Alarm::TenureEnded { partition, why }));
        self.tenures_ended(turn);
    }

    /// Ends the tenures of all actors, now. If the store does not take that, it is owed.
    pub(super) fn end_all_tenures(&mut self, turn: &mut Turn<'_>, why: &'static str) {
        let partitions: Vec<PartitionId> = self.tenures.announce().iter().map(|actor| actor.partition).collect();
        if partitions.is_empty() {
            return;
        }
        partitions.iter().for_each(|partition| self.tenures.end(*partition));
        let count = partitions.len() as u64;
        self.counters.tenures_ended += count;
        turn.effects.push(Effect::Alarm(Alarm::TenuresEnded { count, why }));
        self.tenures_ended(turn);
    }

    fn tenures_ended(&mut self, turn: &mut Turn<'_>) {
        self.tenures.renew_start(&mut self.rng);
        self.start = None;
        turn.effects.push(Effect::StartRenewed(self.tenures.start()));
        let mut change = Change::default();
        // Rule: observed is durable. With the end of a tenure at once, otherwise with the next upkeep.
        self.observed.flush(&mut change);
        // Rule: ends are owed. A store that does not take this one gets it again with every later change.
        if self.write(turn, change).is_ok() {
            self.observed.flushed();
        }
    }

    /// This partition's reap epoch. Reaping has not begun anywhere, so every partition is in the first.
    pub(super) fn epoch(&self, _partition: PartitionId) -> ReapEpoch {
        ReapEpoch::default()
    }

    /// The next stamp of this shard's clock.
    pub(super) fn stamp(&mut self, now: Now) -> Hlc {
        self.clock = self.clock.next(now.wall_ms);
        self.clock
    }

    /// Whether a node can be asked: it is this one, or connected.
    pub(super) fn reachable(&self, node: NodeId) -> bool {
        node == self.config.node || self.up.contains(&node) && !self.leaving.contains(&node)
    }

    /// Asks all owners for an answer; those that are not connected are counted out at once.
    pub(super) fn tally(&self, owners: &[NodeId], needed: u8, needed_owners: u8) -> Tally {
        let mut tally = Tally::new(needed, needed_owners, owners.iter().map(|&node| (node, true)));
        for &node in owners.iter().filter(|&&node| !self.reachable(node)) {
            tally.bad(node, "not connected");
        }
        tally
    }

    /// An error that tells how a quorum was missed.
    pub(super) fn quorum_error(&mut self, code: ErrorCode, message: &str, tally: &Tally) -> Reply {
        self.counters.quorum_failures += 1;
        let verdict = |(node, why): (NodeId, &str)| NodeFailure { node: self.view.node_name(node), why: why.into() };
        let why = tally.missing().map(verdict).collect();
        Reply::Error(ErrorReply::new(code, message).quorum(tally.needed(), tally.got(), why))
    }
}

impl Shard {
    /// A refusal of this node's own store, for a client.
    pub(super) fn store_error(&self, code: ErrorCode) -> Reply {
        let name = self.view.node_name(self.config.node);
        let message = match code {
            ErrorCode::DiskFull => format!("the disk of {name} is full: writes are refused until there is room, reads go on"),
            ErrorCode::Overloaded => {
                format!("the store of {name} is behind its flushes, or out of file descriptors or memory; nothing was written")
            }
            ErrorCode::Damaged => format!(
                "{name} coordinates and cannot read its copy; nothing was written. Try another node; where there is \
                 none, a put or delete takes the place of a copy that is lost for good, and a create does not"
            ),
            _ => format!("the store of {name} has failed and the node is stopping; try another node"),
        };
        let error = ErrorReply::new(code, message);
        Reply::Error(if code == ErrorCode::Overloaded { error.retry_after(100) } else { error })
    }
}

/// Up to which of the store's writes a copy may be lost for good; `None` if it is not.
pub(super) fn lost_upto(turn: &Turn<'_>, store_key: &[u8]) -> Option<u64> {
    match turn.store.get(Space::Objects, store_key) {
        Err(StoreFault::Lost { upto, .. }) => Some(upto),
        _ => None,
    }
}

/// What a fault of this node's own store is called. One for good is also told to the shell.
pub(super) fn fault_code(turn: &mut Turn<'_>, fault: StoreFault) -> ErrorCode {
    match fault {
        StoreFault::Full => ErrorCode::DiskFull,
        StoreFault::Busy => ErrorCode::Overloaded,
        StoreFault::Damaged(_) | StoreFault::Lost { .. } => ErrorCode::Damaged,
        StoreFault::Failed(why) => {
            turn.effects.push(Effect::Fatal(why));
            ErrorCode::Stopping
        }
    }
}
