//! The law of totality: valid values are merged, garbage is refused, no byte of a value is ignored, and nothing traps.
//! A validator must agree with the merge.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::damage::{BYTE_CHANGES, has_unknown, is_unreadable};
use crate::judge::{NotHeld, Trial, Violation};
use crate::laws::Law;
use crate::merge::{Merge, MergeError, MergeResult, Sibling, folded};

/// The number of different values that must not all have one canonical form. A format may have several spellings of one
/// value, but not for so many values at once.
pub(crate) const DIFFERENT: usize = 8;
/// Longer values than this may legitimately lose a part, as a list of the ten best does. Of them only merges that cut
/// the value off are reported.
const SMALL_BYTES: usize = 64;

/// Runs the merges of the other laws, each of which must give a result (or may be a refusal, if the values may be
/// invalid), and then the rules of this law.
pub(crate) fn totality(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let recorder = FailureRecorder { merge, valid: trial.valid, failed: RefCell::new(None) };
    for law in [Law::Permutation, Law::Bracketing, Law::Idempotence, Law::Absorption, Law::Growth] {
        // Only whether there is a result matters here. The results themselves are those laws' business.
        let _ = law.judge(&recorder, trial);
    }
    if let Some(violation) = recorder.failed.into_inner() {
        return Err(NotHeld::Broken(violation));
    }
    if trial.valid {
        check_values_differ(merge, trial)?;
    } else {
        check_garbage_is_refused(merge, trial)?;
        check_accepted_values_merge(merge, trial)?;
        check_unreadable_is_not_skipped(merge, trial)?;
        check_every_byte_counts(merge, trial)?;
    }
    check_validator(merge, trial)
}

fn differ(equation: String, left: MergeResult, right: MergeResult) -> Result<(), NotHeld> {
    Err(NotHeld::Broken(Violation::Differ { equation, left, right }))
}

/// The canonical form of a sibling.
fn canonical(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> MergeResult {
    merge.merge(key, &[sibling.clone(), sibling.clone()])
}

/// A sibling that is refused alone must be refused beside others, and one that is accepted must keep its unknown
/// members.
fn check_garbage_is_refused(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let all = merge.merge(key, siblings);
    for (index, sibling) in siblings.iter().enumerate() {
        let alone = canonical(merge, key, sibling);
        if let (Ok(_), Err(MergeError::Refused(_))) = (&all, &alone) {
            return differ(
                format!("m(all) = m(input {index}, input {index}), a fault: garbage must not be skipped"),
                all,
                alone,
            );
        }
        if let Ok(value) = &alone
            && has_unknown(&sibling.value)
            && !has_unknown(value)
        {
            let equation = format!("m(input {index}, input {index}) = all members of input {index}, or a fault");
            return differ(equation, alone, Ok(sibling.value.clone()));
        }
    }
    Ok(())
}

/// Values that are accepted alone must be merged with each other. Otherwise two accepted writes block a key for good.
fn check_accepted_values_merge(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let all = merge.merge(key, siblings);
    if !matches!(all, Err(MergeError::Refused(_))) {
        return Ok(());
    }
    for sibling in siblings {
        let is_written = merge.validate(key, &sibling.value).is_none_or(|valid| valid.is_ok());
        if !is_written || canonical(merge, key, sibling).is_err() {
            return Ok(());
        }
    }
    let first = siblings.first().map_or_else(|| all.clone(), |sibling| canonical(merge, key, sibling));
    differ("m(all) = a result, as every input alone has one".into(), all, first)
}

/// Many different valid values must not all have one canonical form: such a merge keeps nothing of any value.
fn check_values_differ(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let different: BTreeSet<&[u8]> = siblings.iter().map(|sibling| &sibling.value[..]).collect();
    let [first, .., last] = siblings.as_slice() else { return Ok(()) };
    if siblings.len() < DIFFERENT || different.len() < siblings.len() {
        return Ok(());
    }
    let form = canonical(merge, key, first)?;
    if siblings.iter().any(|sibling| canonical(merge, key, sibling).as_ref() != Ok(&form)) {
        return Ok(());
    }
    let equation =
        format!("m(first, first) = something of the first, and not the same for all {} values", siblings.len());
    differ(equation, Ok(form), Ok(last.value.clone()))
}

/// Values that differ in one byte must not all be accepted and have one canonical form: such a merge ignores that byte.
fn check_every_byte_counts(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let [first, others @ ..] = siblings.as_slice() else { return Ok(()) };
    if (others.len() as u64) < BYTE_CHANGES {
        return Ok(());
    }
    let changed_at = |other: &Sibling| {
        let (one, two) = (&first.value, &other.value);
        let mut places = one.iter().zip(two).enumerate().filter(|(_, (one, two))| one != two).map(|(at, _)| at);
        let place = places.next().filter(|_| one.len() == two.len())?;
        places.next().is_none().then_some(place)
    };
    let places: BTreeSet<Option<usize>> = others.iter().map(changed_at).collect();
    let values: BTreeSet<&[u8]> = siblings.iter().map(|sibling| &sibling.value[..]).collect();
    let (Some(Some(place)), 1, true) = (places.first(), places.len(), values.len() == siblings.len()) else {
        return Ok(());
    };
    let form = canonical(merge, key, first)?;
    if others.iter().any(|other| canonical(merge, key, other).as_ref() != Ok(&form)) {
        return Ok(());
    }
    if first.value.len() > SMALL_BYTES && !first.value.starts_with(&form) {
        return Ok(());
    }
    let equation = format!(
        "m(input 0, input 0) = a value that depends on byte {place} of input 0, or a fault for another byte there"
    );
    differ(equation, Ok(form), Ok(first.value.clone()))
}

/// Unreadable bytes must be refused, and not be skipped as if the sibling were not there.
fn check_unreadable_is_not_skipped(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let (unreadable, valid): (Vec<&Sibling>, Vec<&Sibling>) =
        siblings.iter().partition(|sibling| is_unreadable(&sibling.value));
    let [first, .., last] = unreadable.as_slice() else { return Ok(()) };
    let nothing = canonical(merge, key, first)?;
    let is_nothing = |text: &&Sibling| text.value != nothing && canonical(merge, key, text).as_ref() == Ok(&nothing);
    if unreadable.len() < 3 || first.value == last.value || !unreadable.iter().all(is_nothing) {
        return Ok(());
    }
    for value in valid {
        let alone = canonical(merge, key, value)?;
        let ignored = |text: &&Sibling| merge.merge(key, &[value.clone(), (*text).clone()]).as_ref() == Ok(&alone);
        if alone != nothing && unreadable.iter().all(ignored) {
            let answer = merge.merge(key, &[value.clone(), (*first).clone()]);
            let fault = Err(MergeError::Refused("a value that cannot be read is a Fault, and is never skipped".into()));
            return differ("m(valid, unreadable) = a fault".into(), answer, fault);
        }
    }
    Ok(())
}

/// A validator must accept valid values and what the merge makes of them, and nothing that the merge refuses.
fn check_validator(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, valid } = trial;
    for (index, sibling) in siblings.iter().enumerate() {
        match merge.validate(key, &sibling.value) {
            None => return Ok(()),
            Some(Err(failure)) if !valid && failure.is_refusal() => {}
            Some(Err(failure)) => {
                return Err(not_validated(if *valid { "a valid value" } else { "garbage" }, sibling, failure));
            }
            Some(Ok(())) if *valid => {}
            Some(Ok(())) => {
                let alone = canonical(merge, key, sibling);
                if let Err(MergeError::Refused(_)) = &alone {
                    let equation = format!("validate(input {index}) = m(input {index}, input {index}), a fault");
                    return differ(equation, Ok(sibling.value.clone()), alone);
                }
            }
        }
    }
    let merged = folded(merge.merge(key, siblings)?, siblings);
    match merge.validate(key, &merged.value) {
        Some(Err(failure)) => Err(not_validated("the result of a merge", &merged, failure)),
        _ => Ok(()),
    }
}

fn not_validated(what: &str, sibling: &Sibling, failure: MergeError) -> NotHeld {
    let failure = match failure {
        MergeError::Refused(reason) => MergeError::Refused(format!("the validator does not take {what}: {reason}")),
        MergeError::Trapped(reason) => MergeError::Trapped(format!("the validator, given {what}: {reason}")),
        MergeError::Exceeded(reason) => MergeError::Exceeded(format!("the validator, given {what}: {reason}")),
        MergeError::TooLarge(reason) => MergeError::TooLarge(format!("the validator does not take {what}: {reason}")),
    };
    NotHeld::Broken(Violation::NoAnswer { siblings: vec![sibling.clone()], failure })
}

/// Passes merges on, and records the first one that had to give a result and did not.
struct FailureRecorder<'a> {
    merge: &'a dyn Merge,
    valid: bool,
    failed: RefCell<Option<Violation>>,
}

impl Merge for FailureRecorder<'_> {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let answer = self.merge.merge(key, siblings);
        match &answer {
            Err(failure) if self.valid || !failure.is_refusal() => {
                let violation = || Violation::NoAnswer { siblings: siblings.to_vec(), failure: failure.clone() };
                self.failed.borrow_mut().get_or_insert_with(violation);
            }
            _ => {}
        }
        answer
    }
}
