//! A replica's side: the one door through which every object comes in, and the answers to coordinators.

use bytes::Bytes;

use rejoin_proto::catalog::Durability;
use rejoin_proto::peer::{Absorbed, OpId, PeerBody, Replicate};
use rejoin_proto::{Dot, ErrorCode, Hlc, NodeId, Object, ObjectId, PartitionId, ReapEpoch, VersionVector};

use super::Shard;
use super::event::{Alarm, Barrier, Effect};
use super::turn::Turn;
use crate::causal;
use crate::port::Change;

impl Shard {
    /// The one door: joins what comes in with this node's copy, and returns the copy as it is then.
    ///
    /// Refused only for an older reap epoch, and never for size; or if the store does not take it. A copy here that
    /// cannot be read is lost: what comes in takes its place, in one record with the end of the tenure or after it.
    /// Only what says nothing takes no place, because a damaged copy must not become an absent one.
    pub(super) fn absorb(&mut self, turn: &mut Turn<'_>, id: &ObjectId, epoch: ReapEpoch, incoming: &Object) -> Result<Object, ErrorCode> {
        let partition = self.view.layout().partition(id);
        if epoch < self.epoch(partition) {
            return Err(ErrorCode::VersionConflict);
        }
        self.heed_context(turn, partition, &incoming.context);
        self.heed_stamps(turn, id, incoming);
        let store_key = Bytes::from(id.store_key());
        let local = match self.load(turn, partition, &store_key) {
            Ok(local) => Some(local),
            // Rule: unreadable is replaced.
            Err(ErrorCode::Damaged) if !incoming.is_empty() => None,
            Err(code) => return Err(code),
        };
        match &local {
            Some(local) => self.heed_claims(turn, partition, &incoming.context, &local.context),
            None => self.replaces_unreadable(turn, partition, &store_key),
        }
        let (joined, alarm) = local.as_ref().map_or_else(|| (incoming.clone(), None), |local| causal::sync(local, incoming));
        if alarm.is_some() {
            turn.effects.push(Effect::Alarm(Alarm::OneDotTwoValues { object: id.clone() }));
        }
        self.counters.absorbs += 1;
        if local.as_ref() != Some(&joined) {
            let mut change = Change::default();
            Self::object_row(&mut change, &store_key, &joined);
            self.write(turn, change)?;
        }
        Ok(joined)
    }

    /// Looks at every context that arrives: one that has seen a counter which this node's actor has not used yet ends
    /// its tenure before anything more is minted, and what it has seen of others is remembered.
    pub(super) fn heed_context(&mut self, turn: &mut Turn<'_>, partition: PartitionId, context: &VersionVector) {
        // Rule: contexts end a tenure.
        if self.tenures.is_outrun(partition, context) {
            self.end_outrun(turn, partition, context, "a context has seen later writes of the old one: this is an old or cloned disk");
        }
        let tenures = &self.tenures;
        self.observed.note(partition, context, |actor| tenures.is_current(partition, actor));
    }

    /// Compares what a context claims about a key with this node's copy of it. The copy holds or supersedes whatever
    /// this node's actor has minted for the key, so a claim that goes further comes from a later life of the disk: the
    /// tenure ends.
    pub(super) fn heed_claims(&mut self, turn: &mut Turn<'_>, partition: PartitionId, claimed: &VersionVector, copy: &VersionVector) {
        let outrun = self.tenures.actor(partition).is_some_and(|actor| claimed.highest(actor) > copy.highest(actor));
        if outrun {
            self.end_tenure(turn, partition, "a context has seen later writes of the old one to a key: this is an old or cloned disk");
        }
    }

    /// Whether this replica still has what it has acknowledged.
    pub(super) fn is_complete(&self) -> bool {
        !self.config.replaced
    }

    /// Keeps this node's stamps ahead of those it has seen, but for stamps no honest clock can have given.
    fn heed_stamps(&mut self, turn: &mut Turn<'_>, id: &ObjectId, incoming: &Object) {
        let horizon = Hlc::from_ms(turn.now.wall_ms.saturating_add(self.config.max_skew_ms));
        for stamp in incoming.entries.iter().map(|entry| entry.stamp) {
            // Rule: future stamps move nothing.
            if stamp <= horizon {
                self.clock = self.clock.max(stamp);
            } else {
                let ahead_ms = stamp.ms().saturating_sub(turn.now.wall_ms);
                turn.effects.push(Effect::Alarm(Alarm::FutureStamp { object: id.clone(), ahead_ms }));
            }
        }
    }

    pub(super) fn serve_read(&mut self, turn: &mut Turn<'_>, from: NodeId, trace: u64, op: OpId, id: &ObjectId) {
        let partition = self.view.layout().partition(id);
        let copy = match self.view.may_own(self.config.node, partition) {
            true => self.load(turn, partition, &id.store_key()),
            false => Err(ErrorCode::StaleLayout),
        };
        let epoch = self.epoch(partition);
        self.send(turn, from, trace, PeerBody::ReadReply { op, epoch, copy, complete: self.is_complete() });
    }

    pub(super) fn serve_replicate(&mut self, turn: &mut Turn<'_>, from: NodeId, trace: u64, message: Replicate) {
        let partition = self.view.layout().partition(&message.object);
        let outcome = match self.view.may_own(self.config.node, partition) {
            true => self.absorb(turn, &message.object, message.epoch, &message.state).map(|copy| fate(&copy, message.dot)),
            false => Err(ErrorCode::StaleLayout),
        };
        let is_another = |dot: &Dot| message.state.context.contains(*dot) && !self.tenures.is_current(partition, dot.actor);
        if let Some(dot) = message.dot.filter(is_another) {
            self.observed.minted(from, partition, dot);
        }
        let Some(op) = message.op else { return };
        let bucket_version = self.view.bucket_version(message.object.bucket);
        let body = PeerBody::Replicated { op, layout: self.view.layout_name(), bucket_version, outcome };
        let barrier = match message.durability {
            // Rule: acks wait for the disk.
            Durability::Fsync => Barrier::Durable,
            Durability::Os => Barrier::Written,
        };
        self.send_behind(turn, barrier, from, trace, body);
    }
}

/// What became of a write in a copy that has absorbed it.
fn fate(copy: &Object, dot: Option<Dot>) -> Absorbed {
    match dot {
        Some(dot) if !copy.entries.iter().any(|entry| entry.dots.contains(dot)) => Absorbed::Superseded(copy.context.clone()),
        _ => Absorbed::Stored,
    }
}
