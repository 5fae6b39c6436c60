//! A plugin as plain functions.

use rejoin_guest::{Merger, Sampler, Sibling};
use std::marker::PhantomData;

/// The plugin `T`, without WebAssembly.
pub struct Native<T>(PhantomData<T>);

impl<T> Default for Native<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Merger> rejoin_laws::Merge for Native<T> {
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> Result<Vec<u8>, String> {
        let lend = |one: &rejoin_laws::Sibling| Sibling { value: one.value.clone(), stamp_ms: one.stamp_ms, writer: one.writer };
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        T::merge(key, &siblings).map_err(|fault| format!("{fault:?}"))
    }
}

impl<T: Sampler> rejoin_laws::Sampler for Native<T> {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        Ok(T::sample(seed, size))
    }
}
