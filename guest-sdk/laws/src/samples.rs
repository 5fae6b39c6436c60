//! What a sampler draws: the smallest values, and how many there are.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};

use crate::merge::Sampler;

/// A value with the arguments that give it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub(crate) value: Vec<u8>,
    pub(crate) seed: u64,
    pub(crate) size: u32,
}

/// How rich a sampler is. With few values, or none that grow with the size hint, a check finds little.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SampleStats {
    /// The values that were drawn for this.
    pub drawn: u32,
    /// How many of them differ.
    pub distinct: u32,
    /// The bytes of the largest one.
    pub largest_bytes: usize,
}

/// The seeds and size hints of [`sample_stats`].
const STATS_SEEDS: u64 = 32;
const STATS_SIZES: [u32; 8] = [0, 1, 2, 4, 8, 12, 60, 250];
/// The seeds among which a few smallest values are searched, and those for many.
const FEW_SEEDS: u64 = 24;
const MANY_SEEDS: u64 = 96;
/// So many values are few.
const FEW: usize = 8;
/// The size hints that are always tried, and the largest one.
const SIZES: u32 = 4;
const MAX_SIZE: u32 = 16;

/// Bytes of the samples that are remembered. Once there are as many, later ones are not.
const REMEMBERED_BYTES: usize = 32 << 20;
/// What a sample costs beside its bytes.
const ENTRY_BYTES: usize = 64;

/// Samples by seed and size.
type Drawn = HashMap<(u64, u32), Result<Vec<u8>, String>>;

/// A sampler that remembers what it has drawn: every law asks for the same samples.
pub struct RememberedSamples<'a> {
    sampler: &'a dyn Sampler,
    samples: RefCell<Drawn>,
    bytes: Cell<usize>,
}

impl<'a> RememberedSamples<'a> {
    /// Remembers the samples of this sampler.
    #[must_use]
    pub fn new(sampler: &'a dyn Sampler) -> Self {
        Self { sampler, samples: RefCell::default(), bytes: Cell::new(0) }
    }
}

impl std::fmt::Debug for RememberedSamples<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RememberedSamples").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Sampler for RememberedSamples<'_> {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        if let Some(known) = self.samples.borrow().get(&(seed, size)) {
            return known.clone();
        }
        let sample = self.sampler.sample(seed, size);
        let bytes = self.bytes.get() + ENTRY_BYTES + sample.as_ref().map_or(0, Vec::len);
        if bytes <= REMEMBERED_BYTES {
            self.bytes.set(bytes);
            self.samples.borrow_mut().insert((seed, size), sample.clone());
        }
        sample
    }

    fn draws_valid_values(&self) -> bool {
        self.sampler.draws_valid_values()
    }
}

/// Draws some values of several sizes and counts them.
#[must_use]
pub fn sample_stats(sampler: &dyn Sampler) -> SampleStats {
    let mut stats = SampleStats::default();
    let mut values = BTreeSet::new();
    for size in STATS_SIZES {
        for seed in 0..STATS_SEEDS {
            let Ok(value) = sampler.sample(seed, size) else { continue };
            stats.drawn += 1;
            stats.largest_bytes = stats.largest_bytes.max(value.len());
            values.insert(value);
        }
    }
    stats.distinct = u32::try_from(values.len()).unwrap_or(u32::MAX);
    stats
}

/// At most `count` of the smallest different values, the smallest first.
pub(crate) fn smallest(sampler: &dyn Sampler, count: usize) -> Vec<Sample> {
    let seeds = if count <= FEW { FEW_SEEDS } else { MANY_SEEDS };
    let mut values = BTreeSet::new();
    let mut found = Vec::new();
    for size in 0..MAX_SIZE {
        if size >= SIZES && (count <= FEW || found.len() >= 2 * count) {
            break;
        }
        for seed in 0..seeds {
            let Ok(value) = sampler.sample(seed, size) else { continue };
            if values.insert(value.clone()) {
                found.push(Sample { value, seed, size });
            }
        }
    }
    found.sort_by(|a, b| (a.value.len(), &a.value).cmp(&(b.value.len(), &b.value)));
    found.truncate(count);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Letters;

    impl Sampler for Letters {
        fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![b'a' + (seed % 20) as u8; size as usize])
        }
    }

    struct Bit;

    impl Sampler for Bit {
        fn sample(&self, seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![(seed % 2) as u8])
        }
    }

    #[test]
    fn the_smallest_values_differ_and_come_in_order() {
        let samples = smallest(&Letters, 30);
        assert_eq!(samples.len(), 30);
        assert!(
            samples
                .windows(2)
                .all(|pair| (pair[0].value.len(), &pair[0].value) < (pair[1].value.len(), &pair[1].value))
        );
        assert!(samples.iter().all(|one| Letters.sample(one.seed, one.size).as_ref() == Ok(&one.value)));
        assert_eq!((smallest(&Letters, 5).len(), smallest(&Bit, 100).len()), (5, 2));
    }

    #[test]
    fn a_sample_is_drawn_once() {
        struct Counting(Cell<u8>);
        impl Sampler for Counting {
            fn sample(&self, _seed: u64, _size: u32) -> Result<Vec<u8>, String> {
                self.0.set(self.0.get() + 1);
                Ok(vec![self.0.get()])
            }
        }
        let counting = Counting(Cell::new(0));
        let remembered = RememberedSamples::new(&counting);
        let drawn: Vec<_> =
            [(1, 1), (1, 1), (1, 2), (2, 1), (1, 2)].map(|(seed, size)| remembered.sample(seed, size)).into();
        assert_eq!(drawn, [1, 1, 2, 3, 2].map(|nth| Ok(vec![nth])));
    }

    #[test]
    fn a_poor_sampler_shows_in_the_figures() {
        let (rich, poor) = (sample_stats(&Letters), sample_stats(&Bit));
        assert_eq!((rich.distinct, rich.largest_bytes), (1 + 7 * 20, 250));
        assert_eq!((poor.drawn, poor.distinct, poor.largest_bytes), (256, 2, 1));
    }
}
