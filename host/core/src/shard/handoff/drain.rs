//! The walk that empties a fallback.
//!
//! A *pass* walks what this node holds of one partition, in the order of the store's keys, in batches. A batch is
//! offered to the owners that can be reached, each object with its causal hash. An owner confirms what it has, and is
//! sent what it wants. An object is dropped when every owner has confirmed exactly what was offered and its row is
//! still that. When a pass has dropped all and nothing was stored meanwhile, the node holds nothing of the partition
//! any more.
//!
//! Nothing of a walk is durable. One that a restart, a lost message or another layout interrupts begins again, and
//! what is not dropped stays.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::SmallVec;

use rejoin_proto::catalog::Durability;
use rejoin_proto::peer::{MAX_OFFERED, Offer, OfferAnswer, OfferedObject, OpId, PeerBody, Replicate};
use rejoin_proto::{BucketId, EncodedObject, ErrorCode, LayoutRef, NodeId, ObjectId, PartitionId, TenantId};

use crate::exchange::hash::CausalHash;
use crate::layouts::Owners;
use crate::port::{Change, Space, StoreFault};
use crate::shard::Shard;
use crate::shard::copy::{Place, StoredRow};
use crate::shard::event::{Effect, ScanJob, ScanTicket, ScannedRows};
use crate::shard::turn::Turn;

/// The walks of one shard: at most one pass at a time.
#[derive(Debug, Default)]
pub(in crate::shard) struct Drain {
    pass: Option<Pass>,
    /// When the next step is due, in microseconds.
    next_us: u64,
    /// What the last pass over each held partition has come to.
    past: BTreeMap<PartitionId, PastPass>,
}

/// A pass that has ended and left something, or an object that was stored since.
#[derive(Debug, Default)]
struct PastPass {
    /// The owners to which everything that is held was offered.
    offered_to: BTreeSet<NodeId>,
    /// Of each bucket, the owners that have what was held.
    taken_by: BTreeMap<BucketId, BTreeSet<NodeId>>,
    /// All owners of something that is held could be reached.
    reached_all: bool,
    /// Something was stored since the pass began.
    touched: bool,
    again_us: u64,
}

/// A pass over a partition.
#[derive(Debug)]
struct Pass {
    partition: PartitionId,
    /// The layout by which it began. With another one it begins anew.
    layout: LayoutRef,
    /// The next key to look at.
    cursor: Bytes,
    stage: Stage,
    /// Something stays that was looked at.
    left: bool,
    /// The bucket in whose range the cursor is, if it is known.
    within: Option<BucketId>,
    /// The owners that have answered every batch so far; `None` before the first.
    offered_to: Option<BTreeSet<NodeId>>,
    /// The same of each bucket that was met.
    taken_by: BTreeMap<BucketId, BTreeSet<NodeId>>,
    /// Whether that does not count, because the pass began too early.
    is_void: bool,
    /// All owners of some batch could be reached.
    reached_all: bool,
}

#[derive(Debug)]
enum Stage {
    /// The next batch is read when it is due.
    Pausing,
    /// Waits for the rows of a batch, of that bucket; `None`: for the next row of any.
    Scanning(ScanTicket, Option<BucketId>),
    Offering(Batch),
}

/// Objects that are offered to owners.
#[derive(Debug)]
struct Batch {
    /// The number of the offer; the objects have the numbers that follow.
    number: u64,
    bucket: BucketId,
    bucket_version: u64,
    objects: Vec<HeldObject>,
    /// The owners whose answers to the offer are still to come.
    unanswered: BTreeSet<NodeId>,
    /// Objects, by their places, that were sent and not acknowledged yet.
    sent: BTreeSet<(NodeId, usize)>,
    until_us: u64,
}

#[derive(Debug)]
struct HeldObject {
    store_key: Bytes,
    /// Of the copy that was offered.
    hash: CausalHash,
    confirmed: SmallVec<[NodeId; 5]>,
}

impl Drain {
    /// An object was stored in a partition of which this node holds something.
    pub(in crate::shard) fn touched(&mut self, partition: PartitionId) {
        let past = self.past.entry(partition).or_default();
        past.touched = true;
        past.offered_to.clear();
    }

    /// There is another layout: whether a pass may come to something does not depend on those who owned what is held.
    pub(in crate::shard) fn forget_offered(&mut self) {
        self.past.values_mut().for_each(|past| past.offered_to.clear());
    }

    /// What owners have taken until now does not count any more.
    pub(in crate::shard) fn forget_taken(&mut self) {
        for past in self.past.values_mut() {
            past.touched = true;
            past.offered_to.clear();
            past.taken_by.clear();
        }
        if let Some(pass) = &mut self.pass {
            pass.is_void = true;
        }
    }

    /// Whether an owner has taken what was held of a bucket in a partition when that was last [forgotten]. What was
    /// stored since need not be among it.
    ///
    /// [forgotten]: Self::forget_taken
    pub(in crate::shard) fn was_taken_by(&self, partition: PartitionId, bucket: BucketId, owner: NodeId) -> bool {
        let taken_by = self.past.get(&partition).and_then(|past| past.taken_by.get(&bucket));
        taken_by.is_some_and(|owners| owners.contains(&owner))
    }

    /// Whether a scan is the walk's.
    pub(in crate::shard) fn waits_for_scan(&self, ticket: ScanTicket) -> bool {
        matches!(&self.pass, Some(Pass { stage: Stage::Scanning(awaited, _), .. }) if *awaited == ticket)
    }

    /// Whether that number is of an object that was sent to an owner.
    pub(in crate::shard) fn has_sent(&self, number: u64) -> bool {
        match &self.pass {
            Some(Pass { stage: Stage::Offering(batch), .. }) => batch.place_of(number).is_some(),
            _ => false,
        }
    }

    /// Partitions are split: a pass was over another one, and begins anew.
    pub(in crate::shard) fn split(&mut self) {
        *self = Self { next_us: self.next_us, ..Self::default() };
    }

    fn batch(&mut self) -> Option<&mut Batch> {
        match &mut self.pass.as_mut()?.stage {
            Stage::Offering(batch) => Some(batch),
            _ => None,
        }
    }

    /// A peer will not answer what it was asked.
    pub(in crate::shard) fn lost(&mut self, peer: NodeId) {
        let Some(batch) = self.batch() else { return };
        batch.unanswered.remove(&peer);
        batch.sent.retain(|(node, _)| *node != peer);
        self.not_offered(peer);
    }

    /// An owner has not taken a batch as it was offered: it is offered everything again.
    fn not_offered(&mut self, owner: NodeId) {
        let Some(pass) = &mut self.pass else { return };
        pass.taken_by.values_mut().for_each(|taken_by| taken_by.retain(|by| *by != owner));
        if let Some(offered_to) = &mut pass.offered_to {
            offered_to.remove(&owner);
        }
    }
}

impl Batch {
    fn is_answered(&self) -> bool {
        self.unanswered.is_empty() && self.sent.is_empty()
    }

    /// The place of the object that has that number.
    fn place_of(&self, number: u64) -> Option<usize> {
        let at = usize::try_from(number.checked_sub(self.number + 1)?).ok()?;
        (at < self.objects.len()).then_some(at)
    }
}

impl Shard {
    /// When the walk has something to do.
    pub(in crate::shard) fn next_drain_us(&self) -> u64 {
        match &self.drain.pass {
            Some(Pass { stage: Stage::Offering(batch), .. }) if batch.is_answered() => 0,
            Some(Pass { stage: Stage::Offering(batch), .. }) => batch.until_us,
            Some(Pass { stage: Stage::Scanning(..), .. }) => u64::MAX,
            Some(Pass { stage: Stage::Pausing, .. }) => self.drain.next_us,
            None if self.holdings.count() == 0 || !self.serving => u64::MAX,
            None => self.drain.next_us,
        }
    }

    /// Goes on with the walk, if something is due.
    pub(in crate::shard) fn drain(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_us < self.next_drain_us() {
            return;
        }
        let begins_work = !matches!(&self.drain.pass, Some(Pass { stage: Stage::Offering(_), .. }));
        if let Some(until_us) = self.drain_waits_until(turn.now).filter(|_| begins_work) {
            self.drain.next_us = until_us;
            return;
        }
        match self.drain.pass.take() {
            None => self.begin_pass(turn),
            Some(pass) if pass.layout != self.view.layout_name() => self.abandon(turn, pass),
            Some(mut pass) => match core::mem::replace(&mut pass.stage, Stage::Pausing) {
                Stage::Offering(batch) => {
                    self.end_batch(turn, &mut pass, batch);
                    self.drain.next_us = turn.now.mono_us.saturating_add(self.config.handoff.pause_us);
                    self.drain.pass = Some(pass);
                }
                _ => self.read_next(turn, pass),
            },
        }
    }

    /// Begins a pass over the next partition that is due, in turn.
    fn begin_pass(&mut self, turn: &mut Turn<'_>) {
        self.drain.next_us = turn.now.mono_us.saturating_add(self.config.handoff.retry_us / 4);
        let held: Vec<PartitionId> = self.holdings.partitions().collect();
        self.drain.past.retain(|partition, _| held.binary_search(partition).is_ok());
        let Some(&partition) = held.iter().find(|partition| self.is_pass_due(turn, **partition)) else { return };
        let past = self.drain.past.entry(partition).or_default();
        past.touched = false;
        let pass = Pass {
            partition,
            layout: self.view.layout_name(),
            cursor: self.start_of(BucketId(0), partition),
            stage: Stage::Pausing,
            left: false,
            within: None,
            offered_to: None,
            taken_by: BTreeMap::new(),
            is_void: false,
            reached_all: false,
        };
        self.read_next(turn, pass);
    }

    /// Whether a pass over a partition may come to something: an owner can be reached that was not offered what is
    /// held, or all of them can.
    fn is_pass_due(&self, turn: &Turn<'_>, partition: PartitionId) -> bool {
        let past = self.drain.past.get(&partition);
        if past.is_some_and(|past| turn.now.mono_us < past.again_us) {
            return false;
        }
        let owners = self.view.layout().owners(partition, u8::MAX);
        let mut others =
            owners.map(|owner| owner.id).filter(|owner| *owner != self.config.node && self.is_healthy(*owner));
        past.is_some_and(|past| past.reached_all)
            || others.any(|owner| past.is_none_or(|past| !past.offered_to.contains(&owner)))
    }

    /// Asks for the rows that come next: of one bucket, or the first of any.
    fn read_next(&mut self, turn: &mut Turn<'_>, pass: Pass) {
        let ticket = ScanTicket(self.ops.ticket());
        let (limits, bucket) = (self.config.handoff, pass.within);
        let job = match bucket {
            Some(bucket) => ScanJob {
                from: pass.cursor.clone(),
                to: self.end_of(bucket, pass.partition),
                max_rows: limits.batch_objects.clamp(1, MAX_OFFERED),
                max_bytes: limits.batch_bytes,
            },
            None => ScanJob { from: pass.cursor.clone(), to: None, max_rows: 1, max_bytes: 1 },
        };
        self.drain.pass = Some(Pass { stage: Stage::Scanning(ticket, bucket), ..pass });
        turn.effects.push(Effect::Scan(ticket, job));
    }

    /// The rows of a batch have been read, or the first row behind the cursor.
    pub(in crate::shard) fn drain_scanned(&mut self, turn: &mut Turn<'_>, result: Result<ScannedRows, StoreFault>) {
        let Some(mut pass) = self.drain.pass.take() else { return };
        let Stage::Scanning(_, bucket) = core::mem::replace(&mut pass.stage, Stage::Pausing) else {
            self.drain.pass = Some(pass);
            return;
        };
        let Ok(found) = result else { return self.abandon(turn, pass) };
        let Some(bucket) = bucket else { return self.found_first(turn, pass, &found) };
        // A copy that may become readable stays held. One that is lost for good can never be handed over.
        pass.left |= found.damaged;
        pass.within = found.next.is_some().then_some(bucket);
        let end = found.next.or_else(|| self.end_of(bucket, pass.partition));
        // Behind the last partition of the last bucket there is nothing.
        pass.cursor = end.unwrap_or(Bytes::from_static(&[0xff; 64]));
        self.offer(turn, pass, bucket, found.rows);
    }

    /// Goes to the bucket of the first row behind the cursor, so that buckets without a row cost nothing.
    fn found_first(&mut self, turn: &mut Turn<'_>, mut pass: Pass, found: &ScannedRows) {
        let Some((key, _)) = found.rows.first().filter(|_| found.unreadable.is_empty()) else {
            return match found.unreadable.is_empty() && found.next.is_none() {
                true => self.end_pass(turn, pass),
                // Rows that cannot be read may be of any bucket that follows: each is looked at.
                false => self.enter(turn, pass),
            };
        };
        let bucket = bucket_of(key);
        let (start, end) = (self.start_of(bucket, pass.partition), self.end_of(bucket, pass.partition));
        if *key < start {
            pass.cursor = start;
            return self.read_next(turn, pass);
        }
        let is_in = end.as_ref().is_none_or(|end| key < end);
        let owned = self.view.owns(self.config.node, pass.partition, bucket);
        if is_in && !owned && self.view.bucket(bucket).is_some() {
            (pass.cursor, pass.within) = (key.clone(), Some(bucket));
            return self.read_next(turn, pass);
        }
        // An object of a bucket that is not known here can be offered to nobody.
        pass.left |= is_in && !owned;
        let Some(next) = bucket.0.checked_add(1) else { return self.end_pass(turn, pass) };
        pass.cursor = self.start_of(BucketId(next), pass.partition);
        self.read_next(turn, pass);
    }

    /// Goes to the next bucket that this node does not own, whether or not it has a row.
    fn enter(&mut self, turn: &mut Turn<'_>, mut pass: Pass) {
        let from = bucket_of(&pass.cursor);
        let is_ahead = |id: BucketId| self.end_of(id, pass.partition).is_none_or(|end| pass.cursor < end);
        let is_held = |id: &BucketId| !self.view.owns(self.config.node, pass.partition, *id) && is_ahead(*id);
        let Some(bucket) = self.view.buckets_from(from).find(is_held) else { return self.end_pass(turn, pass) };
        pass.cursor = pass.cursor.max(self.start_of(bucket, pass.partition));
        pass.within = Some(bucket);
        self.read_next(turn, pass);
    }

    /// Offers a batch to the owners that can be reached.
    fn offer(&mut self, turn: &mut Turn<'_>, mut pass: Pass, bucket: BucketId, rows: Vec<(Bytes, Bytes)>) {
        let Some(known) = self.view.bucket(bucket).cloned() else { return self.abandon(turn, pass) };
        if rows.is_empty() {
            return self.read_next(turn, pass);
        }
        let owners = self.view.layout().owners(pass.partition, known.props.n).map(|owner| owner.id);
        let (reached, away): (BTreeSet<NodeId>, BTreeSet<NodeId>) = owners.partition(|owner| self.is_healthy(*owner));
        pass.reached_all |= away.is_empty();
        match &mut pass.offered_to {
            Some(offered_to) => offered_to.retain(|node| reached.contains(node)),
            None => pass.offered_to = Some(reached.clone()),
        }
        pass.taken_by.entry(bucket).or_insert_with(|| reached.clone()).retain(|node| reached.contains(node));
        if reached.is_empty() {
            pass.left = true;
            return self.read_next(turn, pass);
        }
        let held = |(store_key, row): (Bytes, Bytes)| {
            let hash = self.config.causal_key.hash_row(&store_key, &row);
            HeldObject { store_key, hash, confirmed: SmallVec::new() }
        };
        let objects: Vec<HeldObject> = rows.into_iter().map(held).collect();
        let offered =
            |held: &HeldObject| OfferedObject { key: held.store_key.slice(24..), hash: held.hash.0.to_be_bytes() };
        // One for the offer, and one for each of its objects.
        let number = self.ops.ticket();
        let offer = Offer {
            op: OpId { shard: self.config.shard, number },
            partition_bits: self.view.partition_bits(),
            partition: pass.partition,
            tenant: known.tenant,
            bucket,
            bucket_version: known.version,
            epoch: self.epoch(),
            objects: objects.iter().map(offered).collect(),
        };
        self.counters.objects_offered += offer.objects.len() as u64;
        reached.iter().for_each(|owner| self.send(turn, *owner, 0, PeerBody::Offer(offer.clone())));
        pass.stage = Stage::Offering(Batch {
            number,
            bucket,
            bucket_version: known.version,
            objects,
            unanswered: reached,
            sent: BTreeSet::new(),
            until_us: turn.now.mono_us.saturating_add(self.config.handoff.wait_us),
        });
        self.drain.pass = Some(pass);
    }

    /// An owner has looked at an offer. What it wants is sent to it.
    pub(in crate::shard) fn offer_answered(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        number: u64,
        version: (LayoutRef, u64),
        answers: &[OfferAnswer],
    ) {
        let layout = self.view.layout_name();
        let Some(batch) = self.drain.batch().filter(|batch| batch.number == number) else { return };
        if !batch.unanswered.remove(&from) {
            return;
        }
        // Rule: confirms are of one version.
        let counts = version == (layout, batch.bucket_version);
        if !counts || answers.len() != batch.objects.len() {
            return self.drain.not_offered(from);
        }
        let mut wanted = Vec::new();
        for (at, answer) in answers.iter().enumerate() {
            match answer {
                OfferAnswer::Confirmed => batch.objects[at].confirmed.push(from),
                OfferAnswer::Wanted => wanted.push((at, batch.objects[at].store_key.clone())),
            }
        }
        for (at, store_key) in wanted {
            self.send_held(turn, from, (number, at), &store_key);
        }
    }

    /// Sends an owner what it was offered. If that has changed since, the owner has what was offered by it too, and the
    /// object stays here.
    fn send_held(&mut self, turn: &mut Turn<'_>, owner: NodeId, (number, at): (u64, usize), store_key: &Bytes) {
        let row = match turn.store.get(Space::Objects, store_key) {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(_) => return self.drain.not_offered(owner),
        };
        let Ok(state) = EncodedObject::of_row(row) else { return };
        let epoch = self.epoch();
        let known = self.view.bucket(bucket_of(store_key)).map(|bucket| (bucket.tenant, bucket.id, bucket.version));
        let Some((tenant, bucket, bucket_version)) = known else { return };
        let Some(batch) = self.drain.batch() else { return };
        batch.sent.insert((owner, at));
        let message = Replicate {
            op: Some(OpId { shard: self.config.shard, number: number + 1 + at as u64 }),
            object: object_id(tenant, bucket, store_key),
            bucket_version,
            epoch,
            dot: None,
            // Whatever the bucket asks of a write: what is dropped here must be on the owners' disks.
            durability: Durability::Fsync,
            state,
        };
        self.counters.objects_handed_over += 1;
        let bytes = message.state.row().len();
        self.spend_moved(turn.now, [bytes]);
        self.send(turn, owner, 0, PeerBody::Replicate(message));
    }

    /// An owner has absorbed an object that it wanted, or refuses it. Returns whether it was one of the walk's.
    pub(in crate::shard) fn held_absorbed(
        &mut self,
        from: NodeId,
        number: u64,
        version: (LayoutRef, u64),
        absorbed: Result<(), ErrorCode>,
    ) -> bool {
        let layout = self.view.layout_name();
        let Some(batch) = self.drain.batch() else { return false };
        let Some(at) = batch.place_of(number) else { return false };
        let counts = version == (layout, batch.bucket_version);
        let was_sent = batch.sent.remove(&(from, at));
        if was_sent && counts && absorbed.is_ok() {
            batch.objects[at].confirmed.push(from);
        } else {
            self.drain.not_offered(from);
        }
        true
    }

    /// Drops the objects of a batch that every owner has confirmed and that are still what was offered.
    fn end_batch(&mut self, turn: &mut Turn<'_>, pass: &mut Pass, batch: Batch) {
        let is_silent =
            |owner: &NodeId| batch.unanswered.contains(owner) || batch.sent.iter().any(|(waiting, _)| waiting == owner);
        let answered = |owners: &mut BTreeSet<NodeId>| owners.retain(|owner| !is_silent(owner));
        pass.offered_to.iter_mut().chain(pass.taken_by.values_mut()).for_each(answered);
        let known = self.view.bucket(batch.bucket).filter(|bucket| bucket.version == batch.bucket_version).cloned();
        let owned = self.view.owns(self.config.node, pass.partition, batch.bucket);
        let owners = known.iter().flat_map(|bucket| self.view.layout().owners(pass.partition, bucket.props.n));
        let owners: Vec<NodeId> = owners.map(|owner| owner.id).collect();
        for held in batch.objects {
            // Rule: every owner confirms.
            let is_confirmed = !owners.is_empty() && owners.iter().all(|owner| held.confirmed.contains(owner));
            pass.left |= !(is_confirmed && !owned && self.drop_held(turn, pass.partition, &held));
        }
    }

    /// Drops an object, unless it has changed since it was offered. Returns whether it is gone.
    fn drop_held(&mut self, turn: &mut Turn<'_>, partition: PartitionId, held: &HeldObject) -> bool {
        let row = match turn.store.get(Space::Objects, &held.store_key) {
            Ok(Some(row)) => row,
            Ok(None) => return true,
            Err(_) => return false,
        };
        // Rule: changed objects are not dropped.
        if self.config.causal_key.hash_row(&held.store_key, &row) != held.hash {
            return false;
        }
        let place = Place { partition, store_key: &held.store_key };
        let dropped = self.drop_object(turn, place, &StoredRow::Present(row), Change::default()).is_ok();
        self.counters.objects_dropped += u64::from(dropped);
        dropped
    }

    /// A pass cannot go on. It begins anew later.
    fn abandon(&mut self, turn: &mut Turn<'_>, pass: Pass) {
        self.end_pass(turn, Pass { left: true, offered_to: None, taken_by: BTreeMap::new(), ..pass });
    }

    /// A pass is over: the partition is empty, or is walked again later.
    fn end_pass(&mut self, turn: &mut Turn<'_>, pass: Pass) {
        self.drain.pass = None;
        self.drain.next_us = turn.now.mono_us.saturating_add(self.config.handoff.pause_us);
        let again_us = turn.now.mono_us.saturating_add(self.config.handoff.retry_us);
        let past = self.drain.past.entry(pass.partition).or_default();
        let touched = past.touched;
        past.again_us = again_us;
        past.reached_all |= pass.reached_all;
        if !pass.is_void {
            past.taken_by = pass.taken_by;
        }
        if !touched {
            past.offered_to = pass.offered_to.unwrap_or_default();
            past.reached_all = pass.reached_all;
        }
        let is_read_elsewhere = self.is_read_elsewhere(pass.partition);
        // Rule: holdings end empty.
        if !pass.left && !touched && !is_read_elsewhere && self.release(turn, pass.partition) {
            self.drain.past.remove(&pass.partition);
        }
    }

    /// Whether this node owns a partition, and is not asked by reads yet: they must go on to ask it as a fallback.
    fn is_read_elsewhere(&self, partition: PartitionId) -> bool {
        let is_read_elsewhere =
            |owners: &Owners| owners.contains(self.config.node) && !owners.reads_at(self.config.node);
        let mut of_buckets = self.view.buckets().map(|bucket| self.view.owners_of(partition, bucket));
        is_read_elsewhere(&self.view.owners(partition, u8::MAX))
            || self.view.layouts().count() > 1 && of_buckets.any(|owners| is_read_elsewhere(&owners))
    }

    /// The first key that a bucket can have in a partition.
    pub(in crate::shard) fn start_of(&self, bucket: BucketId, partition: PartitionId) -> Bytes {
        let bits = self.view.partitions().trailing_zeros();
        let first = if bits == 0 { 0 } else { u128::from(partition.0) << (128 - bits) };
        store_key_of(bucket, first)
    }

    /// The end of a bucket's range in a partition. `None`: to the last key.
    pub(in crate::shard) fn end_of(&self, bucket: BucketId, partition: PartitionId) -> Option<Bytes> {
        let partitions = self.view.layout().partitions();
        match partition.0.checked_add(1).filter(|next| u32::from(*next) < partitions) {
            Some(next) => Some(self.start_of(bucket, PartitionId(next))),
            None => bucket.0.checked_add(1).map(|next| store_key_of(BucketId(next), 0)),
        }
    }
}

fn store_key_of(bucket: BucketId, hash: u128) -> Bytes {
    [&bucket.0.to_be_bytes()[..], &hash.to_be_bytes()[..]].concat().into()
}

/// The bucket with which an object's key in the store begins.
pub(super) fn bucket_of(store_key: &[u8]) -> BucketId {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(store_key).for_each(|(to, from)| *to = *from);
    BucketId(u64::from_be_bytes(bytes))
}

/// The object behind a key in the store.
fn object_id(tenant: TenantId, bucket: BucketId, store_key: &Bytes) -> ObjectId {
    ObjectId { tenant, bucket, key: store_key.slice(24..) }
}
