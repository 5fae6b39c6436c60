//! What a law is tried on: a key and a few siblings, biased so that they collide.
//!
//! Values of unrelated ids rarely touch, and a wrong merge passes on them by luck. So seeds come from a small range (the same value is often drawn
//! twice), stamps and writers repeat, and a share of the values are themselves the results of merges.

use crate::merge::{Merge, Sampler, Sibling, folded};
use crate::rng::Rng;

/// How one sibling of a case came to be. It is kept as its recipe, so that the shrinker can ask for a smaller one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// The sampler's seeds. One is a sampled value; more are sampled values merged, one after the other.
    pub seeds: Vec<u64>,
    /// The sampler's hint.
    pub size: u32,
    /// The sibling's stamp in milliseconds.
    pub stamp_ms: u64,
    /// The sibling's writer.
    pub writer: u64,
}

/// A key and the recipes of its siblings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The key.
    pub key: Vec<u8>,
    /// Two to five inputs, three as a rule.
    pub inputs: Vec<Input>,
}

/// How many different seeds a case draws from. Small on purpose.
const SEEDS: u64 = 24;

/// Draws a case. `size` bounds the sampler's hint.
#[must_use]
pub fn draw(rng: &mut Rng, size: u32) -> Case {
    let base = if rng.one_in(4) { rng.next_u64() >> 1 } else { 0 };
    let count = 2 + rng.below(3) + u64::from(rng.one_in(8));
    let inputs = (0..count).map(|_| draw_input(rng, base, size)).collect();
    Case { key: draw_key(rng), inputs }
}

fn draw_key(rng: &mut Rng) -> Vec<u8> {
    let keys: [&[u8]; 4] = [b"k", b"", b"user/17/cart", &[0, 255, 128]];
    rng.pick(&keys).map(|key| key.to_vec()).unwrap_or_default()
}

fn draw_input(rng: &mut Rng, base: u64, size: u32) -> Input {
    let merged = if rng.one_in(4) { 1 + rng.below(2) } else { 0 };
    let seeds = (0..=merged).map(|_| base + rng.below(SEEDS)).collect();
    let size = u32::try_from(rng.below(u64::from(size) + 1)).unwrap_or(size);
    let stamp_ms = if rng.one_in(2) { 1_700_000_000_000 } else { 1_700_000_000_000 + rng.below(3) };
    Input { seeds, size, stamp_ms, writer: 1 + rng.below(3) }
}

impl Input {
    /// Makes the sibling.
    ///
    /// # Errors
    /// If the sampler has no value, or the merge of several refuses.
    pub fn build(&self, merge: &dyn Merge, sampler: &dyn Sampler, key: &[u8]) -> Result<Sibling, String> {
        let sample = |seed: &u64| -> Result<Sibling, String> {
            let value = sampler.sample(*seed, self.size).map_err(|reason| format!("the sampler failed for seed {seed}: {reason}"))?;
            Ok(Sibling { value, stamp_ms: self.stamp_ms, writer: self.writer })
        };
        let (first, rest) = self.seeds.split_first().ok_or("an input without a seed")?;
        rest.iter().try_fold(sample(first)?, |so_far, seed| {
            let pair = [so_far, sample(seed)?];
            let value = merge.merge(key, &pair).map_err(|reason| format!("merging two samples failed: {reason}"))?;
            Ok(folded(value, &pair))
        })
    }
}

impl Case {
    /// Makes all siblings.
    ///
    /// # Errors
    /// As [`Input::build`].
    pub fn build(&self, merge: &dyn Merge, sampler: &dyn Sampler) -> Result<Vec<Sibling>, String> {
        self.inputs.iter().map(|input| input.build(merge, sampler, &self.key)).collect()
    }
}
