//! A set of texts that never brings a removed element back, and loses no element that is added while another replica
//! removes it.
//!
//! # Format
//! ```json
//! {"clock":{"0000000000000a07":2,"00000000000011f2":1},"items":{"apples":{"0000000000000a07":2}}}
//! ```
//! A [`CausalMap`]: every element has the tag of the add that put it there, a writer and its counter. `clock` says
//! which adds the set has seen. An add that the clock covers and that the items lack was removed.
//!
//! # Merging
//! An element stays if every copy that has seen its tag still has it. An add wins over a concurrent remove. Values
//! carry their own causality (`self-causal`).
//!
//! # Operations
//! `{"add":["apples"],"remove":["pears"]}`; both members may be missing. Removals come first, and remove what the state
//! has. Questions: `"items"` or an empty one (all elements), `"count"`, `{"has":"apples"}`.
//!
//! # Writing without operations
//! A client that puts whole values tags its adds with a writer's name that is unique to a session; `plugins/cart` has a
//! `Session` that shows how.
//!
//! # Limits
//! Counters are at most 2^53. Each writer costs its name and a counter for as long as the key lives. Deleting the key
//! deletes the clock as well: to empty a set, remove its elements.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use serde::Deserialize;
use serde_json::{Value, json};

use rejoin_guest::causal::CausalMap;
use rejoin_guest::json::from_slice;
use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// A set: its elements with the counters of their adds.
pub type Set = CausalMap<u64>;

/// An operation on a set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Operation {
    add: Vec<String>,
    remove: Vec<String>,
}

/// A question to a set.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Items,
    Count,
    Has(String),
}

/// The merge plugin for [`Set`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Operator, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut merged = Set::default();
        for sibling in siblings {
            merged.join(&Set::parse(&sibling.value)?);
        }
        Ok(merged.to_json())
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Ok(Set::parse(value).map(drop)?)
    }
}

impl Operator for Plugin {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], dot: Dot) -> Result<Vec<u8>, Fault> {
        let mut set = state.map_or_else(|| Ok(Set::default()), Set::parse)?;
        let Operation { add, remove } = from_slice(operation)?;
        let writer = set.writer(dot)?;
        remove.iter().for_each(|element| set.remove(element));
        add.iter().for_each(|element| set.put(element, &writer, dot.counter));
        Ok(set.to_json())
    }

    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault> {
        let set = Set::parse(state)?;
        let question = if question.is_empty() { Question::Items } else { from_slice(question)? };
        let answer = match question {
            Question::Items => elements(&set),
            Question::Count => json!(set.names().len()),
            Question::Has(element) => json!(set.get(&element).is_some()),
        };
        Ok(answer.to_string().into_bytes())
    }
}

fn elements(set: &Set) -> Value {
    set.names().collect()
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Set::parse(value).map(|set| elements(&set));
        shown.unwrap_or_else(|why| json!({ "error": why.to_string() })).to_string().into_bytes()
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "set", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Sampler for Plugin {
    /// Draws from few writers and elements, so that sets of different seeds share tags, also under different elements.
    /// Larger sets have more elements.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut set = Set::default();
        for _ in 0..size {
            let element = format!("element {}", rng.below(3 + u64::from(size / 8)));
            let writer = rng.pick(&["ann", "bob", "c\u{e9}"]).copied().unwrap_or_default();
            match rng.below(3) {
                0 => set.remove(&element),
                _ => set.put(&element, writer, set.next(writer)),
            }
        }
        set.to_json()
    }
}
