//! How a storm has ended: what the checkers found, and the exit code.

use std::fmt;
use std::time::Duration;

use rejoin_test_sim::check::{self, Finding, Tally};
use rejoin_test_sim::history::Run;

use crate::healing::{BOUND, Healing};

/// Problems of one kind that are shown.
const SHOWN: usize = 10;

/// How a storm has ended.
#[derive(Debug)]
pub struct Verdict {
    tally: Tally,
    /// Broken promises, by the checkers of the simulator.
    findings: Vec<Finding>,
    /// Faults that could not be done, nodes that ended by themselves, owners that did not agree in time.
    problems: Vec<String>,
    strict: StrictReads,
    healed: Option<Duration>,
}

/// Reads of strict buckets, of a quorum.
#[derive(Clone, Default, Debug)]
pub struct StrictReads {
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not.
    pub failed: usize,
    /// Of these, those that a healthy quorum could have answered, each with what is known of it.
    pub despite: Vec<String>,
}

impl Verdict {
    /// Judges a recorded history.
    #[must_use]
    pub fn of(run: &Run, healing: &Healing, mut problems: Vec<String>) -> Self {
        let healed = match healing {
            Healing::Healed(after) => Some(*after),
            Healing::Unhealed(behind) => {
                problems.push(format!(
                    "the owners of {} keys did not agree within {} s",
                    behind.len(),
                    BOUND.as_secs()
                ));
                problems.extend(behind.iter().take(SHOWN).map(|(key, why)| format!("k{key}: {why}")));
                None
            }
        };
        let native = rejoin_test_sim::native;
        let (tally, findings) = (Tally::of(run, native), check::all(run, native));
        Self { tally, findings, problems, strict: StrictReads::default(), healed }
    }

    /// With what has become of strict reads.
    #[must_use]
    pub fn with(self, strict: StrictReads) -> Self {
        Self { strict, ..self }
    }

    /// 0 if nothing was lost, nothing has come back, the owners agree, no promise was broken and no strict read has
    /// failed that a healthy quorum could have answered; else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let sound = self.tally.lost == 0 && self.tally.resurrected == 0 && self.healed.is_some();
        let broken = !self.findings.is_empty() || !self.problems.is_empty() || !self.strict.despite.is_empty();
        u8::from(!sound || broken)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { checker, key, evidence } in &self.findings {
            let key = key.map(|key| format!(" of k{key}")).unwrap_or_default();
            writeln!(f, "storm: {checker}{key}: {evidence}")?;
        }
        for problem in &self.problems {
            writeln!(f, "storm: {problem}")?;
        }
        let StrictReads { answered, failed, despite } = &self.strict;
        for read in despite.iter().take(SHOWN) {
            writeln!(f, "storm: a strict read has failed beside a healthy quorum: {read}")?;
        }
        writeln!(
            f,
            "storm: strict reads: {answered} answered, {failed} failed, {} of them that a healthy quorum could have \
             answered",
            despite.len()
        )?;
        let Tally { acknowledged, lost, resurrected, unknown } = self.tally;
        write!(f, "storm: acknowledged {acknowledged}, lost {lost}, resurrected {resurrected}, unknown {unknown}, ")?;
        match self.healed {
            Some(after) => write!(f, "healed in {:.1} s", after.as_secs_f64()),
            None => write!(f, "not healed in {} s", BOUND.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::catalog::Durability;
    use rejoin_proto::{ActorId, Dot, VersionVector};
    use rejoin_test_sim::history::{Answer, Asked, Basis, Call, CallId, Element, Final, Key, Kind, Outcome, set_bytes};

    /// A history of one set, which ends with these elements at each of its three owners.
    struct History {
        run: Run,
    }

    impl History {
        fn new() -> Self {
            let owners = vec![0, 1, 2];
            let (kind, durability, siblings, folds) = (Kind::Set, Durability::Fsync, 32, false);
            let key = Key {
                kind,
                owners,
                durability,
                siblings,
                folds,
                fallbacks: 0,
                later_fallbacks: 0,
                moves: false,
                later_owners: 0,
                strict_from_us: None,
                tenant: 0,
            };
            Self { run: Run { keys: vec![key], dots_unknown: true, ..Run::default() } }
        }

        fn call(&mut self, asked: Asked, outcome: Outcome) -> CallId {
            let at_us = 1_000 * (self.run.calls.len() as u64 + 1);
            let (invoked_us, ended_us) = (at_us, at_us + 500);
            self.run.calls.push(Call { session: 1, node: 0, key: 0, invoked_us, ended_us, asked, outcome });
            (self.run.calls.len() - 1) as CallId
        }

        fn put(&mut self, basis: Basis, element: Option<Element>, outcome: Outcome) -> CallId {
            let value = element.map(|element| set_bytes([element]));
            let asked = Asked::Put {
                w: 2.into(),
                basis,
                value,
                adds: element,
                expires: false,
                malformed: false,
                retry_of: None,
            };
            self.call(asked, outcome)
        }

        fn get(&mut self, shown: &[Element], writes: u64) -> CallId {
            let values = vec![set_bytes(shown.iter().copied())];
            self.call(Asked::Get { r: 2.into() }, Outcome::Ok(Answer { values, context: seen(writes) }))
        }

        fn end(&mut self, held: &[Element], writes: u64) {
            let siblings: Vec<_> = held.iter().map(|element| (set_bytes([*element]), 1)).collect();
            self.run.finals = (0..3).map(|node| Final::read(0, node, seen(writes), siblings.clone())).collect();
        }

        fn judged(&self) -> (u8, String) {
            let verdict = Verdict::of(&self.run, &Healing::Healed(Duration::from_millis(1_500)), Vec::new());
            (verdict.exit_code(), verdict.to_string().lines().last().expect("a last line").to_owned())
        }
    }

    /// The context of the first so many writes.
    fn seen(writes: u64) -> VersionVector {
        (1..=writes).map(|counter| Dot { actor: ActorId(1), counter }).collect()
    }

    fn acknowledged(writes: u64) -> Outcome {
        Outcome::Ok(Answer { values: Vec::new(), context: seen(writes) })
    }

    #[test]
    fn a_history_in_which_all_is_kept_ends_with_code_0() {
        let mut history = History::new();
        let element = Element::new(1, 1);
        history.put(Basis::Blind, Some(element), acknowledged(1));
        history.put(Basis::Blind, Some(Element::new(1, 2)), Outcome::Unknown(None));
        history.put(Basis::Blind, Some(Element::new(1, 3)), Outcome::Refused);
        history.end(&[element], 1);
        let said = "storm: acknowledged 1, lost 0, resurrected 0, unknown 1, healed in 1.5 s";
        assert_eq!(history.judged(), (0, said.to_owned()));
    }

    #[test]
    fn a_lost_write_ends_with_code_1() {
        let mut history = History::new();
        history.put(Basis::Blind, Some(Element::new(1, 1)), acknowledged(1));
        history.end(&[], 1);
        let said = "storm: acknowledged 1, lost 1, resurrected 0, unknown 0, healed in 1.5 s";
        assert_eq!(history.judged(), (1, said.to_owned()));
    }

    #[test]
    fn a_resurrected_write_ends_with_code_1() {
        let mut history = History::new();
        let element = Element::new(1, 1);
        history.put(Basis::Blind, Some(element), acknowledged(1));
        let read = history.get(&[element], 1);
        history.put(Basis::After(read), None, acknowledged(2));
        history.end(&[], 2);
        assert_eq!(history.judged().0, 0, "it is gone");
        history.end(&[element], 2);
        let said = "storm: acknowledged 2, lost 0, resurrected 1, unknown 0, healed in 1.5 s";
        assert_eq!(history.judged(), (1, said.to_owned()));
    }

    #[test]
    fn owners_that_do_not_agree_and_nodes_that_end_by_themselves_end_with_code_1() {
        let mut history = History::new();
        let element = Element::new(1, 1);
        history.put(Basis::Blind, Some(element), acknowledged(1));
        history.end(&[element], 1);
        let unhealed = Verdict::of(&history.run, &Healing::Unhealed(vec![(0, "n1 is silent".into())]), Vec::new());
        assert_eq!(unhealed.exit_code(), 1);
        assert!(unhealed.to_string().ends_with("not healed in 120 s"), "{unhealed}");
        let ended = vec!["n3 has ended by itself".to_owned()];
        assert_eq!(Verdict::of(&history.run, &Healing::Healed(Duration::ZERO), ended).exit_code(), 1);
    }

    #[test]
    fn a_strict_read_that_failed_beside_a_healthy_quorum_ends_with_code_1() {
        let mut history = History::new();
        let element = Element::new(1, 1);
        history.put(Basis::Blind, Some(element), acknowledged(1));
        history.end(&[element], 1);
        let judged = |despite: Vec<String>| {
            let verdict = Verdict::of(&history.run, &Healing::Healed(Duration::ZERO), Vec::new());
            verdict.with(StrictReads { answered: 5, failed: 2, despite })
        };
        let (well, broken) = (judged(Vec::new()), judged(vec!["k0".into()]));
        assert_eq!((well.exit_code(), broken.exit_code()), (0, 1));
        assert!(well.to_string().contains("strict reads: 5 answered, 2 failed, 0 of them"), "{well}");
    }

    #[test]
    fn a_broken_promise_ends_with_code_1_also_if_nothing_is_lost() {
        let mut history = History::new();
        let element = Element::new(1, 1);
        history.put(Basis::Blind, Some(element), acknowledged(1));
        history.get(&[], 0);
        history.end(&[element], 1);
        assert_eq!(history.judged().0, 1, "a read with a quorum did not show it");
    }
}
