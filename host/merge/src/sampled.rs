//! Checks the laws again on a merge that a cluster has run: a few equations on the same siblings, each call in a fresh
//! instance. It is a sample of what the checker of [`laws`](rejoin_laws) does, so that its cost is bounded.

use bytes::Bytes;

use rejoin_laws::Law;

use crate::call::Sibling;
use crate::fault::{MergeFault, Refusal};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// The most fuel that the checks of one merge use. When that is used up the other laws are not judged.
const MOST_FUEL: u64 = 5_000_000_000;

/// A merge that was run, and what it returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SampledMerge {
    /// The key.
    pub key: Bytes,
    /// Two siblings or more, in the order of the merge.
    pub siblings: Vec<Sibling>,
    /// The merged value.
    pub value: Bytes,
}

impl SampledMerge {
    /// The bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let siblings: usize = self.siblings.iter().map(|sibling| sibling.value.len()).sum();
        self.key.len() + siblings + self.value.len()
    }
}

/// A law that a merge breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SampledViolation {
    /// The law.
    pub law: Law,
    /// What does not hold. Of replay it says something of the machine, and of all other laws of the plugin.
    pub equation: &'static str,
    /// The siblings that show it. Those of the merge, except for idempotence: there they are its result, twice.
    pub siblings: Vec<Sibling>,
    /// Whether the equation did not hold a second time either.
    pub confirmed: bool,
}

/// What came of the checks of one merge.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SampledLaws {
    /// The equations that hold or do not. Those without an answer on a side, such as for want of fuel, are not counted.
    pub judged: u32,
    /// The laws that are broken, each once.
    pub violations: Vec<SampledViolation>,
}

/// An equation: what is merged must come to the value that the merge has returned.
struct Equation {
    law: Law,
    text: &'static str,
    /// What is merged first, if anything, and becomes the first sibling of the second merge.
    head: Vec<Sibling>,
    /// The siblings of the second merge, or those behind the first one.
    rest: Vec<Sibling>,
    /// Whether the head comes behind the rest.
    last: bool,
}

impl Host {
    /// Checks replay, permutation, bracketing, idempotence of the result, and absorption on a merge. A law that is
    /// broken is checked a second time.
    ///
    /// Everything is compared with the value that the merge has returned, so without replay nothing is known of the
    /// plugin and the other laws are not judged. A plugin has no imports and each call a fresh instance: a replay that
    /// returns something else is the machine's fault.
    #[must_use]
    pub fn check_again(&self, plugin: &Plugin, merge: &SampledMerge, limits: &CallLimits) -> SampledLaws {
        let mut found = SampledLaws::default();
        let mut fuel = 0_u64;
        let mut run = |equation: &Equation| {
            if fuel >= MOST_FUEL {
                return None;
            }
            let (held, used) = self.holds(plugin, equation, merge, limits);
            fuel = fuel.saturating_add(used);
            held
        };
        for equation in equations(merge) {
            if found.violations.iter().any(|known| known.law == equation.law) {
                continue;
            }
            let Some(held) = run(&equation) else {
                if equation.law == Law::Replay {
                    break;
                }
                continue;
            };
            found.judged += 1;
            if !held {
                let confirmed = run(&equation) == Some(false);
                let siblings = if equation.law == Law::Idempotence { equation.rest } else { merge.siblings.clone() };
                found.violations.push(SampledViolation {
                    law: equation.law,
                    equation: equation.text,
                    siblings,
                    confirmed,
                });
                if equation.law == Law::Replay {
                    break;
                }
            }
        }
        found
    }

    /// Whether an equation holds, and the fuel that was used. `None`: there is no answer that could be compared.
    fn holds(
        &self,
        plugin: &Plugin,
        equation: &Equation,
        merge: &SampledMerge,
        limits: &CallLimits,
    ) -> (Option<bool>, u64) {
        let mut siblings = equation.rest.clone();
        let mut fuel = 0;
        if !equation.head.is_empty() {
            let (part, used) = self.merge_measured(plugin, &merge.key, &equation.head, limits);
            fuel = used.fuel;
            // Without the part there is nothing to compare: a plugin may refuse to merge only some of the siblings.
            let Ok(value) = part else { return (None, fuel) };
            let place = if equation.last { siblings.len() } else { 0 };
            siblings.insert(place, folded(value, &equation.head));
        }
        let (answer, used) = self.merge_measured(plugin, &merge.key, &siblings, limits);
        let held = match answer {
            Ok(value) => Some(value == merge.value),
            Err(fault) if is_an_answer(&fault) => Some(false),
            Err(_) => None,
        };
        (held, fuel.saturating_add(used.fuel))
    }
}

/// Whether a failure says something of the merge, and not of its limits or of the machine.
fn is_an_answer(fault: &MergeFault) -> bool {
    match fault {
        MergeFault::Refused(refusal) => *refusal != Refusal::TooLarge,
        MergeFault::OutOfFuel { .. }
        | MergeFault::OutOfTime { .. }
        | MergeFault::TooMuchMemory { .. }
        | MergeFault::ResultTooLarge { .. }
        | MergeFault::TooManySiblings { .. } => false,
        fault => fault.is_deterministic(),
    }
}

/// A merged value as a sibling: with the latest stamp and the highest writer of its inputs, as after a fold.
fn folded(value: Bytes, inputs: &[Sibling]) -> Sibling {
    let stamp_ms = inputs.iter().map(|sibling| sibling.stamp_ms).max().unwrap_or(0);
    let writer = inputs.iter().map(|sibling| sibling.writer).max().unwrap_or(0);
    Sibling { value, stamp_ms, writer }
}

fn equations(merge: &SampledMerge) -> Vec<Equation> {
    let all = &merge.siblings;
    // Replay comes first: the others say something only if it holds.
    let plain = |law, text, rest| Equation { law, text, head: Vec::new(), rest, last: false };
    let mut reversed = all.clone();
    reversed.reverse();
    let mut equations = vec![
        plain(Law::Replay, "m(all) = m(all), asked again", all.clone()),
        plain(Law::Permutation, "m(all) = m(all, reversed)", reversed),
    ];
    if all.len() > 2 {
        let mut turned = all.clone();
        turned.rotate_right(1);
        equations.push(plain(Law::Permutation, "m(all) = m(all, turned by 1)", turned));
        let split = (all.len() / 2).max(2);
        let part = |text, head: &[Sibling], rest: &[Sibling], last| Equation {
            law: Law::Bracketing,
            text,
            head: head.to_vec(),
            rest: rest.to_vec(),
            last,
        };
        let behind = all.len() - split;
        equations.push(part("m(m(first), rest) = m(all)", &all[..split], &all[split..], false));
        equations.push(part("m(rest, m(last)) = m(all)", &all[behind..], &all[..behind], true));
    }
    let whole = folded(merge.value.clone(), all);
    let twice = vec![whole.clone(), whole.clone()];
    equations.push(plain(Law::Idempotence, "m(m(all), m(all)) = m(all)", twice));
    if let (Some(first), Some(last)) = (all.first(), all.last()) {
        let absorbs = |text, sibling: &Sibling| plain(Law::Absorption, text, vec![whole.clone(), sibling.clone()]);
        equations.push(absorbs("m(m(all), first) = m(all)", first));
        equations.push(absorbs("m(m(all), last) = m(all)", last));
    }
    equations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sibling(value: &'static str, stamp_ms: u64) -> Sibling {
        Sibling { value: value.into(), stamp_ms, writer: 9 - stamp_ms }
    }

    #[test]
    fn every_law_has_equations_and_their_number_does_not_grow_with_the_siblings() {
        let merge = |count: u64| SampledMerge {
            key: "k".into(),
            siblings: (0..count).map(|stamp| Sibling { value: "v".into(), stamp_ms: stamp, writer: stamp }).collect(),
            value: "w".into(),
        };
        assert_eq!((equations(&merge(2)).len(), equations(&merge(3)).len(), equations(&merge(200)).len()), (5, 8, 8));
        let laws = [Law::Replay, Law::Permutation, Law::Bracketing, Law::Idempotence, Law::Absorption];
        let of = equations(&merge(3));
        assert!(laws.iter().all(|law| of.iter().any(|equation| equation.law == *law)));
        // Head and rest of a bracketing are all siblings.
        for equation in equations(&merge(200)).iter().filter(|equation| equation.law == Law::Bracketing) {
            assert!(equation.head.len() >= 2 && equation.head.len() + equation.rest.len() == 200);
        }
    }

    #[test]
    fn a_result_has_the_latest_stamp_and_the_highest_writer() {
        let whole = folded("ab".into(), &[sibling("a", 1), sibling("b", 2)]);
        assert_eq!(whole, Sibling { value: "ab".into(), stamp_ms: 2, writer: 8 });
    }

    #[test]
    fn what_is_for_want_of_something_is_no_answer() {
        for fault in [MergeFault::OutOfFuel { limit: 1 }, MergeFault::Busy, MergeFault::Refused(Refusal::TooLarge)] {
            assert!(!is_an_answer(&fault), "{fault}");
        }
        assert!(is_an_answer(&MergeFault::Refused(Refusal::Malformed)));
    }
}
