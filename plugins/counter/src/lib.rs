//! A counter that goes up and down. No increment is lost or counted twice, in whatever order replicas meet.
//!
//! # Format
//! ```json
//! {"0000000000000a07":{"seq":12,"sum":-3},"00000000000011f2":{"seq":4,"sum":9}}
//! ```
//! Every writer has a *share*: the sum of its own increments, and the number of the last one, which grows. The counter
//! is the sum of all shares.
//!
//! # Merging
//! Of each writer the share with the larger `seq` is kept. A writer's shares are never added to one another, so what
//! two replicas both have counts once. Values carry their own causality (`self-causal`).
//!
//! # Operations
//! An operation is a whole number to add, such as `1` or `-3`. The writer is the actor of the operation's dot: it has
//! its last share before it, as a node numbers no operation of a key whose earlier ones it lacks. The question `total`
//! (as JSON text), or an empty one, is answered with the sum.
//!
//! # Writing without operations
//! A client that puts whole values needs a writer's name of its own, unique to a session, and the larger of the `seq`
//! that it has read and the one that it wrote last. [`Counter::add`] keeps the rest.
//!
//! # Limits
//! A share is at most 2^53 either way, and so is `seq`. Each writer costs its name and two numbers for as long as the
//! key lives. A counter cannot be reset but by deleting its key; increments that the delete has not seen survive it.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator, json};

/// The sum of a writer's increments. The derived order is the one in which shares win.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    seq: u64,
    sum: i64,
}

/// The shares of all writers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counter(BTreeMap<String, Share>);

impl Counter {
    /// Reads a counter.
    ///
    /// # Errors
    /// [`json::Error`] if the bytes are not strict JSON of the documented form.
    pub fn parse(json: &[u8]) -> Result<Self, json::Error> {
        json::from_slice(json)
    }

    /// The counter as JSON. Equal counters give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and integers are always JSON")
    }

    /// The sum of all shares.
    #[must_use]
    pub fn total(&self) -> i128 {
        self.0.values().map(|share| i128::from(share.sum)).sum()
    }

    /// Adds to the share of a writer, as its change number `seq`.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the writer has made that change or a later one; [`Fault::TooLarge`] if the share or its
    /// number would be beyond 2^53. Nothing is changed.
    pub fn add(&mut self, writer: &str, seq: u64, by: i64) -> Result<(), Fault> {
        let old = self.0.get(writer).copied().unwrap_or(Share { seq: 0, sum: 0 });
        if seq <= old.seq {
            return Err(Fault::Malformed);
        }
        let sum = old.sum.checked_add(by).filter(|sum| sum.unsigned_abs() <= json::MAX_NUMBER);
        let sum = sum.filter(|_| seq <= json::MAX_NUMBER).ok_or(Fault::TooLarge)?;
        self.0.insert(writer.into(), Share { seq, sum });
        Ok(())
    }

    /// Joins another counter: keeps the later share of each writer.
    pub fn join(&mut self, other: Self) {
        for (writer, theirs) in other.0 {
            let ours = self.0.entry(writer).or_insert(theirs);
            *ours = theirs.max(*ours);
        }
    }
}

/// The merge plugin for [`Counter`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Operator, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut merged = Counter::default();
        for sibling in siblings {
            merged.join(Counter::parse(&sibling.value)?);
        }
        Ok(merged.to_json())
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Ok(Counter::parse(value).map(drop)?)
    }
}

impl Operator for Plugin {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], dot: Dot) -> Result<Vec<u8>, Fault> {
        let mut counter = state.map_or_else(|| Ok(Counter::default()), Counter::parse)?;
        counter.add(&dot.writer(), dot.counter, json::from_slice(operation)?)?;
        Ok(counter.to_json())
    }

    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault> {
        let total = Counter::parse(state)?.total();
        let known = question.is_empty() || json::from_slice::<String>(question)? == "total";
        if known { Ok(total.to_string().into_bytes()) } else { Err(Fault::Unsupported) }
    }
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        match Counter::parse(value) {
            Ok(counter) => counter.total().to_string().into_bytes(),
            Err(why) => serde_json::json!({ "error": why.to_string() }).to_string().into_bytes(),
        }
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "counter", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Sampler for Plugin {
    /// Draws from few writers, numbers and sums, so that shares meet earlier and contradicting ones. Larger counters
    /// have more writers.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut share = |_| {
            let writer = format!("writer {}", rng.below(2 + u64::from(size)));
            let sum = i64::try_from(rng.below(5)).unwrap_or(0) - 2;
            (writer, Share { seq: 1 + rng.below(3), sum })
        };
        Counter((0..size).map(&mut share).collect()).to_json()
    }
}
