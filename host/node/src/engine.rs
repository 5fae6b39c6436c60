//! Sets up the plugin engine of a node from its configuration.

use std::time::Duration;

use rejoin_merge::{
    ArtefactCache, ChildCompiler, CompileLimits, CompileQueue, Compiler, Host, HostConfig, LawLimits, LawProcess,
    LawQueue, LawRunner, Memo, ModuleLimits, Pool, PoolConfig, QueueConfig,
};
use rejoin_proto::Name;

use crate::aside::Aside;
use crate::config::Config;
use crate::error::StartError;
use crate::law_checks::LawChecks;
use crate::platform::{Compiling, Threads};
use crate::sentinel::Sentinel;

/// The most plugin instances at once. Each reserves about 4 GiB of the 128 TiB of addresses that a process has.
const MAX_INSTANCES: u32 = 4_096;

/// Makes the pool that runs plugins.
///
/// # Errors
/// The engine could not be created, or a thread not started.
pub(crate) fn pool(config: &Config, threads: Threads) -> Result<Pool, StartError> {
    // A merge has one instance at a time, and so have a plugin that is being loaded and the sentinel.
    let least = HostConfig::default().instances;
    let busiest = config.merge_threads.saturating_add(config.compile_threads).saturating_add(1);
    let instances = u32::try_from(busiest).unwrap_or(u32::MAX).clamp(least, MAX_INSTANCES);
    let host = Host::new(HostConfig { instances, ..HostConfig::default() })?;
    let memo = Memo::new(config.memo_bytes);
    let shares = PoolConfig {
        threads: config.merge_threads,
        queue: config.merge_queue,
        tenant_threads: config.merge_tenant_threads,
        tenant_queue: config.merge_tenant_queue,
        bucket_threads: config.merge_bucket_threads,
        bucket_queue: config.merge_bucket_queue,
    };
    match threads {
        Threads::Own => Ok(Pool::new(host, memo, shares)?),
        Threads::Shared => Ok(Pool::inline(host, memo)),
    }
}

/// The pool that runs plugins and the queue that compiles them.
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) queue: CompileQueue,
    /// The limits of a component.
    pub(crate) limits: ModuleLimits,
    /// The checks of the laws of what is pushed.
    pub(crate) laws: LawChecks,
    /// The checks of the laws on what was merged.
    pub(crate) sentinel: Sentinel,
    /// Where components are read, stored and hashed.
    pub(crate) aside: Aside,
    /// The node that it is of.
    pub(crate) node: Name,
}

impl Engine {
    /// Adds the compile queue to a pool. Machine code is cached in the data directory; a node that cannot open the
    /// cache compiles its plugins again after a restart.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn open(
        config: &Config,
        threads: Threads,
        compiling: Compiling,
        pool: Pool,
    ) -> Result<Self, StartError> {
        let limits = ModuleLimits::for_bytes(module_bytes(config));
        let (host, compiler) = (pool.host().clone(), compiler(config, compiling));
        let (laws, sentinel, node) = (laws(config, threads, compiling)?, Sentinel::of(config), config.name.clone());
        let aside = Aside::new(threads);
        if threads == Threads::Shared {
            let queue = CompileQueue::inline(host, compiler, None);
            return Ok(Self { pool, queue, limits, laws, sentinel, aside, node });
        }
        let cache = ArtefactCache::open(&config.data.join("compiled"), config.compiled_bytes, &host);
        let cache =
            cache.inspect_err(|error| tracing::warn!(%error, "the cache of compiled plugins cannot be opened")).ok();
        let at_once = QueueConfig {
            threads: config.compile_threads,
            queue: config.compile_queue,
            tenant_queue: config.compile_tenant_queue,
        };
        let queue = CompileQueue::new(host, compiler, cache, at_once)?;
        Ok(Self { pool, queue, limits, laws, sentinel, aside, node })
    }
}

/// The checks of laws, if the configuration asks for them.
fn laws(config: &Config, threads: Threads, compiling: Compiling) -> Result<LawChecks, StartError> {
    let cpu_seconds = u64::from(config.law_seconds);
    let limits = LawLimits { cpu_seconds, wall: Duration::from_secs(5 * cpu_seconds), ..LawLimits::default() };
    let runner = match compiling {
        Compiling::Here => LawRunner::InProcess,
        Compiling::Child => LawRunner::Child(LawProcess { program: child_compiler(config).program, limits }),
    };
    let queue = match (config.check_laws, threads) {
        (false, _) => None,
        (true, Threads::Shared) => Some(LawQueue::inline(runner)),
        (true, Threads::Own) => Some(LawQueue::new(runner)?),
    };
    Ok(LawChecks::new(queue, config.released.clone()))
}

fn compiler(config: &Config, compiling: Compiling) -> Compiler {
    match compiling {
        Compiling::Here => Compiler::InProcess,
        Compiling::Child => Compiler::Child(child_compiler(config)),
    }
}

fn module_bytes(config: &Config) -> usize {
    usize::try_from(config.module_bytes).unwrap_or(usize::MAX)
}

fn child_compiler(config: &Config) -> ChildCompiler {
    let seconds = u64::from(config.compile_seconds);
    let limits = CompileLimits {
        memory_bytes: config.compile_memory_bytes,
        cpu_seconds: seconds,
        wall: Duration::from_secs(3 * seconds),
        ..CompileLimits::for_bytes(module_bytes(config))
    };
    let ChildCompiler { program, .. } = ChildCompiler::default();
    ChildCompiler { program: config.compile_program.clone().unwrap_or(program), limits }
}
