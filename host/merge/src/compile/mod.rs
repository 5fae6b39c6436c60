//! Compiling, which is the most expensive thing that a stranger's bytes can ask for.
//!
//! A node lets a child process do it ([`ChildCompiler`]), with limits of memory and processor time that are set before
//! it reads the first byte, and kills it when it takes too long or when nobody waits any more. The process is the
//! program itself, started with a verb of its own: [`child_main`] is what it then runs. Whatever happens to it, the
//! node only reads an answer from a pipe.
//!
//! [`Compiler::Here`] compiles in this process and is for components that are trusted, such as those of tests.
//!
//! In reading order: `child` is what the process does, `parent` how it is run, `wire` what they say to each other,
//! [`queue`] the threads that wait for it, and `cache` keeps what came of it.

mod cache;
mod child;
mod parent;
pub mod queue;
mod wire;

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::Engine;

use rejoin_proto::PluginDigest;

use crate::fault::Rejection;
use crate::legible::legible;
use crate::limits::{CompileLimits, ModuleLimits};
use crate::machine::is_of_the_machine;
use crate::plugin::digest_of;
use crate::scan::scan;

pub use cache::{ArtefactCache, CacheError};
pub use child::{CHILD_VERB, child_main, is_child};

/// Where components are compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compiler {
    /// In this process, without limits of memory and time: for components that are trusted.
    Here,
    /// In a process of its own.
    Child(ChildCompiler),
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

/// Scans and compiles in this process.
pub(crate) fn compile_on(engine: &Engine, bytes: &[u8], limits: &ModuleLimits) -> Result<Compiled, Rejection> {
    let scan = scan(bytes, limits)?;
    let artefact = engine.precompile_component(bytes).map_err(|error| uncompilable(&error))?;
    Ok(Compiled { digest: digest_of(bytes), exports: scan.exports, artefact })
}

fn uncompilable(error: &wasmtime::Error) -> Rejection {
    Rejection::Uncompilable { reason: legible(&format!("{error:#}")) }
}

/// Why machine code cannot be loaded: the component is to blame only if the machine is not.
pub(crate) fn unloadable(error: &wasmtime::Error) -> Rejection {
    if is_of_the_machine(error) { Rejection::NotTried { reason: legible(&format!("{error:#}")) } } else { uncompilable(error) }
}

/// A wish that can be taken back, by whichever thread has a clone of it.
#[derive(Clone, Default, Debug)]
pub struct Cancel(Arc<Mutex<Wish>>);

#[derive(Default, Debug)]
struct Wish {
    cancelled: bool,
    wake: Option<Sender<parent::Event>>,
}

impl Cancel {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the wish back: what has not begun is not begun, and a process that works for it is killed.
    pub fn cancel(&self) {
        let mut wish = self.lock();
        wish.cancelled = true;
        if let Some(wake) = wish.wake.take() {
            // Whoever would be woken may have finished.
            let _ = wake.send(parent::Event::Cancelled);
        }
    }

    /// Whether it was taken back.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Has a thread told if the wish is taken back. `false`: it was already.
    fn watch(&self, wake: Sender<parent::Event>) -> bool {
        let mut wish = self.lock();
        wish.wake = Some(wake);
        !wish.cancelled
    }
}
