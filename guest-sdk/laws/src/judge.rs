//! Checks a law on given siblings, and compares results byte by byte.
//!
//! Each law judges only its own property: a merge that traps breaks [`Law::Totality`], and the laws that compare
//! results then leave the siblings unjudged.

use crate::laws::Law;
use crate::merge::{Merge, MergeError, MergeResult, Sibling, folded};
use crate::totality::totality;

/// Bytes by which a merged value may be longer than all its inputs: room for framing.
pub const GROWTH_SLACK: usize = 64;

/// A key and the siblings that a law is checked on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The key that the merge is given.
    pub key: Vec<u8>,
    /// Two siblings or more.
    pub siblings: Vec<Sibling>,
    /// Whether all values are known to be valid. Otherwise the merge may refuse them; values that it accepts it must
    /// merge by the laws.
    pub valid: bool,
}

/// The result of checking a law on a trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The law holds.
    Held,
    /// [`Law::Limits`] only: the merge stayed within its fuel and memory, and its result is too large. A cluster keeps
    /// such siblings unmerged.
    TooLarge,
    /// There is nothing to compare: the merge refused, or the trial has too few siblings.
    Unjudged,
    /// The law does not hold.
    Broken(Violation),
}

/// How a law is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Two sides of an equation differ.
    Differ {
        /// The equation, such as `m(m(first 2), rest) = m(all)`.
        equation: String,
        /// The result of the left side.
        left: MergeResult,
        /// The result of the right side.
        right: MergeResult,
    },
    /// A merge or a validator that had to accept its input gave no result.
    NoAnswer {
        /// The siblings of that call: the trial's, or results of merges of them.
        siblings: Vec<Sibling>,
        /// Why there is no result.
        failure: MergeError,
    },
    /// The merge of canonical values is longer than all of them together and [`GROWTH_SLACK`].
    Grown {
        /// The length of the result in bytes.
        bytes: usize,
        /// The most bytes it may have.
        limit: usize,
    },
    /// The sampler gives no value, or always the same.
    NoSample {
        /// The seed it was given.
        seed: u64,
        /// The size it was given.
        size: u32,
        /// The sampler's reason.
        reason: String,
    },
}

impl Violation {
    /// Whether two violations are of the same kind. The shrinker must not turn a difference into a refusal.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let kind = std::mem::discriminant::<MergeError>;
        match (self, other) {
            (Self::Differ { .. }, Self::Differ { .. }) | (Self::Grown { .. }, Self::Grown { .. }) => true,
            (Self::NoAnswer { failure: one, .. }, Self::NoAnswer { failure: two, .. }) => kind(one) == kind(two),
            _ => false,
        }
    }
}

/// Why a check of a law ends without [`Verdict::Held`].
pub(crate) enum NotHeld {
    Unjudged,
    TooLarge,
    Broken(Violation),
}

/// Without a result on one side there is nothing to compare.
impl From<MergeError> for NotHeld {
    fn from(_: MergeError) -> Self {
        Self::Unjudged
    }
}

impl Law {
    /// Checks the law on a trial.
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
            Err(NotHeld::TooLarge) => Verdict::TooLarge,
            Err(NotHeld::Broken(violation)) => Verdict::Broken(violation),
        }
    }
}

/// Both sides must be equal. A refusal on one side only is a difference. Two refusals, and a merge that traps, are left
/// to other laws.
fn same(equation: &str, left: MergeResult, right: MergeResult) -> Result<(), NotHeld> {
    let answers = |answer: &MergeResult| answer.as_ref().map_or_else(MergeError::is_refusal, |_| true);
    match (&left, &right) {
        (Ok(one), Ok(two)) if one == two => Ok(()),
        (Err(_), Err(_)) => Err(NotHeld::Unjudged),
        _ if answers(&left) && answers(&right) => {
            Err(NotHeld::Broken(Violation::Differ { equation: equation.into(), left, right }))
        }
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

/// Keeps the order of the siblings, so that a merge that depends on the order alone breaks only permutation.
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
    same(
        "m(a',a') = a', where a' = m(a,a)",
        merge.merge(key, &[canonical.clone(), canonical.clone()]),
        Ok(value.clone()),
    )?;
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

/// Compares canonical forms, since canonicalising a value may lengthen it once.
fn growth(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let inputs = siblings.iter().map(|sibling| canonical(merge, key, sibling)).collect::<Result<Vec<_>, _>>()?;
    let limit = inputs.iter().map(|sibling| sibling.value.len()).sum::<usize>() + GROWTH_SLACK;
    let bytes = merge.merge(key, &inputs)?.len();
    if bytes > limit { Err(NotHeld::Broken(Violation::Grown { bytes, limit })) } else { Ok(()) }
}

fn replay(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    let (first, again) = (merge.merge(key, siblings), merge.merge_elsewhere(key, siblings));
    if first.is_err() && again.is_err() {
        return Err(NotHeld::Unjudged);
    }
    if first == again {
        return Ok(());
    }
    Err(NotHeld::Broken(Violation::Differ {
        equation: "m(all) = m(all), asked again elsewhere".into(),
        left: first,
        right: again,
    }))
}

/// A merge of large values must not trap or exceed its fuel and memory. Its result may be too large.
fn limits(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), NotHeld> {
    match merge.merge(key, siblings) {
        Ok(_) => Ok(()),
        Err(MergeError::TooLarge(_)) => Err(NotHeld::TooLarge),
        Err(MergeError::Refused(_)) => Err(NotHeld::Unjudged),
        Err(failure) => Err(NotHeld::Broken(Violation::NoAnswer { siblings: siblings.to_vec(), failure })),
    }
}
