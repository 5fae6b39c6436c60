//! What a node takes from the machine it runs on, so that a test can put something else in its place.

use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng as _;
use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_store::{Disk, OsDisk};
use rejoin_wire::{Network, OsNetwork};

use crate::clock::Clock;

/// Clock, disk, network, threads, the place where plugins are compiled, and chance.
#[derive(Clone)]
pub struct Platform {
    /// What time it is.
    pub clock: Clock,
    /// Where journal, mark and control files are. The tree, the modules and what the configuration names are always in
    /// files of the machine.
    pub disk: Arc<dyn Disk>,
    /// Where the UDP port comes from.
    pub network: Arc<dyn Network>,
    /// What runs where.
    pub threads: Threads,
    /// Where plugins are compiled.
    pub compiling: Compiling,
    /// Makes repeatable whatever the node, and QUIC, leave to chance; the keys of TLS are not. None draws from the
    /// operating system.
    pub seed: Option<[u8; 32]>,
}

impl Platform {
    /// This machine.
    #[must_use]
    pub fn machine() -> Self {
        Self {
            clock: Clock::system(),
            disk: Arc::new(OsDisk),
            network: Arc::new(OsNetwork),
            threads: Threads::Own,
            compiling: Compiling::Child,
            seed: None,
        }
    }
}

/// What runs where. Shards are tasks of the runtime in which the node was started, either way: a request then passes
/// from its connection to its shard and back without a thread being woken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// What blocks has threads of its own: the syncing of journals, flushes, merges.
    Own,
    /// Nothing has: flushes are tasks too, a sync and a merge are done where they are asked for. On a runtime of one
    /// thread, everything then happens in an order that the seed decides.
    Shared,
}

/// Where plugins are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compiling {
    /// In a process with limits: the program that the configuration names with `compile_program`, or this very program.
    /// Its `main` must begin with [`crate::is_child`] and [`crate::child_main`], as that of `rejoin`
    /// does.
    Child,
    /// In this process, where a hostile component takes what memory and time it likes: for tests, whose program is not
    /// `rejoin`.
    Here,
}

/// What a node leaves to chance.
pub(crate) struct Chance(Mutex<Xoshiro256PlusPlus>);

impl Chance {
    pub(crate) fn new(seed: Option<[u8; 32]>) -> Self {
        Self(Mutex::new(Xoshiro256PlusPlus::from_seed(seed.unwrap_or_else(rand::random))))
    }

    /// Any number.
    pub(crate) fn word(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// A seed for a generator of somebody's own.
    pub(crate) fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut seed);
        seed
    }
}
