//! Shadows: plugins that are run on what a bucket's plugin has merged, to compare the results.
//!
//! A merge that has really run, and not come from the memo, is noted with its inputs and its result. Once its reader
//! has the answer, the shadow is run on the same inputs: one merge of a node at a time, only while no other call waits
//! for a thread, and charged to the bucket's tenant. What cannot be run soon is skipped and counted. Nothing of it
//! reaches a reader or the store, and nothing of it is memoised.
//!
//! Counts and samples are kept in memory, for each bucket those of its present shadow.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::shard::event::MergeJob;
use rejoin_core::trials::is_in_share;
use rejoin_merge::{MergeFault, Merged, PluginCall, Sibling};
use rejoin_proto::trial::{Shadow, ShadowCounts, ShadowReport, ShadowSample};
use rejoin_proto::{BucketId, Name, PluginDigest, TenantId, client};

use crate::lock::lock;
use crate::metering::FuelPayers;
use crate::plugins::PluginService;

/// The most merges that wait for their shadow, and the bytes of them.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 16 << 20;
/// How long a merge waits for a moment in which no call waits for a thread, and how often that is looked for.
const IDLE_WAIT: Duration = Duration::from_secs(5);
const IDLE_POLL: Duration = Duration::from_millis(10);
/// The most samples of a bucket, the bytes of one, and of all samples of a node.
const MAX_SAMPLES: usize = 32;
const MAX_SAMPLE_BYTES: usize = 64 << 10;
const MAX_SAMPLES_BYTES: usize = 16 << 20;
/// Inputs of a bucket that were compared lately: they are not compared again.
const MAX_RECENT: usize = 256;
/// The most buckets whose recent merges are known, and the most keys of one.
const MAX_MERGED_BUCKETS: usize = 256;
const MAX_MERGED_KEYS: usize = 256;

/// The word for a merge whose shadow was not run, for the metrics.
const SKIPPED: &str = "skipped";

/// All shadows of a node.
#[derive(Default)]
pub(crate) struct Shadows {
    /// Whether any bucket has a shadow, so that merges need not lock anything if none has.
    any: AtomicBool,
    table: Mutex<Table>,
    merged: Mutex<BTreeMap<BucketId, MergedKeys>>,
}

#[derive(Default)]
struct Table {
    buckets: BTreeMap<BucketId, ShadowState>,
    waiting: VecDeque<ShadowTask>,
    waiting_bytes: usize,
    /// Whether a task works off what waits.
    is_running: bool,
    sample_bytes: usize,
}

/// A bucket's shadow, and what has come of its merges.
struct ShadowState {
    shadow: Shadow,
    counts: ShadowCounts,
    samples: VecDeque<ShadowSample>,
    /// The hashes of inputs that were compared.
    recent: VecDeque<u64>,
}

/// Keys whose siblings were merged lately, with the order in which that was.
#[derive(Default)]
struct MergedKeys {
    keys: BTreeMap<Bytes, u64>,
    last: u64,
}

/// What a merge was given, for its shadow.
pub(crate) struct ShadowInputs {
    shadow: PluginDigest,
    key: Bytes,
    siblings: Vec<Sibling>,
    /// The call of the bucket's plugin, of which the shadow gets the share and the limits.
    call: PluginCall,
    payers: FuelPayers,
}

/// A merge that waits for its shadow.
struct ShadowTask {
    bucket: BucketId,
    name: Name,
    inputs: ShadowInputs,
    active: PluginDigest,
    made: Result<Bytes, String>,
}

/// What has become of a merge that was to be queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queued {
    /// It waits. A task has to be started that works off the queue.
    First,
    /// It waits for a task that is there.
    Waiting,
    /// There is no room.
    Full,
    /// It was compared before, or the bucket has another shadow by now.
    Needless,
}

impl ShadowTask {
    fn bytes(&self) -> usize {
        let siblings: usize = self.inputs.siblings.iter().map(|sibling| sibling.value.len()).sum();
        self.inputs.key.len() + siblings + bytes_of(&self.made)
    }
}

/// What has come of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Equal,
    Different,
    Faulted,
}

impl Verdict {
    /// For the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Faulted => "faulted",
        }
    }
}

fn verdict(made: &Result<Bytes, String>, shadow: &Result<Bytes, String>) -> Verdict {
    match (made, shadow) {
        (Ok(made), Ok(shadow)) if made == shadow => Verdict::Equal,
        (Ok(_), Ok(_)) => Verdict::Different,
        (Err(_), Err(_)) => Verdict::Equal,
        _ => Verdict::Faulted,
    }
}

fn bytes_of(result: &Result<Bytes, String>) -> usize {
    result.as_ref().map_or_else(String::len, Bytes::len)
}

fn sample_bytes(sample: &ShadowSample) -> usize {
    let siblings: usize = sample.siblings.iter().map(|sibling| sibling.value.len()).sum();
    sample.key.len() + siblings + bytes_of(&sample.made) + bytes_of(&sample.shadow)
}

/// A result that every node would get, or nothing: whether a node has time says nothing about a plugin.
fn outcome(result: &Result<Merged, MergeFault>) -> Option<Result<Bytes, String>> {
    match result {
        Ok(merged) => Some(Ok(merged.value.clone())),
        Err(fault) if fault.is_deterministic() => Some(Err(fault.to_string())),
        Err(_) => None,
    }
}

impl ShadowState {
    fn new(shadow: Shadow) -> Self {
        Self { shadow, counts: ShadowCounts::default(), samples: VecDeque::new(), recent: VecDeque::new() }
    }

    /// Whether such inputs were not compared lately. They count as compared from now on.
    fn is_new(&mut self, inputs: u64) -> bool {
        let is_new = !self.recent.contains(&inputs);
        if is_new {
            self.recent.push_back(inputs);
            if self.recent.len() > MAX_RECENT {
                self.recent.pop_front();
            }
        }
        is_new
    }
}

impl Table {
    /// The bucket's state, if its shadow is still that plugin.
    fn state(&mut self, bucket: BucketId, shadow: PluginDigest) -> Option<&mut ShadowState> {
        self.buckets.get_mut(&bucket).filter(|state| state.shadow.plugin == shadow)
    }

    /// Keeps a sample in the place of an earlier one of its key, or of the oldest ones if there are too many.
    fn sample(&mut self, bucket: BucketId, sample: ShadowSample) {
        let bytes = sample_bytes(&sample);
        let Some(state) = self.buckets.get_mut(&bucket) else { return };
        let known = state.samples.iter().position(|known| known.key == sample.key);
        let dropped = known.or((state.samples.len() >= MAX_SAMPLES).then_some(0));
        let freed = dropped.and_then(|at| state.samples.remove(at)).map_or(0, |old| sample_bytes(&old));
        self.sample_bytes -= freed;
        if bytes <= MAX_SAMPLE_BYTES && self.sample_bytes + bytes <= MAX_SAMPLES_BYTES {
            state.samples.push_back(sample);
            self.sample_bytes += bytes;
        }
    }
}

impl Shadows {
    /// Sets the shadows of all buckets. What is known of one goes with it.
    pub(crate) fn set(&self, shadows: &BTreeMap<BucketId, Shadow>) {
        let mut table = lock(&self.table);
        let is_same = |bucket: &BucketId, state: &ShadowState| {
            let now = shadows.get(bucket);
            now.is_some_and(|now| (now.plugin, now.since) == (state.shadow.plugin, state.shadow.since))
        };
        table.buckets.retain(|bucket, state| is_same(bucket, state));
        for (bucket, shadow) in shadows {
            table.buckets.entry(*bucket).or_insert_with(|| ShadowState::new(*shadow)).shadow = *shadow;
        }
        let kept: usize = table.buckets.values().flat_map(|state| &state.samples).map(sample_bytes).sum();
        table.sample_bytes = kept;
        self.any.store(!shadows.is_empty(), Ordering::Relaxed);
    }

    /// What the shadow of a merge needs, if its bucket has a shadow that looks at it.
    pub(crate) fn inputs(
        &self,
        job: &MergeJob,
        siblings: &[Sibling],
        call: &PluginCall,
        payers: &FuelPayers,
    ) -> Option<ShadowInputs> {
        // A fresh merge is a comparison of views already.
        if !self.any.load(Ordering::Relaxed) || job.fresh {
            return None;
        }
        let table = lock(&self.table);
        let Shadow { plugin, percent, .. } = table.buckets.get(&job.bucket)?.shadow;
        let is_looked_at = plugin != job.plugin && is_in_share(job.bucket, job.key_hash, percent);
        is_looked_at.then(|| ShadowInputs {
            shadow: plugin,
            key: job.key.clone(),
            siblings: siblings.to_vec(),
            call: call.clone(),
            payers: payers.clone(),
        })
    }

    /// Queues a merge for its shadow.
    fn queue(&self, task: ShadowTask) -> Queued {
        let mut table = lock(&self.table);
        let (mut hasher, bytes) = (DefaultHasher::new(), task.bytes());
        task.inputs.key.hash(&mut hasher);
        for sibling in &task.inputs.siblings {
            (&sibling.value, sibling.stamp_ms, sibling.writer).hash(&mut hasher);
        }
        let is_full = table.waiting.len() >= MAX_WAITING || table.waiting_bytes + bytes > MAX_WAITING_BYTES;
        let Some(state) = table.state(task.bucket, task.inputs.shadow) else { return Queued::Needless };
        if !state.is_new(hasher.finish()) {
            return Queued::Needless;
        }
        if is_full {
            state.counts.skipped += 1;
            return Queued::Full;
        }
        table.waiting_bytes += bytes;
        table.waiting.push_back(task);
        if std::mem::replace(&mut table.is_running, true) { Queued::Waiting } else { Queued::First }
    }

    /// The next merge; `None` ends the task that asks.
    fn next(&self) -> Option<ShadowTask> {
        let mut table = lock(&self.table);
        let next = table.waiting.pop_front();
        match &next {
            Some(task) => table.waiting_bytes -= task.bytes(),
            None => table.is_running = false,
        }
        next
    }

    fn skipped(&self, task: &ShadowTask) {
        if let Some(state) = lock(&self.table).state(task.bucket, task.inputs.shadow) {
            state.counts.skipped += 1;
        }
    }

    fn compared(&self, task: ShadowTask, shadow: Result<Bytes, String>, at_ms: u64) {
        let mut table = lock(&self.table);
        let verdict = verdict(&task.made, &shadow);
        // The bucket may have another shadow by now.
        let Some(state) = table.state(task.bucket, task.inputs.shadow) else { return };
        let counts = &mut state.counts;
        let count = match verdict {
            Verdict::Equal => &mut counts.equal,
            Verdict::Different => &mut counts.different,
            Verdict::Faulted => &mut counts.faulted,
        };
        *count += 1;
        if verdict != Verdict::Equal {
            let ShadowTask { bucket, inputs, active, made, .. } = task;
            let proto = |one: Sibling| client::Sibling { value: one.value, stamp_ms: one.stamp_ms, writer: one.writer };
            let siblings = inputs.siblings.into_iter().map(proto).collect();
            table.sample(bucket, ShadowSample { key: inputs.key, siblings, active, made, shadow, at_ms });
        }
    }

    /// Notes that siblings of a key were merged.
    pub(crate) fn merged(&self, bucket: BucketId, key: &Bytes) {
        let mut merged = lock(&self.merged);
        if !merged.contains_key(&bucket) && merged.len() >= MAX_MERGED_BUCKETS {
            // Any other one: which buckets have conflicts changes slowly.
            merged.pop_first();
        }
        let MergedKeys { keys, last } = merged.entry(bucket).or_default();
        *last += 1;
        if !keys.contains_key(key) && keys.len() >= MAX_MERGED_KEYS {
            let oldest = keys.iter().min_by_key(|(_, order)| **order).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                keys.remove(&oldest);
            }
        }
        keys.insert(key.clone(), *last);
    }

    /// What is known of a bucket's shadow; with `samples` also keys and values.
    pub(crate) fn report(&self, bucket: BucketId, node: Name, samples: bool) -> ShadowReport {
        let table = lock(&self.table);
        let state = table.buckets.get(&bucket);
        let kept = state.filter(|_| samples).map(|state| state.samples.iter().cloned().collect());
        let merged = lock(&self.merged);
        let keys = merged.get(&bucket).filter(|_| samples).map(|merged| merged.keys.keys().cloned().collect());
        ShadowReport {
            node,
            shadow: state.map(|state| state.shadow.plugin),
            counts: state.map(|state| state.counts).unwrap_or_default(),
            samples: kept.unwrap_or_default(),
            keys: keys.unwrap_or_default(),
        }
    }
}

impl PluginService {
    /// The bucket's plugin has run a merge, or got its result from the memo: the shadow is run if it is due.
    pub(crate) fn shadow(&self, job: &MergeJob, inputs: ShadowInputs, result: &Result<Merged, MergeFault>) {
        // What costs no fuel comes from the memo, and was compared when it was made.
        let was_run = result.as_ref().map_or(true, |merged| merged.fuel_used > 0);
        let Some(made) = outcome(result).filter(|_| was_run) else { return };
        let (bucket, name, shadow) = (job.bucket, job.bucket_name.clone(), inputs.shadow);
        let task = ShadowTask { bucket, name, inputs, active: job.plugin, made };
        let tenant = TenantId(task.inputs.call.tenant.tenant);
        match self.shadows().queue(task) {
            Queued::First => {
                let service = self.clone();
                self.0.runtime.spawn(async move {
                    while let Some(task) = service.shadows().next() {
                        service.run_shadow(task).await;
                    }
                });
            }
            Queued::Full => self.figures().compared((tenant, bucket, &job.bucket_name), shadow, SKIPPED, None),
            Queued::Waiting | Queued::Needless => {}
        }
    }

    async fn run_shadow(&self, task: ShadowTask) {
        let (bucket, name, shadow) = (task.bucket, task.name.clone(), task.inputs.shadow);
        let PluginCall { tenant, limits, .. } = &task.inputs.call;
        let (tenant, limit) = (TenantId(tenant.tenant), limits.fuel);
        match self.shadow_result(&task).await {
            Some((result, used)) => {
                let told = verdict(&task.made, &result).name();
                self.figures().compared((tenant, bucket, &name), shadow, told, used.map(|used| (used, limit)));
                self.shadows().compared(task, result, self.0.clock.now().wall_ms);
            }
            None => {
                self.figures().compared((tenant, bucket, &name), shadow, SKIPPED, None);
                self.shadows().skipped(&task);
            }
        }
    }

    /// What the shadow makes, and the fuel that it takes; `None` if it could not be run.
    async fn shadow_result(&self, task: &ShadowTask) -> Option<(Result<Bytes, String>, Option<u64>)> {
        let until = tokio::time::Instant::now() + IDLE_WAIT;
        while self.pool().waiting() > 0 {
            if tokio::time::Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(IDLE_POLL).await;
        }
        let inputs = &task.inputs;
        if inputs.payers.owe(self.0.clock.now().mono_us) {
            return None;
        }
        let plugin = match self.wait_for(&inputs.shadow, u64::MAX).await {
            Ok(plugin) => plugin,
            Err(_) => return None,
        };
        let call = PluginCall { plugin, fresh: true, ..inputs.call.clone() };
        let (done, ended) = oneshot::channel();
        let (payers, clock) = (inputs.payers.clone(), self.0.clock);
        let merge = self.pool().merge(
            call,
            inputs.key.clone(),
            inputs.siblings.clone(),
            || true,
            move |result| {
                // Here, where all calls of the job are counted: one that traps has used fuel too.
                payers.charge_job(clock.now().mono_us);
                drop(done.send(result));
            },
        );
        merge.ok()?;
        let result = ended.await.ok()?;
        Some((outcome(&result)?, result.ok().map(|merged| merged.fuel_used)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{Hlc, Name};

    const BUCKET: BucketId = BucketId(1);

    fn shadow(plugin: u8, percent: u8) -> Shadow {
        Shadow { plugin: PluginDigest([plugin; 32]), since: Hlc::from_ms(u64::from(plugin)), percent }
    }

    fn with(plugin: u8) -> Shadows {
        let shadows = Shadows::default();
        shadows.set(&BTreeMap::from([(BUCKET, shadow(plugin, 100))]));
        shadows
    }

    fn sample(key: &str, bytes: usize) -> ShadowSample {
        ShadowSample {
            key: Bytes::copy_from_slice(key.as_bytes()),
            siblings: vec![],
            active: PluginDigest([1; 32]),
            made: Ok(vec![0; bytes].into()),
            shadow: Err("it trapped".into()),
            at_ms: 1,
        }
    }

    fn report(shadows: &Shadows) -> ShadowReport {
        shadows.report(BUCKET, Name::new("n1").expect("a name"), true)
    }

    #[test]
    fn results_are_compared_byte_for_byte() {
        let (a, b) = (Ok::<_, String>(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b")));
        let fault = Err::<Bytes, _>(String::from("it trapped"));
        assert_eq!(verdict(&a, &a), Verdict::Equal);
        assert_eq!(verdict(&a, &b), Verdict::Different);
        assert_eq!((verdict(&a, &fault), verdict(&fault, &b)), (Verdict::Faulted, Verdict::Faulted));
        assert_eq!(verdict(&fault, &Err("another reason".into())), Verdict::Equal);
        assert_eq!(outcome(&Err(MergeFault::Busy)), None, "a moment says nothing about a plugin");
        assert!(outcome(&Err(MergeFault::OutOfFuel { limit: 1 })).is_some_and(|made| made.is_err()));
    }

    #[test]
    fn samples_are_bounded_and_a_key_has_one() {
        let shadows = with(2);
        let add = |sample| lock(&shadows.table).sample(BUCKET, sample);
        (0..3 * MAX_SAMPLES).for_each(|at| add(sample(&format!("k{at}"), 10)));
        assert_eq!(report(&shadows).samples.len(), MAX_SAMPLES);
        (0..3).for_each(|_| add(sample("again", 10)));
        add(sample("large", MAX_SAMPLE_BYTES));
        let samples = report(&shadows).samples;
        let of = |key: &str| samples.iter().filter(|sample| sample.key == key).count();
        assert_eq!((of("again"), of("large"), of("k0")), (1, 0, 0));
        let bytes: usize = samples.iter().map(sample_bytes).sum();
        assert_eq!(lock(&shadows.table).sample_bytes, bytes);
    }

    #[test]
    fn what_is_known_of_a_shadow_goes_with_it_and_a_changed_share_keeps_it() {
        let shadows = with(2);
        lock(&shadows.table).sample(BUCKET, sample("k", 10));
        shadows.set(&BTreeMap::from([(BUCKET, shadow(2, 5))]));
        assert_eq!(report(&shadows).samples.len(), 1);
        let counts_only = shadows.report(BUCKET, Name::new("n1").expect("a name"), false);
        assert!(counts_only.samples.is_empty() && counts_only.shadow.is_some());
        shadows.set(&BTreeMap::from([(BUCKET, shadow(3, 5))]));
        assert!(report(&shadows).samples.is_empty());
        assert_eq!(lock(&shadows.table).sample_bytes, 0);
        shadows.set(&BTreeMap::new());
        assert!(report(&shadows).shadow.is_none() && !shadows.any.load(Ordering::Relaxed));
    }

    #[test]
    fn keys_that_were_merged_lately_are_bounded() {
        let shadows = Shadows::default();
        let key = |at: usize| Bytes::from(format!("{at:04}"));
        (0..2 * MAX_MERGED_KEYS).for_each(|at| shadows.merged(BUCKET, &key(at)));
        let keys = report(&shadows).keys;
        assert!(keys.len() == MAX_MERGED_KEYS && keys.contains(&key(2 * MAX_MERGED_KEYS - 1)));
        assert!(!keys.contains(&key(0)), "the oldest are forgotten");
        (0..2 * MAX_MERGED_BUCKETS as u64).for_each(|bucket| shadows.merged(BucketId(bucket), &key(1)));
        assert!(lock(&shadows.merged).len() <= MAX_MERGED_BUCKETS);
    }

    #[test]
    fn equal_inputs_are_compared_once() {
        let mut state = ShadowState::new(shadow(2, 100));
        assert!(state.is_new(1) && state.is_new(2) && !state.is_new(1));
        assert!((0..MAX_RECENT as u64).all(|at| state.is_new(10 + at)));
        assert!(state.recent.len() == MAX_RECENT && state.is_new(1), "after enough others they are again");
    }
}
