//! One call of [`Shard::handle`](super::Shard::handle), and what all its steps share: send, reply, count, write, end a
//! tenure. Nothing here decides what a request means.

use alloc::format;
use alloc::vec::Vec;

use rejoin_proto::client::Reply;
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, NodeFailure, NodeId, PartitionId, ReapEpoch, VersionVector};

use super::Shard;
use super::event::{Alarm, Barrier, Effect, Now};
use super::op::{Op, Origin, Step};
use crate::layouts::Owners;
use crate::port::{Change, Store, StoreFault};
use crate::quorum::Tally;
use crate::tenure::EndCause;

/// The arguments of one call.
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

    /// Sends another node a part of an operation. The layout in it is the operation's: that of its owners, or for a
    /// read the one in which their answers count. The node's own may be newer by now.
    pub(super) fn send_for(&self, turn: &mut Turn<'_>, op: &Op, to: NodeId, body: PeerBody) {
        let layout = if matches!(body, PeerBody::Read { .. }) { op.target.reads } else { op.target.layout };
        let envelope = PeerEnvelope { layout, trace: op.trace, body };
        turn.effects.push(Effect::Send { to, barrier: Barrier::Written, envelope });
    }

    /// Ends an operation with a reply.
    pub(super) fn finish(&mut self, turn: &mut Turn<'_>, op: &Op, reply: Reply) -> Step {
        self.reply(turn, op, reply);
        Step::Done
    }

    /// Replies to everyone who waits for an operation.
    pub(super) fn reply(&mut self, turn: &mut Turn<'_>, op: &Op, reply: Reply) {
        self.note_latency(turn.now, op);
        let Some((&last, others)) = op.origins.split_last() else { return };
        for &origin in others {
            self.reply_to(turn, origin, op.trace, reply.clone());
        }
        self.reply_to(turn, last, op.trace, reply);
    }

    pub(super) fn reply_to(&self, turn: &mut Turn<'_>, origin: Origin, trace: u64, reply: Reply) {
        match origin {
            Origin::Client(reply_to) => turn.effects.push(Effect::Reply { reply_to, reply }),
            Origin::Peer { node, op } => self.send(turn, node, trace, PeerBody::ForwardReply { op, reply }),
        }
    }

    /// Writes a change, and in front of it the ends of tenures that are owed. So nothing is minted, and nothing takes
    /// the place of a damaged copy, except in one record with the end that has to come before it. A failure for good is
    /// also told to the shell.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>, change: Change) -> Result<(), ErrorCode> {
        if !self.owes_ends() {
            return turn.store.write(change).map_err(|fault| fault_code(turn, fault));
        }
        let mut with_ends = self.owed();
        with_ends.rows.extend(change.rows);
        turn.store.write(with_ends).map_err(|fault| fault_code(turn, fault))?;
        self.owes_nothing();
        Ok(())
    }

    /// Ends the tenure of an actor of which someone has seen more than it has written. The counter is also noted among
    /// the observed ones: if the end is lost with this process, the next start finds it there.
    pub(super) fn end_outrun(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        seen: &VersionVector,
        why: &'static str,
    ) {
        self.observed.note(partition, seen, |_| false);
        // Rule: old disks begin gaps. All partitions are as old as this one.
        if !core::mem::replace(&mut self.disk_is_old, true) {
            self.gaps.note_loss();
            self.begin_gaps(turn.now.mono_us);
        }
        self.end_tenure(turn, partition, EndCause::OldDisk, why);
    }

    /// Ends the tenure of the partition's actor, in a record of its own. If the store does not take that, it is owed.
    pub(super) fn end_tenure(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        cause: EndCause,
        why: &'static str,
    ) {
        self.owe_tenure_end(turn, partition, cause, why);
        self.write_tenure_ends(turn);
    }

    /// Ends the tenure of the partition's actor. The caller writes a change next, and the end goes in that record; if
    /// the store does not take it, the end stays owed.
    pub(super) fn owe_tenure_end(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        cause: EndCause,
        why: &'static str,
    ) {
        self.tenures.end(partition, cause);
        self.counters.tenures_ended += 1;
        // A drop is what a fallback is for, and no alarm.
        if cause != EndCause::Drop {
            turn.effects.push(Effect::Alarm(Alarm::TenureEnded { partition, why }));
        }
        self.renew_start(turn);
    }

    /// Ends the tenures of all actors, now. If the store does not take that, it is owed.
    pub(super) fn end_all_tenures(&mut self, turn: &mut Turn<'_>, why: &'static str) {
        let partitions: Vec<PartitionId> = self.tenures.announce().iter().map(|actor| actor.partition).collect();
        if partitions.is_empty() {
            return;
        }
        partitions.iter().for_each(|partition| self.tenures.end(*partition, EndCause::Loss));
        let count = partitions.len() as u64;
        self.counters.tenures_ended += count;
        turn.effects.push(Effect::Alarm(Alarm::TenuresEnded { count, why }));
        self.renew_start(turn);
        self.write_tenure_ends(turn);
    }

    /// Retries of what ended actors wrote are not recognised any more. Until the shell has told the node's new start
    /// id, every retry is answered *unknown*.
    pub(super) fn renew_start(&mut self, turn: &mut Turn<'_>) {
        self.tenures.renew_start(&mut self.rng);
        self.start = None;
        turn.effects.push(Effect::StartRenewed(self.start()));
    }

    pub(super) fn write_tenure_ends(&mut self, turn: &mut Turn<'_>) {
        let mut change = Change::default();
        // Rule: observed is durable. With the end of a tenure at once, otherwise with the next upkeep.
        self.observed.flush(&mut change);
        // Rule: ends are owed. A store that does not take this one gets it again with every later change.
        if self.write(turn, change).is_ok() {
            self.observed.flushed();
        }
    }

    /// The reap epoch of every partition. There is no reaping yet, so all are in the first.
    pub(super) fn epoch(&self) -> ReapEpoch {
        ReapEpoch::default()
    }

    /// The next stamp of this shard's clock.
    pub(super) fn stamp(&mut self, now: Now) -> Hlc {
        self.clock = self.clock.next(now.wall_ms);
        self.clock
    }

    /// Whether a node can be asked: it is this one, or connected.
    pub(super) fn reachable(&self, node: NodeId) -> bool {
        // Rule: suspects stay owners. One that leaves requests unanswered is asked like any other, only later.
        node == self.config.node || self.connections.can_ask(node)
    }

    /// A tally of all these owners. Those that cannot be asked are counted out at once.
    pub(super) fn tally(&self, owners: &Owners, needed: u8, needed_owners: u8) -> Tally {
        self.count_out(Tally::new(needed, needed_owners, owners.seats()), owners)
    }

    /// The same of those that answer reads.
    pub(super) fn read_tally(&self, owners: &Owners, needed: u8, needed_owners: u8) -> Tally {
        // Rule: one layout is read. Owners in the others only need not have everything.
        self.count_out(Tally::new(needed, needed_owners, owners.readers()), owners)
    }

    fn count_out(&self, mut tally: Tally, owners: &Owners) -> Tally {
        for node in owners.iter().filter(|&node| !self.reachable(node)) {
            tally.bad(node, "not connected");
        }
        tally
    }

    /// An error that names the nodes by which a quorum was missed.
    pub(super) fn quorum_error(&mut self, code: ErrorCode, message: &str, tally: &Tally) -> Reply {
        self.counters.quorum_failures += 1;
        let verdict = |(node, why): (NodeId, &str)| NodeFailure { node: self.view.node_name(node), why: why.into() };
        let why = tally.missing().map(verdict).collect();
        Reply::Error(ErrorReply::new(code, message).quorum(tally.needed(), tally.got(), why))
    }
}

impl Shard {
    /// The error for a client when this node's own store refuses.
    pub(super) fn store_error(&self, code: ErrorCode) -> Reply {
        let name = self.view.node_name(self.config.node);
        let message = match code {
            ErrorCode::DiskFull => {
                format!("the disk of {name} is full: writes are refused until there is room, reads go on")
            }
            ErrorCode::Overloaded => {
                format!(
                    "the store of {name} is behind its flushes, or out of file descriptors or memory; nothing was written"
                )
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

/// The error code of a fault of this node's own store. A failure for good is also told to the shell.
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
