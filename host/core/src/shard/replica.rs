//! The replica's side: `absorb`, through which every object comes in, and the answers to coordinators.

use alloc::borrow::Cow;

use bytes::Bytes;

use rejoin_proto::catalog::Durability;
use rejoin_proto::peer::{Absorbed, OpId, PeerBody, Replicate};
use rejoin_proto::{Dot, ErrorCode, Hlc, LayoutRef, NodeId, Object, ObjectId, PartitionId, ReapEpoch, VersionVector};

use super::Shard;
use super::copy::{Copy, Incoming, Place, StoredRow};
use super::event::{Alarm, Barrier, Effect};
use super::turn::Turn;
use crate::causal;
use crate::port::Change;
use crate::tenure::EndCause;

impl Shard {
    /// Joins an object that comes in with this node's copy, and returns the copy as it is then. Replication, repair and
    /// recovery all end here.
    ///
    /// Refused only for an older reap epoch, or if the store does not take the result; never for its size. A copy here
    /// that cannot be read is given up, and what comes in takes its place. An empty object takes no place, because a
    /// damaged copy must not become an absent one.
    pub(super) fn absorb<'a>(
        &mut self,
        turn: &mut Turn<'_>,
        id: &ObjectId,
        epoch: ReapEpoch,
        incoming: impl Into<Incoming<'a>>,
    ) -> Result<Copy, ErrorCode> {
        let whole: Incoming<'a> = incoming.into();
        let incoming = whole.object;
        if epoch < self.epoch() {
            return Err(ErrorCode::VersionConflict);
        }
        let hash = id.hash();
        let partition = self.view.layout().partition_of(hash);
        // Before anything else: what comes in may show that this node's disk is an old one.
        self.check_context(turn, partition, &incoming.context);
        self.advance_clock(turn, id, incoming);
        let store_key = Bytes::from(id.store_key_of(hash));
        let place = Place { partition, store_key: &store_key };
        let (local, old) = match self.load(turn, place) {
            Ok(Copy { object, row }) => (Some(object), row),
            // Rule: unreadable is replaced.
            Err(ErrorCode::Damaged) if !incoming.is_empty() => (None, self.give_up(turn, place)),
            Err(code) => return Err(code),
        };
        let joined = match &local {
            Some(local) => {
                self.check_claims(turn, partition, &incoming.context, &local.context);
                let (joined, alarm) = causal::sync_borrowed(local, incoming);
                if alarm.is_some() {
                    turn.effects.push(Effect::Alarm(Alarm::OneDotTwoValues { object: id.clone() }));
                }
                if *joined == *local {
                    self.counters.absorbs += 1;
                    return Ok(Copy { object: joined.into_owned(), row: old });
                }
                joined
            }
            None => Cow::Borrowed(incoming),
        };
        self.counters.absorbs += 1;
        // A write mostly comes to a copy that it supersedes. Then the bytes that came are the row.
        let row = whole.row_of(&joined);
        self.store_row(turn, place, &old, row.clone(), Change::default())?;
        Ok(Copy { object: joined.into_owned(), row: StoredRow::Present(row) })
    }

    /// To be called for every context that arrives. One that has seen a counter which this node's actor has not used
    /// yet ends the tenure before anything more is minted. What it has seen of other actors is remembered.
    pub(super) fn check_context(&mut self, turn: &mut Turn<'_>, partition: PartitionId, context: &VersionVector) {
        // Rule: contexts end a tenure.
        if self.tenures.is_outrun(partition, context) {
            self.end_outrun(
                turn,
                partition,
                context,
                "a context has seen later writes of the old one: this is an old or cloned disk",
            );
        }
        let tenures = &self.tenures;
        self.observed.note(partition, context, |actor| tenures.is_current(partition, actor));
    }

    /// Compares the writes that a context claims of this node's actor with this node's copy of the key. The copy holds
    /// or supersedes all that the actor has minted for the key, so a claim of more shows that the disk went back: the
    /// tenure ends.
    pub(super) fn check_claims(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        claimed: &VersionVector,
        copy: &VersionVector,
    ) {
        let outrun = self.tenures.actor(partition).is_some_and(|actor| claimed.highest(actor) > copy.highest(actor));
        if outrun {
            self.end_tenure(
                turn,
                partition,
                EndCause::OldDisk,
                "a context has seen later writes of the old one to a key: this is an old or cloned disk",
            );
        }
    }

    /// Keeps this node's stamps ahead of those it has seen, but for stamps no honest clock can have given.
    fn advance_clock(&mut self, turn: &mut Turn<'_>, id: &ObjectId, incoming: &Object) {
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

    /// Answers a coordinator that reads, without the copy if that has the digest of the coordinator's. A node that is
    /// asked as an owner and is none refuses: what it lacks proves nothing.
    pub(super) fn serve_read(
        &mut self,
        turn: &mut Turn<'_>,
        (from, trace, layout): (NodeId, u64, LayoutRef),
        (op, id): (OpId, &ObjectId),
        (as_fallback, digest): (bool, Option<[u8; 16]>),
    ) {
        let hash = id.hash();
        let partition = self.view.layout().partition_of(hash);
        // Rule: retired layouts are not read. By the newer ones others have what this node may lack.
        let is_asked_as_owner = self.view.layouts().oldest_name() <= layout;
        // Rule: unknown layouts are not read. A change has skipped this node, which did not take what others have.
        let is_known = layout <= self.view.layout_name();
        let is_owner = is_asked_as_owner && is_known && self.view.owns(self.config.node, partition, id.bucket);
        let copy = match as_fallback || is_owner {
            true => {
                let store_key = Bytes::from(id.store_key_of(hash));
                self.load(turn, Place { partition, store_key: &store_key }).map(|copy| {
                    // Rule: equal copies have equal digests.
                    let same = digest.filter(|digest| *digest == self.digest(id, &store_key, &copy));
                    (copy.object, same)
                })
            }
            false => Err(ErrorCode::StaleLayout),
        };
        let complete = self.vouches(partition, self.view.bucket(id.bucket), as_fallback);
        let epoch = self.epoch();
        let reply = match copy {
            Ok((_, Some(digest))) => PeerBody::ReadSame { op, epoch, digest, complete },
            Ok((object, None)) => PeerBody::ReadReply { op, epoch, copy: Ok(object), complete },
            Err(code) => PeerBody::ReadReply { op, epoch, copy: Err(code), complete },
        };
        self.send(turn, from, trace, reply);
    }

    /// Absorbs what a coordinator sends, and answers whether its write is live here.
    pub(super) fn serve_replicate(
        &mut self,
        turn: &mut Turn<'_>,
        (from, trace, layout): (NodeId, u64, LayoutRef),
        message: Replicate,
    ) {
        let partition = self.view.layout().partition(&message.object);
        let is_owner = self.view.owns(self.config.node, partition, message.object.bucket);
        // Rule: older writes are refused. Where a layout is closed nothing more is acknowledged by the older ones.
        let is_older = self.view.is_closed() && layout < self.view.layout_name() && message.dot.is_some();
        // Who writes by a newer layout knows better who is an owner.
        let is_newer = layout > self.view.layout_name() && message.dot.is_some();
        let is_taken = is_owner || is_newer || self.takes_as_fallback(&message);
        let outcome = match is_taken && !is_older {
            true => self
                .absorb(turn, &message.object, message.epoch, &message.state)
                .map(|copy| fate(&copy.object, message.dot)),
            false => Err(ErrorCode::StaleLayout),
        };
        // The sender has minted this dot, so its actor is one that must be remembered for longest.
        let is_another =
            |dot: &Dot| message.state.context.contains(*dot) && !self.tenures.is_current(partition, dot.actor);
        if let Some(dot) = message.dot.filter(is_another) {
            self.observed.minted(from, partition, dot);
        }
        let Some(op) = message.op else { return };
        let bucket_version = self.view.bucket_version(message.object.bucket);
        let held = self.holdings.held(partition).filter(|_| !is_owner);
        let body = PeerBody::Replicated { op, layout: self.view.layout_name(), bucket_version, outcome, held };
        let barrier = match message.durability {
            // Rule: acks wait for the disk.
            Durability::Fsync => Barrier::Durable,
            Durability::Os => Barrier::Written,
        };
        self.send_behind(turn, barrier, from, trace, body);
    }

    /// Whether this node takes an object that it does not own: a new write to a bucket that is sloppy in a live layout.
    /// A repair, or an object of a drain, is for the owners and makes no copy elsewhere.
    fn takes_as_fallback(&self, message: &Replicate) -> bool {
        let is_sloppy = self.view.bucket(message.object.bucket).is_some_and(|bucket| !bucket.live.sloppy().is_empty());
        // Rule: strict buckets use no fallbacks.
        is_sloppy && message.dot.is_some()
    }
}

/// What became of a write in a copy that has absorbed it.
fn fate(copy: &Object, dot: Option<Dot>) -> Absorbed {
    match dot {
        Some(dot) if !copy.entries.iter().any(|entry| entry.dots.contains(dot)) => {
            Absorbed::Superseded(copy.context.clone())
        }
        _ => Absorbed::Stored,
    }
}
