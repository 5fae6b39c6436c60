//! Compiling, which is the most expensive thing that a stranger's bytes can ask for.
//!
//! A node lets a child process do it ([`ChildCompiler`]), with limits of memory and processor time that are set before
//! it reads the first byte, and kills it when it takes too long or when nobody waits any more. The process is the
//! program itself, started with a verb of its own: [`child_main`] is what it then runs. Whatever happens to it, the
//! node only reads an answer from a pipe.
//!
//! [`Compiler::InProcess`] compiles in this process and is for components that are trusted, such as those of tests.
//!
//! In reading order: `child` is what the process does, `parent` how it is run, `wire` what they say to each other,
//! [`queue`] the threads that wait for it, and `cache` keeps what came of it.

mod cache;
mod child;
mod parent;
mod queue;
mod wire;

use std::path::PathBuf;
use std::sync::mpsc::Sender;
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

/// Where components are compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compiler {
    /// In this process, without limits of memory and time: for components that are trusted.
    InProcess,
    /// In a process of its own.
    Child(ChildCompiler),
}

impl Compiler {
    /// Compiles a component for a host, without loading it.
    ///
    /// # Errors
    /// A [`Rejection`], also if the compilation was cancelled.
    pub fn compile(&self, host: &Host, bytes: &[u8], limits: &ModuleLimits, cancel: &CancelToken) -> Result<Compiled, Rejection> {
        match self {
            Self::InProcess => Compiled::new(host.engine(), bytes, limits),
            Self::Child(child) => child.compile(bytes, limits, cancel),
        }
    }
}

/// A program that compiles when it is started with [`CHILD_VERB`], and what it may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildCompiler {
    /// The program; its `main` calls [`child_main`]. By default this very program, also after its file has been
    /// replaced.
    pub program: PathBuf,
    /// What compiling one component may take.
    pub limits: CompileLimits,
}

impl Default for ChildCompiler {
    fn default() -> Self {
        Self { program: child::SELF.into(), limits: CompileLimits::default() }
    }
}

/// A component in machine code, with what was found in it. Only this module makes one, of what it compiled or of what
/// it wrote to its own cache: the engine runs the code as it is.
#[derive(Clone)]
pub struct Compiled {
    pub(crate) digest: PluginDigest,
    pub(crate) exports: Vec<String>,
    pub(crate) artefact: Vec<u8>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("digest", &self.digest).field("bytes", &self.artefact.len()).finish_non_exhaustive()
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

/// Why machine code cannot be loaded: the component is to blame only if the machine is not.
pub(crate) fn load_error(error: &wasmtime::Error) -> Rejection {
    if is_out_of_resources(error) { Rejection::NotTried { reason: escape_untrusted(&format!("{error:#}")) } } else { compile_error(error) }
}

/// A state that can be taken back, by whichever thread has a clone of it.
#[derive(Clone, Default, Debug)]
pub struct CancelToken(Arc<Mutex<CancelState>>);

#[derive(Default, Debug)]
struct CancelState {
    cancelled: bool,
    wake: Option<Sender<parent::ChildEvent>>,
}

impl CancelToken {
    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the state back: what has not begun is not begun, and a process that works for it is killed.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        if let Some(wake) = state.wake.take() {
            // Whoever would be woken may have finished.
            let _ = wake.send(parent::ChildEvent::Cancelled);
        }
    }

    /// Whether it was taken back.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Has a thread told if the state is taken back. `false`: it was already.
    fn watch(&self, wake: Sender<parent::ChildEvent>) -> bool {
        let mut state = self.lock();
        state.wake = Some(wake);
        !state.cancelled
    }
}
