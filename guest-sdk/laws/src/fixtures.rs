//! Values of a team, or recorded from a bucket, among those of a sampler.

use crate::merge::Sampler;

/// Of the small samples one in so many is a fixture.
const SHARE: u64 = 4;
/// Samples of larger hints are always the sampler's own.
const MAX_SIZE: u32 = 24;

/// A sampler that also draws the given values. They must be valid.
#[derive(Debug)]
pub struct WithFixtures<S> {
    sampler: S,
    values: Vec<Vec<u8>>,
}

impl<S: Sampler> WithFixtures<S> {
    /// Adds values to a sampler. If the sampler itself draws raw bytes, they are the only values.
    #[must_use]
    pub fn new(sampler: S, values: Vec<Vec<u8>>) -> Self {
        Self { sampler, values }
    }
}

impl<S: Sampler> Sampler for WithFixtures<S> {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        let own = self.sampler.draws_valid_values();
        let nth = match (self.values.is_empty(), own) {
            (true, _) => None,
            (false, false) => Some(seed),
            (false, true) => (seed % SHARE == SHARE - 1 && size <= MAX_SIZE).then_some(seed / SHARE),
        };
        let Some(nth) = nth else { return self.sampler.sample(seed, size) };
        let index = usize::try_from(nth % self.values.len() as u64).unwrap_or(0);
        Ok(self.values[index].clone())
    }

    fn draws_valid_values(&self) -> bool {
        self.sampler.draws_valid_values() || !self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::RawBytes;

    struct Nines;

    impl Sampler for Nines {
        fn sample(&self, _seed: u64, size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![b'9'; size as usize])
        }
    }

    #[test]
    fn fixtures_are_drawn_among_the_samples() {
        let sampler = WithFixtures::new(Nines, vec![b"a".to_vec(), b"b".to_vec()]);
        let drawn: Vec<Vec<u8>> = (0..8).map(|seed| sampler.sample(seed, 1).expect("there are some")).collect();
        assert_eq!(drawn.concat(), b"999a999b");
        assert_eq!(sampler.sample(3, 100).map(|value| value.len()), Ok(100), "large values are the sampler's");
    }

    #[test]
    fn without_a_sampler_fixtures_are_all_there_is() {
        let sampler = WithFixtures::new(RawBytes, vec![b"a".to_vec(), b"b".to_vec()]);
        assert!(sampler.draws_valid_values() && !WithFixtures::new(RawBytes, Vec::new()).draws_valid_values());
        assert_eq!((sampler.sample(6, 9), sampler.sample(7, 0)), (Ok(b"a".to_vec()), Ok(b"b".to_vec())));
    }
}
