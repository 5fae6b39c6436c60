//! Suspicion by phi accrual: how unlikely it is that a peer which is well has not answered yet.
//!
//! The time to an answer is taken to be exponentially distributed around its mean, so
//! phi = −log10 P(later than now) = elapsed ÷ mean × log10 e. That needs integers only, and gives the same everywhere.
//! Time counts from the oldest question since the last answer, and not from the last answer: a peer that nobody asks
//! anything is silent and well.

/// A thousandth of phi for each mean: 1000 × log10 e.
const MILLI_PHI: u128 = 434;
/// A new sample weighs one in so many.
const WEIGHT: u64 = 8;
/// A sample counts as so many means at most: an outage is not what a peer usually takes.
const LONGEST: u64 = 4;

/// The answers to one kind of question.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Track {
    /// When the oldest question since the last answer was asked.
    pub(super) asked_us: Option<u64>,
    /// When the last answer came.
    pub(super) answered_us: Option<u64>,
    /// When the last open question was given up: silence counts until then.
    given_up_us: Option<u64>,
    mean_us: u64,
}

/// Suspicion in thousandths of phi after so long without an answer that takes `mean_us` on average.
pub(super) fn milli_phi(elapsed_us: u64, mean_us: u64) -> u64 {
    u64::try_from(u128::from(elapsed_us) * MILLI_PHI / u128::from(mean_us.max(1))).unwrap_or(u64::MAX)
}

impl Track {
    /// A question was asked then, and is not answered yet. What was asked before the last answer counts from that on.
    pub(super) fn asked(&mut self, at_us: u64) {
        let at_us = at_us.max(self.answered_us.unwrap_or(0));
        self.asked_us.get_or_insert(at_us);
        self.given_up_us = None;
    }

    /// Nobody waits for an answer any more. What was not answered counts for so long still.
    pub(super) fn given_up(&mut self, now_us: u64, forget_us: u64) {
        if self.asked_us.is_none() {
            return;
        }
        let since_us = *self.given_up_us.get_or_insert(now_us);
        if now_us.saturating_sub(since_us) >= forget_us {
            (self.asked_us, self.given_up_us) = (None, None);
        }
    }

    /// Whether the last open question was given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up_us.is_some()
    }

    /// An answer has come, after so long if that is known; else the oldest open question is what was answered.
    pub(super) fn answered(&mut self, now_us: u64, after_us: Option<u64>, least_us: u64) {
        let since_asked = self.asked_us.map(|at_us| now_us.saturating_sub(at_us));
        if let Some(sample_us) = after_us.or(since_asked) {
            let sample_us = sample_us.min(LONGEST * self.mean(least_us));
            self.mean_us = (self.mean_us * (WEIGHT - 1) + sample_us) / WEIGHT;
        }
        (self.asked_us, self.given_up_us) = (None, None);
        self.answered_us = Some(now_us);
    }

    fn mean(&self, least_us: u64) -> u64 {
        self.mean_us.max(least_us).max(1)
    }

    /// Suspicion in thousandths of phi, 0 if no question is open. `least_us` is the least that is taken for the mean.
    pub(super) fn phi_milli(&self, now_us: u64, least_us: u64) -> u64 {
        let Some(asked_us) = self.asked_us else { return 0 };
        let elapsed_us = self.given_up_us.unwrap_or(now_us).saturating_sub(asked_us);
        milli_phi(elapsed_us, self.mean(least_us))
    }

    /// This process stood still for so long: open questions were asked that much later.
    pub(super) fn excuse(&mut self, now_us: u64, late_us: u64) {
        self.asked_us = self.asked_us.map(|at_us| at_us.saturating_add(late_us).min(now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 200_000;

    #[test]
    fn phi_grows_with_the_time_since_a_question_and_not_since_an_answer() {
        let mut track = Track::default();
        track.answered(0, None, LEAST);
        assert_eq!(track.phi_milli(3_600_000_000, LEAST), 0, "nobody has asked");
        track.asked(3_600_000_000);
        assert_eq!(track.phi_milli(3_600_200_000, LEAST), 434, "one mean");
        track.asked(3_600_900_000);
        assert_eq!(track.phi_milli(3_602_000_000, LEAST), 4_340, "ten means since the first");
    }

    #[test]
    fn a_slow_peer_is_given_more_time_and_an_outage_is_not_what_it_takes() {
        let mut track = Track::default();
        for at in 0..100 {
            track.asked(at * 10_000_000);
            track.answered(at * 10_000_000 + 600_000, None, LEAST);
        }
        track.asked(1_000_000_000);
        assert!((700..760).contains(&track.phi_milli(1_001_000_000, LEAST)), "{track:?}");
        track.answered(1_600_000_000, None, LEAST);
        track.asked(1_700_000_000);
        assert!(track.phi_milli(1_701_000_000, LEAST) > 500, "ten minutes count as a few means: {track:?}");
    }

    #[test]
    fn what_was_given_up_counts_no_more_than_it_did_and_not_for_ever() {
        let mut track = Track::default();
        track.asked(0);
        track.given_up(2_000_000, 10_000_000);
        assert_eq!(track.phi_milli(9_000_000, LEAST), 4_340, "ten means were waited");
        track.given_up(12_000_000, 10_000_000);
        assert_eq!(track.phi_milli(12_000_000, LEAST), 0);
    }

    #[test]
    fn a_question_that_is_older_than_the_last_answer_counts_from_that_on() {
        let mut track = Track::default();
        track.answered(5_000_000, None, LEAST);
        track.asked(1_000_000);
        assert_eq!(track.asked_us, Some(5_000_000));
    }
}
