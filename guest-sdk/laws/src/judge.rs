//! Tries a law on concrete siblings, and compares answers on bytes.
//!
//! Each law judges only what is its own: a merge that breaks breaks [`Law::Totality`], and the laws that compare
//! answers then say nothing.

use crate::laws::Law;
use crate::merge::{Merge, MergeError, MergeResult, Sibling, folded};
use crate::totality::totality;

/// By how many bytes a merged value may be longer than all that went into it: a little framing.
pub const GROWTH_SLACK: usize = 64;

/// What a merge is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The key.
    pub key: Vec<u8>,
    /// Two siblings or more.
    pub siblings: Vec<Sibling>,
    /// Whether all values are known to be valid. A merge may refuse those of another trial; what it accepts, it must
    /// merge by the laws.
    pub valid: bool,
}

/// What a law says of a trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It holds.
    Held,
    /// There is nothing to compare: the merge refused, or the trial is too small.
    Unjudged,
    /// It does not hold.
    Broken(Violation),
}

/// How a law is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Two ways to one answer gave two.
    Differ {
        /// What the two ways are, such as `m(m(first 2), rest) = m(all)`.
        equation: String,
        /// The answer of the left way.
        left: MergeResult,
        /// The answer of the right way.
        right: MergeResult,
    },
    /// A merge that had to be answered was not.
    NoAnswer {
        /// What was to be merged: the trial's siblings, or what was made of them.
        siblings: Vec<Sibling>,
        /// What happened.
        failure: MergeError,
    },
    /// The merge of values in their canonical form is longer than all of them together, and [`GROWTH_SLACK`].
    Grown {
        /// Bytes of the result.
        bytes: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// The sampler has no value to try anything on.
    NoSample {
        /// The seed it was given.
        seed: u64,
        /// The size it was given.
        size: u32,
        /// What it says.
        reason: String,
    },
}

impl Violation {
    /// Whether two violations are of one kind: answers that differ must not be taken for a refusal.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let kind = std::mem::discriminant::<MergeError>;
        match (self, other) {
            (Self::Differ { .. }, Self::Differ { .. }) | (Self::Grown { .. }, Self::Grown { .. }) => true,
            (Self::NoAnswer { failure: one, .. }, Self::NoAnswer { failure: two, .. }) => kind(one) == kind(two),
            _ => false,
        }
    }
}

/// Why a law's comparison ends early.
pub(crate) enum NotHeld {
    Unjudged,
    Broken(Violation),
}

/// A part of a comparison without an answer leaves nothing to compare.
impl From<MergeError> for NotHeld {
    fn from(_: MergeError) -> Self {
        Self::Unjudged
    }
}

impl Law {
    /// Tries the law on a trial.
    #[must_use]
    pub fn judge(self, merge: &dyn Merge, trial: &Trial) -> Verdict {
        let Trial { key, siblings, .. } = trial;
        let held = match self {
            Self::Totality => totality(merge, trial),
            Self::Permutation => permutation(merge, key, siblings),
            Self::Bracketing => bracketing(merge, key, siblings),
            Self::Idempotence => siblings.iter().try_for_each(|sibling| idempotence(merge, key, sibling)),
            Self::Absorption => absorption(merge, key, siblings),
            Self::Growth => growth(merge, key, siblings),
            Self::Replay => replay(merge, key, siblings),
            Self::Limits => limits(merge, key, siblings),
        };
        match held {
            Ok(()) => Verdict::Held,
            Err(NotHeld::Unjudged) => Verdict::Unjudged,
            Err(NotHeld::Broken(violation)) => Verdict::Broken(violation),
        }
    }
}

/// Two answers must be one. A refusal against an answer is a difference; two refusals, or a merge that breaks, are not
/// for this law to judge.
fn same(equation: &str, left: MergeResult, right: MergeResult) -> Result<(), NotHeld> {
    let answers = |answer: &MergeResult| answer.as_ref().map_or_else(MergeError::is_refusal, |_| true);
    match (&left, &right) {
        (Ok(one), Ok(two)) if one == two => Ok(()),
        (Err(_), Err(_)) => Err(NotHeld::Unjudged),
        _ if answers(&left) && answers(&right) => Err(NotHeld::Broken(Violation::Differ { equation: equation.into(), left, right })),
        _ => Err(NotHeld::Unjudged),
    }
}

fn permutation(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let straight = merge.merge(key, siblings);
    let mut turned = siblings.to_vec();
    for turn in 1..siblings.len() {
        turned.rotate_right(1);
        same(&format!("m(all) = m(all, turned by {turn})"), straight.clone(), merge.merge(key, &turned))?;
    }
    let reversed: Vec<Sibling> = siblings.iter().rev().cloned().collect();
    same("m(all) = m(all, reversed)", straight, merge.merge(key, &reversed))
}

/// The order is kept, so that a merge which depends on it alone is not blamed for grouping.
fn bracketing(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    if siblings.len() < 3 {
        return Err(NotHeld::Unjudged);
    }
    let flat = merge.merge(key, siblings);
    let part = |group: &[Sibling]| -> Result<Sibling, MergeError> { Ok(folded(merge.merge(key, group)?, group)) };
    for split in 2..siblings.len() {
        let (head, tail) = siblings.split_at(split);
        let grouped = [&[part(head)?], tail].concat();
        same(&format!("m(m(first {split}), rest) = m(all)"), merge.merge(key, &grouped), flat.clone())?;
        let (head, tail) = siblings.split_at(siblings.len() - split);
        let grouped = [head, &[part(tail)?]].concat();
        same(&format!("m(rest, m(last {split})) = m(all)"), merge.merge(key, &grouped), flat.clone())?;
    }
    Ok(())
}

fn idempotence(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> Result<(), NotHeld> {
    let canonical = canonical(merge, key, sibling)?;
    let value = canonical.value.clone();
    same("m(a',a') = a', where a' = m(a,a)", merge.merge(key, &[canonical.clone(), canonical.clone()]), Ok(value.clone()))?;
    same("m(a,a') = a', where a' = m(a,a)", merge.merge(key, &[sibling.clone(), canonical]), Ok(value))
}

fn canonical(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> Result<Sibling, MergeError> {
    let value = merge.merge(key, &[sibling.clone(), sibling.clone()])?;
    Ok(Sibling { value, ..sibling.clone() })
}

fn absorption(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let whole = folded(merge.merge(key, siblings)?, siblings);
    siblings.iter().enumerate().try_for_each(|(index, part)| {
        let again = merge.merge(key, &[whole.clone(), part.clone()]);
        same(&format!("m(m(all), input {index}) = m(all)"), again, Ok(whole.value.clone()))
    })
}

/// Of the canonical forms, since bringing a value into its form may lengthen it, once.
fn growth(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let inputs = siblings.iter().map(|sibling| canonical(merge, key, sibling)).collect::<Result<Vec<_>, _>>()?;
    let limit = inputs.iter().map(|sibling| sibling.value.len()).sum::<usize>() + GROWTH_SLACK;
    let bytes = merge.merge(key, &inputs)?.len();
    if bytes > limit { Err(NotHeld::Broken(Violation::Grown { bytes, limit })) } else { Ok(()) }
}

fn replay(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let (first, again) = (merge.merge(key, siblings), merge.merge_elsewhere(key, siblings));
    if first == again {
        return Ok(());
    }
    Err(NotHeld::Broken(Violation::Differ { equation: "m(all) = m(all), asked again elsewhere".into(), left: first, right: again }))
}

/// Large values may be refused, as too large; they must not break or exhaust the merge.
fn limits(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    match merge.merge(key, siblings) {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_refusal() => Err(NotHeld::Unjudged),
        Err(failure) => Err(NotHeld::Broken(Violation::NoAnswer { siblings: siblings.to_vec(), failure })),
    }
}
