//! The last writer wins: of concurrent values of any format the one with the latest stamp is kept, and of equal stamps
//! the larger bytes.
//!
//! For values that are replaced as a whole and never edited, such as a cached page. *Of two concurrent writes one is
//! lost*, and clocks decide which. `plugins/metadata` keeps both; `plugins/session` decides field by field.
//!
//! # Merging
//! The stamp is that of the node that took the write. A merged value has the stamp of the value that won, which is the
//! latest of its inputs, so the grouping does not matter. Values do not carry their causality, and are not stored
//! merged before an object has too many of them (not `self-causal`).
//!
//! # Limits
//! There is no bad value, so there is no validator.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use serde_json::{Value, json};

use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Fault, Merger, Metadata, Presenter, Sampler, Sibling};

/// The merge plugin for values of any format.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let last = siblings.iter().max_by_key(|sibling| (sibling.stamp_ms, &sibling.value));
        last.map(|last| last.value.clone()).ok_or(Fault::Malformed)
    }
}

impl Presenter for Plugin {
    /// JSON as it is, other text as a JSON text, and other bytes as their number.
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = serde_json::from_slice(value).unwrap_or_else(|_| match str::from_utf8(value) {
            Ok(text) => Value::from(text),
            Err(_) => json!({ "bytes": value.len() }),
        });
        shown.to_string().into_bytes()
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "last-writer", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: false }
    }
}

impl Sampler for Plugin {
    /// Few different values of each length, so that equal ones often meet.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        (0..=size).map(|at| if at == 0 { rng.below(12).to_le_bytes()[0] } else { at.to_le_bytes()[0] }).collect()
    }
}
