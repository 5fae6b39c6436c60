//! The plugins that this node has; `merging` runs them.
//!
//! Modules are kept by digest. One that the catalog names and this node lacks is fetched from whichever peer answers, checked against its
//! digest, compiled, and only then used. A merge that comes before waits for it, up to its own deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rejoin_merge::{CompileQueue, ModuleLimits, Plugin, Pool, Rejection, digest_of};
use rejoin_proto::PluginDigest;
use rejoin_store::Modules;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::merging::Failures;
use crate::metrics::Metrics;

/// How long a plugin rests that could not be compiled for a reason of this machine, the first time and at the most.
const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(3600);

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

/// What is known of plugins. All of it is of plugins that the catalog names: what somebody pushed in vain is forgotten.
#[derive(Default)]
struct Known {
    ready: BTreeMap<PluginDigest, Plugin>,
    refused: BTreeMap<PluginDigest, Refused>,
    wanted: BTreeSet<PluginDigest>,
    /// Those that are being compiled and stored: every peer that was asked sends one.
    taking: BTreeSet<PluginDigest>,
}

/// A plugin that is here and cannot be used.
struct Refused {
    reason: String,
    /// When it is tried again, if it may be taken then, and for how long it rests after that.
    again: Option<(Instant, Duration)>,
}

impl Known {
    fn lacks(&self, digest: &PluginDigest) -> bool {
        let rests = |refused: &Refused| refused.again.is_none_or(|(at, _)| Instant::now() < at);
        !self.ready.contains_key(digest) && !self.refused.get(digest).is_some_and(rests)
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

    /// Says which plugins the catalog names.
    pub(crate) fn want(&self, wanted: Vec<PluginDigest>) {
        let mut known = self.known();
        known.wanted = wanted.into_iter().collect();
        let Known { refused, wanted, .. } = &mut *known;
        refused.retain(|digest, _| wanted.contains(digest));
    }

    /// Compiles those of them that are on this node's disk.
    pub(crate) async fn load(&self) {
        for digest in self.missing() {
            let Some(_taking) = self.begin(digest) else { continue };
            match self.0.modules.get(&digest) {
                Ok(Some(bytes)) if digest_of(&bytes) == digest => {
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

    /// Has a component compiled, under the limits. If nobody waits for this any more, it is not.
    pub(crate) async fn compile(&self, bytes: Bytes) -> Result<Plugin, Rejection> {
        let (done, compiled) = oneshot::channel();
        let digest = digest_of(&bytes);
        let result = match self.0.queue.compile(bytes, self.0.limits, move |result| drop(done.send(result))) {
            Ok(_pending) => compiled.await.unwrap_or_else(|_| Err(Rejection::NotTried { reason: "the node is stopping".into() })),
            Err(rejection) => Err(rejection),
        };
        let mut known = self.known();
        match &result {
            Ok(plugin) => {
                known.refused.remove(&digest);
                known.ready.insert(digest, plugin.clone());
            }
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

    /// A plugin, if it is known whether it can be used.
    pub(crate) fn find(&self, digest: &PluginDigest) -> Option<Result<Plugin, String>> {
        let known = self.known();
        let refused = || known.refused.get(digest).map(|why| Err(format!("this node cannot use plugin {digest}: {}", why.reason)));
        known.ready.get(digest).cloned().map(Ok).or_else(refused)
    }
}
