//! The report of a check of the laws, as `plugin test --json` prints it and a node sends it to whoever has pushed.

use serde::{Deserialize, Serialize};

use rejoin_laws::{Law, LawStats, Violation};

use crate::coverage::Coverage;
use crate::fixture::{Fixture, FixtureCase};
use crate::law_check::{Findings, LawReport};
use crate::under_test::PluginUnderTest;

/// The report. A field never changes its meaning.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct LawTest {
    /// The digest of the component.
    pub digest: String,
    /// Its name, if it has metadata.
    pub name: Option<String>,
    /// Its version, if it has metadata.
    pub version: Option<String>,
    /// Whether the values came from the plugin's own sampler.
    pub sampler: bool,
    /// The seed of the cases; null if counterexamples were checked again.
    pub seed: Option<u64>,
    /// Whether no law was broken, one at least has judged a case, and no history has ended otherwise than it should.
    pub held: bool,
    /// What came of each law.
    pub laws: Vec<LawLine>,
    /// What the sampler draws; null if counterexamples were checked again.
    pub samples: Option<Samples>,
    /// The small scope; null if a law is broken.
    pub small_scope: Option<SmallScopeLine>,
    /// The histories; null if counterexamples were checked again.
    pub histories: Option<Histories>,
    /// The siblings of a bucket that a push was checked on; null without.
    #[serde(default)]
    pub recorded: Option<RecordedLine>,
    /// The merges that were run; null if counterexamples were checked again.
    pub merges: Option<u64>,
    /// The most fuel that one merge has used.
    pub most_fuel: u64,
    /// The fuel that a merge of the largest siblings gets.
    pub fuel: u64,
    /// The fuel of all merges together.
    pub all_fuel: u64,
    /// Which code of the merge was run; null if it is not known.
    pub coverage: Option<Coverage>,
    /// As in the file.
    pub counterexamples: Vec<FixtureCase>,
    /// The file with the counterexamples, if there is one.
    pub file: Option<String>,
}

/// One law of the report.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LawLine {
    /// Its name.
    pub law: String,
    /// The law in one line.
    pub says: String,
    /// Whether it held.
    pub held: bool,
    /// Cases that were run; null if the law is broken.
    pub cases: Option<u32>,
    /// Those of them that could be judged; null if the law is broken.
    pub judged: Option<u32>,
}

/// What the sampler draws.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Samples {
    /// The samples that were drawn for this.
    pub drawn: u32,
    /// Those that differ.
    pub distinct: u32,
    /// The size of the largest one.
    pub largest_bytes: usize,
}

/// The laws hold for all triples of the smallest values.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct SmallScopeLine {
    /// How many values there were.
    pub values: usize,
    /// How many there would have been, with more time.
    pub of: usize,
    /// Their triples.
    pub triples: u64,
    /// The siblings with stamps of their own whose triples were tried too.
    pub stamped: usize,
}

/// The siblings that a bucket has had, on which the laws were checked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct RecordedLine {
    /// Sets of siblings.
    pub sets: u32,
    /// Siblings of all sets.
    pub siblings: u32,
    /// How often a law that held has judged a set.
    pub judged: u32,
    /// How often a law that held had no time for a set.
    #[serde(default)]
    pub left: u32,
}

/// The histories that were tried. Without an intent only random ones are.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Histories {
    /// Random histories.
    pub random: Option<u32>,
    /// All histories of so many operations.
    pub operations: Option<usize>,
    /// How many these and longer ones were.
    pub histories: Option<u64>,
    /// The classic ones.
    pub classics: Option<usize>,
    /// The scenarios of the intent; null if it has none.
    #[serde(default)]
    pub scenarios: Option<usize>,
    /// Those that ended otherwise than they should, with their steps.
    pub wrong: Vec<String>,
}

impl Histories {
    fn new(findings: &Findings) -> Self {
        let stats = findings.histories.as_ref().and_then(|result| result.as_ref().ok());
        let random = findings.convergence.as_ref().and_then(|result| result.as_ref().ok());
        Self {
            random: random.map(|random| random.histories),
            operations: stats.map(|stats| stats.operations),
            histories: stats.map(|stats| stats.histories),
            classics: findings.classics.as_ref().and_then(|result| result.as_ref().ok()).copied(),
            scenarios: findings.scenarios.as_ref().and_then(|result| result.as_ref().ok()).copied(),
            wrong: findings.wrong_histories().map(ToString::to_string).collect(),
        }
    }
}

impl LawLine {
    /// What came of a law; without figures it is broken.
    #[must_use]
    pub fn new(law: Law, tried: Option<&LawStats>) -> Self {
        let (cases, judged) = (tried.map(|tried| tried.cases), tried.map(|tried| tried.judged));
        Self { law: law.name().into(), says: law.statement().into(), held: tried.is_some(), cases, judged }
    }

    /// The verdict for people. A law that has judged no case neither held nor broke.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.held, self.judged) {
            (true, Some(0)) => "not judged",
            (true, _) => "held",
            (false, _) => "BROKEN",
        }
    }
}

impl LawTest {
    /// The report of a check from a seed.
    #[must_use]
    pub fn new(under_test: &PluginUnderTest, seed: u64, report: &LawReport) -> Self {
        // A sampler that fails leaves nothing to run again.
        let found = report.counterexamples().filter(|found| !matches!(found.violation, Violation::NoSample { .. }));
        let fixture = Fixture::new(under_test, seed, found);
        let laws = report.outcomes.iter().map(|outcome| LawLine::new(outcome.law, outcome.result.as_ref().ok()));
        let Findings { samples, small_scope, recorded, merges, .. } = &report.findings;
        let histories = Histories::new(&report.findings);
        let held = report.counterexamples().next().is_none() && report.has_judged() && histories.wrong.is_empty();
        Self {
            held,
            samples: Some(Samples {
                drawn: samples.drawn,
                distinct: samples.distinct,
                largest_bytes: samples.largest_bytes,
            }),
            small_scope: small_scope.map(|scope| SmallScopeLine {
                values: scope.values,
                of: scope.of,
                triples: scope.triples,
                stamped: scope.stamped,
            }),
            histories: Some(histories),
            recorded: recorded.map(|recorded| RecordedLine {
                sets: recorded.sets,
                siblings: recorded.siblings,
                judged: recorded.judged,
                left: recorded.left,
            }),
            merges: Some(*merges),
            ..Self::of(under_test, Some(seed), laws.collect(), fixture.cases())
        }
    }

    /// The report of laws that were checked, on whatever cases.
    #[must_use]
    pub fn of(
        under_test: &PluginUnderTest,
        seed: Option<u64>,
        laws: Vec<LawLine>,
        counterexamples: &[FixtureCase],
    ) -> Self {
        let metadata = under_test.plugin.metadata();
        Self {
            digest: under_test.plugin.digest().to_string(),
            name: metadata.map(|metadata| metadata.name.clone()),
            version: metadata.map(|metadata| metadata.version.clone()),
            sampler: under_test.plugin.exports().sample,
            seed,
            held: laws.iter().all(|law| law.held) && laws.iter().any(|law| law.judged != Some(0)),
            laws,
            samples: None,
            small_scope: None,
            histories: None,
            recorded: None,
            merges: None,
            most_fuel: under_test.most_fuel(),
            fuel: under_test.fuel(),
            all_fuel: under_test.all_fuel(),
            coverage: under_test.coverage().ok(),
            counterexamples: counterexamples.to_vec(),
            file: None,
        }
    }

    /// Why the plugin is not to be used; `None` if it broke no law. It shows nothing of a bucket, unlike the report:
    /// an audit log keeps it.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        let laws: Vec<&str> = self.laws.iter().filter(|law| !law.held).map(|law| law.law.as_str()).collect();
        match (self.held, laws.as_slice()) {
            (true, _) => None,
            (false, []) => {
                let wrong = self.histories.iter().find_map(|histories| histories.wrong.first());
                Some(match wrong {
                    None => NOTHING_JUDGED.into(),
                    // Its steps may have values of the bucket's siblings.
                    Some(_) if self.recorded.is_some() => WRONG_HISTORY.into(),
                    Some(wrong) => format!("{WRONG_HISTORY}: {wrong}"),
                })
            }
            (false, laws) => Some(format!("the plugin breaks the law of {}", laws.join(", of "))),
        }
    }

    /// The report as JSON of so many bytes at the most. One that is larger goes without its counterexamples.
    #[must_use]
    pub fn to_json(&self, most: usize) -> Vec<u8> {
        let full = serde_json::to_vec(self).unwrap_or_default();
        if full.len() <= most {
            return full;
        }
        serde_json::to_vec(&Self { counterexamples: Vec::new(), ..self.clone() }).unwrap_or_default()
    }
}

/// Why a plugin is not used that breaks no law.
const WRONG_HISTORY: &str = "a history of operations ends otherwise than it should";
/// Why a plugin is not used of whose merge nothing is known.
pub(crate) const NOTHING_JUDGED: &str =
    "no law has judged a case: the plugin refused every value, so nothing is known of its merge";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_plugin_is_refused_shows_no_siblings_of_a_bucket() {
        let histories = Histories {
            random: None,
            operations: None,
            histories: None,
            classics: None,
            scenarios: None,
            wrong: vec!["convergence: ann writes 4711".into()],
        };
        let mut test = LawTest {
            digest: String::new(),
            name: None,
            version: None,
            sampler: true,
            seed: Some(1),
            held: false,
            laws: Vec::new(),
            samples: None,
            small_scope: None,
            histories: Some(histories),
            recorded: None,
            merges: Some(1),
            most_fuel: 1,
            fuel: 1,
            all_fuel: 1,
            coverage: None,
            counterexamples: Vec::new(),
            file: None,
        };
        let shown = test.broken().expect("a history is wrong");
        assert!(shown.starts_with(WRONG_HISTORY) && shown.ends_with("ann writes 4711"), "{shown}");
        test.recorded = Some(RecordedLine { sets: 1, siblings: 2, judged: 3, left: 0 });
        assert_eq!(test.broken().as_deref(), Some(WRONG_HISTORY));
    }
}
