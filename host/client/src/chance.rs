//! What a client leaves to chance: the ids of its requests, and the jitter of its pauses.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::session::lock;

/// A generator that all operations of a client share.
#[derive(Debug)]
pub(crate) struct Chance(Mutex<StdRng>);

impl Chance {
    /// From a seed, or from the operating system's randomness.
    pub(crate) fn new(seed: Option<[u8; 32]>) -> Self {
        Self(Mutex::new(StdRng::from_seed(seed.unwrap_or_else(rand::random))))
    }

    /// Any number.
    pub(crate) fn word(&self) -> u64 {
        lock(&self.0).next_u64()
    }

    /// An id that no other request has.
    pub(crate) fn id(&self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// From 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        f64::from((self.word() >> 32) as u32) / f64::from(u32::MAX)
    }
}
