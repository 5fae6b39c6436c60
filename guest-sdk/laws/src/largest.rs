//! Cases of the largest siblings that a bucket takes, as far as the sampler draws them.

use crate::cases::{Case, Input};
use crate::merge::Sampler;
use crate::rng::Rng;

/// The limits of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketLimits {
    /// The most siblings of one object.
    pub siblings: usize,
    /// The most bytes of one value.
    pub value_bytes: usize,
    /// The most bytes of all values of one object.
    pub object_bytes: usize,
}

/// The largest size hint that a sampler is given.
const MAX_HINT: u32 = 1 << 24;
/// After so many doublings of the hint without a longer value, the sampler is taken to have no longer one.
const IDLE_DOUBLINGS: u32 = 3;

/// Two cases: few values of the largest size, and the most siblings that share the object's bytes.
pub(crate) fn draw(rng: &mut Rng, sampler: &dyn Sampler, largest: &BucketLimits) -> Vec<Case> {
    let share = largest.object_bytes / largest.siblings.max(1);
    let shapes = [largest.value_bytes, share.min(largest.value_bytes)];
    shapes.into_iter().map(|bytes| of_length(rng, sampler, bytes, largest)).collect()
}

fn of_length(rng: &mut Rng, sampler: &dyn Sampler, bytes: usize, largest: &BucketLimits) -> Case {
    let base = rng.next_u64() >> 1;
    let (size, length) = widest(sampler, base, bytes);
    let fit = largest.object_bytes / length.max(1);
    let count = fit.clamp(2, largest.siblings.max(2));
    let input = |index: u64| Input { seeds: vec![base + index], size, damage: None, stamp_ms: 0, writer: 1 + index };
    Case { key: b"k".to_vec(), inputs: (0..count as u64).map(input).collect() }
}

/// The hint that gives the longest value of at most `bytes`, and its length. Doubles the hint, then bisects.
fn widest(sampler: &dyn Sampler, seed: u64, bytes: usize) -> (u32, usize) {
    // Other seeds give other lengths: a sixteenth of room keeps nearly all of them below the limit.
    let room = bytes - bytes / 16;
    let length = |size: u32| sampler.sample(seed, size).ok().map(|value| value.len()).filter(|length| *length <= room);
    let (mut best, mut idle, mut size) = ((0, length(0).unwrap_or(0)), 0, 1);
    let mut too_large = None;
    while size <= MAX_HINT && idle < IDLE_DOUBLINGS {
        match length(size) {
            None => {
                too_large = Some(size);
                break;
            }
            Some(longer) if longer > best.1 => (best, idle) = ((size, longer), 0),
            Some(_) => idle += 1,
        }
        size *= 2;
    }
    let Some(mut above) = too_large else { return best };
    while above - best.0 > 1 + best.0 / 16 {
        let middle = best.0 + (above - best.0) / 2;
        match length(middle) {
            None => above = middle,
            Some(longer) => best = (middle, longer),
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws as many bytes as the hint says, up to a bound.
    struct CappedSampler(usize);

    impl Sampler for CappedSampler {
        fn sample(&self, _seed: u64, size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![7; self.0.min(size as usize)])
        }
    }

    #[test]
    fn values_fill_the_bucket_where_the_sampler_can() {
        let largest = BucketLimits { siblings: 8, value_bytes: 10_000, object_bytes: 40_000 };
        let cases = draw(&mut Rng::new(1), &CappedSampler(usize::MAX), &largest);
        let shape = |case: &Case| (case.inputs.len(), case.inputs[0].size);
        assert!(matches!(shape(&cases[0]), (4, 8_500..=9_375)), "{:?}", shape(&cases[0]));
        assert!(matches!(shape(&cases[1]), (8, 4_200..=4_688)), "{:?}", shape(&cases[1]));
    }

    #[test]
    fn a_sampler_with_small_values_gives_many_of_its_largest() {
        let largest = BucketLimits { siblings: 8, value_bytes: 10_000, object_bytes: 40_000 };
        let cases = draw(&mut Rng::new(1), &CappedSampler(64), &largest);
        assert!(cases.iter().all(|case| case.inputs.len() == 8 && case.inputs[0].size == 64), "{cases:?}");
    }
}
