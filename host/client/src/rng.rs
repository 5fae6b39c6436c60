//! Random numbers for request ids and the jitter of pauses.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::sync::lock;

/// The generator of a client, shared by its operations.
#[derive(Debug)]
pub(crate) struct ClientRng(Mutex<StdRng>);

impl ClientRng {
    /// Seeded by the caller, or by the operating system.
    pub(crate) fn new(seed: Option<[u8; 32]>) -> Self {
        Self(Mutex::new(StdRng::from_seed(seed.unwrap_or_else(rand::random))))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        lock(&self.0).next_u64()
    }

    /// 128 random bits.
    pub(crate) fn request_id(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// From 0 to 1.
    pub(crate) fn jitter(&self) -> f64 {
        f64::from((self.next_u64() >> 32) as u32) / f64::from(u32::MAX)
    }
}
