//! The interfaces to the machine that a node runs on. Tests replace them, to run nodes on one thread in virtual time.

use std::sync::{Arc, Mutex};

use rand::Rng as _;
use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_store::{Disk, OsDisk};
use rejoin_wire::{Network, OsNetwork};

use crate::clock::Clock;
use crate::lock::lock;
use crate::loops::Loops;

/// Clock, disk, network, threads, compiler and random seed of a node.
#[derive(Clone)]
pub struct Platform {
    /// The monotonic clock and the wall clock.
    pub clock: Clock,
    /// Holds journal, mark and control files. The tree, the plugin modules and the files that the configuration names
    /// are always on the machine's file system.
    pub disk: Arc<dyn Disk>,
    /// Opens the UDP port.
    pub network: Arc<dyn Network>,
    /// Which work has threads of its own.
    pub threads: Threads,
    /// The runtimes of shards and connections.
    pub loops: Loops,
    /// Where plugins are compiled.
    pub compiling: Compiling,
    /// Seeds all random numbers of the node and of QUIC, but not the keys of TLS. `None` takes a seed from the
    /// operating system.
    pub seed: Option<[u8; 32]>,
}

impl Platform {
    /// The real machine, with everything on the runtime in which the node is started.
    #[must_use]
    pub fn machine() -> Self {
        Self {
            clock: Clock::system(),
            disk: Arc::new(OsDisk),
            network: Arc::new(OsNetwork),
            threads: Threads::Own,
            loops: Loops::current(),
            compiling: Compiling::Child,
            seed: None,
        }
    }
}

/// Which work has threads of its own. Shards never have: they are tasks of the runtimes that drive the connections
/// too, so that a request passes from its connection to a shard of the same loop and back without waking a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// Blocking work has: syncs of journals, flushes, merges, batches of large requests, reads and writes of plugin
    /// modules and of the catalog.
    Own,
    /// None has: flushes are tasks, and all else runs on the thread that asks for it. On a single-threaded
    /// runtime the seed then decides the order of everything.
    Shared,
}

/// Where plugins are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compiling {
    /// In a child process with limits: the program of `compile_program`, or the running program. Its `main` must begin
    /// with [`crate::is_child`] and [`crate::child_main`], as that of `rejoin` does.
    Child,
    /// In this process, without limits of memory and time: for tests, whose program is not `rejoin`.
    Here,
}

/// The node's random numbers, shared by its tasks.
pub(crate) struct SharedRng(Mutex<Xoshiro256PlusPlus>);

impl SharedRng {
    pub(crate) fn new(seed: Option<[u8; 32]>) -> Self {
        Self(Mutex::new(Xoshiro256PlusPlus::from_seed(seed.unwrap_or_else(rand::random))))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        lock(&self.0).next_u64()
    }

    /// A seed for another generator.
    pub(crate) fn next_seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        lock(&self.0).fill_bytes(&mut seed);
        seed
    }
}
