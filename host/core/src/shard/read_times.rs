//! How long a peer has taken to answer reads of late: on average, and all but the slowest few of them.
//!
//! The times are counted in buckets whose bounds grow by a fifth to a quarter, and all counts are halved now and then,
//! so that what is long past fades. A peer takes some hundred bytes, however many reads it answers.

/// Of so many answers in a hundred none took longer than [`ReadTimes::slow_us`].
const USUAL_PERCENT: u32 = 99;
/// All counts are halved when there are so many answers in them.
const RECENT: u32 = 1024;
/// Octaves are divided into so many buckets.
const PER_OCTAVE: u32 = 4;
/// Shorter times are counted in the first bucket, in microseconds: a power of two.
const SHORTEST_US: u64 = 64;
/// The buckets. The last one begins at 3.7 seconds.
const BUCKETS: usize = 64;
/// A peer whose answers take less on average, in microseconds, is as near as any other.
const NEAR_US: u64 = 1_000;

/// The answers of one peer.
#[derive(Clone, Debug)]
pub(super) struct ReadTimes {
    counts: [u16; BUCKETS],
    mean_us: u64,
}

impl ReadTimes {
    /// The peer has answered for the first time.
    pub(super) fn first(took_us: u64) -> Self {
        let mut times = Self { counts: [0; BUCKETS], mean_us: took_us };
        times.add(took_us);
        times
    }

    /// It has answered again.
    pub(super) fn add(&mut self, took_us: u64) {
        self.mean_us = self.mean_us - self.mean_us / 8 + took_us / 8;
        if self.total() >= RECENT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
        self.counts[bucket_of(took_us)] += 1;
    }

    /// The time that the slowest few of the answers exceed, in microseconds, rounded up by at most a quarter.
    pub(super) fn slow_us(&self) -> u64 {
        let usual = (self.total() * USUAL_PERCENT).div_ceil(100);
        let mut counted = 0;
        let is_reached = |count: &u16| {
            counted += u32::from(*count);
            counted >= usual
        };
        end_of(self.counts.iter().position(is_reached).unwrap_or(BUCKETS - 1))
    }

    /// How far the peer is: 0 for near, and one more for each doubling of the average time. Peers that differ by less
    /// are as near as one another, so that reads do not all go to whichever was a little faster last.
    pub(super) fn distance(&self) -> u32 {
        (self.mean_us / NEAR_US).checked_ilog2().map_or(0, |doublings| doublings + 1)
    }

    fn total(&self) -> u32 {
        self.counts.iter().map(|count| u32::from(*count)).sum()
    }
}

fn bucket_of(took_us: u64) -> usize {
    let us = took_us.max(SHORTEST_US);
    let octave = us.ilog2();
    // The two bits behind the leading one say which quarter of the octave it is.
    let quarter = (us >> (octave - 2)) & 3;
    let octaves = octave - SHORTEST_US.ilog2();
    (octaves as usize * PER_OCTAVE as usize + quarter as usize).min(BUCKETS - 1)
}

/// Where a bucket ends, in microseconds.
fn end_of(bucket: usize) -> u64 {
    let (octaves, quarter) = (bucket / PER_OCTAVE as usize, bucket as u64 % u64::from(PER_OCTAVE));
    (5 + quarter) << (octaves + SHORTEST_US.ilog2() as usize - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_soon_after_it() {
        for us in (0..200_000).chain((200_000..3_400_000).step_by(997)) {
            let end_us = end_of(bucket_of(us));
            assert!(end_us > us, "{us} ends at {end_us}");
            assert!(us < SHORTEST_US || end_us <= us + us / 4 + 1, "{us} ends at {end_us}");
        }
        assert_eq!([3_700_000, u64::MAX].map(bucket_of), [BUCKETS - 1; 2]);
    }

    #[test]
    fn a_slow_answer_in_a_hundred_does_not_count_and_two_do() {
        let mut times = ReadTimes::first(1_000);
        (1..99).for_each(|_| times.add(1_000));
        times.add(90_000);
        assert!((1_000..1_300).contains(&times.slow_us()), "{}", times.slow_us());
        times.add(90_000);
        assert!(times.slow_us() > 90_000, "{}", times.slow_us());
    }

    #[test]
    fn times_that_are_long_past_fade() {
        let mut times = ReadTimes::first(400_000);
        (0..RECENT).for_each(|_| times.add(400_000));
        assert!(times.slow_us() > 400_000);
        assert_eq!(times.distance(), 9);
        (0..RECENT * 5).for_each(|_| times.add(500));
        assert!(times.slow_us() < 1_000, "{}", times.slow_us());
        assert_eq!(times.distance(), 0);
        assert!(times.total() <= RECENT);
    }

    #[test]
    fn peers_are_as_near_as_one_another_up_to_a_doubling() {
        let distances = [0, 900, 1_000, 1_900, 2_000, 3_900, 70_000].map(|us| ReadTimes::first(us).distance());
        assert_eq!(distances, [0, 0, 1, 1, 2, 2, 7]);
    }
}
