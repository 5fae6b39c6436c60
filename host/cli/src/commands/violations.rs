//! `conflict violations`: merges of a bucket that break a law, as the nodes have found them.

use std::path::Path;

use serde::Serialize;

use rejoin_client::admin::LawViolation;
use rejoin_merge::{Fixture, FoundCase, Sibling};
use rejoin_wire::utc_text_ms;

use crate::commands::json::KeyJson;
use crate::commands::nodes::{all_answered, tell_silent};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// A violation as `--json` prints it. The file of `--output` has the siblings.
#[derive(Serialize, Debug)]
struct Violation {
    #[serde(flatten)]
    key: KeyJson,
    plugin: String,
    law: String,
    equation: String,
    siblings: usize,
    /// Whether a second check has found the same.
    confirmed: bool,
    at_ms: u64,
}

impl From<&LawViolation> for Violation {
    fn from(found: &LawViolation) -> Self {
        Self {
            key: KeyJson::new(&found.key),
            plugin: found.plugin.to_string(),
            law: found.law.clone(),
            equation: found.equation.clone(),
            siblings: found.siblings.len(),
            confirmed: found.confirmed,
            at_ms: found.at_ms,
        }
    }
}

impl Violation {
    fn row(self) -> Vec<String> {
        let siblings = if self.siblings == 0 { "too large".to_owned() } else { self.siblings.to_string() };
        let plugin = self.plugin.get(..12).unwrap_or_default().to_owned();
        let sure = if self.confirmed { "yes" } else { "no" };
        vec![self.key.shown(), self.law, siblings, sure.to_owned(), utc_text_ms(self.at_ms), plugin, self.equation]
    }
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, bucket: &str, output: Option<&Path>) -> Result<(), Failure> {
    let found = connect(global).await?.admin().law_violations(bucket).await?;
    tell_silent(&found.silent);
    if let Some(file) = output {
        write(file, bucket, &found.answers)?;
    }
    let rows: Vec<Violation> = found.answers.iter().map(Violation::from).collect();
    if out.json {
        out.json(&rows)?;
    }
    if rows.is_empty() {
        all_answered(&found.silent)?;
    }
    if out.json {
        return Ok(());
    }
    if rows.is_empty() {
        note(format!("no merge of bucket {bucket} that was checked again has broken a law"));
        return Ok(());
    }
    note(match output {
        Some(file) => format!("next: `rejoin plugin run FILE --replay {}` runs the merges", file.display()),
        None => "`--output FILE` writes the siblings, for `rejoin plugin run` and `rejoin plugin test`".to_owned(),
    });
    let header = ["key", "law", "siblings", "twice", "found", "plugin", "does not hold"];
    out.table(&header, rows.into_iter().map(Violation::row).collect())
}

/// Writes the violations of the plugin that was found last. A file is of one plugin.
fn write(file: &Path, bucket: &str, found: &[LawViolation]) -> Result<(), Failure> {
    let with_siblings = |one: &&LawViolation| !one.siblings.is_empty();
    let Some(last) = found.iter().rev().find(with_siblings) else {
        let what = format!("there is no violation of bucket {bucket} that could be written");
        return Err(Failure::new(Exit::Negative, what).next(format!("`rejoin conflict violations {bucket}`")));
    };
    let of_last = found.iter().filter(with_siblings).filter(|one| one.plugin == last.plugin);
    let fixture = Fixture::of_merges(last.plugin.to_string(), of_last.map(case));
    files::replace(file, &fixture.to_json(), Mode::Private)
}

fn case(found: &LawViolation) -> FoundCase {
    FoundCase {
        law: found.law.clone(),
        equation: found.equation.clone(),
        key: found.key.to_vec(),
        siblings: found.siblings.iter().map(Sibling::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::PluginDigest;

    fn violation(plugin: u8, siblings: usize) -> LawViolation {
        let sibling = |at| rejoin_proto::client::Sibling { value: "7".into(), stamp_ms: at, writer: 1 };
        LawViolation {
            key: "k".into(),
            plugin: PluginDigest([plugin; 32]),
            law: "permutation".into(),
            equation: "m(all) = m(all, reversed)".into(),
            siblings: (0..siblings as u64).map(sibling).collect(),
            confirmed: true,
            at_ms: 1,
        }
    }

    #[test]
    fn the_file_is_one_of_counterexamples_of_one_plugin() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("found.json");
        let found = [violation(1, 2), violation(2, 3), violation(2, 2), violation(3, 0)];
        write(&file, "b", &found).expect("it is written");
        let fixture = Fixture::parse(&std::fs::read(&file).expect("it was written")).expect("a fixture");
        assert_eq!((fixture.cases().len(), fixture.digest()), (2, "02".repeat(32).as_str()));
        assert_eq!(fixture.cases()[0].siblings.len(), 3);
        let failure = write(&file, "b", &found[3..]).expect_err("nothing to replay");
        assert_eq!(failure.exit, Exit::Negative);
    }
}
