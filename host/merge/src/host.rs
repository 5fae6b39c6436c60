//! The host: the engine, and loading components into it. `call` has the calls.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{InstancePre, Linker};

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

/// The room for instances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// The most instances at once; a call above it fails with [`MergeFault::Busy`](crate::MergeFault::Busy). Each
    /// reserves about 4 GiB of address space, not memory.
    pub instances: u32,
    /// The most bytes of linear memory of an instance. [`CallLimits::memory_bytes`] only counts below this.
    pub max_memory_bytes: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { instances: 32, max_memory_bytes: 256 << 20 }
    }
}

/// Loads and runs plugins. Cloning is cheap; all clones share one engine.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    /// Always empty: plugins have no imports.
    linker: Arc<Linker<CallState>>,
    profile: ProfileId,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts the engine and the thread of its epoch clock.
    ///
    /// # Errors
    /// [`HostError`] if the engine cannot reserve its address space or the thread cannot be started.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let engine = profile::engine(&config)?;
        epoch::start(&engine)?;
        Ok(Self { linker: Arc::new(Linker::new(&engine)), engine, profile: profile::profile_id() })
    }

    /// The id of everything that results depend on besides the plugin and its inputs: engine, configuration, fuel
    /// table, architecture.
    #[must_use]
    pub fn profile(&self) -> ProfileId {
        self.profile
    }

    /// Compiles and loads a component in this process and on this thread, without limits of memory and time: for
    /// trusted components and tests. A node uses a [`CompileQueue`](crate::CompileQueue), which compiles in a child
    /// process.
    ///
    /// # Errors
    /// A [`Rejection`].
    pub fn compile(&self, bytes: &[u8], limits: &ModuleLimits) -> Result<Plugin, Rejection> {
        self.load(&Compiled::new(&self.engine, bytes, limits)?)
    }

    /// Loads a compiled component, in milliseconds: finds its interfaces, instantiates it and reads its metadata.
    ///
    /// # Errors
    /// A [`Rejection`].
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

    /// A compiled component that can be instantiated, whatever it exports.
    pub(crate) fn prepare(&self, compiled: &Compiled) -> wasmtime::Result<InstancePre<CallState>> {
        self.linker.instantiate_pre(&artefact::load(&self.engine, compiled)?)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Reads a plugin's metadata, under limits of its own.
fn read_metadata(inner: &Inner) -> Result<Option<PluginMetadata>, Rejection> {
    let Some(describe) = &inner.describe else { return Ok(None) };
    let limits = CallLimits::for_loading();
    let bad = |reason: String| Rejection::BadMetadata { reason };
    let (metadata, _): (about::Card, u64) = call::run(describe.engine(), &limits, |store| {
        describe.instantiate(&mut *store)?.rejoin_plugin_about().call_describe(store)
    })
    .map_err(|fault| bad(fault.to_string()))?;
    PluginMetadata::check(metadata).map(Some).map_err(bad)
}
