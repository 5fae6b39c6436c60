//! Merges without fuel and without a deadline, to measure what these cost: for `plugin bench`.
//!
//! It is no [`Host`](crate::Host) and gives no [`Plugin`](crate::Plugin), so nothing that runs merges for others can
//! take it by mistake.

use bytes::Bytes;
use wasmtime::component::Linker;

use crate::artefact;
use crate::bindings::merge::MergePre;
use crate::call::{self, CallState, Sibling};
use crate::compile::{Compiled, load_error};
use crate::fault::MergeFault;
use crate::host::HostConfig;
use crate::law_check::LoadError;
use crate::limits::{CallLimits, ModuleLimits};
use crate::profile;
use crate::scan::no_merger;

/// A component on an engine of its own that is like the host's, but has neither fuel nor epochs.
///
/// Nothing ends a merge that does not end by itself: give it only siblings that a [`Host`](crate::Host) has merged.
pub struct Unmetered {
    merge: MergePre<CallState>,
}

impl std::fmt::Debug for Unmetered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unmetered").finish_non_exhaustive()
    }
}

impl Unmetered {
    /// Compiles a component in this process, without limits of memory and time: it must have been compiled within them
    /// before.
    ///
    /// # Errors
    /// [`LoadError`] if the component is no plugin, or the engine cannot be started.
    pub fn compile(component: &[u8], modules: &ModuleLimits) -> Result<Self, LoadError> {
        let engine = profile::unmetered_engine(&HostConfig { instances: 1, ..HostConfig::default() })?;
        let compiled = Compiled::new(&engine, component, modules)?;
        let loaded = artefact::load(&engine, &compiled).map_err(|error| load_error(&error))?;
        let pre = Linker::new(&engine).instantiate_pre(&loaded).map_err(|error| load_error(&error))?;
        let merge = MergePre::new(pre).map_err(|_| no_merger(&compiled.exports))?;
        Ok(Self { merge })
    }

    /// Merges siblings as [`Host::merge`](crate::Host::merge) does, in a fresh instance with the same limits but those
    /// of fuel and time.
    ///
    /// # Errors
    /// A [`MergeFault`].
    pub fn merge(&self, key: &[u8], siblings: &[Sibling], limits: &CallLimits) -> Result<Bytes, MergeFault> {
        let lent = call::lend_all(siblings);
        let answer = call::unmetered(self.merge.engine(), limits, |store| {
            self.merge.instantiate(&mut *store)?.rejoin_plugin_merger().call_merge(store, key, &lent)
        })?;
        call::value_of(answer, limits)
    }
}
