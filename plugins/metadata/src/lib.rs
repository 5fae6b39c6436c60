//! A record of named JSON values, each with its own causality: changes of different fields never compete, and of two
//! concurrent changes of one field none is lost.
//!
//! # Format
//! ```json
//! {"clock":{"0000000000000a07":5},"items":{"title":{"0000000000000a07":{"seq":5,"value":"Minutes"}}}}
//! ```
//! A [`CausalMap`]: every value has the tag of the change that wrote it, a writer and its number. A field that was
//! changed concurrently has several values, until a change that has seen them takes their place.
//!
//! # Merging
//! A value stays if every copy that has seen its tag still has it. A change wins over a concurrent removal of its
//! field. Values carry their own causality (`self-causal`).
//!
//! # Operations
//! `{"set":{"title":"Minutes","tags":["a"]},"remove":["draft"]}`; both members may be missing. Questions: `"fields"` or
//! an empty one (all fields as they are shown to people), `{"get":"title"}` (the list of the field's values).
//! A field is shown as its value, or as `{"concurrent":[..]}` if it has several.
//!
//! # Limits
//! Numbers are whole and at most 2^53; write others as text. Each writer costs its name and a number for as long as the
//! key lives. Deleting the key deletes the clock as well: to empty a record, remove its fields.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use rejoin_guest::causal::{CausalMap, Entries, Entry};
use rejoin_guest::json::from_slice;
use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// The value of a field, as one change wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The number of the change.
    pub seq: u64,
    /// Any JSON.
    pub value: Value,
}

impl Ord for Written {
    fn cmp(&self, other: &Self) -> Ordering {
        let text = |one: &Self| one.value.to_string();
        self.seq.cmp(&other.seq).then_with(|| text(self).cmp(&text(other)))
    }
}

impl PartialOrd for Written {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Entry for Written {
    fn counter(&self) -> u64 {
        self.seq
    }
}

/// The fields with their values.
pub type Record = CausalMap<Written>;

/// An operation on a record.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Operation {
    set: BTreeMap<String, Value>,
    remove: Vec<String>,
}

/// A question to a record.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Fields,
    Get(String),
}

/// The merge plugin for [`Record`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Operator, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut merged = Record::default();
        for sibling in siblings {
            merged.join(&Record::parse(&sibling.value)?);
        }
        Ok(merged.to_json())
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Ok(Record::parse(value).map(drop)?)
    }
}

impl Operator for Plugin {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], dot: Dot) -> Result<Vec<u8>, Fault> {
        let mut record = state.map_or_else(|| Ok(Record::default()), Record::parse)?;
        let Operation { set, remove } = from_slice(operation)?;
        let writer = record.writer(dot)?;
        remove.iter().for_each(|field| record.remove(field));
        for (field, value) in set {
            record.put(&field, &writer, Written { seq: dot.counter, value });
        }
        Ok(record.to_json())
    }

    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault> {
        let record = Record::parse(state)?;
        let question = if question.is_empty() { Question::Fields } else { from_slice(question)? };
        let answer = match question {
            Question::Fields => fields(&record),
            Question::Get(field) => record.get(&field).map_or_else(|| json!([]), values),
        };
        Ok(answer.to_string().into_bytes())
    }
}

fn values(written: &Entries<Written>) -> Value {
    written.values().map(|written| written.value.clone()).collect()
}

fn fields(record: &Record) -> Value {
    let shown = |written: &Entries<Written>| match written.len() {
        1 => written.values().map(|written| written.value.clone()).next().unwrap_or_default(),
        _ => json!({ "concurrent": values(written) }),
    };
    record.iter().map(|(field, written)| (field.to_owned(), shown(written))).collect()
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Record::parse(value).map(|record| fields(&record));
        shown.unwrap_or_else(|why| json!({ "error": why.to_string() })).to_string().into_bytes()
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "metadata", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Sampler for Plugin {
    /// Draws from few writers, fields and values, so that records of different seeds share tags, also with different
    /// values. Larger records have more fields.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut record = Record::default();
        for _ in 0..size {
            let field = format!("field {}", rng.below(3 + u64::from(size / 8)));
            let writer = rng.pick(&["ann", "bob", "c\u{e9}"]).copied().unwrap_or_default();
            let value = match rng.below(5) {
                0 => json!(null),
                1 => json!({ "b": [1, "x"], "a": {} }),
                number => json!(number),
            };
            match rng.below(4) {
                0 => record.remove(&field),
                _ => record.put(&field, writer, Written { seq: record.next(writer), value }),
            }
        }
        record.to_json()
    }
}
