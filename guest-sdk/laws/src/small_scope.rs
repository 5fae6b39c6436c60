//! Exhaustive checks of a small scope: all triples of the smallest values.
//!
//! Random cases sample the pairs and triples of values, and a merge that is wrong for one pair in a thousand passes
//! them by luck. Nearly all such faults show on small values already (Jackson, "Software Abstractions", calls this the
//! small scope hypothesis), and of these all triples can be tried: 100 values have a million. Merges of pairs are
//! remembered, so that a triple takes three look-ups, and one merge of all three.

use std::collections::HashMap;
use std::time::Instant;

use crate::cases::{Case, Input};
use crate::check::CheckConfig;
use crate::counterexample::Counterexample;
use crate::judge::{Trial, Verdict, Violation};
use crate::laws::Law;
use crate::merge::{Merge, MergeResult, Sampler, Sibling, folded};
use crate::progress::Progress;
use crate::samples::{Sample, smallest};
use crate::shrink::{FailingCase, ShrinkBudget, shrink};

/// What was checked exhaustively.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SmallScope {
    /// The laws hold for all triples of so many of the smallest values.
    pub values: usize,
    /// The different values that there were: those that the sampler gave, as many as were asked for at most.
    pub of: usize,
    /// The ordered triples of the values.
    pub triples: u64,
    /// The siblings with all combinations of a few stamps and writers of which all triples were checked, too.
    pub stamped: usize,
    /// Merges that this took.
    pub merges: u64,
}

/// The values that are combined with stamps and writers, and the number of these.
const STAMPED: usize = 5;
/// Equal stamps, later ones, and such of the next day at an earlier hour.
const STAMPS: [u64; 3] = [SHARED_MS, SHARED_MS + 1, SHARED_MS + 6 * 3_600_000];
const WRITERS: u64 = 2;
/// The stamp of all other siblings.
const SHARED_MS: u64 = 1_700_000_000_000;
/// The key of the merges.
const KEY: &[u8] = b"k";
/// The laws that equations of pairs and triples can break, in the order in which one is blamed.
const LAWS: [Law; 6] =
    [Law::Totality, Law::Permutation, Law::Bracketing, Law::Idempotence, Law::Absorption, Law::Growth];

/// Checks permutation, bracketing, idempotence and absorption on all pairs and triples of the `config.smallest`
/// smallest values, for at most `config.exhaust`. Each pair is merged in both orders. Each triple is merged in all
/// three groupings, and at once in one order.
///
/// # Errors
/// A shrunk [`Counterexample`].
pub fn check_small_scope(
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: CheckConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<SmallScope, Box<Counterexample>> {
    if !config.collide || config.smallest == 0 {
        return Ok(SmallScope::default());
    }
    let until = Instant::now().checked_add(config.exhaust);
    let samples = smallest(sampler, config.smallest);
    let mut scope = SmallScope { of: samples.len(), ..SmallScope::default() };
    let few = samples.iter().take(STAMPED);
    let stamped = few.flat_map(|sample| {
        STAMPS.into_iter().flat_map(move |stamp| (1..=WRITERS).map(move |writer| input(sample, stamp, writer)))
    });
    let mut table = Table::new(merge);
    let inputs = table
        .accepted(stamped.collect(), sampler)
        .map_err(|failure| refuted(merge, sampler, config, *failure, watch))?;
    let mut done = 0;
    while done < inputs.len() && !is_over(until) {
        let held = table.triples_until(&inputs, done, None);
        held.map_err(|failure| refuted(merge, sampler, config, *failure, watch))?;
        done += 1;
    }
    scope.stamped = done;
    scope.merges = table.merges;

    let mut table = Table::new(merge);
    let plain = samples.iter().map(|sample| input(sample, SHARED_MS, 1)).collect();
    let inputs = table.accepted(plain, sampler).map_err(|failure| refuted(merge, sampler, config, *failure, watch))?;
    while scope.values < inputs.len() && !is_over(until) {
        watch(Progress::Exhausting { values: scope.values, of: inputs.len() });
        match table.triples_until(&inputs, scope.values, until) {
            Ok(true) => scope.values += 1,
            Ok(false) => break,
            Err(failure) => return Err(refuted(merge, sampler, config, *failure, watch)),
        }
    }
    scope.of = inputs.len();
    scope.triples = (scope.values as u64).pow(3);
    scope.merges += table.merges;
    Ok(scope)
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

fn input(sample: &Sample, stamp_ms: u64, writer: u64) -> Input {
    Input { seeds: vec![sample.seed], size: sample.size, damage: None, stamp_ms, writer }
}

/// Siblings that do not merge as they should, in the order in which this was found.
struct Failure {
    inputs: Vec<Input>,
    siblings: Vec<Sibling>,
    violation: Violation,
}

/// The counterexample of a failure: the first law that these siblings break, shrunk.
fn refuted(
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: CheckConfig,
    failure: Failure,
    watch: &mut dyn FnMut(Progress),
) -> Box<Counterexample> {
    let Failure { inputs, siblings, violation } = failure;
    let case = Case { key: KEY.to_vec(), inputs };
    let trial = Trial { key: KEY.to_vec(), siblings, valid: sampler.draws_valid_values() };
    let found = LAWS.into_iter().find_map(|law| match law.judge(merge, &trial) {
        Verdict::Broken(violation) => Some((law, violation)),
        _ => None,
    });
    // An equation between two groupings in other orders than the law's is broken as well.
    let (law, violation) = found.unwrap_or((Law::Bracketing, violation));
    let budget = ShrinkBudget::new(law, config.shrink, watch);
    let FailingCase { trial, violation, .. } =
        shrink(law, merge, sampler, FailingCase { case, trial, violation }, budget);
    Box::new(Counterexample { law, trial, violation, seed: config.seed })
}

/// A sibling by its number in a table.
type Id = u32;

/// An input and the number of its sibling.
type Numbered = (Input, Id);

/// All siblings so far, and the merges of two of them.
struct Table<'a> {
    merge: &'a dyn Merge,
    siblings: Vec<Sibling>,
    ids: HashMap<Sibling, Id>,
    /// `None`: the merge gave no result.
    pairs: HashMap<(Id, Id), Option<Id>>,
    merges: u64,
}

impl<'a> Table<'a> {
    fn new(merge: &'a dyn Merge) -> Self {
        Self { merge, siblings: Vec::new(), ids: HashMap::new(), pairs: HashMap::new(), merges: 0 }
    }

    fn id(&mut self, sibling: Sibling) -> Id {
        if let Some(id) = self.ids.get(&sibling) {
            return *id;
        }
        let id = Id::try_from(self.siblings.len()).unwrap_or(Id::MAX);
        self.siblings.push(sibling.clone());
        self.ids.insert(sibling, id);
        id
    }

    fn sibling(&self, id: Id) -> Sibling {
        self.siblings[id as usize].clone()
    }

    fn merged(&mut self, ids: &[Id]) -> (MergeResult, Vec<Sibling>) {
        let siblings: Vec<Sibling> = ids.iter().map(|id| self.sibling(*id)).collect();
        self.merges += 1;
        (self.merge.merge(KEY, &siblings), siblings)
    }

    /// The merge of two siblings.
    fn pair(&mut self, one: Id, other: Id) -> Option<Id> {
        if let Some(known) = self.pairs.get(&(one, other)) {
            return *known;
        }
        let (answer, siblings) = self.merged(&[one, other]);
        let id = answer.ok().map(|value| self.id(folded(value, &siblings)));
        self.pairs.insert((one, other), id);
        id
    }

    /// The inputs whose value the merge takes. Valid ones must be taken, unless their result is too large.
    fn accepted(&mut self, inputs: Vec<Input>, sampler: &dyn Sampler) -> Result<Vec<Numbered>, Box<Failure>> {
        let mut accepted = Vec::new();
        for input in inputs {
            // Without seeds that are merged, a sibling needs no merge.
            let Ok(sibling) = input.build(self.merge, sampler, KEY) else { continue };
            let id = self.id(sibling.clone());
            if self.pair(id, id).is_some() {
                accepted.push((input, id));
            } else if sampler.draws_valid_values()
                && let Verdict::Broken(violation) = self.totality(&[sibling.clone(), sibling.clone()])
            {
                return Err(Box::new(Failure {
                    inputs: vec![input.clone(), input],
                    siblings: vec![sibling.clone(), sibling],
                    violation,
                }));
            }
        }
        Ok(accepted)
    }

    fn totality(&self, siblings: &[Sibling]) -> Verdict {
        Law::Totality.judge(self.merge, &Trial { key: KEY.to_vec(), siblings: siblings.to_vec(), valid: true })
    }

    /// Checks all triples of which the input `last` is the last one, and others come before it. False if the time was
    /// over before.
    fn triples_until(
        &mut self,
        inputs: &[Numbered],
        last: usize,
        until: Option<Instant>,
    ) -> Result<bool, Box<Failure>> {
        for middle in 0..=last {
            if is_over(until) {
                return Ok(false);
            }
            self.check_pair(&inputs[middle], &inputs[last])?;
            for first in 0..=middle {
                self.check_triple([&inputs[first], &inputs[middle], &inputs[last]])?;
            }
        }
        Ok(true)
    }

    fn check_pair(&mut self, one: &Numbered, two: &Numbered) -> Result<(), Box<Failure>> {
        let (a, b) = (one.1, two.1);
        let (Some(ab), Some(ba)) = (self.pair(a, b), self.pair(b, a)) else { return self.unanswered(&[one, two]) };
        let canonical = self.pair(a, a).and_then(|form| Some((form, self.pair(form, form)?, self.pair(a, form)?)));
        let equal = [
            ("m(a,b) = m(b,a)", Some(ab), Some(ba)),
            ("m(m(a,b),a) = m(a,b)", self.pair(ab, a), Some(ab)),
            ("m(m(a,b),b) = m(a,b)", self.pair(ab, b), Some(ab)),
            ("m(a',a') = a', where a' = m(a,a)", canonical.map(|all| all.1), canonical.map(|all| all.0)),
            ("m(a,a') = a', where a' = m(a,a)", canonical.map(|all| all.2), canonical.map(|all| all.0)),
        ];
        equal.into_iter().try_for_each(|(equation, left, right)| self.same(equation, &[one, two], left, right))
    }

    fn check_triple(&mut self, [one, two, three]: [&Numbered; 3]) -> Result<(), Box<Failure>> {
        let (a, b, c) = (one.1, two.1, three.1);
        let all = [one, two, three];
        let (Some(ab), Some(bc), Some(ac)) = (self.pair(a, b), self.pair(b, c), self.pair(a, c)) else {
            return self.unanswered(&all);
        };
        let left = self.pair(ab, c);
        let (right, middle) = (self.pair(a, bc), self.pair(ac, b));
        self.same("m(m(a,b),c) = m(a,m(b,c))", &all, left, right)?;
        self.same("m(m(a,b),c) = m(m(a,c),b)", &all, left, middle)?;
        // Each order has its turn.
        let orders = [[a, b, c], [c, a, b], [b, c, a], [c, b, a], [a, c, b], [b, a, c]];
        let order = orders[(a as usize + 2 * b as usize + 3 * c as usize) % orders.len()];
        let (answer, siblings) = self.merged(&order);
        let flat = answer.ok().map(|value| self.id(folded(value, &siblings)));
        let numbered = |id: &Id| {
            if *id == a {
                one
            } else if *id == b {
                two
            } else {
                three
            }
        };
        self.same("m(m(a,b),c) = m(a,b,c), in another order", &order.each_ref().map(numbered), left, flat)
    }

    /// Both sides must be equal. A side without an answer is left to the law of totality.
    fn same(
        &self,
        equation: &str,
        inputs: &[&Numbered],
        left: Option<Id>,
        right: Option<Id>,
    ) -> Result<(), Box<Failure>> {
        let (Some(left), Some(right)) = (left, right) else { return self.unanswered(inputs) };
        let value = |id: Id| -> MergeResult { Ok(self.siblings[id as usize].value.clone()) };
        if left == right || self.siblings[left as usize].value == self.siblings[right as usize].value {
            return Ok(());
        }
        let violation = Violation::Differ { equation: equation.into(), left: value(left), right: value(right) };
        Err(self.failure(inputs, violation))
    }

    /// A merge without an answer is a failure if totality says so; a result that is too large is none.
    fn unanswered(&self, inputs: &[&Numbered]) -> Result<(), Box<Failure>> {
        let siblings: Vec<Sibling> = inputs.iter().map(|numbered| self.sibling(numbered.1)).collect();
        match self.totality(&siblings) {
            Verdict::Broken(violation) => Err(self.failure(inputs, violation)),
            _ => Ok(()),
        }
    }

    fn failure(&self, inputs: &[&Numbered], violation: Violation) -> Box<Failure> {
        Box::new(Failure {
            inputs: inputs.iter().map(|numbered| numbered.0.clone()).collect(),
            siblings: inputs.iter().map(|numbered| self.sibling(numbered.1)).collect(),
            violation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A union of sets of bytes that forgets 7 where 2 and 5 meet: one triple in some thousand shows it.
    struct Forgets;

    impl Merge for Forgets {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let mut all: Vec<u8> = siblings.iter().flat_map(|sibling| sibling.value.clone()).collect();
            all.sort_unstable();
            all.dedup();
            let meets = siblings.iter().any(|one| one.value == [2]) && siblings.iter().any(|one| one.value == [5]);
            if meets {
                all.retain(|byte| *byte != 7);
            }
            Ok(all)
        }
    }

    /// Single bytes.
    struct Bytes(u8);

    impl Sampler for Bytes {
        fn sample(&self, seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![(seed % u64::from(self.0)) as u8])
        }
    }

    /// The largest value.
    struct Largest;

    impl Merge for Largest {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or_else(|| "nothing".into())
        }
    }

    fn scope(merge: &dyn Merge, sampler: &dyn Sampler, config: CheckConfig) -> Result<SmallScope, Box<Counterexample>> {
        check_small_scope(merge, sampler, config, &mut |_| {})
    }

    #[test]
    fn a_lattice_holds_on_all_triples_and_says_how_many() {
        let scope = scope(&Largest, &Bytes(40), CheckConfig::default()).expect("a maximum is a lattice");
        assert_eq!((scope.values, scope.of, scope.triples, scope.stamped), (40, 40, 64_000, 30));
        // The pairs, the stamped ones too, and each triple at once.
        assert!((40 * 40 + 11_480..25_000).contains(&scope.merges), "{scope:?}");
    }

    #[test]
    fn a_fault_in_one_triple_of_a_thousand_is_found() {
        let found = scope(&Forgets, &Bytes(60), CheckConfig::default()).expect_err("2, 5 and 7");
        assert_eq!(found.law, Law::Bracketing, "{found}");
        let mut values: Vec<Vec<u8>> = found.trial.siblings.iter().map(|sibling| sibling.value.clone()).collect();
        values.sort();
        assert_eq!(values, [[2], [5], [7]], "{found}");
        assert!(matches!(found.replay(&Forgets), Verdict::Broken(_)), "{found}");
    }

    #[test]
    fn without_time_nothing_is_claimed() {
        let config = CheckConfig { exhaust: std::time::Duration::ZERO, ..CheckConfig::default() };
        let scope = scope(&Forgets, &Bytes(60), config).expect("nothing was tried");
        assert_eq!((scope.values, scope.of, scope.triples, scope.stamped), (0, 60, 0, 0));
    }

    #[test]
    fn stamps_and_writers_are_combined() {
        /// Prefers the larger writer, and does not carry it along.
        struct ByWriter;
        impl Merge for ByWriter {
            fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
                let last = siblings.iter().max_by_key(|one| (one.stamp_ms, one.writer, &one.value));
                last.map(|one| one.value.clone()).ok_or_else(|| "nothing".into())
            }
        }
        let found = scope(&ByWriter, &Bytes(3), CheckConfig::default()).expect_err("writers decide");
        assert_eq!(found.law, Law::Bracketing, "{found}");
    }
}
