//! Counterexamples as a file: for people to read, and to be run again on a plugin that has been mended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use rejoin_laws::{Counterexample, Law, MergeResult, Sibling, Trial, Violation};

use crate::plugin::Plugin;
use crate::under_test::PluginUnderTest;

/// The version of the format. A file of another one is refused.
const FORMAT: u32 = 1;
/// More siblings than any bucket allows.
const MAX_SIBLINGS: usize = 1024;

/// What breaks a plugin's laws.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fixture {
    format: u32,
    plugin: PluginName,
    /// Of the run that found it.
    seed: u64,
    counterexamples: Vec<FixtureCase>,
}

/// The plugin that was checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PluginName {
    name: Option<String>,
    version: Option<String>,
    digest: String,
}

/// A counterexample for people, and in its `base64` fields for the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureCase {
    /// The law's name.
    pub law: String,
    /// What it says.
    pub says: String,
    /// The key.
    pub key: EncodedBytes,
    /// Whether the values are known to be valid.
    pub valid: bool,
    /// The siblings.
    pub siblings: Vec<FixtureSibling>,
    /// What happened.
    pub violation: FixtureViolation,
}

/// Some bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncodedBytes {
    /// As the plugin's presenter shows them, or as text if they are UTF-8.
    pub shown: Option<Value>,
    /// All of them.
    pub base64: String,
}

/// A sibling.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureSibling {
    /// Its value.
    #[serde(flatten)]
    pub value: EncodedBytes,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// Which actor took the write, as 16 hexadecimal digits: a JSON number would lose some of its 64 bits in many
    /// readers.
    pub writer: String,
}

/// How the law is broken. For people only: running it again finds out anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureViolation {
    /// What should have held.
    pub expected: String,
    /// What was seen instead, a line or two.
    pub got: Vec<FixtureAnswer>,
}

/// One of the answers that were seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FixtureAnswer {
    /// Of what.
    pub of: String,
    /// The answer, if it was one.
    pub value: Option<EncodedBytes>,
    /// Why there was none.
    pub failure: Option<String>,
}

/// Why a file cannot be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FixtureError {
    /// Not what this program writes.
    #[error("this is no counterexample: {0}. `rejoin plugin test FILE` writes one if a law is broken")]
    Malformed(String),
    /// Of another version.
    #[error(
        "the counterexample is in format {0}, and this release reads format {FORMAT}: run `rejoin plugin test FILE` again to get a new one"
    )]
    Format(u64),
    /// Of another plugin.
    #[error("the counterexample was found for the plugin {wanted}, and this one is {found}: name the file of {wanted}")]
    OtherPlugin {
        /// The fixture's.
        wanted: String,
        /// The one it was to be run on.
        found: String,
    },
}

impl Fixture {
    /// What was found, with values as the plugin's presenter shows them.
    pub fn new<'a>(under_test: &PluginUnderTest, seed: u64, found: impl IntoIterator<Item = &'a Counterexample>) -> Self {
        let metadata = under_test.plugin.metadata();
        let plugin = PluginName {
            name: metadata.map(|metadata| metadata.name.clone()),
            version: metadata.map(|metadata| metadata.version.clone()),
            digest: under_test.plugin.digest().to_string(),
        };
        Self { format: FORMAT, plugin, seed, counterexamples: found.into_iter().map(|one| shown(under_test, one)).collect() }
    }

    /// The counterexamples, for people.
    #[must_use]
    pub fn cases(&self) -> &[FixtureCase] {
        &self.counterexamples
    }

    /// The digest of the component that was checked.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.plugin.digest
    }

    /// The file.
    ///
    /// # Panics
    /// Never: text, numbers and lists are always JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("text, numbers and lists are always JSON");
        json.push(b'\n');
        json
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`FixtureError`] if it is none, or of another version.
    pub fn parse(json: &[u8]) -> Result<Self, FixtureError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| FixtureError::Malformed(error.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(FixtureError::Format(format)),
            None => return Err(FixtureError::Malformed("it has no `format`".into())),
        }
        let fixture: Self = serde_json::from_value(value).map_err(|error| FixtureError::Malformed(error.to_string()))?;
        if fixture.plugin.digest.parse::<rejoin_proto::PluginDigest>().is_err() {
            return Err(FixtureError::Malformed(format!("{:?} is no plugin's digest", fixture.plugin.digest)));
        }
        Ok(fixture)
    }

    /// What to try again on a plugin: on the one that was checked, or on a later one of that name.
    ///
    /// # Errors
    /// [`FixtureError`] if it is of another plugin, or names what is not there.
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
    let law = Law::from_name(&shown.law).ok_or_else(|| FixtureError::Malformed(format!("there is no law of {:?}", shown.law)))?;
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
    let sibling = |one: &Sibling| FixtureSibling {
        value: presented(under_test, &one.value),
        stamp_ms: one.stamp_ms,
        writer: format!("{:016x}", one.writer),
    };
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
            FixtureViolation { expected: equation.clone(), got: vec![said(of_left.into(), left), said(of_right.into(), right)] }
        }
        Violation::NoAnswer { siblings, failure } => {
            let expected = if found.trial.valid { "an answer" } else { "an answer or a fault" };
            let mut got: Vec<FixtureAnswer> = Vec::new();
            if *siblings != found.trial.siblings {
                let merged = siblings.iter().enumerate();
                got.extend(merged.map(|(index, one)| said(format!("merging, sibling {index}"), &Ok(one.value.clone()))));
            }
            got.push(failed("their merge".into(), failure.to_string()));
            FixtureViolation { expected: expected.into(), got }
        }
        Violation::Grown { bytes, limit } => {
            let expected = format!("at most {limit} bytes");
            FixtureViolation { expected, got: vec![failed("the merge of their canonical forms".into(), format!("has {bytes} bytes"))] }
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
