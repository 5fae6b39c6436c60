//! Random cases: a key and a few siblings, biased towards collisions.
//!
//! Values with unrelated ids rarely interact, and a wrong merge passes on them by luck. So seeds come from a small
//! range, values, stamps and writers repeat, and some values are results of merges or damaged.

use crate::damage::damaged;
use crate::judge::Trial;
use crate::merge::{Merge, Sampler, Sibling, folded};
use crate::rng::Rng;

/// The recipe of one sibling, so that the shrinker can ask for a smaller one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// The sampler's seeds. One is a sampled value; more are sampled values merged, one after the other.
    pub seeds: Vec<u64>,
    /// The sampler's size hint.
    pub size: u32,
    /// The seed of the damage, if the value is damaged.
    pub damage: Option<u64>,
    /// In milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// The actor that took the write.
    pub writer: u64,
}

/// A key and the recipes of its siblings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The key that the merge is given.
    pub key: Vec<u8>,
    /// Two inputs or more.
    pub inputs: Vec<Input>,
}

/// Why a case cannot be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaseError {
    /// The sampler returned no value.
    NoSample {
        /// The seed it was given.
        seed: u64,
        /// The size hint it was given.
        size: u32,
        /// The sampler's reason.
        reason: String,
    },
    /// The merge of two sampled values failed. The case has the two values, unmerged.
    MergeFailed(Case),
}

/// Most cases have at most so many siblings: laws ask for a merge of each part of a case.
const FEW_SIBLINGS: usize = 5;
/// How many different seeds a case draws from. Small, so that values repeat.
const SEEDS: u64 = 24;
/// The stamp that siblings share. It is in the evening, so that the next ones are on another day.
const SHARED_MS: u64 = 1_700_000_000_000;
const SIX_HOURS_MS: u64 = 6 * 3_600_000;

impl Case {
    /// Draws a case of at most five siblings. `size` bounds the sampler's hint; without `collide`, no two siblings have
    /// anything in common but by chance.
    #[must_use]
    pub fn draw(rng: &mut Rng, size: u32, collide: bool) -> Self {
        Self::draw_up_to(rng, size, collide, FEW_SIBLINGS)
    }

    /// As [`Case::draw`], and one case in sixteen has more siblings, up to `siblings`.
    #[must_use]
    pub fn draw_up_to(rng: &mut Rng, size: u32, collide: bool, siblings: usize) -> Self {
        let base = if rng.one_in(4) { rng.next_u64() >> 1 } else { 0 };
        let mut count = 2 + rng.below(3) + u64::from(rng.one_in(8));
        if siblings > FEW_SIBLINGS && rng.one_in(16) {
            count = 1 + FEW_SIBLINGS as u64 + rng.below((siblings - FEW_SIBLINGS) as u64);
        }
        let mut inputs: Vec<Input> = Vec::new();
        for _ in 0..count {
            let fresh = if collide { colliding(rng, base, size) } else { scattered(rng, size) };
            let twin = if collide && rng.one_in(4) { rng.pick(&inputs).cloned() } else { None };
            inputs.push(twin.map_or(fresh.clone(), |twin| Input {
                stamp_ms: fresh.stamp_ms,
                writer: fresh.writer,
                ..twin
            }));
        }
        if rng.one_in(4)
            && let Some(input) = inputs.last_mut()
        {
            input.damage = Some(rng.below(1 << 16));
        }
        Self { key: draw_key(rng), inputs }
    }
}

fn draw_key(rng: &mut Rng) -> Vec<u8> {
    let keys: [&[u8]; 4] = [b"k", b"", b"user/17/cart", &[0, 255, 128]];
    rng.pick(&keys).map(|key| key.to_vec()).unwrap_or_default()
}

fn colliding(rng: &mut Rng, base: u64, size: u32) -> Input {
    let seeds = draw_seeds(rng, |rng| base + rng.below(SEEDS));
    let stamp_ms = SHARED_MS
        + match rng.below(8) {
            0..4 => 0,
            4..7 => rng.below(3),
            // Of several days.
            _ => rng.below(4) * SIX_HOURS_MS,
        };
    Input { seeds, size: draw_size(rng, size), damage: None, stamp_ms, writer: 1 + rng.below(3) }
}

fn scattered(rng: &mut Rng, size: u32) -> Input {
    let seeds = draw_seeds(rng, Rng::next_u64);
    Input {
        seeds,
        size: draw_size(rng, size),
        damage: None,
        stamp_ms: SHARED_MS + rng.below(1 << 40),
        writer: rng.next_u64(),
    }
}

fn draw_seeds(rng: &mut Rng, mut seed: impl FnMut(&mut Rng) -> u64) -> Vec<u64> {
    let merged = if rng.one_in(4) { 1 + rng.below(2) } else { 0 };
    (0..=merged).map(|_| seed(rng)).collect()
}

fn draw_size(rng: &mut Rng, size: u32) -> u32 {
    u32::try_from(rng.below(u64::from(size) + 1)).unwrap_or(size)
}

impl Input {
    /// Builds the sibling.
    ///
    /// # Errors
    /// [`CaseError`] if the sampler has no value or a merge of two fails.
    pub fn build(&self, merge: &dyn Merge, sampler: &dyn Sampler, key: &[u8]) -> Result<Sibling, CaseError> {
        let mut so_far = self.sample(sampler, 0)?;
        for index in 1..self.seeds.len() {
            let pair = [so_far, self.sample(sampler, index)?];
            let value = merge.merge(key, &pair).map_err(|_| CaseError::MergeFailed(self.split(key, index)))?;
            so_far = folded(value, &pair);
        }
        if let Some(seed) = self.damage {
            so_far.value = damaged(&so_far.value, seed);
        }
        Ok(so_far)
    }

    fn sample(&self, sampler: &dyn Sampler, index: usize) -> Result<Sibling, CaseError> {
        let (seed, size) = (self.seeds.get(index).copied().unwrap_or(0), self.size);
        let value = sampler.sample(seed, size).map_err(|reason| CaseError::NoSample { seed, size, reason })?;
        Ok(Sibling { value, stamp_ms: self.stamp_ms, writer: self.writer })
    }

    /// The merge that failed, as a case of its own: what was merged before the seed at `index`, and that seed.
    fn split(&self, key: &[u8], index: usize) -> Case {
        let (before, from) = self.seeds.split_at(index);
        let part = |seeds: &[u64]| Input { seeds: seeds.to_vec(), damage: None, ..self.clone() };
        Case { key: key.to_vec(), inputs: vec![part(before), part(&from[..1])] }
    }
}

impl Case {
    /// Builds all siblings.
    ///
    /// # Errors
    /// As [`Input::build`].
    pub fn build(&self, merge: &dyn Merge, sampler: &dyn Sampler) -> Result<Trial, CaseError> {
        let siblings =
            self.inputs.iter().map(|input| input.build(merge, sampler, &self.key)).collect::<Result<_, _>>()?;
        let valid = sampler.draws_valid_values() && self.inputs.iter().all(|input| input.damage.is_none());
        Ok(Trial { key: self.key.clone(), siblings, valid })
    }
}
