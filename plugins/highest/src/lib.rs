//! Keeps the highest number. A value is a number in decimal digits, without a sign or leading zeros.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use rejoin_guest::{Describer, Fault, Merger, Metadata, Sampler, Sibling, Validator};

/// The merge plugin for numbers.
pub struct Highest;

rejoin_guest::export!(Highest: Merger, Validator, Sampler, Describer);

/// Reads a value. Each number has one spelling: other spellings are refused.
fn number(value: &[u8]) -> Result<u64, Fault> {
    let number = str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number.filter(|number| number.to_string().as_bytes() == value).ok_or(Fault::Malformed)
}

impl Merger for Highest {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let numbers = siblings.iter().map(|sibling| number(&sibling.value)).collect::<Result<Vec<u64>, Fault>>()?;
        let highest = numbers.into_iter().max().ok_or(Fault::Malformed)?;
        Ok(highest.to_string().into_bytes())
    }
}

/// Called before every put: a value that could not be merged is not written.
impl Validator for Highest {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        number(value).map(drop)
    }
}

/// Valid values for `rejoin plugin test`. There are few, so that equal ones often meet.
impl Sampler for Highest {
    fn sample(seed: u64, _size: u32) -> Vec<u8> {
        (seed % 12).to_string().into_bytes()
    }
}

impl Describer for Highest {
    fn describe() -> Metadata {
        Metadata { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}
