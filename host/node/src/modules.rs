//! The plugins that this node has; `merging` runs them.
//!
//! Modules are kept by digest. One that the catalog names and this node lacks is fetched from whichever peer answers,
//! checked against its digest, compiled, and only then used. A merge that comes before waits for it, up to its own
//! deadline.
//!
//! Machine code is in memory for the plugins that buckets merge with, and for a few others. The rest is loaded when it
//! is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use rejoin_merge::{CompileQueue, ModuleLimits, Plugin, Pool, Rejection, digest_of};
use rejoin_proto::PluginDigest;
use rejoin_store::Modules;

use crate::clock::Clock;
use crate::merging::Failures;
use crate::metrics::Metrics;

/// How long a plugin rests that could not be compiled for a reason of this machine, the first time and at the most.
const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// The most plugins in memory that no bucket merges with: those that were pushed or asked for last.
const IDLE: usize = 8;

/// The plugins, and where shards ask for merges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    queue: CompileQueue,
    modules: Modules,
    limits: ModuleLimits,
    known: Mutex<Known>,
    /// Woken when a plugin has become ready, or was refused.
    pub(crate) decided: Notify,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) failures: Failures,
}

/// What is known of plugins. All of it is of plugins that the catalog names or that are being pushed: what somebody
/// pushed in vain is forgotten.
#[derive(Default)]
struct Known {
    ready: BTreeMap<PluginDigest, Ready>,
    refused: BTreeMap<PluginDigest, Refused>,
    /// What the catalog names.
    wanted: BTreeSet<PluginDigest>,
    /// Those of them that buckets merge with.
    active: BTreeSet<PluginDigest>,
    /// Those whose module is on the disk and whose machine code is not in memory, because no bucket merges with them.
    shelved: BTreeSet<PluginDigest>,
    /// How many have become ready so far.
    made_ready: u64,
    /// Those that are being compiled and stored: every peer that was asked sends one.
    taking: BTreeSet<PluginDigest>,
}

/// A plugin that can be used, and its place in the order in which they became ready.
struct Ready(Plugin, u64);

/// A plugin that is here and cannot be used.
struct Refused {
    reason: String,
    /// When it is tried again, if it may be taken then, and for how long it rests after that.
    again: Option<(Instant, Duration)>,
}

impl Known {
    fn lacks(&self, digest: &PluginDigest) -> bool {
        let rests = |refused: &Refused| refused.again.is_none_or(|(at, _)| Instant::now() < at);
        let is_here = self.ready.contains_key(digest) || self.shelved.contains(digest);
        !is_here && !self.refused.get(digest).is_some_and(rests)
    }

    fn make_ready(&mut self, plugin: Plugin) {
        let digest = plugin.digest();
        self.refused.remove(&digest);
        self.shelved.remove(&digest);
        self.made_ready += 1;
        self.ready.insert(digest, Ready(plugin, self.made_ready));
        self.shelve_the_idle();
    }

    /// Forgets the machine code of all but the last plugins that no bucket merges with.
    fn shelve_the_idle(&mut self) {
        let idle = self.ready.iter().filter(|(digest, _)| !self.active.contains(digest));
        let mut idle: Vec<(u64, PluginDigest)> = idle.map(|(digest, ready)| (ready.1, *digest)).collect();
        idle.sort_unstable();
        for (_, digest) in idle.iter().take(idle.len().saturating_sub(IDLE)) {
            self.ready.remove(digest);
            // One that is only being pushed is loaded when the catalog names it.
            if self.wanted.contains(digest) {
                self.shelved.insert(*digest);
            }
        }
    }

    /// Lets a plugin wait on the disk until somebody asks for it, if no bucket merges with it and there are enough such
    /// in memory.
    fn shelve(&mut self, digest: &PluginDigest) -> bool {
        let idle = self.ready.keys().filter(|digest| !self.active.contains(digest)).count();
        !self.active.contains(digest) && idle >= IDLE && self.shelved.insert(*digest)
    }

    fn refuse(&mut self, digest: PluginDigest, rejection: &Rejection) {
        if !self.wanted.contains(&digest) {
            return;
        }
        let rest = self.refused.get(&digest).and_then(|refused| refused.again).map_or(FIRST_REST, |(_, next)| next);
        let again = (!rejection.is_final()).then(|| (Instant::now() + rest, (rest * 2).min(LONGEST_REST)));
        self.refused.insert(digest, Refused { reason: rejection.to_string(), again });
    }
}

/// A plugin that is being compiled. Dropped with whoever waited for it, it may be asked for again.
struct Taking<'a>(&'a Desk, PluginDigest);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.known().taking.remove(&self.1);
    }
}

/// A plugin that was pushed and compiled. It is ready at once, so that no node has to wait when the catalog names it.
/// Dropped, it is forgotten unless the catalog names it by then.
pub(crate) struct Pushed<'a> {
    desk: &'a Desk,
    plugin: Plugin,
}

impl Pushed<'_> {
    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }
}

impl Drop for Pushed<'_> {
    fn drop(&mut self) {
        let mut known = self.desk.known();
        let digest = self.plugin.digest();
        if !known.wanted.contains(&digest) {
            known.ready.remove(&digest);
        }
    }
}

impl Desk {
    pub(crate) fn new(pool: Pool, queue: CompileQueue, modules: Modules, module_bytes: u64, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let limits = ModuleLimits::for_bytes(usize::try_from(module_bytes).unwrap_or(usize::MAX));
        let (known, decided, failures) = (Mutex::default(), Notify::new(), Failures::default());
        let runtime = tokio::runtime::Handle::current();
        Self(Arc::new(Inner { pool, queue, modules, limits, known, decided, runtime, clock, metrics, failures }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Says which plugins the catalog names, and which of them buckets merge with.
    pub(crate) fn want(&self, wanted: BTreeSet<PluginDigest>, active: BTreeSet<PluginDigest>) {
        let mut known = self.known();
        let Known { refused, shelved, .. } = &mut *known;
        refused.retain(|digest, _| wanted.contains(digest));
        shelved.retain(|digest| wanted.contains(digest) && !active.contains(digest));
        (known.wanted, known.active) = (wanted, active);
        known.shelve_the_idle();
    }

    /// Compiles those of them that are on this node's disk and are to be in memory.
    pub(crate) async fn load(&self) {
        for digest in self.missing() {
            let Some(_taking) = self.begin(digest) else { continue };
            match self.0.modules.get(&digest) {
                Ok(Some(bytes)) if digest_of(&bytes) == digest => {
                    if self.known().shelve(&digest) {
                        continue;
                    }
                    // A refusal is remembered and told to whoever wants to merge with it.
                    if let Err(rejection) = self.compile(bytes).await {
                        tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                    }
                }
                Ok(Some(_)) => tracing::error!(%digest, "a stored plugin does not have its digest: it is fetched again"),
                Ok(None) => {}
                Err(error) => tracing::error!(%digest, %error, "a stored plugin cannot be read: it is fetched again"),
            }
        }
    }

    /// Takes a missing plugin on, unless somebody else has.
    fn begin(&self, digest: PluginDigest) -> Option<Taking<'_>> {
        let mut known = self.known();
        let free = known.lacks(&digest) && known.taking.insert(digest);
        // Made only then: it gives the digest back when it is dropped.
        free.then(|| Taking(self, digest))
    }

    /// The plugins that the catalog names and this node does not have.
    pub(crate) fn missing(&self) -> Vec<PluginDigest> {
        let known = self.known();
        known.wanted.iter().filter(|digest| known.lacks(digest)).copied().collect()
    }

    /// Those of them that peers should be asked for: one that has arrived and is being compiled should not.
    pub(crate) fn to_fetch(&self) -> Vec<PluginDigest> {
        let known = self.known();
        known.wanted.iter().filter(|digest| known.lacks(digest) && !known.taking.contains(digest)).copied().collect()
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
        if !self.known().wanted.contains(&digest) {
            return;
        }
        let Some(_taking) = self.begin(digest) else { return };
        self.take(digest, bytes).await;
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

    /// Has a component compiled that the catalog need not name yet.
    pub(crate) async fn push(&self, bytes: Bytes) -> Result<Pushed<'_>, Rejection> {
        self.compile(bytes).await.map(|plugin| Pushed { desk: self, plugin })
    }

    /// Has a component compiled, under the limits. If nobody waits for this any more, it is not.
    async fn compile(&self, bytes: Bytes) -> Result<Plugin, Rejection> {
        let (done, compiled) = oneshot::channel();
        let digest = digest_of(&bytes);
        let result = match self.0.queue.compile(bytes, self.0.limits, move |result| drop(done.send(result))) {
            Ok(_pending) => compiled.await.unwrap_or_else(|_| Err(Rejection::NotTried { reason: "the node is stopping".into() })),
            Err(rejection) => Err(rejection),
        };
        let mut known = self.known();
        match &result {
            Ok(plugin) => known.make_ready(plugin.clone()),
            Err(rejection) => known.refuse(digest, rejection),
        }
        drop(known);
        self.0.decided.notify_waiters();
        result
    }

    /// Stores a compiled plugin's module durably.
    pub(crate) fn keep(&self, plugin: &Plugin, bytes: &[u8]) -> Result<(), String> {
        self.0.modules.put(&plugin.digest(), bytes).map_err(|error| error.to_string())
    }

    /// How many plugins are compiled and in memory.
    pub(crate) fn ready(&self) -> usize {
        self.known().ready.len()
    }

    /// A plugin, if it is known whether it can be used. One that waits on the disk is loaded; whoever asks for it waits
    /// as for one that is fetched.
    pub(crate) fn find(&self, digest: &PluginDigest) -> Option<Result<Plugin, String>> {
        let mut known = self.known();
        if known.shelved.remove(digest) {
            let (desk, digest) = (self.clone(), *digest);
            self.0.runtime.spawn(async move { desk.unshelve(digest).await });
            return None;
        }
        let refused = || known.refused.get(digest).map(|why| Err(format!("this node cannot use plugin {digest}: {}", why.reason)));
        known.ready.get(digest).map(|ready| Ok(ready.0.clone())).or_else(refused)
    }

    async fn unshelve(&self, digest: PluginDigest) {
        let Some(_taking) = self.begin(digest) else { return };
        match self.0.modules.get(&digest) {
            Ok(Some(bytes)) if digest_of(&bytes) == digest => {
                if let Err(rejection) = self.compile(bytes).await {
                    tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                }
            }
            // It counts as missing from now on.
            other => tracing::error!(%digest, ?other, "a stored plugin cannot be read: it is fetched again"),
        }
    }
}
