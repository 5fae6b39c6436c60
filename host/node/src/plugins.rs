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
use rejoin_merge::{Plugin, Pool, Rejection, TenantShare, digest_of};
use rejoin_proto::catalog::{RecordBody, Transcript};
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{PluginDigest, ProfileId, TenantId};
use rejoin_store::Modules;

use crate::clock::Clock;
use crate::conflicts::ConflictInbox;
use crate::engine::Engine;
use crate::failure_log::FailureLog;
use crate::faults::{Faults, SeemingEngine};
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::plugin_figures::PluginFigures;
use crate::plugin_table::{NamedPlugin, PluginTable, interleaved};
use crate::shadowing::Shadows;
use crate::transcripts::{cut, recorded};

/// The pause before a transcript is recorded again that the catalog still lacks.
const RECORD_AGAIN: Duration = Duration::from_secs(60);
/// The pause before a plugin on the disk is loaded again because somebody asks about it.
const PREPARE_AGAIN: Duration = Duration::from_secs(10);

/// The plugins of a node, and the service by which shards run them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PluginService(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    modules: Modules,
    /// Locked, before the table if both are, while modules are stored or removed: so a push of a module that is being
    /// removed stores it afterwards. Never on a loop.
    files: Mutex<()>,
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

/// Marks a plugin as being compiled until it is dropped, so that it is compiled once at a time.
struct CompileClaim<'a>(&'a PluginService, PluginDigest);

impl Drop for CompileClaim<'_> {
    fn drop(&mut self) {
        self.0.table().compiling.remove(&self.1);
    }
}

/// A plugin that was pushed and compiled. It is ready before the catalog names it, so that no merge has to wait. When
/// this is dropped and the catalog does not name it by then, the plugin is forgotten.
pub(crate) struct Pushed {
    claim: Arc<PushClaim>,
    plugin: Plugin,
    transcript: Option<Transcript>,
}

impl Pushed {
    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Stores its module durably.
    pub(crate) async fn keep(&self, bytes: Bytes) -> Result<(), String> {
        self.claim.service.keep(self.plugin.digest(), bytes, Some(self.claim.clone())).await
    }

    /// What its record says of how it answers.
    pub(crate) fn transcript(&self) -> Option<Transcript> {
        self.transcript
    }
}

/// Marks a plugin as being pushed until the last clone is dropped. Whatever stores its module has one, so that the
/// module does not come to be stored once the push was forgotten.
struct PushClaim {
    service: PluginService,
    digest: PluginDigest,
}

impl Drop for PushClaim {
    fn drop(&mut self) {
        let mut table = self.service.table();
        let digest = self.digest;
        let others = table.pushing.get(&digest).map_or(0, |pushes| pushes.saturating_sub(1));
        if others > 0 {
            table.pushing.insert(digest, others);
            return;
        }
        table.pushing.remove(&digest);
        if !table.wanted.contains(&digest) {
            table.ready.remove(&digest);
            table.to_remove.insert(digest);
        }
    }
}

impl PluginService {
    pub(crate) fn new(engine: Engine, modules: Modules, clock: Clock, metrics: Arc<Metrics>, faults: Faults) -> Self {
        Self(Arc::new(Inner {
            engine,
            modules,
            files: Mutex::default(),
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
        table.note_cleared(&named);
        (table.named, table.active, table.deleted) = (named, active, deleted);
        table.to_remove.extend(gone);
        table.update_wanted();
        let differing = table.compare(&self.0.engine.node);
        drop(table);
        for (digest, rejection) in differing {
            self.0.engine.queue.forget_transcript(&digest);
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

    /// Begins to load a plugin that is on the disk only, unless that was begun for the same reason a moment ago:
    /// whoever asks about many plugins in turn does not have each loaded each time.
    pub(crate) fn prepare(&self, digest: &PluginDigest) {
        let now = Instant::now();
        let is_due = {
            let mut table = self.table();
            table.prepared.retain(|_, again| now < *again);
            let is_due = table.shelved.contains(digest) && !table.prepared.contains_key(digest);
            if is_due {
                table.prepared.insert(*digest, now + PREPARE_AGAIN);
            }
            is_due
        };
        if is_due {
            drop(self.find(digest));
        }
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

    async fn remove_surplus(&self) {
        if self.table().to_remove.is_empty() {
            return;
        }
        let this = self.clone();
        let remove = move || {
            let _files = lock(&this.0.files);
            loop {
                let next = this.table().to_remove.pop_first();
                let Some(digest) = next else { return };
                if let Err(error) = this.0.modules.remove(&digest) {
                    tracing::warn!(%digest, %error, "an unused plugin could not be removed from the disk");
                }
            }
        };
        self.0.engine.aside.run(remove).await;
    }

    /// The stored module with that digest. `None`: none is stored.
    ///
    /// # Errors
    /// The disk refuses, or the module is damaged.
    async fn read(&self, digest: PluginDigest) -> Result<Option<Bytes>, String> {
        let modules = self.0.modules.clone();
        let read = move || match modules.get(&digest) {
            Ok(Some(bytes)) if digest_of(&bytes) != digest => Err("it does not have its digest".to_owned()),
            read => read.map_err(|error| error.to_string()),
        };
        self.0.engine.aside.run(read).await
    }

    /// Removes the modules that are no longer kept, and compiles the wanted plugins that are on the disk and should be
    /// in memory.
    pub(crate) async fn load(&self) {
        self.remove_surplus().await;
        for digest in self.missing() {
            let Some(_claim) = self.begin(digest) else { continue };
            match self.read(digest).await {
                Ok(Some(bytes)) => {
                    if self.table().shelve(&digest) {
                        continue;
                    }
                    // The table has the reason too, for merges that need the plugin.
                    if let Err(rejection) = self.compile(self.share_of(&digest), digest, bytes).await {
                        tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                    }
                }
                Ok(None) => {}
                Err(why) => tracing::error!(%digest, why, "a stored plugin cannot be read: it is fetched again"),
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
    pub(crate) async fn bytes(&self, digest: &PluginDigest) -> Option<Bytes> {
        self.read(*digest).await.ok().flatten()
    }

    /// Handles a module that a peer has sent: compiles and stores it if it is wanted.
    pub(crate) async fn fetched(&self, digest: PluginDigest, bytes: Bytes) {
        if !self.table().wanted.contains(&digest) {
            return;
        }
        let sent = bytes.clone();
        if self.0.engine.aside.run(move || digest_of(&sent)).await != digest {
            return tracing::error!(%digest, "a peer has sent a module with another digest than was asked for");
        }
        let Some(_claim) = self.begin(digest) else { return };
        self.take(digest, bytes).await;
    }

    async fn take(&self, digest: PluginDigest, bytes: Bytes) {
        match self.compile(self.share_of(&digest), digest, bytes.clone()).await {
            Ok(_) => match self.keep(digest, bytes, None).await {
                Ok(()) => tracing::info!(%digest, "plugin fetched"),
                Err(error) => tracing::error!(%digest, error, "a fetched plugin could not be stored"),
            },
            Err(rejection) => tracing::error!(%digest, %rejection, "a fetched plugin was refused"),
        }
    }

    /// Compiles a component of a tenant, which the catalog need not name yet. One that has no transcript is refused.
    pub(crate) async fn push(
        &self,
        share: TenantShare,
        digest: PluginDigest,
        bytes: Bytes,
    ) -> Result<Pushed, Rejection> {
        let plugin = self.compile(share, digest, bytes).await?;
        self.table().note_push(digest);
        let claim = Arc::new(PushClaim { service: self.clone(), digest });
        match self.transcript_of(&plugin) {
            Some(transcript) => Ok(Pushed { claim, plugin, transcript: Some(transcript) }),
            None => Err(Rejection::OverflowsStack),
        }
    }

    /// On whose share a plugin is compiled that this node has to have: of the tenant that has pushed it last.
    fn share_of(&self, digest: &PluginDigest) -> TenantShare {
        self.table().named.get(digest).map_or_else(TenantShare::default, |named| named.share)
    }

    /// Compiles a component of a tenant within the limits, and compares its transcript. Dropping the future cancels it.
    async fn compile(&self, share: TenantShare, digest: PluginDigest, bytes: Bytes) -> Result<Plugin, Rejection> {
        let (done, compiled) = oneshot::channel();
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
        if matches!(&result, Err(Rejection::Differs { .. })) {
            // It is run again when it is tried again.
            self.0.engine.queue.forget_transcript(&digest);
        }
        self.0.decided.notify_waiters();
        result
    }

    /// Stores the module of a compiled plugin durably.
    async fn keep(&self, digest: PluginDigest, bytes: Bytes, claim: Option<Arc<PushClaim>>) -> Result<(), String> {
        let this = self.clone();
        let put = move || {
            // Dropped last: that locks the table.
            let _claim = claim;
            let _files = lock(&this.0.files);
            let put = this.0.modules.put(&digest, &bytes).map_err(|error| error.to_string());
            let mut table = this.table();
            if !table.keeps(&digest) {
                table.to_remove.insert(digest);
            }
            put
        };
        self.0.engine.aside.run(put).await
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
        match self.read(digest).await {
            Ok(Some(bytes)) => {
                if let Err(rejection) = self.compile(self.share_of(&digest), digest, bytes).await {
                    tracing::error!(%digest, %rejection, "a stored plugin cannot be used");
                }
            }
            // It is no longer in `shelved`, so it counts as missing.
            gone => tracing::error!(%digest, why = ?gone.err(), "a stored plugin cannot be read: it is fetched again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aside::Aside;
    use crate::law_checks::LawChecks;
    use crate::platform::Threads;
    use crate::plugin_table::MAX_UNUSED_MODULES;
    use crate::sentinel::Sentinel;
    use rejoin_merge::{CompileQueue, Compiler, Host, HostConfig, Memo, ModuleLimits};
    use rejoin_proto::{ClusterId, Hlc, Name, NodeId};
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
            aside: Aside::new(Threads::Own),
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

    #[tokio::test]
    async fn who_asks_about_a_plugin_again_and_again_has_it_loaded_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 1 };
        let (data, _) = DataDir::open(dir.path(), identity).expect("a new directory");
        let service = service(&data);
        let shelve = |number| service.table().shelved.insert(digest(number));
        assert!(shelve(1) && shelve(2));
        service.prepare(&digest(1));
        assert!(shelve(1), "it is being loaded");
        service.prepare(&digest(1));
        service.prepare(&digest(2));
        assert!(!shelve(1) && shelve(2), "only another one is loaded at once");
    }

    #[tokio::test]
    async fn the_module_of_a_push_that_came_to_nothing_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 1 };
        let (data, _) = DataDir::open(dir.path(), identity).expect("a new directory");
        let service = service(&data);
        service.table().note_push(digest(1));
        let claim = Arc::new(PushClaim { service: service.clone(), digest: digest(1) });
        service.keep(digest(1), module(1), Some(claim.clone())).await.expect("there is room");
        service.load().await;
        assert_eq!(stored(&data), BTreeSet::from([digest(1)]), "the push goes on");
        drop(claim);
        service.want(named(1), BTreeSet::new(), BTreeSet::new());
        service.load().await;
        assert_eq!(stored(&data), BTreeSet::new());
        // Fetched, and not wanted any more when it came.
        service.keep(digest(1), module(1), None).await.expect("there is room");
        service.load().await;
        assert_eq!(stored(&data), BTreeSet::new());
    }
}
