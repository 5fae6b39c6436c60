//! Keeps the highest number. A value is a number in decimal digits.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use rejoin_guest::{About, Card, Fault, Merger, Sampler, Sibling};

/// The plugin.
pub struct Highest;

rejoin_guest::export!(Highest: Merger, Sampler, About);

impl Merger for Highest {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let number = |sibling: &Sibling| str::from_utf8(&sibling.value).ok()?.parse::<u64>().ok();
        let numbers: Option<Vec<u64>> = siblings.iter().map(number).collect();
        let highest = numbers.and_then(|all| all.into_iter().max()).ok_or(Fault::Malformed)?;
        Ok(highest.to_string().into_bytes())
    }
}

/// Valid values, for `rejoin plugin test`. There are few, so that they often meet.
impl Sampler for Highest {
    fn sample(seed: u64, _size: u32) -> Vec<u8> {
        (seed % 12).to_string().into_bytes()
    }
}

impl About for Highest {
    fn describe() -> Card {
        Card { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}
