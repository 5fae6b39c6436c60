//! The host: compiles components into plugins. [`crate::call`] has the calls.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Linker;

use rejoin_proto::ProfileId;

use crate::artefact;
use crate::bindings::describe::exports::rejoin::plugin::about;
use crate::call::{self, CallState};
use crate::compile::{Compiled, load_error};
use crate::epoch;
use crate::escape::escape_untrusted;
use crate::fault::{HostError, Rejection};
use crate::limits::{CallLimits, ModuleLimits};
use crate::plugin::{Inner, Plugin, PluginMetadata};
use crate::profile;

/// How much room there is for instances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Instances that may live at once; a call beyond it answers *busy*. Each reserves about 4 GiB of address space
    /// (not memory).
    pub instances: u32,
    /// Bytes of linear memory an instance may ever have; [`CallLimits::memory_bytes`] can only be less.
    pub max_memory_bytes: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { instances: 32, max_memory_bytes: 256 << 20 }
    }
}

/// Compiles and runs plugins. Cloning is cheap; all clones share one engine.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    /// Empty, for ever: the place where imports would be.
    linker: Arc<Linker<CallState>>,
    profile: ProfileId,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts the engine and its clock thread.
    ///
    /// # Errors
    /// [`HostError`] if the engine cannot reserve its address space or the thread cannot be started.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let engine = profile::engine(&config)?;
        epoch::start(&engine)?;
        Ok(Self { linker: Arc::new(Linker::new(&engine)), engine, profile: profile::profile_id() })
    }

    /// What results depend on besides the plugin and its inputs. Equal on nodes that must agree.
    #[must_use]
    pub fn profile(&self) -> ProfileId {
        self.profile
    }

    /// Compiles a component in this process and on this thread, finds its abilities and asks it for its metadata.
    ///
    /// For components that are trusted, and for tests: what compiling takes is not bounded. A node lets a
    /// [`CompileQueue`](crate::compile::queue::CompileQueue) do it, which asks a child process.
    ///
    /// # Errors
    /// A [`Rejection`] that says what the module lacks or has too much of. It is never half accepted.
    pub fn compile(&self, bytes: &[u8], limits: &ModuleLimits) -> Result<Plugin, Rejection> {
        self.load(&Compiled::new(&self.engine, bytes, limits)?)
    }

    /// Makes a plugin of what was compiled, in milliseconds: finds its abilities and asks it for its metadata.
    ///
    /// # Errors
    /// A [`Rejection`] that says what the component lacks, or does wrong when it is started.
    pub fn load(&self, compiled: &Compiled) -> Result<Plugin, Rejection> {
        let component = artefact::load(&self.engine, compiled).map_err(|error| load_error(&error))?;
        if let Some((name, _)) = component.component_type().imports(&self.engine).next() {
            return Err(Rejection::Imports { name: escape_untrusted(name) });
        }
        let pre = self.linker.instantiate_pre(&component).map_err(|error| load_error(&error))?;
        let mut inner = Inner::new(compiled.digest, &pre, &compiled.exports)?;
        inner.try_all(&compiled.exports)?;
        inner.metadata = read_metadata(&inner)?;
        Ok(Plugin(Arc::new(inner)))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Asks a plugin for its metadata, under limits of its own.
fn read_metadata(inner: &Inner) -> Result<Option<PluginMetadata>, Rejection> {
    let Some(describe) = &inner.describe else { return Ok(None) };
    let limits = CallLimits::for_loading();
    let bad = |reason: String| Rejection::BadMetadata { reason };
    let (metadata, _): (about::Card, u64) =
        call::run(describe.engine(), &limits, |store| describe.instantiate(&mut *store)?.rejoin_plugin_about().call_describe(store))
            .map_err(|fault| bad(fault.to_string()))?;
    PluginMetadata::check(metadata).map(Some).map_err(bad)
}
