//! Views of equal copies are compared by sample: what a plugin makes of the siblings of one object must be the same on
//! every owner.
//!
//! Now and then a shard picks an object with several siblings, merges them, and asks another owner for the view of its
//! copy. The owner answers only if its copy has the same causal hash, and its plugin and engine are the same. Another
//! view then means that the plugin is not deterministic, or that one of the two nodes computes wrongly. Which of them
//! it is decides what follows:
//!
//! 1. The shard runs its own merge again, on the same inputs. If the result is another one, the plugin is quarantined.
//! 2. Otherwise it asks the other owners too. If no single node that computes wrongly explains what they answer, the
//!    plugin is quarantined: then three of them have three views, or two and two.
//! 3. Otherwise one node stands alone with its view. The log names it, and nothing else follows: a node that computes
//!    wrongly, or lies, must not be able to take a good plugin out of service.
//!
//! A *quarantined* plugin's merges are not run any more, on any node, until an operator releases it: its buckets keep
//! all siblings, and readers get them with the reason. The quarantine is a field of the plugin's record in the catalog.
//!
//! Failures are not compared, since memory and time of a node decide about some of them. Neither are objects with a
//! time to live, since clocks decide what is visible of them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::Rng;

use rejoin_proto::catalog::Activation;
use rejoin_proto::client::Sibling;
use rejoin_proto::exchange::HashRange;
use rejoin_proto::peer::{OpId, PeerBody, ViewAsk};
use rejoin_proto::{BucketId, Name, NodeId, Object, ObjectId, PartitionId, PluginDigest, ProfileId};

use super::Shard;
use super::copy::Place;
use super::event::{Alarm, Effect, MergeJob, MergeTicket, Merged, PluginError, ScanJob, ScanTicket, ScannedRows};
use super::exchange::KEY_AT;
use super::jobs::fold_job;
use super::turn::Turn;
use crate::causal;
use crate::port::StoreFault;
use crate::trials;
use crate::view::Bucket;

/// How long a comparison may take, in microseconds.
const COMPARISON_US: u64 = 10_000_000;
/// How often the own merge is run again when another node has another view.
const RUNS: u8 = 3;
/// The most views that are made for other nodes at once.
const MAX_SERVED: usize = 4;
/// The rows and bytes in which an object with siblings is looked for.
const SCAN_ROWS: usize = 256;
const SCAN_BYTES: usize = 256 << 10;

/// The comparisons of one shard.
#[derive(Debug, Default)]
pub(super) struct Views {
    next_us: u64,
    /// A scan for an object, in that bucket.
    scan: Option<(ScanTicket, BucketId)>,
    sample: Option<Sample>,
    /// Views that are made for others, by the ticket of the merge.
    serving: BTreeMap<u64, Serving>,
}

/// An object whose view is compared.
#[derive(Debug)]
struct Sample {
    /// Of its last merge, and the name of its questions.
    number: u64,
    id: ObjectId,
    /// The causal hash of this node's copy.
    hash: u128,
    bucket: Arc<Bucket>,
    plugin: PluginDigest,
    siblings: Vec<Sibling>,
    stage: Stage,
    /// The engine's profile, and the hash of this node's view.
    own: Option<(ProfileId, u128)>,
    /// The views of the owners that have answered.
    answers: Vec<(NodeId, u128)>,
    /// The other owners that were not asked yet.
    left: Vec<NodeId>,
    deadline_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Merging,
    Asking(NodeId),
    /// It is merged again, so many times more.
    Again(u8),
}

/// A view that another node has asked for.
#[derive(Debug)]
struct Serving {
    peer: NodeId,
    op: OpId,
    id: ObjectId,
    profile: ProfileId,
}

impl Views {
    /// Whether a scan was asked for by this.
    pub(super) fn waits_for_scan(&self, ticket: ScanTicket) -> bool {
        self.scan.is_some_and(|(of, _)| of == ticket)
    }

    /// Whether a merge was asked for by this.
    pub(super) fn waits_for_merge(&self, ticket: MergeTicket) -> bool {
        let is_own = |sample: &Sample| sample.number == ticket.0 && !matches!(sample.stage, Stage::Asking(_));
        self.sample.as_ref().is_some_and(is_own) || self.serving.contains_key(&ticket.0)
    }
}

impl Shard {
    /// The plugin that merges an object of a bucket, or why none does.
    pub(super) fn merger(&self, bucket: &Bucket, object: &ObjectId) -> Result<Activation, PluginError> {
        self.usable(bucket, trials::merging(bucket, object).ok_or(PluginError::NoPlugin)?)
    }

    /// Whether that plugin merges an object as the catalog is now, whatever it was when an operation began.
    pub(super) fn merges_now(&self, id: &ObjectId, plugin: &PluginDigest) -> bool {
        let merger = self.view.bucket(id.bucket).and_then(|bucket| self.merger(bucket, id).ok());
        merger.is_some_and(|activation| activation.plugin == *plugin)
    }

    fn usable(&self, bucket: &Bucket, activation: Activation) -> Result<Activation, PluginError> {
        let plugin = activation.plugin;
        match self.view.quarantine(bucket.tenant, &plugin) {
            // Rule: quarantined plugins are not run.
            Some(why) => Err(PluginError::Quarantined { plugin, why: why.into() }),
            None => Ok(activation),
        }
    }

    /// When a comparison is due to begin, or to be given up.
    pub(super) fn next_view_us(&self) -> u64 {
        let is_on = self.serving && self.config.exchange.view_interval_us > 0 && !self.exchanges.paused;
        let next_us = if is_on { self.views.next_us } else { u64::MAX };
        self.views.sample.as_ref().map_or(next_us, |sample| sample.deadline_us.min(next_us))
    }

    /// Begins a comparison if one is due.
    pub(super) fn compare_views(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now.mono_us;
        if now_us < self.next_view_us() {
            return;
        }
        self.views.sample.take_if(|sample| sample.deadline_us <= now_us);
        if now_us < self.next_view_us() {
            return;
        }
        let interval_us = self.config.exchange.view_interval_us;
        self.views.next_us = now_us + interval_us;
        if self.views.sample.is_some() || self.views.scan.is_some() {
            return;
        }
        if let Some((bucket, job)) = self.somewhere() {
            self.views.next_us = now_us + interval_us / 2 + self.rng.next_u64() % interval_us;
            let ticket = self.scan_ticket();
            self.views.scan = Some((ticket, bucket));
            turn.effects.push(Effect::Scan(ticket, job));
        }
    }

    /// A place drawn by chance among the objects that have other owners and a plugin.
    fn somewhere(&mut self) -> Option<(BucketId, ScanJob)> {
        let mut places: Vec<(PartitionId, BucketId)> = Vec::new();
        for partition in self.own_partitions() {
            let is_compared = |id: &BucketId| {
                let Some(bucket) = self.view.bucket(*id).filter(|bucket| self.is_merged(bucket)) else {
                    return false;
                };
                let owners = self.view.owners_of(partition, bucket);
                owners.contains(self.config.node) && owners.len() > 1
            };
            let buckets = self.trees.roots(partition).map(|(id, _)| id).filter(is_compared);
            places.extend(buckets.map(|id| (partition, id)));
        }
        let (partition, bucket) = *places.get(self.drawn(places.len())?)?;
        let range = HashRange::of_partition(bucket, partition, self.trees.bits());
        let prefix = range.start | (self.rng.next_u64() & (range.start ^ range.last()));
        let from = HashRange::around(bucket, prefix, rejoin_proto::exchange::MAX_DEPTH).from();
        Some((bucket, ScanJob { from, to: range.to(), max_rows: SCAN_ROWS, max_bytes: SCAN_BYTES }))
    }

    /// Whether objects of a bucket are merged, though perhaps not all of them.
    fn is_merged(&self, bucket: &Bucket) -> bool {
        let canary = bucket.props.canary.map(|canary| canary.plugin);
        [bucket.props.plugin, canary].into_iter().flatten().any(|version| self.usable(bucket, version).is_ok())
    }

    /// A number below `bound`; `None` if there is none.
    fn drawn(&mut self, bound: usize) -> Option<usize> {
        // Nothing is drawn where there is nothing to compare.
        let bound = (bound > 0).then_some(bound as u64)?;
        usize::try_from(self.rng.next_u64() % bound).ok()
    }

    /// The rows are read: one of the objects that have siblings is merged.
    pub(super) fn views_scanned(&mut self, turn: &mut Turn<'_>, scanned: Result<ScannedRows, StoreFault>) {
        let Some((_, bucket)) = self.views.scan.take() else { return };
        let (Ok(found), Some(bucket)) = (scanned, self.view.bucket(bucket).cloned()) else { return };
        let id_of = |key: &Bytes| {
            let key = key.slice(KEY_AT.min(key.len())..);
            ObjectId { tenant: bucket.tenant, bucket: bucket.id, key }
        };
        let siblings_of = |row: &Bytes| comparable(&Object::of_row(row).ok()?);
        let is_merged = |key: &Bytes| self.merger(&bucket, &id_of(key)).is_ok();
        let with_siblings: Vec<&(Bytes, Bytes)> =
            found.rows.iter().filter(|(key, row)| siblings_of(row).is_some() && is_merged(key)).collect();
        let Some((key, row)) = self.drawn(with_siblings.len()).map(|at| with_siblings[at]) else { return };
        let Some(siblings) = siblings_of(row) else { return };
        let id = id_of(key);
        let Ok(activation) = self.merger(&bucket, &id) else { return };
        let partition = self.view.layout().partition(&id);
        let others = self.view.owners_of(partition, &bucket).without(self.config.node);
        let mut left: Vec<NodeId> = others.iter().filter(|node| self.connections.can_ask(*node)).collect();
        let Some(first) = self.drawn(left.len()) else { return };
        left.rotate_left(first);
        let sample = Sample {
            number: 0,
            hash: self.config.causal_key.hash_row(key, row).0,
            id,
            plugin: activation.plugin,
            bucket,
            siblings,
            stage: Stage::Merging,
            own: None,
            answers: Vec::new(),
            left,
            deadline_us: turn.now.mono_us.saturating_add(COMPARISON_US),
        };
        self.merge_sample(turn, sample);
    }

    /// Runs the merge of a sample, anew each time.
    fn merge_sample(&mut self, turn: &mut Turn<'_>, mut sample: Sample) {
        let siblings = sample.siblings.clone();
        let job = fold_job(&sample.bucket, &sample.id, sample.plugin, siblings, sample.deadline_us);
        sample.number = self.run_view(turn, job);
        self.views.sample = Some(sample);
    }

    /// Has a merge run whose result is not remembered from before. Returns the number of its ticket.
    fn run_view(&mut self, turn: &mut Turn<'_>, job: MergeJob) -> u64 {
        let number = self.ops.ticket();
        self.counters.merges += 1;
        turn.effects.push(Effect::Merge(MergeTicket(number), MergeJob { fresh: true, ..job }));
        number
    }

    /// A plugin has made a view, or could not.
    pub(super) fn view_merged(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: MergeTicket,
        result: Result<Merged, PluginError>,
    ) {
        if let Some(serving) = self.views.serving.remove(&ticket.0) {
            return self.answer_view(turn, serving, result);
        }
        let (Some(mut sample), Ok(merged)) = (self.views.sample.take(), result) else { return };
        let view = Some((merged.profile, self.view_hash(&sample.id, &merged.value)));
        match sample.stage {
            Stage::Merging => {
                sample.own = view;
                self.ask_next(turn, sample);
            }
            // Rule: varying views end a plugin.
            Stage::Again(_) if view != sample.own => {
                let why = alloc::format!(
                    "{} got another result when it ran the merge of the same siblings again",
                    self.view.node_name(self.config.node)
                );
                self.quarantine(turn, &sample, why);
            }
            Stage::Again(left) if left > 1 => {
                sample.stage = Stage::Again(left - 1);
                self.merge_sample(turn, sample);
            }
            Stage::Again(_) | Stage::Asking(_) => self.ask_next(turn, sample),
        }
    }

    fn view_hash(&self, id: &ObjectId, value: &[u8]) -> u128 {
        self.config.causal_key.hash_row(&id.store_key(), value).0
    }

    /// Asks the next owner for its view. When none is left, a difference that was found is told.
    fn ask_next(&mut self, turn: &mut Turn<'_>, mut sample: Sample) {
        let Some((profile, own)) = sample.own else { return };
        let Some(peer) = sample.left.pop() else {
            if sample.answers.iter().any(|(_, view)| *view != own) {
                self.unexplained(turn, &sample, own);
            }
            return;
        };
        let op = OpId { shard: self.config.shard, number: sample.number };
        let (object, hash, plugin) = (sample.id.clone(), sample.hash.to_le_bytes(), sample.plugin);
        self.send(turn, peer, 0, PeerBody::ViewAsk(ViewAsk { op, object, hash, plugin, profile }));
        sample.stage = Stage::Asking(peer);
        self.views.sample = Some(sample);
    }

    /// An owner has answered with its view; `None`: it has another copy, plugin or engine, or no time.
    pub(super) fn view_answered(&mut self, turn: &mut Turn<'_>, from: NodeId, op: OpId, view: Option<[u8; 16]>) {
        let is_awaited = |sample: &mut Sample| sample.number == op.number && sample.stage == Stage::Asking(from);
        let Some(mut sample) = self.views.sample.take_if(is_awaited) else { return };
        let (Some(theirs), Some((_, own))) = (view.map(u128::from_le_bytes), sample.own) else {
            return self.ask_next(turn, sample);
        };
        let was_equal = sample.answers.iter().all(|(_, view)| *view == own);
        sample.answers.push((from, theirs));
        self.counters.views_compared += 1;
        self.counters.views_different += u64::from(theirs != own);
        match (theirs == own, was_equal) {
            (true, true) => {}
            // Rule: one claim quarantines nothing.
            (false, true) => {
                sample.stage = Stage::Again(RUNS);
                self.merge_sample(turn, sample);
            }
            (_, false) if is_explained_by_one_node(own, &sample.answers) => self.ask_next(turn, sample),
            (_, false) => {
                let names: Vec<Name> = sample.answers.iter().map(|(node, _)| self.view.node_name(*node)).collect();
                let found = alloc::format!(
                    "{} and {} got results of the same siblings that no single node explains",
                    self.view.node_name(self.config.node),
                    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
                );
                self.quarantine(turn, &sample, found);
            }
        }
    }

    /// One node stands alone with its view, or there are only two that can be compared.
    fn unexplained(&self, turn: &mut Turn<'_>, sample: &Sample, own: u128) {
        let others = |view: u128| sample.answers.iter().filter(move |(_, other)| *other != view).map(|(node, _)| *node);
        // Alone is whoever differs from the others, if there are several of these.
        let alone = match (sample.answers.len(), others(own).count()) {
            (answers, different) if answers > 1 && different == answers => self.config.node,
            _ => others(own).next().unwrap_or(self.config.node),
        };
        let (plugin, bucket, node) = (sample.plugin, sample.bucket.name.clone(), self.view.node_name(alone));
        let owners = sample.answers.len() + 1;
        turn.effects.push(Effect::Alarm(Alarm::ViewsDiffer { plugin, bucket, node, owners }));
    }

    fn quarantine(&mut self, turn: &mut Turn<'_>, sample: &Sample, found: String) {
        let (plugin, bucket) = (sample.plugin, &sample.bucket.name);
        let why = alloc::format!("its merges are not deterministic: in bucket {bucket}, {found}");
        self.counters.quarantines += 1;
        turn.effects.push(Effect::Alarm(Alarm::NotDeterministic { plugin, why: why.clone() }));
        turn.effects.push(Effect::Quarantine(sample.bucket.tenant, plugin, why));
    }

    /// Another owner asks for the view of an object.
    pub(super) fn serve_view(&mut self, turn: &mut Turn<'_>, from: NodeId, trace: u64, ask: ViewAsk) {
        let job = if self.views.serving.len() < MAX_SERVED { self.view_job(turn, from, &ask) } else { None };
        let Some(job) = job else {
            return self.send(turn, from, trace, PeerBody::ViewAnswer { op: ask.op, view: None });
        };
        let serving = Serving { peer: from, op: ask.op, id: ask.object, profile: ask.profile };
        let number = self.run_view(turn, job);
        self.views.serving.insert(number, serving);
    }

    /// The merge of this node's copy, if it can be compared with the other one's.
    fn view_job(&mut self, turn: &mut Turn<'_>, from: NodeId, ask: &ViewAsk) -> Option<MergeJob> {
        let id = &ask.object;
        let bucket = self.view.bucket(id.bucket)?.clone();
        let partition = self.view.layout().partition(id);
        let owners = self.view.owners(partition, bucket.props.n);
        let is_asked_for = self.merger(&bucket, id).is_ok_and(|activation| activation.plugin == ask.plugin);
        if !is_asked_for || !owners.contains(self.config.node) || !owners.contains(from) {
            return None;
        }
        let store_key = Bytes::from(id.store_key());
        let copy = self.load(turn, Place { partition, store_key: &store_key }).ok()?.object;
        // Rule: equal objects only are compared.
        if self.config.causal_key.hash(id, &copy).0.to_le_bytes() != ask.hash {
            return None;
        }
        let deadline_us = turn.now.mono_us.saturating_add(COMPARISON_US);
        Some(fold_job(&bucket, id, ask.plugin, comparable(&copy)?, deadline_us))
    }

    fn answer_view(&mut self, turn: &mut Turn<'_>, serving: Serving, result: Result<Merged, PluginError>) {
        let Serving { peer, op, id, profile } = serving;
        let merged = result.ok().filter(|merged| merged.profile == profile);
        let view = merged.map(|merged| self.view_hash(&id, &merged.value).to_le_bytes());
        self.send(turn, peer, 0, PeerBody::ViewAnswer { op, view });
    }
}

/// Whether all views are equal but that of one node, this one or another.
fn is_explained_by_one_node(own: u128, answers: &[(NodeId, u128)]) -> bool {
    let views = || answers.iter().map(|(_, view)| *view).chain([own]);
    // Rule: lonely views quarantine nothing.
    views().any(|most| views().filter(|view| *view != most).count() <= 1)
}

/// What every owner of an equal copy gives the plugin. `None` if the plugin has nothing to merge, or if clocks decide
/// what there is to merge.
fn comparable(object: &Object) -> Option<Vec<Sibling>> {
    if object.entries.iter().any(|entry| entry.expires.is_some()) {
        return None;
    }
    let siblings = causal::siblings(&causal::visible(object, 0));
    (siblings.len() > 1).then_some(siblings)
}
