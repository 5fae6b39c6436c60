//! Runs merge plugins: WebAssembly components, sandboxed, metered and deterministic. The only crate that knows
//! wasmtime.
//!
//! It compiles a component under limits, calls it with a fresh instance each time, and says in one error type what a
//! plugin did wrong. It knows nothing of objects, buckets or replicas: what to merge, and what to do with the answer,
//! is the caller's business. A failure here never chooses data.
//!
//! ```no_run
//! use rejoin_merge::{CallLimits, Host, HostConfig, ModuleLimits, Sibling};
//!
//! let host = Host::new(HostConfig::default())?;
//! let plugin = host.compile(&std::fs::read("cart.wasm")?, &ModuleLimits::default())?;
//! let siblings = [
//!     Sibling { value: "{\"clock\":{},\"items\":{}}".into(), stamp_ms: 1, writer: 1 },
//!     Sibling { value: "{\"clock\":{},\"items\":{}}".into(), stamp_ms: 2, writer: 2 },
//! ];
//! let merged = host.merge(&plugin, b"ann", &siblings, &CallLimits::default())?;
//! println!("{} with {} fuel", String::from_utf8_lossy(&merged.value), merged.fuel_used);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Determinism
//! Equal inputs give equal bytes and equal fuel on every node with the same [`Host::profile`]: no imports, a fresh
//! instance per call, NaNs in one form, no threads, relaxed SIMD, GC, 64-bit or several memories, and a fuel table of
//! our own. *Fuel is the verdict*; the wall-clock limit is a safety net, and the only fault that depends on the machine
//! (see [`MergeFault::is_deterministic`]).
//!
//! # Limits
//! Every limit is in [`ModuleLimits`] and [`CompileLimits`] (once, when compiling) or [`CallLimits`] (at every call);
//! the host itself bounds how many instances live at once, and [`PoolConfig`] what one bucket may have of the threads.
//!
//! In reading order: [`host`] loads, [`call`] runs, [`plugin`] is what is run, [`fault`] what goes wrong, `profile` how
//! the engine is set up, [`mod@compile`] compiles, in a process with limits; `scan` looks at a component before it is
//! compiled, `artefact` loads what was compiled, [`pool`] has the threads and [`memo`] the memory, `workers` are
//! threads behind a fair queue, [`subject`] lends a plugin to the law checker, [`examine`] tries all [`laws`] on it,
//! [`fixture`] keeps what breaks one, and [`build`] makes components of guest crates.

#![deny(unsafe_code)]

mod artefact;
mod bindings;
mod blame;
pub mod build;
pub mod call;
pub mod compile;
mod epoch;
pub mod examine;
pub mod fault;
pub mod fixture;
pub mod host;
mod last_words;
mod legible;
pub mod limits;
mod machine;
pub mod memo;
pub mod plugin;
pub mod pool;
mod profile;
mod scan;
pub mod subject;
mod workers;

pub use call::{Merged, Sibling};
pub use compile::queue::{CompileQueue, QueueConfig};
pub use compile::{ArtefactCache, Cancel, ChildCompiler, Compiled, Compiler};
pub use examine::{Examination, Outcome};
pub use fault::{HostError, MergeFault, Refusal, Rejection, TrapKind};
pub use fixture::{BadFixture, Fixture};
pub use host::{Host, HostConfig};
pub use legible::{is_plain, legible};
pub use limits::{CallLimits, CompileLimits, ModuleLimits};
pub use memo::Memo;
pub use plugin::{Abilities, Card, Plugin, digest_of};
pub use pool::{Call, Overloaded, Pool, PoolConfig};
pub use rejoin_laws as laws;
pub use subject::Subject;
