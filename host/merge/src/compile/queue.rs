//! The queue of components to compile, with threads of its own, so that compiling never delays a merge.
//!
//! It is fair between tenants: however many components one of them pushes, another one's waits for those that are being
//! compiled when it comes, and for no more than one of each tenant that has had less time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use rejoin_proto::PluginDigest;
use rejoin_proto::catalog::Transcript;

use super::{ArtefactCache, CancelToken, Compiler};
use crate::fault::{HostError, Rejection};
use crate::host::Host;
use crate::limits::ModuleLimits;
use crate::plugin::{Plugin, digest_of};
use crate::workers::{TenantShare, Whose, WorkerLimits, Workers};

/// All components of a tenant are in one group: they are of no bucket.
const ONE_GROUP: u64 = 0;
/// The most plugins whose transcripts are remembered: those loaded last.
const MAX_REMEMBERED: usize = 1_024;

/// The sizes of a [`CompileQueue`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueConfig {
    /// Components compiled at once, each by a process of its own; at least one.
    pub threads: usize,
    /// The most waiting components; at least one.
    pub queue: usize,
    /// The most waiting components of one tenant; at least one.
    pub tenant_queue: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { threads: 1, queue: 32, tenant_queue: 16 }
    }
}

/// Compiles components on threads of its own, or loads them from the cache. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct CompileQueue {
    host: Host,
    compiler: Compiler,
    cache: Option<ArtefactCache>,
    transcripts: Arc<Mutex<Remembered>>,
    /// `None` compiles on the caller: for simulations and tests, where threads would decide the order.
    workers: Option<Workers>,
}

/// The transcripts that this process has made, the last one used at the end. A plugin that overflows its stack has
/// none.
#[derive(Default, Debug)]
struct Remembered {
    plugins: VecDeque<(PluginDigest, Option<Transcript>)>,
    /// How many were made.
    made: u64,
}

impl Remembered {
    fn get(&mut self, digest: &PluginDigest) -> Option<Option<Transcript>> {
        let known = self.forget(digest)?;
        self.plugins.push_back((*digest, known));
        Some(known)
    }

    fn note(&mut self, digest: PluginDigest, made: Option<Transcript>) {
        self.forget(&digest);
        self.made += 1;
        self.plugins.push_back((digest, made));
        if self.plugins.len() > MAX_REMEMBERED {
            self.plugins.pop_front();
        }
    }

    fn forget(&mut self, digest: &PluginDigest) -> Option<Option<Transcript>> {
        let at = self.plugins.iter().position(|(known, _)| known == digest)?;
        self.plugins.remove(at).map(|(_, known)| known)
    }
}

/// A compilation that waits or runs. Dropping it cancels the compilation.
#[derive(Debug)]
#[must_use = "dropped, it is cancelled"]
pub struct PendingCompile(CancelToken);

impl Drop for PendingCompile {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl CompileQueue {
    /// Starts the threads. They end with the last clone.
    ///
    /// # Errors
    /// [`HostError::Thread`] if one cannot be started.
    pub fn new(
        host: Host,
        compiler: Compiler,
        cache: Option<ArtefactCache>,
        config: QueueConfig,
    ) -> Result<Self, HostError> {
        let limits = WorkerLimits {
            threads: config.threads,
            queue: config.queue,
            tenant_threads: config.threads.saturating_sub(1),
            tenant_queue: config.tenant_queue,
            group_threads: config.threads,
            group_queue: config.queue,
        };
        Ok(Self { workers: Some(Workers::new("compile", limits)?), ..Self::inline(host, compiler, cache) })
    }

    /// A queue without threads: compiles on the caller, and calls `done` before it returns.
    #[must_use]
    pub fn inline(host: Host, compiler: Compiler, cache: Option<ArtefactCache>) -> Self {
        Self { host, compiler, cache, transcripts: Arc::default(), workers: None }
    }

    /// Sets the plugins that buckets use: their machine code stays in the cache longest.
    pub fn keep_cached(&self, in_use: BTreeSet<PluginDigest>) {
        if let Some(cache) = &self.cache {
            cache.keep(in_use);
        }
    }

    /// Forgets the transcript that was made of a plugin, so that it is made again when the plugin is loaded again: it
    /// may be this machine that was unsound.
    pub fn forget_transcript(&self, digest: &PluginDigest) {
        self.remembered().forget(digest);
    }

    /// How many transcripts this process has made.
    #[must_use]
    pub fn transcripts_made(&self) -> u64 {
        self.remembered().made
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.transcripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles a component of a tenant, or takes it from the cache, loads it and makes its transcript. `done` is
    /// called exactly once, unless the queue is full.
    ///
    /// # Errors
    /// [`Rejection::NotTried`] if the queue or the tenant's share of it is full; `done` is then dropped uncalled.
    pub fn compile(
        &self,
        tenant: TenantShare,
        bytes: Bytes,
        limits: ModuleLimits,
        done: impl FnOnce(Result<Plugin, Rejection>) + Send + 'static,
    ) -> Result<PendingCompile, Rejection> {
        let cancel = CancelToken::default();
        let (this, running, queued) = (self.clone_without_threads(), cancel.clone(), cancel.clone());
        let work = move || this.work(&bytes, &limits, &running);
        let Some(workers) = &self.workers else {
            done(work());
            return Ok(PendingCompile(cancel));
        };
        let failed = |reason: String| Err(Rejection::NotTried { reason });
        let whose = Whose { tenant, group: ONE_GROUP };
        let submitted = workers.submit(whose, move || queued.is_cancelled(), work, failed, done);
        submitted.map_err(|full| {
            let reason = format!("{} components{} are waiting to be compiled already", full.limit, full.of);
            Rejection::NotTried { reason }
        })?;
        Ok(PendingCompile(cancel))
    }

    /// Jobs must not hold the threads alive that run them.
    fn clone_without_threads(&self) -> Self {
        Self { workers: None, ..self.clone() }
    }

    fn work(&self, bytes: &[u8], limits: &ModuleLimits, cancel: &CancelToken) -> Result<Plugin, Rejection> {
        let digest = digest_of(bytes);
        if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.get(&digest, limits)) {
            let plugin = self.host.load(&kept)?;
            // The same machine code as before: who has it loaded again and again does not have it run each time.
            let known = self.remembered().get(&digest);
            return match known {
                Some(transcript) => Ok(with_transcript(plugin, transcript)),
                None => self.transcribed(plugin),
            };
        }
        let compiled = self.compiler.compile(&self.host, bytes, limits, cancel)?;
        let plugin = self.host.load(&compiled)?;
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(&compiled, limits)) {
            tracing::warn!(%digest, %error, "a compiled plugin could not be kept");
        }
        self.transcribed(plugin)
    }

    /// The plugin with its transcript. It is made in each process anew, and whenever a plugin is compiled again or its
    /// transcript was forgotten. A job of this queue usually takes long enough for a thread of low priority.
    fn transcribed(&self, plugin: Plugin) -> Result<Plugin, Rejection> {
        let failed = |fault| Rejection::NotTried { reason: format!("its transcript could not be made: {fault}") };
        let transcript = self.host.transcript(&plugin).map_err(failed)?;
        self.remembered().note(plugin.digest(), transcript);
        Ok(with_transcript(plugin, transcript))
    }
}

fn with_transcript(plugin: Plugin, transcript: Option<Transcript>) -> Plugin {
    if let Some(transcript) = transcript {
        plugin.0.transcript.get_or_init(|| transcript);
    }
    plugin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transcripts_that_are_remembered_are_those_of_the_plugins_loaded_last() {
        let digest = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            PluginDigest(bytes)
        };
        let mut remembered = Remembered::default();
        for number in 0..MAX_REMEMBERED {
            remembered.note(digest(number), None);
        }
        assert_eq!(remembered.get(&digest(0)), Some(None), "it has none, and that is known");
        remembered.note(digest(MAX_REMEMBERED), None);
        assert_eq!(remembered.get(&digest(1)), None, "the one that was used least lately has gone");
        assert!(remembered.get(&digest(0)).is_some() && remembered.get(&digest(MAX_REMEMBERED)).is_some());
        remembered.note(digest(0), None);
        assert_eq!(remembered.plugins.len(), MAX_REMEMBERED, "it is there once");
        remembered.forget(&digest(0));
        assert_eq!(remembered.get(&digest(0)), None);
    }
}
