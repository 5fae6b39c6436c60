//! What operations mean is checked on components: through their operations, or by edits of JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rejoin_laws::{CheckConfig, HistoryConfig};
use rejoin_merge::build::{self, Options};
use rejoin_merge::{Findings, IntentFile, LawOptions, PluginUnderTest, check_laws_with_options};
use rejoin_proto::catalog::BucketProps;
use rejoin_test_laws::component;

/// A set of tagged names with a clock. `SEEN` is whether a removal is carried along.
const SET: &str = r#"
use std::collections::{BTreeMap, BTreeSet};

use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Sampler, Sibling};

pub struct Names;

rejoin_guest::export!(Names: Merger, Operator, Sampler, Describer);

const SEEN: bool = true;

#[derive(Default)]
struct Set {
    clock: BTreeMap<u64, u64>,
    tags: BTreeSet<(String, u64, u64)>,
}

impl Set {
    fn read(value: &[u8]) -> Result<Self, Fault> {
        let mut set = Self::default();
        for line in str::from_utf8(value).map_err(|_| Fault::Malformed)?.lines() {
            let number = |text: &str| text.parse::<u64>().map_err(|_| Fault::Malformed);
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["seen", actor, counter] => drop(set.clock.insert(number(actor)?, number(counter)?)),
                ["name", name, actor, counter] => {
                    set.tags.insert((String::from(*name), number(actor)?, number(counter)?));
                }
                _ => return Err(Fault::Malformed),
            }
        }
        let covered = set.tags.iter().all(|(_, actor, counter)| set.covers(*actor, *counter));
        if covered && set.write() == value { Ok(set) } else { Err(Fault::Malformed) }
    }

    fn covers(&self, actor: u64, counter: u64) -> bool {
        self.clock.get(&actor).is_some_and(|seen| *seen >= counter)
    }

    fn write(&self) -> Vec<u8> {
        let clock = self.clock.iter().map(|(actor, counter)| format!("seen {actor} {counter}\n"));
        let tags = self.tags.iter().map(|(name, actor, counter)| format!("name {name} {actor} {counter}\n"));
        clock.chain(tags).collect::<String>().into_bytes()
    }
}

impl Merger for Names {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let all = siblings.iter().map(|sibling| Set::read(&sibling.value)).collect::<Result<Vec<_>, _>>()?;
        let mut merged = Set::default();
        for set in &all {
            for (actor, counter) in &set.clock {
                let seen = merged.clock.entry(*actor).or_default();
                *seen = (*seen).max(*counter);
            }
            let stays = |tag: &&(String, u64, u64)| {
                all.iter().all(|other| other.tags.contains(*tag) || !SEEN || !other.covers(tag.1, tag.2))
            };
            merged.tags.extend(set.tags.iter().filter(stays).cloned());
        }
        Ok(merged.write())
    }
}

impl Operator for Names {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], dot: Dot) -> Result<Vec<u8>, Fault> {
        let mut set = state.map_or_else(|| Ok(Set::default()), Set::read)?;
        match str::from_utf8(operation).map_err(|_| Fault::Malformed)?.split_at_checked(1) {
            Some(("+", name)) => {
                set.tags.insert((name.into(), dot.actor, dot.counter));
                set.clock.insert(dot.actor, dot.counter);
            }
            Some(("-", name)) => set.tags.retain(|(tagged, _, _)| tagged != name),
            _ => return Err(Fault::Unsupported),
        }
        Ok(set.write())
    }

    fn query(state: &[u8], _question: &[u8]) -> Result<Vec<u8>, Fault> {
        let names: BTreeSet<String> = Set::read(state)?.tags.into_iter().map(|(name, _, _)| format!("{name:?}")).collect();
        Ok(format!("[{}]", names.into_iter().collect::<Vec<_>>().join(",")).into_bytes())
    }
}

impl Sampler for Names {
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = rejoin_guest::laws::Rng::new(seed);
        let mut set = Set::default();
        for actor in 1..=2 {
            for counter in 1..=rng.below(2 + u64::from(size.min(60)) / 3) {
                set.clock.insert(actor, counter);
                if !rng.one_in(3) {
                    set.tags.insert((format!("n{}", (counter + actor) % 3), actor, counter));
                }
            }
        }
        set.write()
    }
}

impl Describer for Names {
    fn describe() -> Metadata {
        Metadata { name: "names", version: "1", schema: 1, self_causal: true }
    }
}
"#;

/// A plain union of JSON lists.
const UNION: &str = r#"
use std::collections::BTreeSet;

use rejoin_guest::{Fault, Merger, Sampler, Sibling};

pub struct Union;

rejoin_guest::export!(Union: Merger, Sampler);

/// Only lists of texts without commas and quotes in them.
fn names(value: &[u8]) -> Result<BTreeSet<&str>, Fault> {
    let text = str::from_utf8(value).map_err(|_| Fault::Malformed)?;
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or(Fault::Malformed)?;
    let all: BTreeSet<&str> = if inner.is_empty() { BTreeSet::new() } else { inner.split(',').collect() };
    let is_text = |name: &&str| {
        name.len() > 2 && name.starts_with('"') && name.ends_with('"') && name.matches('"').count() == 2
            && name[1..name.len() - 1].bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if all.iter().all(is_text) && write(&all) == value { Ok(all) } else { Err(Fault::Malformed) }
}

fn write(all: &BTreeSet<&str>) -> Vec<u8> {
    format!("[{}]", all.iter().copied().collect::<Vec<_>>().join(",")).into_bytes()
}

impl Merger for Union {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let all = siblings.iter().map(|sibling| names(&sibling.value)).collect::<Result<Vec<_>, _>>()?;
        Ok(write(&all.into_iter().flatten().collect()))
    }
}

impl Sampler for Union {
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = rejoin_guest::laws::Rng::new(seed);
        let all: Vec<String> = (0..size.min(2_000)).map(|_| format!("\"n{}\"", rng.below(5 + u64::from(size)))).collect();
        write(&all.iter().map(String::as_str).collect())
    }
}
"#;

const INTENT: &str = r#"{
  "format": 1,
  "specification": "set",
  "operations": [{"add": "x"}, {"remove": "x"}, {"add": "y"}],
  "operator": {"add": "+{name}", "remove": "-{name}"},
  "question": "names"
}"#;

const PLAIN_INTENT: &str =
    r#"{"format": 1, "specification": "set", "operations": [{"add": "x"}, {"remove": "x"}, {"add": "y"}]}"#;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is here")
}

/// A guest, built as its author would, in the folder where all guests are built.
fn guest(name: &str, source: &str) -> PluginUnderTest {
    let dir = tempfile::tempdir().expect("a directory");
    let sdk = workspace().join("guest-sdk").display().to_string();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\", \
            \"rlib\"]\n[dependencies]\nrejoin-guest = {{ path = {sdk:?} }}\n[workspace]\n[profile.guest]\ninherits = \
         \"release\"\nopt-level = \"s\"\npanic = \"abort\"\nstrip = true\n"
    );
    std::fs::create_dir(dir.path().join("src")).expect("a new directory");
    std::fs::write(dir.path().join("Cargo.toml"), manifest).expect("it is ours");
    std::fs::write(dir.path().join("src/lib.rs"), source).expect("it is ours");
    std::fs::copy(workspace().join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("the workspace has one");
    let options = Options { target_dir: Some(workspace().join("target/guest")), offline: true };
    let bytes = build::guest(dir.path(), &options).unwrap_or_else(|error| panic!("{error}"));
    component::on_a_host(&bytes)
}

fn checked(under_test: &PluginUnderTest, intent: &str) -> Findings {
    let options = LawOptions {
        config: CheckConfig { cases: 60, smallest: 12, ..CheckConfig::default() },
        intent: Some(IntentFile::parse(intent.as_bytes()).expect("an intent")),
        histories: HistoryConfig { operations: 3, time: Duration::from_secs(60), ..HistoryConfig::default() },
        ..LawOptions::default()
    };
    let report = check_laws_with_options(under_test, &BucketProps::default(), &options, &mut |_| {}).expect("it fits");
    let broken: Vec<String> = report.counterexamples().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "the laws hold: {broken:?}");
    report.findings
}

#[test]
fn a_set_with_a_clock_is_right_in_every_history_of_its_operations() {
    let findings = checked(&guest("names", SET), INTENT);
    let wrong: Vec<String> = findings.wrong_histories().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let (Some(Ok(stats)), Some(Ok(classics))) = (findings.histories, findings.classics) else {
        panic!("it has an intent")
    };
    assert!(stats.operations >= 2 && stats.histories > 500 && stats.merges < stats.histories, "{stats:?}");
    assert_eq!(classics, rejoin_laws::CLASSICS.len());
}

/// The ready-made merges with operations whose readers see one content for a name.
#[test]
fn the_plugins_of_the_tree_do_what_their_operations_mean() {
    for plugin in ["set", "counter", "leaderboard", "highest"] {
        let under_test = component::on_a_host(&component::built(plugin));
        let intent = std::fs::read_to_string(workspace().join("plugins").join(plugin).join("intent.json"));
        let findings = checked(&under_test, &intent.expect("it has one"));
        let wrong: Vec<String> = findings.wrong_histories().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{plugin}: {wrong:?}");
        let (Some(Ok(stats)), Some(Ok(classics))) = (findings.histories, findings.classics) else {
            panic!("{plugin} has an intent")
        };
        assert!(stats.operations >= 2 && classics >= 3, "{plugin}: {stats:?}, {classics} classics");
    }
}

#[test]
fn a_union_brings_back_what_was_removed_in_the_shortest_history() {
    let union = guest("union", UNION);
    let findings = checked(&union, PLAIN_INTENT);
    let wrong: Vec<String> = findings.wrong_histories().map(ToString::to_string).collect();
    assert_eq!(wrong.len(), 2, "a history and a classic: {wrong:?}");
    assert!(wrong[0].contains("x is \"\", and should be absent") && wrong[0].contains("remove x at"), "{}", wrong[0]);
    // Its operations cannot be asked for.
    let intent = IntentFile::parse(INTENT.as_bytes()).expect("an intent");
    let options = LawOptions { intent: Some(intent), ..LawOptions::default() };
    let refused = check_laws_with_options(&union, &BucketProps::default(), &options, &mut |_| {}).expect_err("none");
    assert!(refused.to_string().contains("list Operator in rejoin_guest::export!"), "{refused}");
}

/// An intent with a scenario: what was removed by one who had seen it is gone, whatever others add meanwhile.
fn with_scenario(intent: &str) -> String {
    let steps = [
        r#"{"at":"east","add":"x"}"#,
        r#"{"sync":["east","west"]}"#,
        r#"{"at":"west","remove":"x"}"#,
        r#"{"at":"east","add":"z"}"#,
        r#"{"sync":["east","west"]}"#,
        r#"{"at":"east","shown":["z"]}"#,
        r#"{"fold":"east"}"#,
        r#"{"sync":["east","west"]}"#,
        r#"{"at":"west","shown":["z"]}"#,
    ];
    let scenario = format!(r#""scenarios": [{{"name": "gone", "steps": [{}]}}], "format"#, steps.join(","));
    intent.replacen("\"format", &scenario, 1)
}

#[test]
fn scenarios_are_played_beside_the_histories() {
    let findings = checked(&guest("names", SET), &with_scenario(INTENT));
    let wrong: Vec<String> = findings.wrong_histories().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(findings.scenarios, Some(Ok(1)));
    let findings = checked(&guest("union", UNION), &with_scenario(PLAIN_INTENT));
    let wrong = findings.scenarios.expect("it has one").expect_err("what was removed comes back").to_string();
    assert!(wrong.contains("\"gone\": a read at east should show {\"z\": \"\"}, and shows"), "{wrong}");
    assert!(wrong.contains("remove x at west"), "{wrong}");
}
