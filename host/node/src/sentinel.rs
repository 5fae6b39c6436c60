//! The sentinel: checks the laws again on a small share of the merges that this node has run, off the path of every
//! request, and says so when a plugin breaks one.
//!
//! A check takes a plugin a few more calls on the same siblings
//! ([`Pool::check_again`](rejoin_merge::Pool::check_again)), on a thread of the lowest priority and on the tenant's
//! fuel. A tenant that owes fuel is not checked. When merges of so many keys have broken a law, each found twice, the
//! plugin is quarantined like one that varies from node to node. After an operator or author has released it, it takes
//! as many other keys to quarantine it again: what was known when it was released only alarms.
//!
//! A merge that comes to another result when it is only run once more is no evidence against its plugin, which sees
//! nothing but its siblings: this machine computes wrongly. That is a problem of the node.
//!
//! All of it is in memory. A node counts what it has found by itself, since its start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use rejoin_core::shard::event::MergeJob;
use rejoin_core::view::ClusterView;
use rejoin_merge::laws::Law;
use rejoin_merge::{Merged, PluginCall, SampledLaws, SampledMerge, SampledViolation, Sibling};
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::{self, Reply};
use rejoin_proto::conflict::LawViolation;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, PluginDigest, TenantId};

use crate::caller::Caller;
use crate::config::Config;
use crate::context::NodeContext;
use crate::lock::lock;
use crate::messages::ShardMessage;
use crate::metering::FuelPayers;
use crate::plugins::PluginService;

/// The least time between two checks of one bucket, in microseconds.
const LEAST_PAUSE_US: u64 = 1_000_000;
/// After this time the next merge of a bucket is checked, however few there were since, in microseconds.
const LONGEST_PAUSE_US: u64 = 60_000_000;
/// The most buckets whose merges are counted. The one that was checked least lately is forgotten for another one if
/// that is longer ago than [`LONGEST_PAUSE_US`]; until then the other one's merges are not checked.
const MAX_BUCKETS: usize = 1_024;
/// The most alarms: buckets with a plugin and a law. Of the tenant that has the most of them, the oldest is forgotten
/// for another one; so it is with evidence, and with the buckets of which violations are kept.
const MAX_ALARMS: usize = 256;
/// The most plugins against which evidence is kept, and the most keys for each.
const MAX_PLUGINS: usize = 256;
const MAX_KEYS: usize = 1_024;
/// The most violations of one bucket that are kept, the last ones, and the most bytes of their siblings.
const MAX_KEPT: usize = 8;
const MAX_KEPT_BYTES: usize = 4 << 20;
/// The most bytes of siblings that are kept of all buckets.
const MAX_ALL_BYTES: usize = 16 << 20;
/// The most buckets of which violations are kept.
const MAX_KEPT_BUCKETS: usize = 256;

/// The log line of a merge that came to another result when it was run again.
const MACHINE_FAULT: &str = "a merge that was run again came to another result: this machine computes wrongly";

/// A merge of siblings that the plugin has run just now.
pub(crate) struct RunMerge<'a> {
    pub(crate) job: &'a MergeJob,
    /// As the plugin got them.
    pub(crate) siblings: Vec<Sibling>,
    pub(crate) merged: &'a Merged,
    pub(crate) payers: &'a FuelPayers,
    pub(crate) messages: &'a UnboundedSender<ShardMessage>,
}

/// What is known of a violation when it is noted.
#[derive(Clone)]
struct Found {
    tenant: TenantId,
    bucket: BucketId,
    bucket_name: Name,
    plugin: PluginDigest,
    key: Bytes,
    key_hash: u128,
}

/// Merges of a bucket since the last one that was checked.
#[derive(Default)]
struct Counted {
    merges: u64,
    checked_us: Option<u64>,
}

/// That merges of a bucket with a plugin break a law.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Alarm {
    bucket_name: Name,
    times: u64,
    key_hash: u128,
    last_ms: u64,
}

/// The keys whose merges have broken a law, each found twice.
#[derive(Default)]
struct Evidence {
    /// Since the plugin was quarantined last.
    new: BTreeSet<u128>,
    /// Those before.
    known: BTreeSet<u128>,
    last_ms: u64,
}

/// The violations of a bucket, the last ones.
struct Kept {
    tenant: TenantId,
    violations: Vec<LawViolation>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let siblings = self.violations.iter().flat_map(|violation| &violation.siblings);
        siblings.map(|sibling| sibling.value.len()).sum()
    }

    fn last_ms(&self) -> u64 {
        self.violations.last().map_or(0, |violation| violation.at_ms)
    }
}

/// Merges that came to another result when they were run again.
struct Differed {
    times: u64,
    /// The last one.
    found: Found,
}

#[derive(Default)]
struct State {
    counted: BTreeMap<BucketId, Counted>,
    alarms: BTreeMap<(TenantId, BucketId, PluginDigest, &'static str), Alarm>,
    evidence: BTreeMap<(TenantId, PluginDigest), Evidence>,
    kept: BTreeMap<BucketId, Kept>,
    differed: Option<Differed>,
}

/// The sentinel of a node.
pub(crate) struct Sentinel {
    /// One of so many merges of a bucket is checked; 0: none.
    every: u64,
    /// At so many keys a plugin is quarantined; 0: it never is.
    threshold: usize,
    state: Mutex<State>,
}

impl Sentinel {
    pub(crate) fn new(every: u64, threshold: u32) -> Self {
        Self { every, threshold: threshold as usize, state: Mutex::default() }
    }

    pub(crate) fn of(config: &Config) -> Self {
        Self::new(config.sentinel_every, config.sentinel_threshold)
    }

    /// The siblings of a merge, kept for a check if there are any.
    pub(crate) fn keep(&self, siblings: &[Sibling]) -> Vec<Sibling> {
        if self.every == 0 { Vec::new() } else { siblings.to_vec() }
    }

    /// Counts a merge that was run, and says whether it is to be checked.
    fn is_due(&self, bucket: BucketId, now_us: u64) -> bool {
        if self.every == 0 {
            return false;
        }
        let mut state = lock(&self.state);
        if !state.counted.contains_key(&bucket) && state.counted.len() >= MAX_BUCKETS {
            let checked = state.counted.iter().map(|(bucket, counted)| (counted.checked_us, *bucket));
            // Whoever is new is checked at once. If each could take a place at any time, all merges would be checked.
            let is_old =
                |at_us: Option<u64>| at_us.is_none_or(|at_us| now_us.saturating_sub(at_us) >= LONGEST_PAUSE_US);
            let Some((_, least)) = checked.min().filter(|(at_us, _)| is_old(*at_us)) else { return false };
            state.counted.remove(&least);
        }
        let counted = state.counted.entry(bucket).or_default();
        counted.merges += 1;
        let pause = counted.checked_us.map(|at_us| now_us.saturating_sub(at_us));
        let is_due = match pause {
            None => true,
            Some(pause) if pause < LEAST_PAUSE_US => false,
            Some(pause) => counted.merges >= self.every || pause >= LONGEST_PAUSE_US,
        };
        if is_due {
            *counted = Counted { merges: 0, checked_us: Some(now_us) };
        }
        is_due
    }

    /// Notes a violation. Returns why the plugin is to be quarantined, if it is.
    fn note(&self, found: &Found, violation: SampledViolation, wall_ms: u64) -> Option<String> {
        let law = violation.law.name();
        let mut state = lock(&self.state);
        if violation.law == Law::Replay {
            let times = state.differed.as_ref().map_or(0, |known| known.times) + 1;
            state.differed = Some(Differed { times, found: found.clone() });
            return None;
        }
        state.alarm(found, law, wall_ms);
        let (confirmed, equation) = (violation.confirmed, violation.equation);
        state.keep(found, kept(found, violation, wall_ms));
        if !confirmed || self.threshold == 0 {
            return None;
        }
        let whose = (found.tenant, found.plugin);
        if !state.evidence.contains_key(&whose) && state.evidence.len() >= MAX_PLUGINS {
            let all = state.evidence.iter().map(|(whose, evidence)| (*whose, whose.0, evidence.last_ms));
            to_forget(all).iter().for_each(|whose| drop(state.evidence.remove(whose)));
        }
        let evidence = state.evidence.entry(whose).or_default();
        evidence.last_ms = wall_ms;
        if !evidence.known.contains(&found.key_hash) {
            evidence.new.insert(found.key_hash);
        }
        if evidence.new.len() < self.threshold {
            return None;
        }
        let keys = evidence.new.len();
        evidence.known.append(&mut evidence.new);
        while evidence.known.len() > MAX_KEYS {
            evidence.known.pop_first();
        }
        Some(format!(
            "merges of {keys} keys broke a law when they were checked again, the last one in bucket {} the law of \
             {law} ({equation}) on the key with the hash {:032x}; `rejoin conflict violations {0}` has the siblings",
            found.bucket_name, found.key_hash
        ))
    }

    /// What there is to say of the buckets that still merge with a plugin which breaks a law.
    pub(crate) fn warnings(&self, view: &ClusterView) -> Vec<String> {
        let state = lock(&self.state);
        let merges = |bucket: &BucketId, plugin: &PluginDigest| {
            view.bucket(*bucket).is_some_and(|bucket| merges_with(&bucket.props, plugin))
        };
        let alarms = state.alarms.iter().filter(|((_, bucket, plugin, _), _)| merges(bucket, plugin));
        let line = |((tenant, _, plugin, law), alarm): (&(TenantId, BucketId, PluginDigest, &str), &Alarm)| {
            let Alarm { bucket_name, times, key_hash, .. } = alarm;
            let of = view.tenant_name(*tenant).map_or_else(|| tenant.to_string(), ToString::to_string);
            format!(
                "the merge of bucket {bucket_name} of tenant {of} breaks the law of {law}: found {times} times in \
                 merges of plugin {plugin}, last on the key with the hash {key_hash:032x}; `rejoin conflict violations \
                 {bucket_name}` has the siblings"
            )
        };
        alarms.map(line).collect()
    }

    /// That this machine computes wrongly, if a merge has shown it.
    fn machine_fault(&self) -> Option<String> {
        let state = lock(&self.state);
        let Differed { times, found } = state.differed.as_ref()?;
        Some(format!(
            "merges that were run again came to another result {times} times, last one of plugin {} in bucket {} on \
             the key with the hash {:032x}: this machine computes wrongly. Drain the node, and test its memory and \
             processor",
            found.plugin, found.bucket_name, found.key_hash
        ))
    }

    fn of_bucket(&self, bucket: BucketId) -> Vec<LawViolation> {
        lock(&self.state).kept.get(&bucket).map(|kept| kept.violations.clone()).unwrap_or_default()
    }
}

impl State {
    fn alarm(&mut self, found: &Found, law: &'static str, wall_ms: u64) {
        let what = (found.tenant, found.bucket, found.plugin, law);
        if !self.alarms.contains_key(&what) && self.alarms.len() >= MAX_ALARMS {
            let all = self.alarms.iter().map(|(what, alarm)| (*what, what.0, alarm.last_ms));
            to_forget(all).iter().for_each(|what| drop(self.alarms.remove(what)));
        }
        let times = self.alarms.get(&what).map_or(0, |known| known.times) + 1;
        let (bucket_name, key_hash) = (found.bucket_name.clone(), found.key_hash);
        self.alarms.insert(what, Alarm { bucket_name, times, key_hash, last_ms: wall_ms });
    }

    /// Keeps a violation in the place of an earlier one of its key and law, and makes room for it.
    fn keep(&mut self, found: &Found, violation: LawViolation) {
        if !self.kept.contains_key(&found.bucket) && self.kept.len() >= MAX_KEPT_BUCKETS {
            let all = self.kept.iter().map(|(bucket, kept)| (*bucket, kept.tenant, kept.last_ms()));
            to_forget(all).iter().for_each(|bucket| drop(self.kept.remove(bucket)));
        }
        let new = || Kept { tenant: found.tenant, violations: Vec::new() };
        let of_bucket = self.kept.entry(found.bucket).or_insert_with(new);
        of_bucket.violations.retain(|known| (&known.key, &known.law) != (&violation.key, &violation.law));
        of_bucket.violations.push(violation);
        while of_bucket.violations.len() > MAX_KEPT
            || of_bucket.violations.len() > 1 && of_bucket.bytes() > MAX_KEPT_BYTES
        {
            of_bucket.violations.remove(0);
        }
        // The bucket that has the most makes room, so that nobody pushes others' out with large siblings.
        while self.kept.values().map(Kept::bytes).sum::<usize>() > MAX_ALL_BYTES
            && let Some(largest) = self.kept.values_mut().max_by_key(|kept| kept.bytes())
        {
            largest.violations.remove(0);
        }
        self.kept.retain(|_, kept| !kept.violations.is_empty());
    }
}

/// The entry that makes room for another one: of the tenant that has the most, the one whose time is the earliest. So
/// no tenant pushes out what is known of others.
fn to_forget<K>(entries: impl Iterator<Item = (K, TenantId, u64)> + Clone) -> Option<K> {
    let mut counts: BTreeMap<TenantId, usize> = BTreeMap::new();
    entries.clone().for_each(|(_, tenant, _)| *counts.entry(tenant).or_default() += 1);
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let of_most = entries.filter(|(_, tenant, _)| *tenant == most);
    of_most.min_by_key(|(_, _, last_ms)| *last_ms).map(|(entry, _, _)| entry)
}

/// Whether a plugin merges keys of a bucket, all of them or a canary's share.
fn merges_with(props: &BucketProps, plugin: &PluginDigest) -> bool {
    let canary = props.canary.map(|canary| canary.plugin);
    [props.plugin, canary].into_iter().flatten().any(|version| version.plugin == *plugin)
}

/// A violation as it is kept. Siblings that alone would fill a bucket's room are not.
fn kept(found: &Found, violation: SampledViolation, at_ms: u64) -> LawViolation {
    let SampledViolation { law, equation, siblings, confirmed } = violation;
    let fits = siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>() <= MAX_KEPT_BYTES;
    let sibling = |one: Sibling| client::Sibling { value: one.value, stamp_ms: one.stamp_ms, writer: one.writer };
    LawViolation {
        key: found.key.clone(),
        plugin: found.plugin,
        law: law.name().to_owned(),
        equation: equation.to_owned(),
        siblings: if fits { siblings.into_iter().map(sibling).collect() } else { Vec::new() },
        confirmed,
        at_ms,
    }
}

impl PluginService {
    fn sentinel(&self) -> &Sentinel {
        &self.0.engine.sentinel
    }

    /// What the sentinel has to say.
    pub(crate) fn alarms(&self, view: &ClusterView) -> Vec<String> {
        self.sentinel().warnings(view)
    }

    /// That this node computes wrongly, if the sentinel has found it.
    pub(crate) fn machine_fault(&self) -> Option<String> {
        self.sentinel().machine_fault().map(|fault| format!("{}: {fault}", self.0.engine.node))
    }

    /// Has the laws checked on a merge that was run, if it is one of the sample. A result that was only remembered has
    /// used no fuel, and is not.
    pub(crate) fn sample(&self, call: PluginCall, merge: RunMerge<'_>) {
        let RunMerge { job, siblings, merged, payers, messages } = merge;
        let now_us = self.0.clock.now().mono_us;
        if merged.fuel_used == 0 || !self.sentinel().is_due(job.bucket, now_us) {
            return;
        }
        if payers.owe(now_us) {
            return self.0.metrics.laws_sampled("over_quota");
        }
        let found = Found {
            tenant: TenantId(call.tenant.tenant),
            bucket: job.bucket,
            bucket_name: job.bucket_name.clone(),
            plugin: job.plugin,
            key: job.key.clone(),
            key_hash: job.key_hash,
        };
        let sampled = SampledMerge { key: job.key.clone(), siblings, value: merged.value.clone() };
        let (service, payers, messages) = (self.clone(), payers.clone(), messages.clone());
        let done = move |laws: Result<SampledLaws, _>| {
            payers.charge_job(service.0.clock.now().mono_us);
            match laws {
                Ok(laws) => service.sampled(&found, laws, &messages),
                Err(_) => service.0.metrics.laws_sampled("failed"),
            }
        };
        if self.0.engine.pool.check_again(call, sampled, done).is_err() {
            self.0.metrics.laws_sampled("overloaded");
        }
    }

    fn sampled(&self, found: &Found, laws: SampledLaws, messages: &UnboundedSender<ShardMessage>) {
        self.0.metrics.laws_sampled(match (laws.judged, laws.violations.first()) {
            (0, _) => "unjudged",
            (_, None) => "held",
            (_, Some(violation)) if violation.law == Law::Replay => "differed",
            (_, Some(_)) => "broken",
        });
        for violation in laws.violations {
            let law = violation.law.name();
            self.0.metrics.law_violated(law);
            if self.0.failures.should_log(found.bucket.0, law) {
                tracing::error!(
                    bucket = %found.bucket_name,
                    plugin = %found.plugin,
                    law,
                    equation = violation.equation,
                    key = format_args!("{:032x}", found.key_hash),
                    confirmed = violation.confirmed,
                    "{}",
                    if violation.law == Law::Replay { MACHINE_FAULT } else { "a merge breaks a law" }
                );
            }
            if let Some(why) = self.sentinel().note(found, violation, self.0.clock.now().wall_ms) {
                // A shard that has stopped asks for nothing.
                let _ = messages.send(ShardMessage::Quarantine(found.tenant, found.plugin, why));
            }
        }
    }
}

/// Lists the violations of a bucket, of keys that the caller's token opens.
pub(crate) fn list(ctx: &NodeContext, caller: &Caller, bucket: &Name) -> Reply {
    let view = ctx.cluster_view();
    let Some(known) = view.bucket_named(caller.tenant, bucket) else {
        return Reply::Error(ErrorReply::new(ErrorCode::NotFound, format!("there is no bucket {bucket}")));
    };
    let limits = &caller.principal.grant.limits;
    let mut violations = ctx.plugins.sentinel().of_bucket(known.id);
    violations.retain(|violation| limits.admit(bucket, &violation.key));
    Reply::Violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::Hlc;
    use rejoin_proto::catalog::Activation;
    use rejoin_proto::trial::Canary;

    fn found(bucket: u64, key: u128) -> Found {
        Found {
            tenant: TenantId(1),
            bucket: BucketId(bucket),
            bucket_name: Name::new("cart").expect("a name"),
            plugin: PluginDigest([7; 32]),
            key: Bytes::copy_from_slice(&key.to_be_bytes()),
            key_hash: key,
        }
    }

    fn violation(bytes: usize, confirmed: bool) -> SampledViolation {
        let siblings = vec![Sibling { value: vec![1; bytes].into(), stamp_ms: 1, writer: 1 }];
        SampledViolation { law: Law::Permutation, equation: "m(all) = m(all, reversed)", siblings, confirmed }
    }

    #[test]
    fn the_first_merge_is_checked_then_one_of_so_many_and_one_a_minute_and_one_a_second_at_most() {
        let sentinel = Sentinel::new(1_000, 3);
        let (bucket, mut now_us) = (BucketId(1), 5_000_000);
        assert!(sentinel.is_due(bucket, now_us));
        let due = |now_us: u64, count: usize| (0..count).filter(|_| sentinel.is_due(bucket, now_us)).count();
        assert_eq!(due(now_us, 5_000), 0, "not twice within a second");
        now_us += LEAST_PAUSE_US;
        assert_eq!(due(now_us, 5_000), 1, "there were many");
        now_us += LEAST_PAUSE_US;
        assert_eq!(due(now_us, 10), 1, "and many since");
        now_us += LEAST_PAUSE_US;
        assert_eq!(due(now_us, 900), 0);
        now_us += LONGEST_PAUSE_US;
        assert_eq!(due(now_us, 2), 1, "one a minute");
        assert!(sentinel.is_due(BucketId(2), now_us), "each bucket has its own");
        assert!(!Sentinel::new(0, 3).is_due(bucket, now_us), "it is off");
        let new = |buckets: std::ops::Range<u64>, now_us| {
            buckets.filter(|bucket| sentinel.is_due(BucketId(*bucket), now_us)).count()
        };
        assert_eq!(new(10..3_000, now_us), MAX_BUCKETS - 2, "all that there is room for");
        assert_eq!(new(10..3_000, now_us), 0, "those without a place are not new at each merge");
        now_us += LONGEST_PAUSE_US;
        assert_eq!(new(3_000..6_000, now_us), MAX_BUCKETS, "they have made room by now");
        assert_eq!(lock(&sentinel.state).counted.len(), MAX_BUCKETS);
    }

    #[test]
    fn a_merge_that_cannot_be_repeated_is_a_problem_of_the_node_and_no_evidence_against_its_plugin() {
        let sentinel = Sentinel::new(1, 1);
        assert_eq!(sentinel.machine_fault(), None);
        for key in 1..=9 {
            let replay = SampledViolation { law: Law::Replay, ..violation(9, true) };
            assert_eq!(sentinel.note(&found(1, key), replay, 1), None, "nothing is quarantined");
        }
        let fault = sentinel.machine_fault().expect("a fault");
        assert!(fault.contains("another result 9 times") && fault.contains("bucket cart"), "{fault}");
        let state = lock(&sentinel.state);
        assert!(state.alarms.is_empty() && state.evidence.is_empty() && state.kept.is_empty());
    }

    #[test]
    fn a_tenant_that_has_many_makes_room_for_itself_and_what_was_noted_first_goes_first() {
        let sentinel = Sentinel::new(1, 9);
        let note = |tenant: u64, bucket: u64, at_ms| {
            let mut found = found(bucket, 1);
            found.tenant = TenantId(tenant);
            found.plugin.0[..8].copy_from_slice(&bucket.to_be_bytes());
            sentinel.note(&found, violation(1, true), at_ms);
        };
        // The lowest ids are the ones of a small tenant, and the earliest too.
        note(1, 1, 1);
        let many = MAX_KEPT_BUCKETS as u64;
        (0..many).for_each(|at| note(2, 10 + at, 10_000 - at));
        note(1, 2, 20_000);
        let state = lock(&sentinel.state);
        let kept = |bucket: u64| state.kept.contains_key(&BucketId(bucket));
        let evidence = |bucket: u64| state.evidence.keys().any(|(_, plugin)| plugin.0[..8] == bucket.to_be_bytes());
        let alarms = |bucket: u64| state.alarms.keys().any(|(_, of, _, _)| *of == BucketId(bucket));
        for is_known in [&kept as &dyn Fn(u64) -> bool, &evidence, &alarms] {
            assert!(is_known(1) && is_known(2) && is_known(10));
            assert!(!is_known(10 + many - 2), "the earliest of the tenant that has the most");
        }
    }

    #[test]
    fn a_canary_merges_too() {
        let [active, canary, other] = [1, 2, 3].map(|plugin| PluginDigest([plugin; 32]));
        let version = |plugin| Activation {
            plugin,
            self_causal: false,
            since: Hlc::from_ms(1),
            replaces: false,
            validates: false,
        };
        let props = BucketProps {
            plugin: Some(version(active)),
            canary: Some(Canary { plugin: version(canary), percent: 5 }),
            ..BucketProps::default()
        };
        assert!(merges_with(&props, &active) && merges_with(&props, &canary) && !merges_with(&props, &other));
        assert!(!merges_with(&BucketProps::default(), &active));
    }

    #[test]
    fn a_plugin_is_quarantined_at_so_many_keys_and_after_a_release_at_as_many_others() {
        let sentinel = Sentinel::new(1, 3);
        let note = |key: u128, confirmed| sentinel.note(&found(1, key), violation(9, confirmed), 1);
        assert!((0..9).all(|_| note(1, true).is_none()), "one key is one key");
        assert!((10..20).all(|key| note(key, false).is_none()), "found only once");
        assert!(note(2, true).is_none());
        let why = note(3, true).expect("the third");
        assert!(why.contains("merges of 3 keys") && why.contains("the law of permutation"), "{why}");
        assert!(why.contains("00000003;") && why.contains("conflict violations cart"), "{why}");
        // It was released: what was known is no reason.
        assert!((1..=3).chain([4, 5]).all(|key| note(key, true).is_none()));
        assert!(note(6, true).is_some());
        let alarms = lock(&sentinel.state).alarms.values().cloned().collect::<Vec<_>>();
        assert!(alarms.len() == 1 && alarms[0].times == 27 && alarms[0].key_hash == 6, "{alarms:?}");
        let silent = Sentinel::new(1, 0);
        assert!((0..99).all(|key| silent.note(&found(1, key), violation(9, true), 1).is_none()), "it only alarms");
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_bucket_pushes_out_only_its_own() {
        let sentinel = Sentinel::new(1, 0);
        let note = |bucket, key, bytes| sentinel.note(&found(bucket, key), violation(bytes, true), 1);
        note(1, 1, 100);
        note(1, 1, 100);
        assert_eq!(sentinel.of_bucket(BucketId(1)).len(), 1, "one of a key and law");
        (0..99).for_each(|key| drop(note(2, key, 1 << 20)));
        assert!(lock(&sentinel.state).kept[&BucketId(2)].bytes() <= MAX_KEPT_BYTES);
        (0..99).for_each(|key| drop(note(3, key, 10)));
        assert_eq!(sentinel.of_bucket(BucketId(3)).len(), MAX_KEPT);
        (10..30).for_each(|bucket| (0..4).for_each(|key| drop(note(bucket, key, 1 << 20))));
        let state = lock(&sentinel.state);
        assert!(state.kept.values().map(Kept::bytes).sum::<usize>() <= MAX_ALL_BYTES);
        assert_eq!(state.kept[&BucketId(1)].violations.len(), 1, "small ones stay");
        drop(state);
        note(4, 1, MAX_KEPT_BYTES + 1);
        let kept = sentinel.of_bucket(BucketId(4));
        assert!(kept.len() == 1 && kept[0].siblings.is_empty(), "too large, and still said");
        (100..1_000).for_each(|bucket| drop(note(bucket, 1, 1)));
        let state = lock(&sentinel.state);
        assert_eq!((state.kept.len(), state.alarms.len()), (MAX_KEPT_BUCKETS, MAX_ALARMS));
    }
}
