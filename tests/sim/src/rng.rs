//! Random numbers: one generator per purpose, each seeded from the run's seed, so that another fault does not change
//! what the clients do. There is no other source of chance in a run, and none in the plan of a storm over real
//! processes (`tests/storm`).

use rand_core::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, serde::Serialize)]
pub struct PerMillion(pub u32);

/// The purpose of a generator.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The names say it.
pub enum Stream {
    Options,
    Network,
    Faults,
    Clients,
    Plugins,
    Scans,
    Versions,
    /// One client of a storm, which runs beside the others, or a session that is independent of the others.
    Client(u64),
    /// Of a shard, which is opened with it: node, life, shard.
    Shard(u8, u32, u16),
    /// The generator that the membership of a node of a [swarm](crate::swarm) is made with.
    Member(u64),
}

impl Stream {
    fn number(self) -> u64 {
        match self {
            Self::Options => 1,
            Self::Network => 2,
            Self::Faults => 3,
            Self::Clients => 4,
            Self::Plugins => 5,
            Self::Scans => 6,
            Self::Versions => 7,
            Self::Member(node) => 1 << 62 | node,
            Self::Client(number) => 1 << 61 | number,
            Self::Shard(node, start, shard) => {
                1 << 63 | u64::from(node) << 48 | u64::from(shard) << 32 | u64::from(start)
            }
        }
    }
}

/// A generator.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The generator of a run for one purpose.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self(Self::raw(seed, stream))
    }

    /// The bare generator, for a shard.
    pub(crate) fn raw(seed: u64, stream: Stream) -> Xoshiro256PlusPlus {
        // Two words with nothing in common make one seed: both go through the mixer of splitmix64.
        let mixed = mix(seed ^ mix(stream.number()));
        Xoshiro256PlusPlus::seed_from_u64(mixed)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A place in a list of that length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something of that probability happens.
    pub fn chance(&mut self, of: PerMillion) -> bool {
        of.0 > 0 && self.below(1_000_000) < u64::from(of.0)
    }

    /// Whether something happens in so many cases of a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.chance(PerMillion(percent * 10_000))
    }

    /// One of a list.
    ///
    /// # Panics
    /// If the list is empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// An exponentially distributed number with that mean, at most about 44 times the mean. Computed in integers, so
    /// that it is the same on every machine.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let word = self.word() | 1;
        let zeros = word.leading_zeros();
        // log2 by its whole part and, linearly, the next ten bits.
        let fraction = ((word << zeros) >> 53) & 0x3ff;
        let log = u128::from(zeros) * 1024 + u128::from(1023 - fraction);
        ((u128::from(mean) * log * 710) >> 20) as u64
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
pub(crate) const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_has_its_mean() {
        let mut rng = Rng::new(1, Stream::Faults);
        let sum: u64 = (0..100_000).map(|_| rng.exponential(1000)).sum();
        assert!((90_000_000..110_000_000).contains(&sum), "{sum}");
    }

    #[test]
    fn streams_of_one_seed_differ_and_those_of_one_purpose_are_equal() {
        let word = |seed, stream| Rng::new(seed, stream).word();
        assert_eq!(word(7, Stream::Network), word(7, Stream::Network));
        assert_ne!(word(7, Stream::Network), word(7, Stream::Clients));
        assert_ne!(word(7, Stream::Shard(0, 1, 0)), word(7, Stream::Shard(1, 1, 0)));
        assert_ne!(word(7, Stream::Network), word(8, Stream::Network));
    }
}
