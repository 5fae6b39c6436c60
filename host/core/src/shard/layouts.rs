//! The shard's part in a change of layouts: it says when older operations have ended, and when it has everything of the
//! partitions that this node gains. The steps themselves are decided by [`ring`](crate::ring).

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rejoin_proto::{BucketId, LayoutRef, NodeId, PartitionId};

use super::Shard;
use super::event::{DurableTicket, Effect};
use super::turn::Turn;
use crate::port::Change;
use crate::view::{Bucket, ClusterView};

/// What the ring is to be told.
#[derive(Debug, Default)]
pub(super) struct RingSteps {
    /// The operations under way that began with views of an earlier generation.
    earlier: BTreeSet<u64>,
    /// The generation that is told when they have ended.
    generation: Option<u64>,
    /// The layout of which it was told that everything is here.
    exchanged: LayoutRef,
    /// The layout of which that is told when it is on the disk.
    on_its_way: Option<(DurableTicket, LayoutRef)>,
    /// The layout for which gains have begun in this run.
    gaining: Option<LayoutRef>,
}

impl RingSteps {
    /// An operation began anew.
    pub(super) fn forget_earlier(&mut self, number: u64) {
        self.earlier.remove(&number);
    }

    pub(super) fn waits_for(&self, ticket: DurableTicket) -> bool {
        self.on_its_way.is_some_and(|(awaited, _)| awaited == ticket)
    }
}

impl Shard {
    /// The view that the shard opens with.
    pub(super) fn open_ring(&mut self) {
        self.ring.generation = Some(self.view.generation());
        // A new data directory has all that there is of the oldest layout, and one from before there were changes too.
        if self.gaps.gains.vouched() == LayoutRef::default() {
            self.gaps.gains.vouch(self.view.layouts().oldest_name());
        }
        if self.view.layouts().count() > 1 {
            // The last run may have ended before it saw the newest one, see `ring_changed`.
            self.tenures.renew_start(&mut self.rng);
        }
        self.gain(0);
    }

    /// There is another view than the one `before`.
    pub(super) fn ring_changed(&mut self, turn: &mut Turn<'_>, before: &ClusterView) {
        if self.view.generation() != before.generation() {
            // Reads that linger have answered.
            let under_way = self.ops.which(|op| !self.lingering.contains(&op.id.number));
            self.ring.earlier = under_way.into_iter().collect();
            self.ring.generation = Some(self.view.generation());
        }
        self.go_on_stale(turn);
        if self.view.layout_name() != before.layout_name() {
            self.end_exchanges(turn.now.mono_us);
            // Rule: new owners are offered anew. This node may be one of them, and hold nothing any more.
            self.drain.forget_offered();
        }
        // Rule: losers make owners too. Of two layouts that were applied at once, one may come behind the newest.
        let (names, known) = (self.view.layouts().names(), before.layouts().names());
        if names.iter().any(|name| !known.contains(name)) {
            // Rule: new owners know no retries. A first attempt may have been forwarded to an owner of that time.
            self.renew_start(turn);
            self.write_tenure_ends(turn);
        }
        self.gain(turn.now.mono_us);
        self.take_ring_steps(turn);
    }

    /// An operation has ended, or its client has an answer.
    pub(super) fn no_longer_earlier(&mut self, turn: &mut Turn<'_>, number: u64) {
        if self.ring.earlier.remove(&number) {
            self.take_ring_steps(turn);
        }
    }

    /// Tells what has been done.
    pub(super) fn take_ring_steps(&mut self, turn: &mut Turn<'_>) {
        // Before this node serves it may not know what it has lost, nor the buckets that it has to have.
        // Rule: lost copies come before layouts retire.
        if let Some(generation) = self.ring.generation
            && self.ring.earlier.is_empty()
            && self.serving
            && !self.lacks_what_older_owners_have()
        {
            self.ring.generation = None;
            turn.effects.push(Effect::OlderEnded(generation));
        }
        let newest = self.view.layout_name();
        if self.ring.exchanged == newest || self.ring.on_its_way.is_some() {
            return;
        }
        let is_taken = self.is_gaining() && self.gaps.gains.are_closed();
        if !is_taken || !self.has_handed_over() {
            return;
        }
        self.gaps.gains.vouch(newest);
        if self.owes_ends() && self.write(turn, Change::default()).is_err() {
            // The next tick tries again.
            return;
        }
        let ticket = DurableTicket(self.ops.ticket());
        self.ring.on_its_way = Some((ticket, newest));
        // Rule: takings are durable. Others drop what this node says that it has.
        turn.effects.push(Effect::WhenDurable(ticket));
    }

    /// What was taken is on the disk, or nobody will say when it is.
    pub(super) fn taken_durably(&mut self, turn: &mut Turn<'_>, is_durable: bool) {
        if let Some((_, layout)) = self.ring.on_its_way.take().filter(|_| is_durable) {
            self.ring.exchanged = layout;
            turn.effects.push(Effect::Exchanged(layout));
        }
    }

    /// Begins to take what this node gains by the newest layout, once it refuses writes by the older ones.
    fn gain(&mut self, now_us: u64) {
        let view = self.view.clone();
        let (newest, oldest) = (view.layout_name(), view.layouts().oldest_name());
        if self.gaps.gains.vouched() < oldest {
            // Rule: skipped nodes are not complete. What this node has gained meanwhile it never took.
            self.begin_gaps(now_us);
            self.gaps.gains.vouch(oldest);
        }
        if !view.is_closed() || !self.knows_changed_buckets() {
            return;
        }
        if !self.is_gaining() {
            let gained: Vec<PartitionId> =
                self.own_partitions().filter(|partition| self.gains_by_newest(*partition)).collect();
            let is_done = self.gaps.gains.vouched() == newest;
            self.gaps.gains.begin(newest, gained.into_iter().filter(|_| !is_done));
            self.ring.gaining = Some(newest);
            self.hand_over_anew();
        }
        self.gaps.gains.set_sources(view.sources(), self.exchanges.next_walk);
        self.end_gains();
        self.exchange_all_soon();
    }

    /// Whether this node knows every bucket whose copies change. Of one that it does not know it could take nothing.
    fn knows_changed_buckets(&self) -> bool {
        let layouts = self.view.layouts();
        let oldest = layouts.get(layouts.oldest());
        let changed = layouts.newest().copies.iter().filter(|copies| oldest.copies_of(copies.bucket) != Some(*copies));
        let is_known = |id| self.view.bucket(id).is_some() || self.view.is_reaped(id);
        changed.into_iter().all(|copies| is_known(copies.bucket))
    }

    /// Whether gains have begun for the newest layout in this run.
    fn is_gaining(&self) -> bool {
        self.ring.gaining == Some(self.view.layout_name())
    }

    /// Whether this node is a new owner of a partition in the newest layout, for any number of copies; or an owner of
    /// what a bucket has there whose copies change.
    fn gains_by_newest(&self, partition: PartitionId) -> bool {
        let layouts = self.view.layouts();
        let owns = |bucket: &Bucket| {
            let mut owners = layouts.newest().owners(partition, bucket.props.n);
            owners.any(|owner| owner.id == self.config.node)
        };
        // Rule: changed copies meet. An older owner may be among fewer now, and not have what the others have.
        if self.view.buckets().any(|bucket| bucket.live.are_to_meet() && owns(bucket)) {
            return true;
        }
        let place = |layout: &rejoin_proto::Layout| {
            let mut owners = layout.owners(partition, u8::MAX);
            owners.position(|owner| owner.id == self.config.node).unwrap_or(usize::MAX)
        };
        place(layouts.newest()) < place(layouts.get(layouts.oldest()))
    }

    /// Everything that a peer had in a partition is here, from a walk with that number.
    pub(super) fn gain_met(&mut self, partition: PartitionId, peer: NodeId, walk: u64) {
        self.gaps.gains.met(partition, peer, walk);
        self.end_gains();
    }

    /// Ends the gains of partitions that were taken from all older owners that are not declared dead.
    fn end_gains(&mut self) {
        let partitions: Vec<PartitionId> = self.gaps.gains.partitions().collect();
        let layouts = self.view.layouts();
        let become_strict = self.view.buckets().any(|bucket| bucket.live.become_strict());
        for partition in partitions {
            let owners = layouts.get(layouts.oldest()).owners(partition, u8::MAX);
            // One that is an owner now may have stood in for others, and hands nothing over.
            let stood_in = layouts.newest().owners(partition, u8::MAX).filter(|_| become_strict);
            let owners = owners.chain(stood_in).map(|owner| owner.id);
            // Rule: dead owners are not waited for.
            let alive = owners.filter(|owner| *owner != self.config.node && !self.view.is_dead(*owner));
            self.gaps.gains.close(partition, alive);
        }
    }

    /// Whether this replica has all that it has acknowledged of a partition; and as an owner of what a bucket has there
    /// also what it gains.
    pub(super) fn vouches(&self, partition: PartitionId, bucket: Option<&Arc<Bucket>>, as_fallback: bool) -> bool {
        let is_whole = as_fallback || self.view.layouts().count() == 1;
        self.gaps.is_complete(partition) && (is_whole || self.has_taken(partition, bucket))
    }

    /// Whether this replica has owned a partition for long, or has taken it.
    fn has_taken(&self, partition: PartitionId, bucket: Option<&Arc<Bucket>>) -> bool {
        let (view, node) = (&self.view, self.config.node);
        let owners = bucket.map_or_else(|| view.owners(partition, u8::MAX), |bucket| view.owners_of(partition, bucket));
        // Those who have skipped this node may read by the newest layout, for which it has to take something.
        // Rule: skipped owners take first.
        let is_skipped = view.is_dead(node) && self.gains_by_newest(partition);
        let is_old = owners.owns_in(node, view.layouts().oldest()) && !is_skipped;
        let newest = self.view.layout_name();
        let gains = &self.gaps.gains;
        // Rule: gains count when taken.
        is_old || gains.vouched() == newest || self.is_gaining() && !gains.has(partition)
    }

    /// The buckets of which other nodes stand in for owners by an older layout, and not by the newest.
    fn becoming_strict(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.view.buckets().filter(|bucket| bucket.live.become_strict())
    }

    /// The older layouts are closed: what this node holds now of buckets that become strict is all that it ever will by
    /// them. It is offered anew: an owner that has confirmed it by an older layout may have handed it over since.
    fn hand_over_anew(&mut self) {
        if self.becoming_strict().next().is_some() {
            self.drain.forget_taken();
        }
    }

    /// Whether the owners of buckets that become strict have everything that this node holds of these. Reads of such a
    /// bucket count owners only.
    fn has_handed_over(&self) -> bool {
        let has = |partition: PartitionId, bucket: BucketId| {
            let mut roots = self.trees.roots(partition);
            !self.trees.is_discovered()
                || roots.any(|(of, root)| of == bucket && (root.sum.count > 0 || root.unknown > 0))
        };
        let is_with_owners = |partition: PartitionId, bucket: &Bucket| {
            let owners = self.view.layout().owners(partition, bucket.props.n).map(|owner| owner.id);
            let mut alive = owners.filter(|owner| !self.view.is_dead(*owner));
            alive.all(|owner| self.drain.was_taken_by(partition, bucket.id, owner))
        };
        let holds = |partition: PartitionId, bucket: &Bucket| {
            has(partition, bucket.id) && !self.view.owns(self.config.node, partition, bucket.id)
        };
        self.becoming_strict().all(|bucket| {
            let mut held = self.holdings.partitions().filter(|partition| holds(*partition, bucket));
            // Rule: fallbacks hand over first.
            held.all(|partition| is_with_owners(partition, bucket))
        })
    }
}
