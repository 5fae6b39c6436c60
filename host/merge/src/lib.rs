//! Runs merge plugins: WebAssembly components, sandboxed, metered and deterministic.
//!
//! Owns the engine, the compiled plugins' code, the merge threads and the memory of earlier results. It is the only
//! crate that uses wasmtime. It never decides what to merge or what becomes of a result: objects, buckets and replicas
//! are the caller's. A failed call never chooses data.
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
//! Equal inputs give equal bytes and equal fuel on every node with the same [`Host::profile`]. The engine therefore
//! allows no imports, threads, relaxed SIMD, GC, 64-bit or multiple memories; every call gets a fresh instance, NaNs
//! are canonical, and the fuel table is our own. Fuel ends a call that takes too long. The wall-clock limit is a safety
//! net behind it, and the only limit whose effect depends on the machine (see [`MergeFault::is_deterministic`]).
//!
//! # Limits
//! [`ModuleLimits`] and [`CompileLimits`] apply when a component is compiled, [`CallLimits`] at every call.
//! [`HostConfig`] bounds the instances that exist at once, and [`PoolConfig`] the threads and queue of one tenant and
//! of one bucket.
//!
//! # Reading order
//! `host` compiles and loads, `call` and `operate` run, `plugin` is a loaded component, `fault` has the errors,
//! `profile` configures the engine. `compile` runs the compiling process, after `scan` has counted the parts of a
//! component; `artefact` loads the machine code. `pool` and `workers` are the merge threads, `memo` remembers results,
//! `attribution` finds the sibling that makes a merge fail. `law_check` and `under_test` check the [`laws`] on a
//! component, `intent` reads what its operations mean, and `fixture` stores counterexamples. `law_report` is what comes
//! of a check, `law_process` checks in a process of its own, and `coverage` tells which code a check has run. `single`
//! runs one merge, `transcript` has the fixed calls by which nodes compare each other, and `sampled` checks laws again
//! on a merge that was run. `bundle` has merges of a cluster to be run again. `job_fuel` counts what a job uses, and
//! `unmetered` measures what fuel costs. [`build`] makes components of guest crates, and `builder` reads what has made
//! one.

#![deny(unsafe_code)]

mod artefact;
mod attribution;
mod bindings;
pub mod build;
mod builder;
mod bundle;
mod call;
mod compile;
mod coverage;
mod epoch;
mod escape;
mod fault;
mod fixture;
mod host;
mod intent;
mod job_fuel;
mod json_line;
mod law_check;
mod law_process;
mod law_report;
mod limits;
mod memo;
mod operate;
mod panic_record;
mod plugin;
mod pool;
mod profile;
mod resources;
mod sampled;
mod scan;
mod single;
mod transcript;
mod under_test;
mod unmetered;
mod workers;

pub use builder::builder_of;
pub use bundle::{Bundle, BundleError, BundledMerge, BundledOutcome, MergeSource, Replayed};
pub use call::{Merged, Sibling, Usage};
pub use compile::{
    ArtefactCache, CHILD_VERB, CacheError, CancelToken, ChildCompiler, CompileQueue, Compiled, Compiler,
    PendingCompile, QueueConfig, child_main, is_child,
};
pub use coverage::Coverage;
pub use escape::{escape_untrusted, is_printable};
pub use fault::{HostError, MergeFault, QueueOf, Refusal, Rejection, TrapKind};
pub use fixture::{
    EncodedBytes, Fixture, FixtureAnswer, FixtureCase, FixtureError, FixtureSibling, FixtureViolation, FoundCase,
};
pub use host::{Host, HostConfig};
pub use intent::{ComponentIntent, IntentError, IntentFile};
pub use job_fuel::job_fuel;
pub use law_check::{
    Findings, LawOptions, LawOutcome, LawReport, LoadError, RecordedStats, check_laws, check_laws_with_options,
    check_laws_with_progress,
};
pub use law_process::{LawError, LawInputs, LawLimits, LawProcess, LawProgress, LawQueue, LawRunner, PendingLaws};
pub use law_report::{Histories, LawLine, LawTest, RecordedLine, Samples, SmallScopeLine};
pub use limits::{CallLimits, CompileLimits, ModuleLimits};
pub use memo::Memo;
pub use operate::OperationDot;
pub use plugin::{Exports, Plugin, PluginMetadata, digest_of};
pub use pool::{Overloaded, PluginCall, Pool, PoolConfig, TooManyChecks};
pub use rejoin_laws as laws;
pub use sampled::{SampledLaws, SampledMerge, SampledViolation};
pub use single::SingleMerge;
pub use transcript::TRANSCRIPT_CASES;
pub use under_test::PluginUnderTest;
pub use unmetered::Unmetered;
pub use workers::TenantShare;
