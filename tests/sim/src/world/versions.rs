//! The versions of plugins: operators activate others, try them as canaries and shadows, and go back. One version is
//! bad: it loses all siblings but one. Nodes are not all ready when a version is named.
//!
//! The bad version comes to a bucket once at most, when all nodes know the same of the bucket. It stores what it merges
//! at once, so that there is something to undo. From when on it is to go, each change of the bucket leaves good
//! versions nothing to fold: with a fold delay of a day, and the highest limit of siblings. So whatever operators do at
//! nodes that have not heard of one another, no good version folds what the bad one has made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rejoin_core::control::{CatalogChange, CatalogEvent};
use rejoin_core::shard::event::MergeJob;
use rejoin_core::trials::is_in_share;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Activation, BucketProps, MAX_SIBLINGS, Record, RecordBody, RecordKey};
use rejoin_proto::trial::{Canary, Shadow};
use rejoin_proto::{Hlc, PluginDigest};

use super::World;
use super::chaos::nobody;
use crate::disk::ReceiptRow;
use crate::history::{Choice, KeyId, Kind, NodeIndex};
use crate::options::{Options, PerMillion, SECOND, VersionOptions};
use crate::plugins::{self, Version};
use crate::rng::{Rng, Stream};
use crate::workload::Ask;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The time after which nothing is under way at a node that began by an earlier record of a bucket. Merges for
/// exchanges have ten seconds.
const STABLE_US: u64 = 15 * SECOND;

/// How far a bucket has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// It has never had the bad version.
    Healthy,
    /// The bad version was named.
    Bad,
    /// It is to go, or has gone.
    Mending,
}

/// Which versions a bucket has at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Named {
    active: Option<PluginDigest>,
    canary: Option<(PluginDigest, u8)>,
}

/// What is known of all versions.
#[derive(Debug)]
pub(super) struct Versions {
    options: VersionOptions,
    rng: Rng,
    wasm: bool,
    kinds: BTreeSet<u8>,
    /// How far each bucket has come.
    stages: BTreeMap<usize, Stage>,
    /// From when on a node is ready with a version, in microseconds. Where nothing is known it always was.
    ready_us: BTreeMap<(NodeIndex, PluginDigest), u64>,
    /// Versions for which that was drawn.
    named: BTreeSet<PluginDigest>,
    /// Per node and bucket, what it has, and since when.
    at_nodes: BTreeMap<(NodeIndex, usize), (Named, u64)>,
    /// The versions that a bucket has had, but for those that were only a shadow.
    merging: BTreeSet<(usize, PluginDigest)>,
    /// The session of the operator who undoes folds, and what is still to be undone.
    pub(super) operator: Option<u16>,
    pub(super) undos: VecDeque<Ask>,
    /// Whether nothing is under way any more that began by an earlier record of a bucket.
    pub(super) settled: bool,
}

impl Versions {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: options.versions.clone(),
            rng: Rng::new(options.seed, Stream::Versions),
            wasm: options.wasm,
            kinds: options.buckets.iter().map(|bucket| bucket.kind as u8).collect(),
            stages: BTreeMap::new(),
            ready_us: BTreeMap::new(),
            named: BTreeSet::new(),
            at_nodes: BTreeMap::new(),
            merging: BTreeSet::new(),
            operator: (options.faults.version > 0).then_some(options.clients.sessions),
            undos: VecDeque::new(),
            settled: false,
        }
    }

    /// The bad versions.
    pub(super) fn bad(&self) -> impl Iterator<Item = PluginDigest> + '_ {
        let kinds = [Kind::Set, Kind::Cart, Kind::Latest].into_iter();
        kinds.filter(|kind| self.kinds.contains(&(*kind as u8))).map(|kind| Version::Bad.digest(kind, false))
    }

    pub(super) fn stage(&self, bucket: usize) -> Stage {
        self.stages.get(&bucket).copied().unwrap_or(Stage::Healthy)
    }

    /// The buckets that have ever had the bad version.
    pub(super) fn spoiled(&self) -> Vec<usize> {
        self.stages.keys().copied().collect()
    }

    /// A node has a new view.
    pub(super) fn seen(&mut self, at: NodeIndex, now_us: u64, bucket: usize, props: &BucketProps) {
        let canary = props.canary.map(|canary| (canary.plugin.plugin, canary.percent));
        let named = Named { active: props.plugin.map(|active| active.plugin), canary };
        self.merging.extend(named.active.into_iter().chain(canary.map(|(plugin, _)| plugin)).map(|of| (bucket, of)));
        match self.at_nodes.get_mut(&(at, bucket)) {
            Some((known, _)) if *known == named => {}
            _ => drop(self.at_nodes.insert((at, bucket), (named, now_us))),
        }
    }

    /// A place in a list of that length.
    pub(super) fn any(&mut self, len: usize) -> usize {
        self.rng.index(len)
    }

    /// Whether an undo has an input that was never written.
    pub(super) fn is_forged(&mut self, share: PerMillion) -> bool {
        self.rng.chance(share)
    }

    /// A version is named: some nodes have it already, and others only later.
    fn name(&mut self, now_us: u64, nodes: u8, plugin: PluginDigest) {
        if !self.named.insert(plugin) || Version::of(&plugin).1 == Version::First {
            return;
        }
        for at in 0..nodes {
            if self.rng.chance(self.options.late) {
                let late_us = self.rng.exponential(self.options.late_us);
                self.ready_us.insert((at, plugin), now_us + late_us);
            }
        }
    }
}

impl World {
    /// Whether a node has that version.
    pub(super) fn is_ready(&self, at: NodeIndex, plugin: &PluginDigest) -> bool {
        self.network.calm || self.versions.ready_us.get(&(at, *plugin)).is_none_or(|from_us| *from_us <= self.now_us)
    }

    /// Notes which versions a node has from now on.
    pub(super) fn versions_seen(&mut self, at: NodeIndex, view: &ClusterView) {
        if self.versions.operator.is_none() {
            return;
        }
        for bucket in view.buckets() {
            if let Some(place) = self.keys.of_bucket(bucket.id) {
                self.versions.seen(at, self.now_us, place, &bucket.props);
            }
        }
    }

    /// A node is to merge. Returns whether it has the version.
    pub(super) fn note_merge(&mut self, at: NodeIndex, key: KeyId, job: &MergeJob) -> bool {
        if self.versions.operator.is_none() {
            return true;
        }
        self.note_answer(at, key, &job.plugin);
        let bucket = self.keys.place(key).bucket;
        if let Some((Named { canary: Some((canary, percent)), .. }, since_us)) =
            self.versions.at_nodes.get(&(at, bucket))
            && (self.versions.settled || self.now_us >= since_us + STABLE_US)
        {
            let choice = Choice { canary: *canary, percent: *percent, key, chosen: job.plugin == *canary };
            self.recorder.run.choices.entry(choice).or_insert(at);
        }
        let is_ready = self.is_ready(at, &job.plugin);
        if !is_ready {
            self.recorder.mark("merge by a node that is not ready");
        }
        is_ready
    }

    /// A node merges by that version, or tells a reader that it has.
    pub(super) fn note_answer(&mut self, at: NodeIndex, key: KeyId, plugin: &PluginDigest) {
        let bucket = self.keys.place(key).bucket;
        if self.versions.operator.is_some() && !self.versions.merging.contains(&(bucket, *plugin)) {
            self.recorder
                .misused(key, format!("node {at} merged by {plugin}, which the bucket never had but as a shadow"));
        }
    }

    /// Runs the shadow of a bucket on what was merged, if it has one, as a node does when it has time for that.
    pub(super) fn run_shadow(&mut self, at: NodeIndex, key: KeyId, job: &MergeJob, made: &[u8]) {
        if self.versions.operator.is_none() {
            return;
        }
        let view = self.nodes[usize::from(at)].running.as_ref().map(|running| &running.view);
        let Some(shadow) = view.and_then(|view| view.bucket(job.bucket)).and_then(|bucket| bucket.props.shadow) else {
            return;
        };
        if !self.is_ready(at, &shadow.plugin) || !is_in_share(job.bucket, job.key_hash, shadow.percent) {
            return;
        }
        let (kind, version) = Version::of(&shadow.plugin);
        let Ok(merged) = plugins::native(version.native(kind), job) else {
            return self.recorder.mark("shadow that failed");
        };
        self.recorder.mark(if merged.value == made { "shadow: equal" } else { "shadow: different" });
        let bad = version == Version::Bad;
        self.recorder.merged((key, at, self.now_us), job, &merged.value, (bad, true));
    }

    /// A shard has written or removed the receipt of a fold.
    pub(super) fn receipt_changed(&mut self, at: NodeIndex, shard: u16, changed: &ReceiptRow) {
        let Some(receipt) = self.recorder.receipt(self.now_us, at, changed, &self.keys) else { return };
        let plugin = receipt.by.plugin;
        let key = self.keys.of_name(receipt.object.bucket, &receipt.object.key);
        if !self.is_ready(at, &plugin) {
            self.recorder.misused(key, format!("node {at} folded by {plugin}, with which it was not ready"));
        }
        // A merge that a node began with an earlier view must not be stored once the shard has heard of a later one.
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        let merges = |view: &std::sync::Arc<ClusterView>| {
            let props = view.bucket(receipt.object.bucket).map(|bucket| &bucket.props);
            props.is_some_and(|props| {
                let canary = props.canary.map(|canary| canary.plugin);
                [props.plugin, canary].into_iter().flatten().any(|version| version.plugin == plugin)
            })
        };
        if !running.shards[usize::from(shard)].views.iter().any(merges) {
            self.recorder
                .misused(key, format!("node {at} stored a fold by {plugin}, which the bucket has not any more"));
        }
        let task = &self.nodes[usize::from(at)].running;
        let sums = task.as_ref().map(|running| running.shards[usize::from(shard)].batch.shard().receipt_sums());
        self.recorder.receipts_are(sums.unwrap_or_default());
    }

    /// An operator changes something of a bucket's versions at a node, or has folds undone.
    pub(super) fn change_version(&mut self, at: NodeIndex) {
        let with_plugin: Vec<usize> =
            (0..self.keys.buckets.len()).filter(|bucket| self.keys.buckets[*bucket].options.plugin).collect();
        if with_plugin.is_empty() {
            return;
        }
        let bucket = *self.versions.rng.pick(&with_plugin);
        let Some((version, props)) = self.bucket_at(at, bucket) else { return };
        let changed = match self.versions.stage(bucket) {
            Stage::Healthy => self.healthy_change(bucket, props),
            Stage::Bad => self.bad_change(bucket, props),
            Stage::Mending => self.mending_change(bucket, props),
        };
        if let Some(props) = changed {
            self.set_versions(at, bucket, version, props);
        }
    }

    /// The record of a bucket at a running node: its version, and the properties.
    fn bucket_at(&self, at: NodeIndex, bucket: usize) -> Option<(u64, BucketProps)> {
        let running = self.nodes[usize::from(at)].running.as_ref()?;
        match running.control.control.get(&self.record_key(bucket))? {
            Record { version, body: RecordBody::Bucket { props, .. }, .. } => Some((*version, props.clone())),
            _ => None,
        }
    }

    fn record_key(&self, bucket: usize) -> RecordKey {
        let of = &self.keys.buckets[bucket];
        RecordKey::Bucket(of.tenant, of.name.clone())
    }

    fn set_versions(&mut self, at: NodeIndex, bucket: usize, version: u64, props: BucketProps) {
        let of = &self.keys.buckets[bucket];
        let (tenant, name) = (of.tenant, of.name.clone());
        for plugin in props.plugins() {
            self.versions.name(self.now_us, self.options.nodes, plugin);
        }
        self.note(at, || {
            let short = |plugin: &PluginDigest| format!("{:?}", Version::of(plugin).1);
            let active = props.plugin.map(|active| short(&active.plugin));
            let canary = props.canary.map(|canary| (short(&canary.plugin.plugin), canary.percent));
            let shadow = props.shadow.map(|shadow| (short(&shadow.plugin), shadow.percent));
            format!("bucket b{bucket} is to have {active:?}, canary {canary:?}, shadow {shadow:?}")
        });
        let change = CatalogChange::BucketSet(tenant, name, version, props);
        self.tell_control(at, CatalogEvent::Change(0, change, nobody()), None);
    }

    /// A change before the bad version comes, or its coming.
    fn healthy_change(&mut self, bucket: usize, props: BucketProps) -> Option<BucketProps> {
        let props = BucketProps { fold_delay_ms: self.versions.options.fold_delay_ms, ..props };
        if self.versions.rng.chance(self.versions.options.bad) && self.all_know_the_same(bucket) {
            return Some(self.bring_bad(bucket, props));
        }
        Some(self.good_change(bucket, props))
    }

    fn bring_bad(&mut self, bucket: usize, props: BucketProps) -> BucketProps {
        self.versions.stages.insert(bucket, Stage::Bad);
        self.recorder.mark("bad version");
        // A node that comes back with what it knew before would fold what the bad version has made.
        self.nodes.iter_mut().for_each(|node| node.backup = None);
        let bad = self.version(bucket, Version::Bad);
        // It folds at once.
        let props = BucketProps { fold_delay_ms: 0, shadow: None, ..props };
        if self.versions.rng.chance(self.versions.options.canaries) {
            let percent = *self.versions.rng.pick(&[20, 50, 90]);
            return BucketProps { canary: Some(Canary { plugin: bad, percent }), ..props };
        }
        BucketProps { plugin: Some(bad), canary: None, ..props }
    }

    /// The wish for a version. The catalog fills in the rest.
    fn version(&self, bucket: usize, version: Version) -> Activation {
        let plugin = version.digest(self.keys.buckets[bucket].options.kind, self.versions.wasm);
        Activation { plugin, self_causal: false, since: Hlc::default(), replaces: false, validates: false }
    }

    /// The good version that a bucket does not merge with.
    fn other(&self, bucket: usize, props: &BucketProps) -> Activation {
        let first = self.version(bucket, Version::First);
        match props.plugin {
            Some(active) if active.plugin == first.plugin => self.version(bucket, Version::Second),
            _ => first,
        }
    }

    /// A change among good versions.
    fn good_change(&mut self, bucket: usize, props: BucketProps) -> BucketProps {
        let other = self.other(bucket, &props);
        if self.versions.rng.chance(self.versions.options.shadows) {
            let percent = *self.versions.rng.pick(&[10, 100]);
            let bad = self.version(bucket, Version::Bad);
            let plugin = self.versions.rng.pick(&[other, bad]).plugin;
            let shadow = props.shadow.is_none().then_some(Shadow { plugin, since: Hlc::default(), percent });
            return BucketProps { shadow, ..props };
        }
        self.recorder.mark("version changed");
        let Some(canary) = props.canary else {
            if !self.versions.rng.chance(self.versions.options.canaries) {
                return BucketProps { plugin: Some(other), ..props };
            }
            let percent = *self.versions.rng.pick(&[5, 20, 50]);
            return BucketProps { canary: Some(Canary { plugin: other, percent }), ..props };
        };
        let with = |percent: u8| Some(Canary { percent, ..canary });
        match self.versions.rng.below(4) {
            0 => BucketProps { canary: with((canary.percent * 2).min(99)), ..props },
            1 => BucketProps { canary: with((canary.percent / 2).max(1)), ..props },
            2 => BucketProps { canary: None, ..props },
            _ => BucketProps { plugin: Some(canary.plugin), canary: None, ..props },
        }
    }

    /// The bad version is there: it gets more, or is to go.
    fn bad_change(&mut self, bucket: usize, props: BucketProps) -> Option<BucketProps> {
        let canary = props.canary.filter(|canary| self.is_bad(&canary.plugin.plugin));
        if let Some(canary) = canary
            && self.versions.rng.percent(40)
            && self.all_know_the_same(bucket)
        {
            let grown = Some(Canary { percent: (canary.percent * 2).min(99), ..canary });
            return Some(match self.versions.rng.percent(50) {
                true => BucketProps { canary: grown, ..props },
                false => BucketProps { plugin: Some(canary.plugin), canary: None, ..props },
            });
        }
        self.versions.stages.insert(bucket, Stage::Mending);
        Some(self.rolled_back(bucket, props))
    }

    /// Without the bad version, or with less of it for now. The limit is raised so that everything can be undone.
    fn rolled_back(&mut self, bucket: usize, props: BucketProps) -> BucketProps {
        self.recorder.mark("rollback");
        let props = self.late(bucket, props);
        match props.canary {
            Some(canary) if self.is_bad(&canary.plugin.plugin) => {
                let less = Some(Canary { percent: (canary.percent / 2).max(1), ..canary });
                let canary = if self.versions.rng.percent(30) && !self.network.calm { less } else { None };
                BucketProps { canary, ..props }
            }
            _ if props.plugin.is_some_and(|active| self.is_bad(&active.plugin)) => {
                let good = *self.versions.rng.pick(&[Version::First, Version::Second]);
                BucketProps { plugin: Some(self.version(bucket, good)), ..props }
            }
            _ => props,
        }
    }

    /// With a fold delay and a limit that leave good versions nothing to fold.
    fn late(&mut self, bucket: usize, props: BucketProps) -> BucketProps {
        for key in self.keys.raise_limit(bucket, MAX_SIBLINGS) {
            self.recorder.run.keys[key as usize].siblings = MAX_SIBLINGS;
        }
        BucketProps { fold_delay_ms: DAY_MS, siblings: MAX_SIBLINGS, ..props }
    }

    fn mending_change(&mut self, bucket: usize, props: BucketProps) -> Option<BucketProps> {
        if self.uses_bad(&props) {
            return Some(self.rolled_back(bucket, props));
        }
        if self.versions.rng.percent(60) {
            self.plan_undos(bucket);
            return None;
        }
        let props = self.late(bucket, props);
        Some(self.good_change(bucket, props))
    }

    pub(super) fn is_bad(&self, plugin: &PluginDigest) -> bool {
        self.recorder.run.bad.contains(plugin)
    }

    /// Whether the bad version merges anything there.
    fn uses_bad(&self, props: &BucketProps) -> bool {
        let canary = props.canary.map(|canary| canary.plugin);
        [props.plugin, canary].into_iter().flatten().any(|version| self.is_bad(&version.plugin))
    }

    /// Whether all nodes, also those that are down, have the same record of a bucket, and no change of it is under way.
    fn all_know_the_same(&self, bucket: usize) -> bool {
        let key = self.record_key(bucket);
        let saved = |records: &[Record]| records.iter().find(|record| record.key == key).cloned();
        let first = saved(&self.nodes[0].catalog.records);
        first.is_some()
            && self.nodes.iter().all(|node| {
                let is_idle = node.running.as_ref().is_none_or(|running| {
                    let task = &running.control;
                    task.queue.is_empty() && task.saving.is_none() && task.control.get(&key) == first.as_ref()
                });
                is_idle && saved(&node.catalog.records) == first
            })
    }

    /// After the chaos: a change that takes the bad version away at some node, for each bucket that still has it there.
    pub(super) fn end_bad_versions(&mut self) {
        for bucket in self.versions.spoiled() {
            let Some(at) = self.node_from(0) else { return };
            let Some((version, props)) = self.bucket_at(at, bucket) else { continue };
            if self.uses_bad(&props) {
                self.versions.stages.insert(bucket, Stage::Mending);
                let props = self.rolled_back(bucket, props);
                self.set_versions(at, bucket, version, props);
            }
        }
    }

    /// A node that still has the bad version.
    pub(super) fn still_bad(&self) -> Option<String> {
        let nodes = 0..self.options.nodes;
        let of = |bucket: usize| nodes.clone().map(move |at| (at, bucket));
        let mut all = self.versions.spoiled().into_iter().flat_map(of);
        let uses = |(at, bucket): &(NodeIndex, usize)| {
            self.bucket_at(*at, *bucket).is_none_or(|(_, props)| self.uses_bad(&props))
        };
        all.find(uses).map(|(at, bucket)| format!("bucket b{bucket} still has the bad version at n{at}"))
    }
}
