//! The law of totality: what is valid is merged, what is not is refused, and nothing breaks. If there is a validator,
//! it agrees.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::damage::{has_unknown, is_unreadable};
use crate::judge::{NotHeld, Trial, Violation};
use crate::laws::Law;
use crate::merge::{Merge, MergeError, MergeResult, Sibling, folded};

/// So many different values with one form are no coincidence of a format that has many ways to write one value.
pub(crate) const DIFFERENT: usize = 8;

/// Every merge that the other laws ask for must be answered; of values that may be garbage it may be refused, and must
/// be if one is.
pub(crate) fn totality(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let recorder = FailureRecorder { merge, valid: trial.valid, failed: RefCell::new(None) };
    for law in [Law::Permutation, Law::Bracketing, Law::Idempotence, Law::Absorption, Law::Growth] {
        // What it says of the answers is not asked here.
        let _ = law.judge(&recorder, trial);
    }
    if let Some(violation) = recorder.failed.into_inner() {
        return Err(NotHeld::Broken(violation));
    }
    if trial.valid {
        something_is_kept(merge, trial)?;
    } else {
        garbage_is_a_fault(merge, trial)?;
        what_is_taken_alone_is_taken_together(merge, trial)?;
        nothing_is_skipped(merge, trial)?;
    }
    validator_agrees(merge, trial)
}

fn differ(equation: String, left: MergeResult, right: MergeResult) -> Result<(), NotHeld> {
    Err(NotHeld::Broken(Violation::Differ { equation, left, right }))
}

/// A sibling merged with itself.
fn alone(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> MergeResult {
    merge.merge(key, &[sibling.clone(), sibling.clone()])
}

/// What is refused when it is merged with itself is refused beside others too, and what is taken keeps the members that
/// the plugin does not know.
fn garbage_is_a_fault(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let all = merge.merge(key, siblings);
    for (index, sibling) in siblings.iter().enumerate() {
        let canonical = alone(merge, key, sibling);
        if let (Ok(_), Err(MergeError::Refused(_))) = (&all, &canonical) {
            return differ(format!("m(all) = m(input {index}, input {index}), a fault: garbage must not be skipped"), all, canonical);
        }
        if let Ok(value) = &canonical
            && has_unknown(&sibling.value)
            && !has_unknown(value)
        {
            let equation = format!("m(input {index}, input {index}) = all members of input {index}, or a fault");
            return differ(equation, canonical, Ok(sibling.value.clone()));
        }
    }
    Ok(())
}

/// Values of which the merge takes each must be merged with each other, or a key is stuck with two writes that were
/// both accepted.
fn what_is_taken_alone_is_taken_together(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let all = merge.merge(key, siblings);
    if !matches!(all, Err(MergeError::Refused(_))) {
        return Ok(());
    }
    for sibling in siblings {
        let is_taken = merge.validate(key, &sibling.value).is_none_or(|valid| valid.is_ok());
        if !is_taken || alone(merge, key, sibling).is_err() {
            return Ok(());
        }
    }
    let first = siblings.first().map_or_else(|| all.clone(), |sibling| alone(merge, key, sibling));
    differ("m(all) = an answer, as every input alone has one".into(), all, first)
}

/// Valid values, all of them different, must not all have one canonical form: then the merge keeps nothing of any.
fn something_is_kept(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let different: BTreeSet<&[u8]> = siblings.iter().map(|sibling| &sibling.value[..]).collect();
    let [first, .., last] = siblings.as_slice() else { return Ok(()) };
    if siblings.len() < DIFFERENT || different.len() < siblings.len() {
        return Ok(());
    }
    let form = alone(merge, key, first)?;
    if siblings.iter().any(|sibling| alone(merge, key, sibling).as_ref() != Ok(&form)) {
        return Ok(());
    }
    let equation = format!("m(first, first) = something of the first, and not the same for all {} values", siblings.len());
    differ(equation, Ok(form), Ok(last.value.clone()))
}

/// Texts that nothing can read must not all count as one value that adds nothing: then they were skipped.
fn nothing_is_skipped(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, .. } = trial;
    let (unreadable, valid): (Vec<&Sibling>, Vec<&Sibling>) = siblings.iter().partition(|sibling| is_unreadable(&sibling.value));
    let [first, .., last] = unreadable.as_slice() else { return Ok(()) };
    let nothing = alone(merge, key, first)?;
    let is_nothing = |text: &&Sibling| text.value != nothing && alone(merge, key, text).as_ref() == Ok(&nothing);
    if unreadable.len() < 3 || first.value == last.value || !unreadable.iter().all(is_nothing) {
        return Ok(());
    }
    for value in valid {
        let canonical = alone(merge, key, value)?;
        let ignored = |text: &&Sibling| merge.merge(key, &[value.clone(), (*text).clone()]).as_ref() == Ok(&canonical);
        if canonical != nothing && unreadable.iter().all(ignored) {
            let answer = merge.merge(key, &[value.clone(), (*first).clone()]);
            let fault = Err(MergeError::Refused("what cannot be read is a Fault, and is never skipped".into()));
            return differ("m(valid, unreadable) = a fault".into(), answer, fault);
        }
    }
    Ok(())
}

/// A validator takes what is valid and what the merge makes of it, and nothing that the merge refuses.
fn validator_agrees(merge: &dyn Merge, trial: &Trial) -> Result<(), NotHeld> {
    let Trial { key, siblings, valid } = trial;
    let refused = |what: &str, sibling: &Sibling, failure: MergeError| {
        let failure = match failure {
            MergeError::Refused(reason) => MergeError::Refused(format!("the validator does not take {what}: {reason}")),
            MergeError::Trapped(reason) => MergeError::Trapped(format!("the validator, given {what}: {reason}")),
            MergeError::Exceeded(reason) => MergeError::Exceeded(format!("the validator, given {what}: {reason}")),
            MergeError::TooLarge(reason) => MergeError::TooLarge(format!("the validator does not take {what}: {reason}")),
        };
        Err(NotHeld::Broken(Violation::NoAnswer { siblings: vec![sibling.clone()], failure }))
    };
    for (index, sibling) in siblings.iter().enumerate() {
        match merge.validate(key, &sibling.value) {
            None => return Ok(()),
            Some(Err(failure)) if !valid && failure.is_refusal() => {}
            Some(Err(failure)) => return refused(if *valid { "a valid value" } else { "garbage" }, sibling, failure),
            Some(Ok(())) if *valid => {}
            Some(Ok(())) => {
                let canonical = alone(merge, key, sibling);
                if let Err(MergeError::Refused(_)) = &canonical {
                    let equation = format!("validate(input {index}) = m(input {index}, input {index}), a fault");
                    return differ(equation, Ok(sibling.value.clone()), canonical);
                }
            }
        }
    }
    let merged = folded(merge.merge(key, siblings)?, siblings);
    match merge.validate(key, &merged.value) {
        Some(Err(failure)) => refused("the result of a merge", &merged, failure),
        _ => Ok(()),
    }
}

/// Passes merges on, and remembers the first that had to be answered and was not.
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
