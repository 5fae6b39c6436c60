//! The plugins of this node: stored modules, compiled plugins, and which of both are missing. `merging` runs them.
//!
//! A module is stored under its digest. One that the catalog names and this node lacks is fetched from any peer that
//! has it, checked against its digest, and compiled before it is used. A merge that needs it waits, up to its deadline.
//! A plugin is ready once its transcript, a fixed run of calls, was found to be the recorded one.
//!
//! Machine code stays in memory for the plugins that buckets use, and for the last few others. The rest is on the disk
//! and loaded when needed. Of the modules that no bucket uses the disk has those of the last pushes; older ones are
//! removed and must be pushed again before a bucket can use them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use rejoin_core::shard::event::PluginError;
use rejoin_core::view::ClusterView;
use rejoin_merge::{Plugin, Pool, Rejection, TenantShare, digest_of};
use rejoin_proto::catalog::{RecordBody, Transcript};
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{Hlc, Name, PluginDigest, ProfileId, TenantId};
use rejoin_store::Modules;

use crate::clock::Clock;
use crate::conflicts::ConflictInbox;
use crate::engine::Engine;
use crate::failure_log::FailureLog;
use crate::faults::{Faults, SeemingEngine};
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::plugin_figures::PluginFigures;
use crate::shadowing::Shadows;
use crate::transcripts::{cut, difference, recorded};

/// The pause before a plugin is compiled again that failed for a reason of this machine. It doubles with each failure,
/// up to `MAX_RETRY_PAUSE`.
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(30);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(3600);
/// The most plugins in memory that no bucket uses: those pushed or asked for last.
const MAX_IDLE: usize = 8;
/// The most modules on the disk that no bucket uses: those of the last pushes. All nodes go by the times of the
/// catalog, so they keep the same ones.
const MAX_UNUSED_MODULES: usize = 64;
/// The pause before a transcript is recorded again that the catalog still lacks.
const RECORD_AGAIN: Duration = Duration::from_secs(60);

/// The plugins of a node, and the service by which shards run them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PluginService(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    modules: Modules,
    table: Mutex<PluginTable>,
    /// Notified when a plugin has become ready or was refused.
    pub(crate) decided: Notify,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) failures: FailureLog,
    conflicts: ConflictInbox,
    faults: Faults,
    shadows: Shadows,
    figures: PluginFigures,
}

/// The state of each plugin. It has only plugins that the catalog names or that are being pushed.
#[derive(Default)]
struct PluginTable {
    ready: BTreeMap<PluginDigest, LoadedPlugin>,
    refused: BTreeMap<PluginDigest, RefusedPlugin>,
    /// The plugins that the catalog names.
    named: BTreeMap<PluginDigest, NamedPlugin>,
    /// The named plugins whose modules are kept on the disk.
    wanted: BTreeSet<PluginDigest>,
    /// The other named plugins: no bucket uses them, and others were pushed since.
    removed: BTreeSet<PluginDigest>,
    /// The plugins that were deleted, or whose tenant is gone, and that no other tenant has.
    deleted: BTreeSet<PluginDigest>,
    /// The removed and deleted plugins whose module may still be on the disk.
    to_remove: BTreeSet<PluginDigest>,
    /// Pushes under way at this node, by plugin.
    pushing: BTreeMap<PluginDigest, usize>,
    /// The last plugins that were pushed at this node since its start, and their order. Pushing a plugin again does not
    /// change its time in the catalog.
    pushed: BTreeMap<PluginDigest, u64>,
    /// The wanted plugins that buckets use.
    active: BTreeSet<PluginDigest>,
    /// Wanted plugins that no bucket uses: their module is on the disk, and their machine code not in memory.
    shelved: BTreeSet<PluginDigest>,
    /// How many plugins have become ready so far.
    made_ready: u64,
    /// Plugins that are being compiled and stored. Every peer that was asked may send the same one.
    compiling: BTreeSet<PluginDigest>,
    /// When the transcripts that the catalog lacks are recorded again.
    recording: BTreeMap<PluginDigest, Instant>,
}

/// A plugin that the catalog names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NamedPlugin {
    /// When it was pushed.
    pub(crate) stamp: Hlc,
    /// Who has pushed it: compiling it is done on its share.
    pub(crate) share: TenantShare,
    /// The transcript that this node must get as well.
    pub(crate) recorded: Option<Transcript>,
    /// A tenant whose record has none for this engine.
    pub(crate) unrecorded: Option<TenantId>,
}

impl NamedPlugin {
    /// What there is to know of a plugin that two tenants have pushed: the last one counts.
    pub(crate) fn joined(self, other: Self) -> Self {
        let last = if self.stamp < other.stamp { other } else { self };
        let (recorded, unrecorded) = (self.recorded.or(other.recorded), self.unrecorded.or(other.unrecorded));
        Self { recorded, unrecorded, ..last }
    }
}

/// The share of a tenant where tenants wait for each other.
pub(crate) fn share(view: &ClusterView, tenant: TenantId) -> TenantShare {
    TenantShare { tenant: tenant.0, weight: view.weight(tenant) }
}

/// Plugins of several tenants in such an order that each tenant's first one comes before any one's second.
fn interleaved(plugins: impl Iterator<Item = (PluginDigest, TenantShare)>) -> Vec<PluginDigest> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    let mut placed: Vec<(usize, PluginDigest)> = plugins
        .map(|(digest, share)| {
            let count = counts.entry(share.tenant).or_default();
            *count += 1;
            (*count, digest)
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, digest)| digest).collect()
}

/// A plugin that can be used.
struct LoadedPlugin {
    plugin: Plugin,
    transcript: Option<Transcript>,
    /// Its place in the order in which plugins became ready.
    order: u64,
}

/// A plugin that is stored here and cannot be used.
struct RefusedPlugin {
    reason: String,
    /// When it is compiled again, and the pause after that; `None` if the reason is final.
    retry: Option<(Instant, Duration)>,
    /// Its transcript here, if that is the reason.
    differs: Option<Transcript>,
}

impl PluginTable {
    /// The transcript that a plugin must have.
    fn recorded(&self, digest: &PluginDigest) -> Option<Transcript> {
        self.named.get(digest).and_then(|named| named.recorded)
    }

    /// Makes a plugin ready that was loaded, unless its transcript differs from the recorded one.
    fn admit(&mut self, node: &Name, plugin: Plugin, own: Option<Transcript>) -> Result<Plugin, Rejection> {
        let digest = plugin.digest();
        match difference(node, &digest, own, self.recorded(&digest)) {
            None => {
                self.make_ready(plugin.clone(), own);
                Ok(plugin)
            }
            Some(differs) => {
                self.refuse_differing(digest, &differs, own);
                Err(differs)
            }
        }
    }

    fn refuse_differing(&mut self, digest: PluginDigest, differs: &Rejection, own: Option<Transcript>) {
        // It may have been ready before the machine became unsound.
        self.ready.remove(&digest);
        self.refuse(digest, differs);
        if let Some(refused) = self.refused.get_mut(&digest) {
            refused.differs = own;
        }
    }

    /// Compares with what is recorded now. Returns the plugins that are not run any more, with the reasons.
    fn compare(&mut self, node: &Name) -> Vec<(PluginDigest, Rejection)> {
        let compared = self.ready.iter().filter_map(|(digest, loaded)| {
            let differs = difference(node, digest, loaded.transcript, self.recorded(digest))?;
            Some((*digest, differs, loaded.transcript))
        });
        let differing: Vec<(PluginDigest, Rejection, Option<Transcript>)> = compared.collect();
        for (digest, differs, own) in &differing {
            self.refuse_differing(*digest, differs, *own);
        }
        // One that differed from an earlier record is loaded again.
        let Self { refused, named, .. } = self;
        refused.retain(|digest, of| {
            let recorded = named.get(digest).and_then(|named| named.recorded);
            of.differs.is_none() || difference(node, digest, of.differs, recorded).is_some()
        });
        differing.into_iter().map(|(digest, differs, _)| (digest, differs)).collect()
    }

    fn lacks(&self, digest: &PluginDigest) -> bool {
        let rests = |refused: &RefusedPlugin| refused.retry.is_none_or(|(at, _)| Instant::now() < at);
        let is_here = self.ready.contains_key(digest) || self.shelved.contains(digest);
        !is_here && !self.refused.get(digest).is_some_and(rests)
    }

    /// Decides which of the named plugins are kept on the disk: those that buckets use, and the last ones pushed.
    fn update_wanted(&mut self) {
        let unused = self.named.iter().filter(|(digest, _)| !self.active.contains(digest));
        let pushed = |digest| self.pushed.get(digest).copied().unwrap_or(0);
        let mut unused: Vec<(u64, Hlc, PluginDigest)> =
            unused.map(|(digest, named)| (pushed(digest), named.stamp, *digest)).collect();
        unused.sort_unstable();
        let surplus = unused.len().saturating_sub(MAX_UNUSED_MODULES);
        let removed: BTreeSet<PluginDigest> = unused.iter().take(surplus).map(|(_, _, digest)| *digest).collect();
        self.wanted = self.named.keys().filter(|digest| !removed.contains(digest)).copied().collect();
        self.to_remove.extend(removed.difference(&self.removed));
        let deleted = &self.deleted;
        self.to_remove.retain(|digest| removed.contains(digest) || deleted.contains(digest));
        self.removed = removed;
        let Self { wanted, active, refused, shelved, .. } = self;
        refused.retain(|digest, _| wanted.contains(digest));
        shelved.retain(|digest| wanted.contains(digest) && !active.contains(digest));
        self.shelve_the_idle();
    }

    /// Notes that a push begins. Its module is kept until enough others were pushed.
    fn note_push(&mut self, digest: PluginDigest) {
        *self.pushing.entry(digest).or_default() += 1;
        self.to_remove.remove(&digest);
        let order = self.pushed.values().max().map_or(1, |last| last + 1);
        self.pushed.insert(digest, order);
        self.pushed.retain(|_, of| *of + MAX_UNUSED_MODULES as u64 > order);
        self.update_wanted();
    }

    fn make_ready(&mut self, plugin: Plugin, transcript: Option<Transcript>) {
        let digest = plugin.digest();
        self.refused.remove(&digest);
        self.shelved.remove(&digest);
        self.made_ready += 1;
        self.ready.insert(digest, LoadedPlugin { plugin, transcript, order: self.made_ready });
        self.shelve_the_idle();
    }

    /// Drops the machine code of plugins that no bucket uses, except the last few.
    fn shelve_the_idle(&mut self) {
        let idle = self.ready.iter().filter(|(digest, _)| !self.active.contains(digest));
        let mut idle: Vec<(u64, PluginDigest)> = idle.map(|(digest, ready)| (ready.order, *digest)).collect();
        idle.sort_unstable();
        for (_, digest) in idle.iter().take(idle.len().saturating_sub(MAX_IDLE)) {
            self.ready.remove(digest);
            // A plugin that is only being pushed is loaded when the catalog names it.
            if self.wanted.contains(digest) {
                self.shelved.insert(*digest);
            }
        }
    }

    /// Leaves a stored plugin on the disk until it is needed, if no bucket uses it and enough such plugins are in
    /// memory. Returns whether it does.
    fn shelve(&mut self, digest: &PluginDigest) -> bool {
        let idle = self.ready.keys().filter(|digest| !self.active.contains(digest)).count();
        !self.active.contains(digest) && idle >= MAX_IDLE && self.shelved.insert(*digest)
    }

    fn refuse(&mut self, digest: PluginDigest, rejection: &Rejection) {
        if !self.wanted.contains(&digest) {
            return;
        }
        let pause =
            self.refused.get(&digest).and_then(|refused| refused.retry).map_or(FIRST_RETRY_PAUSE, |(_, next)| next);
        let retry = (!rejection.is_final()).then(|| (Instant::now() + pause, (pause * 2).min(MAX_RETRY_PAUSE)));
        self.refused.insert(digest, RefusedPlugin { reason: rejection.to_string(), retry, differs: None });
    }
}

/// Marks a plugin as being compiled until it is dropped, so that it is compiled once at a time.
struct CompileClaim<'a>(&'a PluginService, PluginDigest);

impl Drop for CompileClaim<'_> {
    fn drop(&mut self) {
        self.0.table().compiling.remove(&self.1);
    }
}

/// A plugin that was pushed and compiled. It is ready before the catalog names it, so that no merge has to wait. When
/// this is dropped and the catalog does not name it by then, the plugin is forgotten.
pub(crate) struct Pushed<'a> {
    service: &'a PluginService,
    plugin: Plugin,
    transcript: Option<Transcript>,
}

impl Pushed<'_> {
    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What its record says of how it answers.
    pub(crate) fn transcript(&self) -> Option<Transcript> {
        self.transcript
    }
}

impl Drop for Pushed<'_> {
    fn drop(&mut self) {
        let mut table = self.service.table();
        let digest = self.plugin.digest();
        let others = table.pushing.get(&digest).map_or(0, |pushes| pushes.saturating_sub(1));
        if others > 0 {
            table.pushing.insert(digest, others);
            return;
        }
        table.pushing.remove(&digest);
        if !table.wanted.contains(&digest) {
            table.ready.remove(&digest);
            // Under the lock, so that a push of the same module stores it afterwards.
            self.service.remove_module(&digest);
        }
    }
}

impl PluginService {
    pub(crate) fn new(engine: Engine, modules: Modules, clock: Clock, metrics: Arc<Metrics>, faults: Faults) -> Self {
        Self(Arc::new(Inner {
            engine,
            modules,
            table: Mutex::default(),
            decided: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
            clock,
            metrics,
            failures: FailureLog::default(),
            conflicts: ConflictInbox::default(),
            faults,
            shadows: Shadows::default(),
            figures: PluginFigures::default(),
        }))
    }

    fn table(&self) -> MutexGuard<'_, PluginTable> {
        lock(&self.0.table)
    }

    pub(crate) fn conflicts(&self) -> &ConflictInbox {
        &self.0.conflicts
    }

    /// The profile of the engine.
    pub(crate) fn profile(&self) -> ProfileId {
        self.0.engine.pool.host().profile()
    }

    pub(crate) fn shadows(&self) -> &Shadows {
        &self.0.shadows
    }

    pub(crate) fn figures(&self) -> &PluginFigures {
        &self.0.figures
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.engine.pool
    }

    /// Sets the plugins that the catalog names, those of them that buckets use, and those that were deleted.
    pub(crate) fn want(
        &self,
        named: BTreeMap<PluginDigest, NamedPlugin>,
        active: BTreeSet<PluginDigest>,
        mut deleted: BTreeSet<PluginDigest>,
    ) {
        self.0.engine.queue.keep_cached(active.clone());
        let mut table = self.table();
        deleted.retain(|digest| !named.contains_key(digest));
        let gone: Vec<PluginDigest> = deleted.difference(&table.deleted).copied().collect();
        (table.named, table.active, table.deleted) = (named, active, deleted);
        table.to_remove.extend(gone);
        table.update_wanted();
        let differing = table.compare(&self.0.engine.node);
        drop(table);
        for (digest, rejection) in differing {
            tracing::error!(%digest, %rejection, "a plugin that was loaded cannot be used");
        }
    }

    /// See [`recorded`].
    pub(crate) fn recorded(&self, tenant: TenantId, body: &RecordBody) -> (Option<Transcript>, Option<TenantId>) {
        recorded(self.compared_profile(), tenant, body)
    }

    /// The profile of the engine by which transcripts are compared.
    fn compared_profile(&self) -> ProfileId {
        let ProfileId(own) = self.pool().host().profile();
        ProfileId(if self.0.faults.engine() == SeemingEngine::Other { !own } else { own })
    }

    /// The transcript of a plugin that was loaded here.
    fn transcript_of(&self, plugin: &Plugin) -> Option<Transcript> {
        let mut transcript = Transcript { profile: self.compared_profile(), ..plugin.transcript()? };
        if self.0.faults.engine() == SeemingEngine::Wrong {
            transcript.hash[0] ^= 1;
        }
        Some(transcript)
    }

    /// The transcripts that the catalog lacks for this engine, each with a tenant whose record it is for. One that was
    /// returned is not returned again for a while.
    pub(crate) fn take_unrecorded(&self) -> Vec<(TenantId, PluginDigest, Transcript)> {
        let now = Instant::now();
        let mut table = self.table();
        let PluginTable { named, ready, recording, .. } = &mut *table;
        recording.retain(|digest, _| named.get(digest).is_some_and(|named| named.unrecorded.is_some()));
        let due = named.iter().filter_map(|(digest, named)| {
            let rests = recording.get(digest).is_some_and(|again| now < *again);
            let (tenant, own) = (named.unrecorded.filter(|_| !rests)?, ready.get(digest)?.transcript?);
            Some((tenant, *digest, own))
        });
        let due: Vec<(TenantId, PluginDigest, Transcript)> = due.collect();
        recording.extend(due.iter().map(|(_, digest, _)| (*digest, now + RECORD_AGAIN)));
        due
    }

    /// Whether this node can run a plugin that the catalog names.
    pub(crate) fn state(&self, digest: &PluginDigest) -> PluginState {
        let table = self.table();
        match table.refused.get(digest) {
            _ if table.ready.contains_key(digest) => PluginState::Ready,
            Some(refused) if refused.differs.is_some() => PluginState::Differs(cut(&refused.reason)),
            Some(refused) => PluginState::Refused(cut(&refused.reason)),
            None if table.compiling.contains(digest) => PluginState::Compiling,
            None if table.shelved.contains(digest) => PluginState::Stored,
            None if table.removed.contains(digest) => PluginState::Removed,
            None => PluginState::Missing,
        }
    }

    /// Begins to load a plugin that is on the disk only.
    pub(crate) fn prepare(&self, digest: &PluginDigest) {
        drop(self.find(digest));
    }

    /// The plugins that this node does not run, since it computes otherwise than others, with the reasons.
    pub(crate) fn differing(&self) -> Vec<(PluginDigest, String)> {
        let table = self.table();
        let differing = table.refused.iter().filter(|(_, refused)| refused.differs.is_some());
        differing.map(|(digest, refused)| (*digest, refused.reason.clone())).collect()
    }

    /// Whether the catalog names the plugin and its module is no longer kept.
    pub(crate) fn is_removed(&self, digest: &PluginDigest) -> bool {
        self.table().removed.contains(digest)
    }

    fn remove_surplus(&self) {
        loop {
            let mut table = self.table();
            let Some(digest) = table.to_remove.pop_first() else { return };
            // Under the lock, so that a push of the same module stores it afterwards.
            self.remove_module(&digest);
        }
    }

    fn remove_module(&self, digest: &PluginDigest) {
        if let Err(error) = self.0.modules.remove(digest) {
            tracing::warn!(%digest, %error, "an unused plugin could not be removed from the disk");
        }
    }

    /// Removes the modules that are no longer kept, and compiles the wanted plugins that are on the disk and should be
    /// in memory.
    pub(crate) async fn load(&self) {
        self.remove_surplus();
        for digest in self.missing() {
            let Some(_claim) = self.begin(digest) else { continue };
            match self.0.modules.get(&digest) {
                Ok(Some(bytes)) if digest_of(&bytes) == digest => {
                    if self.table().shelve(&digest) {
                        continue;
                    }
                    // The table has the reason too, for merges that need the plugin.
                    if let Err(rejection) = self.compile(self.share_of(&digest), bytes).await {
                        tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                    }
                }
                Ok(Some(_)) => {
                    tracing::error!(%digest, "a stored plugin does not have its digest: it is fetched again")
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%digest, %error, "a stored plugin cannot be read: it is fetched again"),
            }
        }
    }

    /// Claims a missing plugin for compiling, unless another task has.
    fn begin(&self, digest: PluginDigest) -> Option<CompileClaim<'_>> {
        let mut table = self.table();
        let free = table.lacks(&digest) && table.compiling.insert(digest);
        // Made only if it is free: dropping a claim releases the digest.
        free.then(|| CompileClaim(self, digest))
    }

    /// The plugins that the catalog names and this node does not have, in the order in which they are loaded.
    pub(crate) fn missing(&self) -> Vec<PluginDigest> {
        let table = self.table();
        let missing = table.wanted.iter().filter(|digest| table.lacks(digest));
        let share = |digest| table.named.get(digest).map_or_else(TenantShare::default, |named| named.share);
        interleaved(missing.map(|digest| (*digest, share(digest))))
    }

    /// The missing plugins that peers should be asked for: those that are not being compiled.
    pub(crate) fn to_fetch(&self) -> Vec<PluginDigest> {
        let table = self.table();
        table.wanted.iter().filter(|digest| table.lacks(digest) && !table.compiling.contains(digest)).copied().collect()
    }

    /// A module's bytes, for a peer or a client that asks.
    pub(crate) fn bytes(&self, digest: &PluginDigest) -> Option<Bytes> {
        self.0.modules.get(digest).ok().flatten().filter(|bytes| digest_of(bytes) == *digest)
    }

    /// Handles a module that a peer has sent: compiles and stores it if it is wanted.
    pub(crate) async fn fetched(&self, digest: PluginDigest, bytes: Bytes) {
        if digest_of(&bytes) != digest {
            return tracing::error!(%digest, "a peer has sent a module with another digest than was asked for");
        }
        if !self.table().wanted.contains(&digest) {
            return;
        }
        let Some(_claim) = self.begin(digest) else { return };
        self.take(digest, bytes).await;
    }

    async fn take(&self, digest: PluginDigest, bytes: Bytes) {
        match self.compile(self.share_of(&digest), bytes.clone()).await {
            Ok(plugin) => match self.keep(&plugin, &bytes) {
                Ok(()) => tracing::info!(%digest, "plugin fetched"),
                Err(error) => tracing::error!(%digest, error, "a fetched plugin could not be stored"),
            },
            Err(rejection) => tracing::error!(%digest, %rejection, "a fetched plugin was refused"),
        }
    }

    /// Compiles a component of a tenant, which the catalog need not name yet.
    pub(crate) async fn push(&self, share: TenantShare, bytes: Bytes) -> Result<Pushed<'_>, Rejection> {
        let plugin = self.compile(share, bytes).await?;
        self.table().note_push(plugin.digest());
        let transcript = self.transcript_of(&plugin);
        Ok(Pushed { service: self, plugin, transcript })
    }

    /// On whose share a plugin is compiled that this node has to have: of the tenant that has pushed it last.
    fn share_of(&self, digest: &PluginDigest) -> TenantShare {
        self.table().named.get(digest).map_or_else(TenantShare::default, |named| named.share)
    }

    /// Compiles a component of a tenant within the limits, and compares its transcript. Dropping the future cancels it.
    async fn compile(&self, share: TenantShare, bytes: Bytes) -> Result<Plugin, Rejection> {
        let (done, compiled) = oneshot::channel();
        let digest = digest_of(&bytes);
        let Engine { queue, limits, .. } = &self.0.engine;
        let result = match queue.compile(share, bytes, *limits, move |result| drop(done.send(result))) {
            Ok(_pending) => {
                compiled.await.unwrap_or_else(|_| Err(Rejection::NotTried { reason: "the node is stopping".into() }))
            }
            Err(rejection) => Err(rejection),
        };
        let mut table = self.table();
        let result = match result {
            Ok(plugin) => {
                let own = self.transcript_of(&plugin);
                table.admit(&self.0.engine.node, plugin, own)
            }
            Err(rejection) => {
                table.refuse(digest, &rejection);
                Err(rejection)
            }
        };
        drop(table);
        self.0.decided.notify_waiters();
        result
    }

    /// Stores the module of a compiled plugin durably.
    pub(crate) fn keep(&self, plugin: &Plugin, bytes: &[u8]) -> Result<(), String> {
        self.0.modules.put(&plugin.digest(), bytes).map_err(|error| error.to_string())
    }

    /// How many compiled plugins are in memory.
    pub(crate) fn ready(&self) -> usize {
        self.table().ready.len()
    }

    /// The plugin, or why it cannot be used. `None`: it is being fetched or loaded. A plugin that is on the disk only
    /// begins to load.
    pub(crate) fn find(&self, digest: &PluginDigest) -> Option<Result<Plugin, PluginError>> {
        let mut table = self.table();
        if table.shelved.remove(digest) {
            let (service, digest) = (self.clone(), *digest);
            self.0.runtime.spawn(async move { service.unshelve(digest).await });
            return None;
        }
        let unusable = |why: String| PluginError::Unusable { plugin: *digest, why };
        let refused = || table.refused.get(digest).map(|refused| Err(unusable(refused.reason.clone())));
        table.ready.get(digest).map(|ready| Ok(ready.plugin.clone())).or_else(refused)
    }

    async fn unshelve(&self, digest: PluginDigest) {
        let Some(_claim) = self.begin(digest) else { return };
        match self.0.modules.get(&digest) {
            Ok(Some(bytes)) if digest_of(&bytes) == digest => {
                if let Err(rejection) = self.compile(self.share_of(&digest), bytes).await {
                    tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                }
            }
            // It is no longer in `shelved`, so it counts as missing.
            other => tracing::error!(%digest, ?other, "a stored plugin cannot be read: it is fetched again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law_checks::LawChecks;
    use crate::sentinel::Sentinel;
    use rejoin_merge::{CompileQueue, Compiler, Host, HostConfig, Memo, ModuleLimits};
    use rejoin_proto::{ClusterId, NodeId};
    use rejoin_store::{DataDir, Identity};

    fn module(number: u64) -> Bytes {
        format!("module {number}").into()
    }

    fn digest(number: u64) -> PluginDigest {
        digest_of(&module(number))
    }

    /// A catalog of so many plugins, the oldest first.
    fn named(count: u64) -> BTreeMap<PluginDigest, NamedPlugin> {
        let plugin = |number| NamedPlugin {
            stamp: Hlc(number),
            share: TenantShare::default(),
            recorded: None,
            unrecorded: None,
        };
        (0..count).map(|number| (digest(number), plugin(number))).collect()
    }

    fn service(data: &DataDir) -> PluginService {
        let host = Host::new(HostConfig { instances: 1, ..HostConfig::default() }).expect("a host");
        let queue = CompileQueue::inline(host.clone(), Compiler::InProcess, None);
        let engine = Engine {
            pool: Pool::inline(host, Memo::new(0)),
            queue,
            limits: ModuleLimits::default(),
            laws: LawChecks::new(None, BTreeSet::new()),
            sentinel: Sentinel::new(0, 0),
            node: Name::new("n1").expect("a name"),
        };
        PluginService::new(engine, data.modules(), Clock::system(), Arc::new(Metrics::new()), Faults::default())
    }

    fn stored(data: &DataDir) -> BTreeSet<PluginDigest> {
        data.modules().list().expect("the directory is there").into_iter().collect()
    }

    #[tokio::test]
    async fn of_the_modules_that_no_bucket_uses_the_last_ones_pushed_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 1 };
        let (data, _) = DataDir::open(dir.path(), identity).expect("a new directory");
        let (count, bound) = (100, MAX_UNUSED_MODULES as u64);
        for number in 0..count {
            data.modules().put(&digest(number), &module(number)).expect("there is room");
        }
        let service = service(&data);
        service.want(named(count), BTreeSet::from([digest(3)]), BTreeSet::new());
        service.load().await;
        let last = (count - bound..count).map(digest);
        assert_eq!(stored(&data), last.chain([digest(3)]).collect(), "the one that a bucket uses, and the last ones");
        assert!(service.is_removed(&digest(0)) && !service.is_removed(&digest(3)) && !service.is_removed(&digest(99)));
        assert!(!service.missing().contains(&digest(0)), "it is not fetched again");

        // Pushed again, it is kept, and another goes, although its time in the catalog is the old one.
        service.table().note_push(digest(0));
        data.modules().put(&digest(0), &module(0)).expect("there is room");
        service.load().await;
        assert!(stored(&data).contains(&digest(0)) && !stored(&data).contains(&digest(count - bound)));
        service.want(named(count), BTreeSet::from([digest(0), digest(3)]), BTreeSet::new());
        assert!(service.missing().contains(&digest(count - bound)), "there is room for it: peers are asked");
    }

    #[test]
    fn a_tenant_with_many_plugins_to_load_does_not_hold_another_one_up() {
        let share = |tenant| TenantShare { tenant, weight: 1 };
        let many = (0..50).map(|number| (digest(number), share(1)));
        let order = interleaved(many.chain([(digest(100), share(2)), (digest(101), share(2))]));
        let place = |number| order.iter().position(|known| *known == digest(number)).expect("it is there");
        assert_eq!(order.len(), 52);
        assert!(place(100) < 2 && place(101) < 4, "{} and {}", place(100), place(101));
    }

    #[test]
    fn the_pushes_that_are_noted_are_bounded() {
        let mut table = PluginTable::default();
        for number in 0..1_000 {
            table.note_push(digest(number));
        }
        assert_eq!(table.pushed.len(), MAX_UNUSED_MODULES);
        assert!(table.pushed.contains_key(&digest(999)) && !table.pushed.contains_key(&digest(0)));
    }
}
