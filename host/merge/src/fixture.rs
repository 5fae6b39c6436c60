//! Counterexamples as a file, for people to read and to run again on a corrected plugin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use rejoin_laws::{Counterexample, Law, MergeResult, Sibling, Trial, Violation};

use crate::law_report::LawTest;
use crate::plugin::Plugin;
use crate::under_test::PluginUnderTest;

/// The version of the format. Files of other versions are refused.
const FORMAT: u32 = 1;
/// The most siblings of a case; more than any bucket allows.
const MAX_SIBLINGS: usize = 1024;

/// The counterexamples of one test of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fixture {
    format: u32,
    plugin: PluginName,
    /// The seed of the test.
    seed: u64,
    counterexamples: Vec<FixtureCase>,
}

/// The plugin that was tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PluginName {
    name: Option<String>,
    version: Option<String>,
    digest: String,
}

/// A counterexample: for people, and in the `base64` fields for machines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureCase {
    /// The law's name.
    pub law: String,
    /// The law in one line.
    pub says: String,
    /// The key of the merge.
    pub key: EncodedBytes,
    /// Whether all values are known to be valid.
    pub valid: bool,
    /// The siblings, in the order of the merge.
    pub siblings: Vec<FixtureSibling>,
    /// How the law is broken.
    pub violation: FixtureViolation,
}

/// A key or a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncodedBytes {
    /// The form of the plugin's presenter, or the text if it is UTF-8.
    pub shown: Option<Value>,
    /// All bytes, in standard base64.
    pub base64: String,
}

impl EncodedBytes {
    /// A key, with its text if it is UTF-8.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        plain(key)
    }

    /// A value as the plugin's presenter shows it.
    #[must_use]
    pub fn of_value(under_test: &PluginUnderTest, value: &[u8]) -> Self {
        presented(under_test, value)
    }
}

/// A sibling of a counterexample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureSibling {
    /// The value in both forms.
    #[serde(flatten)]
    pub value: EncodedBytes,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// The actor that took the write, as 16 hexadecimal digits: many JSON readers cannot represent 64-bit numbers.
    pub writer: String,
}

impl FixtureSibling {
    /// A sibling as the plugin's presenter shows it.
    #[must_use]
    pub fn of(under_test: &PluginUnderTest, value: &[u8], stamp_ms: u64, writer: u64) -> Self {
        Self { value: presented(under_test, value), stamp_ms, writer: format!("{writer:016x}") }
    }
}

/// How the law is broken. For people only: a replay computes it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureViolation {
    /// What must hold.
    pub expected: String,
    /// The results instead, one or two.
    pub got: Vec<FixtureAnswer>,
}

/// One of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureAnswer {
    /// The merge that gave this result.
    pub of: String,
    /// The value, if there is one.
    pub value: Option<EncodedBytes>,
    /// Why there is no value.
    pub failure: Option<String>,
}

/// A merge of a cluster that breaks a law.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundCase {
    /// The law's name.
    pub law: String,
    /// What does not hold.
    pub equation: String,
    /// The key.
    pub key: Vec<u8>,
    /// The siblings that show it, in the order of the merge.
    pub siblings: Vec<crate::call::Sibling>,
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FixtureError {
    /// The file is no fixture.
    #[error("this is no counterexample: {0}. `rejoin plugin test FILE` writes one if a law is broken")]
    Malformed(String),
    /// The file has another format version.
    #[error(
        "the counterexample is in format {0}, and this release reads format {FORMAT}: run `rejoin plugin test FILE` \
            again to get a new one"
    )]
    Format(u64),
    /// The file is of another plugin.
    #[error("the counterexample was found for the plugin {wanted}, and this one is {found}: name the file of {wanted}")]
    OtherPlugin {
        /// The plugin of the fixture.
        wanted: String,
        /// The plugin that was given.
        found: String,
    },
}

impl Fixture {
    /// A fixture of counterexamples, with values as the plugin's presenter shows them.
    pub fn new<'a>(
        under_test: &PluginUnderTest,
        seed: u64,
        found: impl IntoIterator<Item = &'a Counterexample>,
    ) -> Self {
        let metadata = under_test.plugin.metadata();
        let plugin = PluginName {
            name: metadata.map(|metadata| metadata.name.clone()),
            version: metadata.map(|metadata| metadata.version.clone()),
            digest: under_test.plugin.digest().to_string(),
        };
        Self {
            format: FORMAT,
            plugin,
            seed,
            counterexamples: found.into_iter().map(|one| shown(under_test, one)).collect(),
        }
    }

    /// The counterexamples of a report.
    #[must_use]
    pub fn of_report(test: &LawTest) -> Self {
        let plugin = PluginName { name: test.name.clone(), version: test.version.clone(), digest: test.digest.clone() };
        let counterexamples = test.counterexamples.clone();
        Self { format: FORMAT, plugin, seed: test.seed.unwrap_or_default(), counterexamples }
    }

    /// A fixture of merges of a cluster that break a law.
    pub fn of_merges(digest: String, found: impl IntoIterator<Item = FoundCase>) -> Self {
        let plugin = PluginName { name: None, version: None, digest };
        let case = |found: FoundCase| FixtureCase {
            says: Law::from_name(&found.law).map_or_else(String::new, |law| law.statement().into()),
            law: found.law,
            key: plain(&found.key),
            valid: true,
            siblings: found
                .siblings
                .iter()
                .map(|one| FixtureSibling {
                    value: plain(&one.value),
                    stamp_ms: one.stamp_ms,
                    writer: format!("{:016x}", one.writer),
                })
                .collect(),
            violation: FixtureViolation { expected: found.equation, got: Vec::new() },
        };
        Self { format: FORMAT, plugin, seed: 0, counterexamples: found.into_iter().map(case).collect() }
    }

    /// The counterexamples.
    #[must_use]
    pub fn cases(&self) -> &[FixtureCase] {
        &self.counterexamples
    }

    /// The digest of the component that was tested.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.plugin.digest
    }

    /// The content of the file.
    ///
    /// # Panics
    /// Never: text, numbers and lists are always JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("text, numbers and lists are always JSON");
        json.push(b'\n');
        json
    }

    /// Parses a file.
    ///
    /// # Errors
    /// [`FixtureError`] if it is no fixture or has another version.
    pub fn parse(json: &[u8]) -> Result<Self, FixtureError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| FixtureError::Malformed(error.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(FixtureError::Format(format)),
            None => return Err(FixtureError::Malformed("it has no `format`".into())),
        }
        let fixture: Self =
            serde_json::from_value(value).map_err(|error| FixtureError::Malformed(error.to_string()))?;
        if fixture.plugin.digest.parse::<rejoin_proto::PluginDigest>().is_err() {
            return Err(FixtureError::Malformed(format!("{:?} is no plugin's digest", fixture.plugin.digest)));
        }
        Ok(fixture)
    }

    /// The trials to replay on a plugin: the tested one, or a later one of the same name.
    ///
    /// # Errors
    /// [`FixtureError`] if it is of another plugin, or has invalid content.
    pub fn trials(&self, plugin: &Plugin) -> Result<Vec<(Law, Trial)>, FixtureError> {
        let found = plugin.metadata().map(|metadata| metadata.name.clone());
        match (&self.plugin.name, found) {
            (Some(wanted), Some(found)) if *wanted != found => {
                return Err(FixtureError::OtherPlugin { wanted: wanted.clone(), found });
            }
            _ => {}
        }
        self.counterexamples.iter().map(trial).collect()
    }
}

fn trial(shown: &FixtureCase) -> Result<(Law, Trial), FixtureError> {
    let law = Law::from_name(&shown.law)
        .ok_or_else(|| FixtureError::Malformed(format!("there is no law of {:?}", shown.law)))?;
    if !(2..=MAX_SIBLINGS).contains(&shown.siblings.len()) {
        return Err(FixtureError::Malformed(format!("{} siblings cannot be merged", shown.siblings.len())));
    }
    let siblings = shown.siblings.iter().map(sibling).collect::<Result<_, _>>()?;
    Ok((law, Trial { key: bytes(&shown.key)?, siblings, valid: shown.valid }))
}

fn sibling(shown: &FixtureSibling) -> Result<Sibling, FixtureError> {
    let writer = u64::from_str_radix(&shown.writer, 16);
    let writer = writer.map_err(|_| FixtureError::Malformed(format!("{:?} is no writer", shown.writer)))?;
    Ok(Sibling { value: bytes(&shown.value)?, stamp_ms: shown.stamp_ms, writer })
}

fn bytes(shown: &EncodedBytes) -> Result<Vec<u8>, FixtureError> {
    STANDARD.decode(&shown.base64).map_err(|_| FixtureError::Malformed(format!("{:?} is no base64", shown.base64)))
}

fn shown(under_test: &PluginUnderTest, found: &Counterexample) -> FixtureCase {
    let sibling = |one: &Sibling| FixtureSibling::of(under_test, &one.value, one.stamp_ms, one.writer);
    FixtureCase {
        law: found.law.to_string(),
        says: found.law.statement().into(),
        key: plain(&found.trial.key),
        valid: found.trial.valid,
        siblings: found.trial.siblings.iter().map(sibling).collect(),
        violation: violation(under_test, found),
    }
}

fn violation(under_test: &PluginUnderTest, found: &Counterexample) -> FixtureViolation {
    let said = |of: String, answer: &MergeResult| FixtureAnswer {
        of,
        value: answer.as_ref().ok().map(|value| presented(under_test, value)),
        failure: answer.as_ref().err().map(ToString::to_string),
    };
    let failed = |of: String, failure: String| FixtureAnswer { of, value: None, failure: Some(failure) };
    match &found.violation {
        Violation::Differ { equation, left, right } => {
            let (of_left, of_right) = equation.split_once(" = ").unwrap_or((equation, "the same"));
            FixtureViolation {
                expected: equation.clone(),
                got: vec![said(of_left.into(), left), said(of_right.into(), right)],
            }
        }
        Violation::NoAnswer { siblings, failure } => {
            let expected = if found.trial.valid { "an answer" } else { "an answer or a fault" };
            let mut got: Vec<FixtureAnswer> = Vec::new();
            if *siblings != found.trial.siblings {
                let merged = siblings.iter().enumerate();
                got.extend(
                    merged.map(|(index, one)| said(format!("merging, sibling {index}"), &Ok(one.value.clone()))),
                );
            }
            got.push(failed("their merge".into(), failure.to_string()));
            FixtureViolation { expected: expected.into(), got }
        }
        Violation::Grown { bytes, limit } => {
            let expected = format!("at most {limit} bytes");
            FixtureViolation {
                expected,
                got: vec![failed("the merge of their canonical forms".into(), format!("has {bytes} bytes"))],
            }
        }
        Violation::NoSample { seed, size, reason } => {
            let of = format!("sample({seed}, {size})");
            FixtureViolation { expected: "a value".into(), got: vec![failed(of, reason.clone())] }
        }
    }
}

fn presented(under_test: &PluginUnderTest, value: &[u8]) -> EncodedBytes {
    let shown = under_test.host.show(&under_test.plugin, value, &under_test.limits).ok();
    let shown = shown.and_then(|json| serde_json::from_slice(&json).ok());
    shown.map_or_else(|| plain(value), |shown| EncodedBytes { shown: Some(shown), base64: STANDARD.encode(value) })
}

fn plain(value: &[u8]) -> EncodedBytes {
    let text = std::str::from_utf8(value).ok().map(|text| Value::String(text.into()));
    EncodedBytes { shown: text, base64: STANDARD.encode(value) }
}
