//! Counterexamples as a file: for people to read, and to be run again on a plugin that has been mended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use rejoin_laws::{Answer, Counterexample, Law, Sibling, Trial, Violation};

use crate::plugin::Plugin;
use crate::subject::Subject;

/// The version of the format. A file of another one is refused.
pub const FORMAT: u32 = 1;
/// More siblings than any bucket allows.
const MAX_SIBLINGS: usize = 1024;

/// What breaks a plugin's laws.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fixture {
    format: u32,
    plugin: PluginName,
    /// Of the run that found it.
    seed: u64,
    counterexamples: Vec<Shown>,
}

/// The plugin that was examined.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PluginName {
    name: Option<String>,
    version: Option<String>,
    digest: String,
}

/// A counterexample for people, and in its `base64` fields for the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The law's name.
    pub law: String,
    /// What it says.
    pub says: String,
    /// The key.
    pub key: Bytes,
    /// Whether the values are known to be valid.
    pub valid: bool,
    /// The siblings.
    pub siblings: Vec<ShownSibling>,
    /// What happened.
    pub violation: ShownViolation,
}

/// Some bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bytes {
    /// As the plugin's presenter shows them, or as text if they are UTF-8.
    pub shown: Option<Value>,
    /// All of them.
    pub base64: String,
}

/// A sibling.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownSibling {
    /// Its value.
    #[serde(flatten)]
    pub value: Bytes,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// Which actor took the write, as 16 hexadecimal digits: a JSON number would lose some of its 64 bits in many
    /// readers.
    pub writer: String,
}

/// How the law is broken. For people only: running it again finds out anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownViolation {
    /// What should have held.
    pub expected: String,
    /// What was seen instead, a line or two.
    pub got: Vec<ShownAnswer>,
}

/// One of the answers that were seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownAnswer {
    /// Of what.
    pub of: String,
    /// The answer, if it was one.
    pub value: Option<Bytes>,
    /// Why there was none.
    pub failure: Option<String>,
}

/// Why a file cannot be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFixture {
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
    pub fn new<'a>(subject: &Subject, seed: u64, found: impl IntoIterator<Item = &'a Counterexample>) -> Self {
        let card = subject.plugin.card();
        let plugin = PluginName {
            name: card.map(|card| card.name.clone()),
            version: card.map(|card| card.version.clone()),
            digest: subject.plugin.digest().to_string(),
        };
        Self { format: FORMAT, plugin, seed, counterexamples: found.into_iter().map(|one| shown(subject, one)).collect() }
    }

    /// The counterexamples, for people.
    #[must_use]
    pub fn shown(&self) -> &[Shown] {
        &self.counterexamples
    }

    /// The digest of the component that was examined.
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
    /// [`BadFixture`] if it is none, or of another version.
    pub fn parse(json: &[u8]) -> Result<Self, BadFixture> {
        let value: Value = serde_json::from_slice(json).map_err(|error| BadFixture::Malformed(error.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(BadFixture::Format(format)),
            None => return Err(BadFixture::Malformed("it has no `format`".into())),
        }
        let fixture: Self = serde_json::from_value(value).map_err(|error| BadFixture::Malformed(error.to_string()))?;
        if fixture.plugin.digest.parse::<rejoin_proto::PluginDigest>().is_err() {
            return Err(BadFixture::Malformed(format!("{:?} is no plugin's digest", fixture.plugin.digest)));
        }
        Ok(fixture)
    }

    /// What to try again on a plugin: on the one that was examined, or on a later one of that name.
    ///
    /// # Errors
    /// [`BadFixture`] if it is of another plugin, or names what is not there.
    pub fn trials(&self, plugin: &Plugin) -> Result<Vec<(Law, Trial)>, BadFixture> {
        let found = plugin.card().map(|card| card.name.clone());
        match (&self.plugin.name, found) {
            (Some(wanted), Some(found)) if *wanted != found => {
                return Err(BadFixture::OtherPlugin { wanted: wanted.clone(), found });
            }
            _ => {}
        }
        self.counterexamples.iter().map(trial).collect()
    }
}

fn trial(shown: &Shown) -> Result<(Law, Trial), BadFixture> {
    let law = Law::named(&shown.law).ok_or_else(|| BadFixture::Malformed(format!("there is no law of {:?}", shown.law)))?;
    if !(2..=MAX_SIBLINGS).contains(&shown.siblings.len()) {
        return Err(BadFixture::Malformed(format!("{} siblings cannot be merged", shown.siblings.len())));
    }
    let siblings = shown.siblings.iter().map(sibling).collect::<Result<_, _>>()?;
    Ok((law, Trial { key: bytes(&shown.key)?, siblings, valid: shown.valid }))
}

fn sibling(shown: &ShownSibling) -> Result<Sibling, BadFixture> {
    let writer = u64::from_str_radix(&shown.writer, 16);
    let writer = writer.map_err(|_| BadFixture::Malformed(format!("{:?} is no writer", shown.writer)))?;
    Ok(Sibling { value: bytes(&shown.value)?, stamp_ms: shown.stamp_ms, writer })
}

fn bytes(shown: &Bytes) -> Result<Vec<u8>, BadFixture> {
    STANDARD.decode(&shown.base64).map_err(|_| BadFixture::Malformed(format!("{:?} is no base64", shown.base64)))
}

fn shown(subject: &Subject, found: &Counterexample) -> Shown {
    let sibling = |one: &Sibling| ShownSibling {
        value: presented(subject, &one.value),
        stamp_ms: one.stamp_ms,
        writer: format!("{:016x}", one.writer),
    };
    Shown {
        law: found.law.to_string(),
        says: found.law.says().into(),
        key: plain(&found.trial.key),
        valid: found.trial.valid,
        siblings: found.trial.siblings.iter().map(sibling).collect(),
        violation: violation(subject, found),
    }
}

fn violation(subject: &Subject, found: &Counterexample) -> ShownViolation {
    let said = |of: String, answer: &Answer| ShownAnswer {
        of,
        value: answer.as_ref().ok().map(|value| presented(subject, value)),
        failure: answer.as_ref().err().map(ToString::to_string),
    };
    let failed = |of: String, failure: String| ShownAnswer { of, value: None, failure: Some(failure) };
    match &found.violation {
        Violation::Differ { equation, left, right } => {
            let (of_left, of_right) = equation.split_once(" = ").unwrap_or((equation, "the same"));
            ShownViolation { expected: equation.clone(), got: vec![said(of_left.into(), left), said(of_right.into(), right)] }
        }
        Violation::NoAnswer { siblings, failure } => {
            let expected = if found.trial.valid { "an answer" } else { "an answer or a fault" };
            let mut got: Vec<ShownAnswer> = Vec::new();
            if *siblings != found.trial.siblings {
                let merged = siblings.iter().enumerate();
                got.extend(merged.map(|(index, one)| said(format!("merging, sibling {index}"), &Ok(one.value.clone()))));
            }
            got.push(failed("their merge".into(), failure.to_string()));
            ShownViolation { expected: expected.into(), got }
        }
        Violation::Grown { bytes, limit } => {
            let expected = format!("at most {limit} bytes");
            ShownViolation { expected, got: vec![failed("the merge of their canonical forms".into(), format!("has {bytes} bytes"))] }
        }
        Violation::NoSample { seed, size, reason } => {
            let of = format!("sample({seed}, {size})");
            ShownViolation { expected: "a value".into(), got: vec![failed(of, reason.clone())] }
        }
    }
}

fn presented(subject: &Subject, value: &[u8]) -> Bytes {
    let shown = subject.host.show(&subject.plugin, value, &subject.limits).ok();
    let shown = shown.and_then(|json| serde_json::from_slice(&json).ok());
    shown.map_or_else(|| plain(value), |shown| Bytes { shown: Some(shown), base64: STANDARD.encode(value) })
}

fn plain(value: &[u8]) -> Bytes {
    let text = std::str::from_utf8(value).ok().map(|text| Value::String(text.into()));
    Bytes { shown: text, base64: STANDARD.encode(value) }
}
