//! Compiles components to machine code, within limits of memory and time.
//!
//! Compiling is the most expensive work that untrusted bytes can cause. A node compiles in a child process
//! ([`ChildCompiler`]) that limits its own memory and processor time before it reads the first byte, and kills it when
//! it takes too long or is no longer needed. The process is the node's own program with another verb; [`child_main`] is
//! its `main`. The node only reads a bounded answer from a pipe. [`Compiler::InProcess`] compiles in this process, for
//! trusted components such as those of tests.
//!
//! Reading order: `child` is the process, `parent` runs it, `wire` is their protocol, `queue` has the threads that wait
//! for it, `cache` stores the machine code.

mod cache;
pub(crate) mod child;
pub(crate) mod parent;
mod queue;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::Engine;

use rejoin_proto::PluginDigest;

use crate::escape::escape_untrusted;
use crate::fault::Rejection;
use crate::host::Host;
use crate::limits::{CompileLimits, ModuleLimits};
use crate::plugin::digest_of;
use crate::resources::is_out_of_resources;
use crate::scan::scan;

pub use cache::{ArtefactCache, CacheError};
pub use child::{CHILD_VERB, child_main, is_child};
pub use queue::{CompileQueue, PendingCompile, QueueConfig};

/// Where a component is compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compiler {
    /// In this process, without limits of memory and time: for trusted components.
    InProcess,
    /// In a child process, with limits.
    Child(ChildCompiler),
}

impl Compiler {
    /// Compiles a component for a host, without loading it.
    ///
    /// # Errors
    /// A [`Rejection`], also if the compilation was cancelled.
    pub fn compile(
        &self,
        host: &Host,
        bytes: &[u8],
        limits: &ModuleLimits,
        cancel: &CancelToken,
    ) -> Result<Compiled, Rejection> {
        match self {
            Self::InProcess => Compiled::new(host.engine(), bytes, limits),
            Self::Child(child) => child.compile(bytes, limits, cancel),
        }
    }
}

/// A program that compiles when it is started with [`CHILD_VERB`], and its limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildCompiler {
    /// The program, whose `main` calls [`child_main`]. By default the running program, even after its file has been
    /// replaced.
    pub program: PathBuf,
    /// The limits of compiling one component.
    pub limits: CompileLimits,
}

impl Default for ChildCompiler {
    fn default() -> Self {
        Self { program: child::SELF.into(), limits: CompileLimits::default() }
    }
}

impl ChildCompiler {
    /// The running program, with the limits for components of up to `bytes`.
    #[must_use]
    pub fn for_bytes(bytes: usize) -> Self {
        Self { limits: CompileLimits::for_bytes(bytes), ..Self::default() }
    }
}

/// A component in machine code, with the names of its exports. Only this module makes one, from its own compiler or its
/// own cache, because the engine runs the code unchecked.
#[derive(Clone)]
pub struct Compiled {
    pub(crate) digest: PluginDigest,
    pub(crate) exports: Vec<String>,
    pub(crate) artefact: Vec<u8>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &self.digest)
            .field("bytes", &self.artefact.len())
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// Scans a component and compiles it in this process.
    pub(crate) fn new(engine: &Engine, bytes: &[u8], limits: &ModuleLimits) -> Result<Self, Rejection> {
        let scan = scan(bytes, limits)?;
        let artefact = engine.precompile_component(bytes).map_err(|error| compile_error(&error))?;
        Ok(Self { digest: digest_of(bytes), exports: scan.exports, artefact })
    }
}

fn compile_error(error: &wasmtime::Error) -> Rejection {
    Rejection::Uncompilable { reason: escape_untrusted(&format!("{error:#}")) }
}

/// The error of loading machine code. It says nothing about the component if the machine lacks a resource.
pub(crate) fn load_error(error: &wasmtime::Error) -> Rejection {
    if is_out_of_resources(error) {
        Rejection::NotTried { reason: escape_untrusted(&format!("{error:#}")) }
    } else {
        compile_error(error)
    }
}

/// Cancels a compilation from any thread that has a clone.
#[derive(Clone, Default, Debug)]
pub struct CancelToken(Arc<Mutex<CancelState>>);

#[derive(Default)]
struct CancelState {
    cancelled: bool,
    wake: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for CancelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelState").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

impl CancelToken {
    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels: a compilation that has not begun does not begin, and a running process is killed.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        if let Some(wake) = state.wake.take() {
            wake();
        }
    }

    /// Whether the compilation was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Calls that on cancellation. `false`: it is already cancelled.
    pub(crate) fn watch(&self, wake: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.lock();
        state.wake = Some(Box::new(wake));
        !state.cancelled
    }
}
