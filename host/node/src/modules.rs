//! The plugins that this node has, and the desk at which shards ask for merges.
//!
//! Modules are kept by digest. One that the catalog names and this node lacks is fetched from whichever peer answers, checked against its
//! digest, compiled on a merge thread, and only then used. A merge that comes before waits for it, up to its own deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rejoin_core::shard::event::{Invalid, MergeJob, MergeTicket, Merged, ValidateJob, ValidateTicket};
use rejoin_merge::{CallLimits, MergeFault, ModuleLimits, Plugin, Pool, Rejection, Sibling, digest_of};
use rejoin_proto::PluginDigest;
use rejoin_store::Modules;
use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};

use crate::clock::Clock;
use crate::driver::Notice;
use crate::metrics::Metrics;

/// The wall-clock net under a merge's fuel.
const MERGE_WALL: Duration = Duration::from_secs(5);
/// The most siblings that one merge is given.
const MERGE_SIBLINGS: usize = 1024;
/// The longest that a merge waits for its plugin to be fetched.
const FETCH_WAIT: Duration = Duration::from_secs(10);

/// Where shards ask for merges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    pool: Pool,
    modules: Modules,
    limits: ModuleLimits,
    known: Mutex<Known>,
    /// Woken when a plugin has become ready, or was refused.
    decided: Notify,
    runtime: tokio::runtime::Handle,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    ready: BTreeMap<PluginDigest, Plugin>,
    /// Those that are here and cannot be used, with the reason.
    refused: BTreeMap<PluginDigest, String>,
    wanted: Vec<PluginDigest>,
    /// Those that have arrived and are being compiled and stored: every peer that was asked sends one.
    taking: BTreeSet<PluginDigest>,
}

impl Desk {
    pub(crate) fn new(pool: Pool, modules: Modules, module_bytes: u64, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let bytes = usize::try_from(module_bytes).unwrap_or(usize::MAX);
        let limits = ModuleLimits { bytes, ..ModuleLimits::default() };
        let (known, decided) = (Mutex::default(), Notify::new());
        let runtime = tokio::runtime::Handle::current();
        Self(Arc::new(Inner { pool, modules, limits, known, decided, runtime, clock, metrics }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Says which plugins the catalog names.
    pub(crate) fn want(&self, wanted: Vec<PluginDigest>) {
        self.known().wanted = wanted;
    }

    /// Compiles those of them that are on this node's disk.
    pub(crate) async fn load(&self) {
        for digest in self.missing() {
            match self.0.modules.get(&digest) {
                Ok(Some(bytes)) if digest_of(&bytes) == digest => {
                    // A refusal is remembered and told to whoever wants to merge with it.
                    let _ = self.compile(bytes).await;
                }
                Ok(Some(_)) => tracing::error!(%digest, "a stored plugin does not have its digest: it is fetched again"),
                Ok(None) => {}
                Err(error) => tracing::error!(%digest, %error, "a stored plugin cannot be read: it is fetched again"),
            }
        }
    }

    /// The plugins that the catalog names and this node does not have.
    pub(crate) fn missing(&self) -> Vec<PluginDigest> {
        let known = self.known();
        let lacks = |digest: &&PluginDigest| !known.ready.contains_key(digest) && !known.refused.contains_key(digest);
        known.wanted.iter().filter(lacks).copied().collect()
    }

    /// Those of them that peers should be asked for: one that has arrived and is being compiled should not.
    pub(crate) fn to_fetch(&self) -> Vec<PluginDigest> {
        let missing = self.missing();
        let known = self.known();
        missing.into_iter().filter(|digest| !known.taking.contains(digest)).collect()
    }

    /// A module's bytes, for a peer that asks.
    pub(crate) fn bytes(&self, digest: &PluginDigest) -> Option<Bytes> {
        self.0.modules.get(digest).ok().flatten().filter(|bytes| digest_of(bytes) == *digest)
    }

    /// Takes a module that a peer has sent, if it is what it should be.
    pub(crate) async fn fetched(&self, digest: PluginDigest, bytes: Bytes) {
        if digest_of(&bytes) != digest {
            return tracing::error!(%digest, "a peer has sent another module than was asked for");
        }
        if !self.missing().contains(&digest) || !self.known().taking.insert(digest) {
            return;
        }
        self.take(digest, bytes).await;
        self.known().taking.remove(&digest);
    }

    async fn take(&self, digest: PluginDigest, bytes: Bytes) {
        match self.compile(bytes.clone()).await {
            Ok(plugin) => match self.keep(&plugin, &bytes) {
                Ok(()) => tracing::info!(%digest, "plugin fetched"),
                Err(error) => tracing::error!(%digest, error, "a fetched plugin could not be stored"),
            },
            Err(rejection) => tracing::error!(%digest, %rejection, "a fetched plugin was refused"),
        }
    }

    /// Compiles a component on a merge thread, under the limits.
    pub(crate) async fn compile(&self, bytes: Bytes) -> Result<Plugin, Rejection> {
        let (done, compiled) = oneshot::channel();
        let digest = digest_of(&bytes);
        let asked = self.0.pool.compile(bytes, self.0.limits, move |result| drop(done.send(result)));
        if let Err(overloaded) = asked {
            return Err(Rejection::NotTried { reason: overloaded.to_string() });
        }
        let result = compiled.await.unwrap_or_else(|_| Err(Rejection::NotTried { reason: "the node is stopping".into() }));
        match &result {
            Ok(plugin) => {
                let mut known = self.known();
                known.refused.remove(&digest);
                known.ready.insert(digest, plugin.clone());
                drop(known);
                self.0.decided.notify_waiters();
            }
            Err(Rejection::NotTried { .. }) => {}
            Err(rejection) => {
                self.known().refused.insert(digest, rejection.to_string());
                self.0.decided.notify_waiters();
            }
        }
        result
    }

    /// Stores a compiled plugin's module durably.
    pub(crate) fn keep(&self, plugin: &Plugin, bytes: &[u8]) -> Result<(), String> {
        self.0.modules.put(&plugin.digest(), bytes).map_err(|error| error.to_string())
    }

    /// Runs a merge and tells the shard what became of it, whatever that is.
    pub(crate) fn merge(&self, ticket: MergeTicket, job: MergeJob, notices: UnboundedSender<Notice>) {
        let ready = self.find(&job.plugin);
        match ready {
            Some(Ok(plugin)) => self.run(plugin, ticket, job, notices),
            Some(Err(why)) => tell(&notices, ticket, Err(why)),
            None => {
                let desk = self.clone();
                self.0.runtime.spawn(async move {
                    match desk.wait_for(&job.plugin, job.deadline_us).await {
                        Ok(plugin) => desk.run(plugin, ticket, job, notices),
                        Err(why) => tell(&notices, ticket, Err(why)),
                    }
                });
            }
        }
    }

    /// Has a value validated and tells the shard what became of it, whatever that is.
    pub(crate) fn validate(&self, ticket: ValidateTicket, job: ValidateJob, notices: UnboundedSender<Notice>) {
        let unjudged = move |why| Notice::Validated(ticket, Err(Invalid::Unjudged(why)));
        match self.find(&job.plugin) {
            Some(Ok(plugin)) => self.run_validation(plugin, ticket, job, notices),
            Some(Err(why)) => drop(notices.send(unjudged(why))),
            None => {
                let desk = self.clone();
                self.0.runtime.spawn(async move {
                    match desk.wait_for(&job.plugin, job.deadline_us).await {
                        Ok(plugin) => desk.run_validation(plugin, ticket, job, notices),
                        Err(why) => drop(notices.send(unjudged(why))),
                    }
                });
            }
        }
    }

    fn run_validation(&self, plugin: Plugin, ticket: ValidateTicket, job: ValidateJob, notices: UnboundedSender<Notice>) {
        let limits = CallLimits { fuel: job.fuel, memory_bytes: job.memory_bytes as usize, wall: MERGE_WALL, ..CallLimits::default() };
        let (clock, deadline_us, told) = (self.0.clock, job.deadline_us, notices.clone());
        let wanted = move || clock.now().mono_us < deadline_us;
        let done = move |result: Result<(), MergeFault>| drop(told.send(Notice::Validated(ticket, result.map_err(invalid))));
        if let Err(overloaded) = self.0.pool.validate_while(wanted, plugin, job.key, job.value, limits, done) {
            drop(notices.send(Notice::Validated(ticket, Err(Invalid::Unjudged(overloaded.to_string())))));
        }
    }

    fn find(&self, digest: &PluginDigest) -> Option<Result<Plugin, String>> {
        let known = self.known();
        let refused = || known.refused.get(digest).map(|why| Err(format!("this node cannot use plugin {digest}: {why}")));
        known.ready.get(digest).cloned().map(Ok).or_else(refused)
    }

    /// Waits until a plugin has been fetched and compiled, as long as the job may.
    async fn wait_for(&self, digest: &PluginDigest, deadline_us: u64) -> Result<Plugin, String> {
        let until = self.0.clock.instant(deadline_us).min(tokio::time::Instant::now() + FETCH_WAIT);
        loop {
            // Made before the look, so that a decision in between is not missed.
            let decided = self.0.decided.notified();
            if let Some(found) = self.find(digest) {
                return found;
            }
            if tokio::time::timeout_at(until, decided).await.is_err() {
                return Err(format!("this node does not have plugin {digest} yet; it is being fetched from the others"));
            }
        }
    }

    fn run(&self, plugin: Plugin, ticket: MergeTicket, job: MergeJob, notices: UnboundedSender<Notice>) {
        let limits = CallLimits {
            fuel: job.fuel,
            memory_bytes: job.memory_bytes as usize,
            result_bytes: job.result_bytes as usize,
            max_siblings: MERGE_SIBLINGS,
            wall: MERGE_WALL,
        };
        let clock = self.0.clock;
        let wanted = move || clock.now().mono_us < job.deadline_us;
        let MergeJob { key, siblings, show, .. } = job;
        if let [only] = siblings.as_slice() {
            return self.show(plugin, limits, only.value.clone(), ticket, notices);
        }
        let lent = siblings.into_iter().map(|s| Sibling { value: s.value, stamp_ms: s.stamp_ms, writer: s.writer }).collect();
        let (desk, again, told) = (self.clone(), plugin.clone(), notices.clone());
        let done = move |result: Result<rejoin_merge::Merged, MergeFault>| match result {
            Ok(merged) => {
                #[allow(clippy::cast_precision_loss)] // A histogram's value.
                desk.0.metrics.merge_fuel.record(merged.fuel_used as f64);
                match show {
                    true => desk.show(again, limits, merged.value, ticket, told),
                    false => tell(&told, ticket, Ok((merged.value, None, desk.0.pool.host().profile()))),
                }
            }
            Err(fault) => tell(&told, ticket, Err(fault.to_string())),
        };
        if let Err(overloaded) = self.0.pool.merge_while(wanted, plugin, key, lent, limits, done) {
            tell(&notices, ticket, Err(overloaded.to_string()));
        }
    }

    /// The readable form of a value. That it has none is no fault of the value.
    fn show(&self, plugin: Plugin, limits: CallLimits, value: Bytes, ticket: MergeTicket, notices: UnboundedSender<Notice>) {
        let profile = self.0.pool.host().profile();
        if !plugin.abilities().present {
            return tell(&notices, ticket, Ok((value, None, profile)));
        }
        let (kept, told) = (value.clone(), notices.clone());
        let done = move |shown: Result<Vec<u8>, MergeFault>| tell(&told, ticket, Ok((kept, shown.ok().map(Bytes::from), profile)));
        if self.0.pool.show(plugin, value.clone(), limits, done).is_err() {
            tell(&notices, ticket, Ok((value, None, profile)));
        }
    }
}

type Told = (Bytes, Option<Bytes>, rejoin_proto::ProfileId);

fn tell(notices: &UnboundedSender<Notice>, ticket: MergeTicket, result: Result<Told, String>) {
    let result = result.map(|(value, shown, profile)| Merged { value, shown, profile });
    // The shard may have stopped; then nobody waits.
    let _ = notices.send(Notice::Merged(ticket, result));
}

/// A validator that traps or uses up its fuel on a value would do so on every node, and so would the merge: the value is refused.
fn invalid(fault: MergeFault) -> Invalid {
    let why = fault.to_string();
    if fault.is_deterministic() { Invalid::Refused(why) } else { Invalid::Unjudged(why) }
}
