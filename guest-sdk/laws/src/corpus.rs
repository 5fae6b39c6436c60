//! Cases that have run new code of the merge are kept, and some later cases are made of them, as fuzzers do (AFL,
//! Zalewski 2013). Only a merge that tells of its code has such cases: all others are checked on random ones.

use crate::cases::Case;
use crate::rng::Rng;

/// The most cases that are kept. Later ones replace earlier ones at random.
const KEPT: usize = 64;
/// The most siblings of a case that is made of another.
const SIBLINGS: usize = 8;

/// The kept cases of one law.
#[derive(Debug)]
pub(crate) struct Corpus {
    kept: Vec<Case>,
    rng: Rng,
}

impl Corpus {
    pub(crate) fn new(seed: u64) -> Self {
        Self { kept: Vec::new(), rng: Rng::new(seed ^ 0xc0de) }
    }

    /// Keeps a case.
    pub(crate) fn keep(&mut self, case: &Case) {
        if self.kept.len() < KEPT {
            return self.kept.push(case.clone());
        }
        let at = usize::try_from(self.rng.below(KEPT as u64)).unwrap_or(0);
        self.kept[at] = case.clone();
    }

    /// The drawn case, or half of the time one that differs little from a kept one.
    pub(crate) fn instead_of(&mut self, drawn: Case) -> Case {
        if self.kept.is_empty() || self.rng.one_in(2) {
            return drawn;
        }
        let (Some(mut case), Some(fresh)) = (self.rng.pick(&self.kept).cloned(), drawn.inputs.first()) else {
            return drawn;
        };
        let at = usize::try_from(self.rng.below(case.inputs.len() as u64)).unwrap_or(0);
        let Some(input) = case.inputs.get_mut(at) else { return drawn };
        match self.rng.below(5) {
            0 => input.seeds.clone_from(&fresh.seeds),
            1 => input.size = fresh.size.max(input.size) + 1,
            2 => (input.stamp_ms, input.writer) = (fresh.stamp_ms, fresh.writer),
            3 => *input = fresh.clone(),
            _ if case.inputs.len() < SIBLINGS => case.inputs.push(fresh.clone()),
            _ => {}
        }
        case
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rng: &mut Rng) -> Case {
        Case::draw(rng, 4, true)
    }

    #[test]
    fn without_kept_cases_the_drawn_ones_stay() {
        let (mut corpus, mut rng) = (Corpus::new(1), Rng::new(2));
        for _ in 0..50 {
            let case = drawn(&mut rng);
            assert_eq!(corpus.instead_of(case.clone()), case);
        }
    }

    #[test]
    fn kept_cases_are_bounded_and_others_are_made_of_them() {
        let (mut corpus, mut rng) = (Corpus::new(1), Rng::new(2));
        (0..1_000).for_each(|_| corpus.keep(&drawn(&mut rng)));
        assert_eq!(corpus.kept.len(), KEPT);
        let mut made = 0;
        for _ in 0..200 {
            let case = drawn(&mut rng);
            let other = corpus.instead_of(case.clone());
            assert!((2..=SIBLINGS.max(case.inputs.len())).contains(&other.inputs.len()), "{other:?}");
            made += u32::from(other != case);
        }
        assert!((50..150).contains(&made), "{made}");
    }
}
