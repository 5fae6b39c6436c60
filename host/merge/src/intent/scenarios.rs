//! Scenarios of an intent file: single histories, with what a reader must be shown.
//!
//! ```json
//! "scenarios": [{"name": "what was removed stays away", "steps": [
//!   {"at": "east", "add": "x"}, {"sync": ["east", "west"]}, {"at": "west", "remove": "x"}, {"at": "east", "add": "y"},
//!   {"sync": ["east", "west"]}, {"at": "east", "shown": ["y"]}
//! ]}]
//! ```
//!
//! Replicas are made by naming them. An edit, or a `write` of a whole value, replaces what a reader at that replica has
//! seen; `fold` stores the merged value in the place of its siblings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use rejoin_laws::{Edit, Facts, Intent, Merge, ModelCluster, ScenarioError, Specification};

use super::{ComponentIntent, IntentError, RawEdit, facts, named};

/// The most scenarios of a file, and the most steps of one.
const MAX_SCENARIOS: usize = 64;
const MAX_STEPS: usize = 64;
/// The key of the scenarios.
const KEY: &[u8] = b"scenario";

/// A scenario as it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    name: String,
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    at: Option<String>,
    add: Option<String>,
    remove: Option<String>,
    set: Option<String>,
    amount: Option<u64>,
    to: Option<Value>,
    write: Option<String>,
    shown: Option<Value>,
    sync: Option<(String, String)>,
    fold: Option<String>,
}

/// A scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileScenario {
    name: String,
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// An operation of that name.
    Operation { at: String, operation: String },
    /// A write of a whole value.
    Write { at: String, value: String },
    /// What a reader must be shown.
    Shown { at: String, facts: Facts },
    /// Two replicas exchange what they have.
    Sync(String, String),
    /// A replica stores the merged value.
    Fold(String),
}

/// Scenarios, and the edits of their operations by name.
type Read = (Vec<FileScenario>, BTreeMap<String, Edit>);

/// The scenarios of a file.
///
/// # Errors
/// [`IntentError`] says what is wrong with one of them.
pub(super) fn read(raw: Vec<RawScenario>, specification: Specification) -> Result<Read, IntentError> {
    if raw.len() > MAX_SCENARIOS {
        let what = format!("it has {} scenarios, and {MAX_SCENARIOS} can be played", raw.len());
        return Err(IntentError(what));
    }
    let mut edits = BTreeMap::new();
    let mut scenario = |RawScenario { name, steps }: RawScenario| {
        if steps.len() > MAX_STEPS {
            let what = format!("scenario {name:?} has {} steps, and {MAX_STEPS} are allowed", steps.len());
            return Err(IntentError(what));
        }
        let steps = steps.into_iter().map(|raw| step(raw, specification, &mut edits)).collect::<Result<Vec<_>, _>>();
        let steps = steps.map_err(|IntentError(why)| IntentError(format!("in scenario {name:?}, {why}")))?;
        if !steps.iter().any(|step| matches!(step, Step::Shown { .. })) {
            return Err(IntentError(format!("scenario {name:?} has no step with `shown`, so it cannot fail")));
        }
        Ok(FileScenario { name, steps })
    };
    let scenarios = raw.into_iter().map(&mut scenario).collect::<Result<Vec<_>, _>>()?;
    Ok((scenarios, edits))
}

fn step(raw: RawStep, specification: Specification, edits: &mut BTreeMap<String, Edit>) -> Result<Step, IntentError> {
    let RawStep { at, add, remove, set, amount, to, write, shown, sync, fold } = raw;
    let edit = RawEdit { add, remove, set, amount, to };
    let is_edit = edit.add.is_some() || edit.remove.is_some() || edit.set.is_some();
    let is_more = edit.amount.is_some() || edit.to.is_some();
    match (at, is_edit, write, shown, sync, fold) {
        (Some(at), true, None, None, None, None) => {
            let (operation, edit) = named(edit)?;
            edits.insert(operation.clone(), edit);
            Ok(Step::Operation { at, operation })
        }
        (Some(at), false, Some(value), None, None, None) if !is_more => Ok(Step::Write { at, value }),
        (Some(at), false, None, Some(shown), None, None) if !is_more => {
            Ok(Step::Shown { at, facts: facts(specification, shown) })
        }
        (None, false, None, None, Some((one, other)), None) if !is_more => Ok(Step::Sync(one, other)),
        (None, false, None, None, None, Some(at)) if !is_more => Ok(Step::Fold(at)),
        _ => Err(IntentError(
            "a step has `at` and either an operation, or `write`, or `shown`; or it has only `sync` with two replicas, \
             or only `fold` with one"
                .into(),
        )),
    }
}

impl FileScenario {
    /// Plays the scenario.
    fn play(&self, merge: &dyn Merge, intent: &ComponentIntent<'_>) -> Result<(), ScenarioError> {
        let mut cluster = ModelCluster::new(merge, KEY);
        let played = self.steps.iter().try_for_each(|step| match step {
            Step::Operation { at, operation } => cluster.apply(at, intent, operation),
            Step::Write { at, value } => {
                let seen = cluster.read(at)?;
                cluster.write(at, "a client", value.as_bytes(), &seen);
                Ok(())
            }
            Step::Shown { at, facts } => is_shown(&mut cluster, intent, at, facts),
            Step::Sync(one, other) => {
                cluster.sync(one, other);
                Ok(())
            }
            Step::Fold(at) => cluster.fold(at),
        });
        played.map_err(|error| ScenarioError { what: format!("{:?}: {}", self.name, error.what), ..error })
    }
}

fn is_shown(
    cluster: &mut ModelCluster<'_>,
    intent: &ComponentIntent<'_>,
    at: &str,
    wanted: &Facts,
) -> Result<(), ScenarioError> {
    let seen = cluster.read(at)?;
    let found = seen.value.as_deref().map_or_else(|| Ok(Facts::new()), |value| intent.facts(value));
    let found = found.map_err(|why| cluster.error(format!("what a read at {at} gives cannot be shown: {why}")))?;
    if found == *wanted {
        return Ok(());
    }
    Err(cluster.error(format!("a read at {at} should show {wanted:?}, and shows {found:?}")))
}

impl ComponentIntent<'_> {
    /// Plays the scenarios of the file: how many they are. `None`: it has none.
    pub(crate) fn play_scenarios(&self, merge: &dyn Merge) -> Option<Result<usize, ScenarioError>> {
        let scenarios = &self.file.scenarios;
        let play = || scenarios.iter().try_for_each(|scenario| scenario.play(merge, self)).map(|()| scenarios.len());
        (!scenarios.is_empty()).then(play)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::IntentFile;

    /// A file with these steps of one scenario.
    fn parsed(steps: &str) -> Result<IntentFile, IntentError> {
        let text = format!(
            r#"{{"format":1,"specification":"set","operations":[{{"add":"x"}}],
            "scenarios":[{{"name":"one","steps":[{steps}]}}]}}"#
        );
        IntentFile::parse(text.as_bytes())
    }

    const SHOWN: &str = r#"{"at":"east","shown":["y"]}"#;

    #[test]
    fn a_scenario_has_operations_of_its_own() {
        let steps = [r#"{"at":"east","add":"y"}"#, r#"{"sync":["east","west"]}"#, r#"{"fold":"west"}"#, SHOWN];
        let file = parsed(&steps.join(",")).expect("an intent");
        let names: Vec<&str> = file.scenario_edits.keys().map(String::as_str).collect();
        assert_eq!((names, file.declared.operations()), (vec!["add y"], vec!["add x".to_owned()]));
        assert_eq!(file.scenarios[0].steps.len(), 4);
        assert_eq!(
            file.scenarios[0].steps[3],
            Step::Shown { at: "east".into(), facts: [("y".to_owned(), String::new())].into() }
        );
    }

    #[test]
    fn what_is_no_scenario_is_refused() {
        for (steps, words) in [
            ("", "so it cannot fail"),
            (r#"{"at":"east","add":"y"}"#, "so it cannot fail"),
            (r#"{"add":"y"}"#, "a step has `at` and either"),
            (r#"{"at":"east"}"#, "a step has `at` and either"),
            (r#"{"at":"east","add":"y","shown":[]}"#, "a step has `at` and either"),
            (r#"{"at":"east","write":"y","to":1}"#, "a step has `at` and either"),
            (r#"{"at":"east","sync":["east","west"]}"#, "a step has `at` and either"),
            (r#"{"sync":["east"]}"#, "invalid length 1"),
            (r#"{"at":"east","add":"y","remove":"x"}"#, "nothing else"),
            (r#"{"at":"east","put":"y"}"#, "unknown field"),
        ] {
            let why = parsed(steps).expect_err(steps).to_string();
            assert!(why.contains(words), "{steps}: {why}");
        }
        let many = [SHOWN].repeat(MAX_STEPS + 1).join(",");
        assert!(parsed(&many).expect_err("too many").to_string().contains("65 steps"));
    }
}
