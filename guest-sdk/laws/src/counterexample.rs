//! A broken law, with all that is needed to see it again.

use crate::cases::Case;
use crate::laws::{Law, Violation};
use crate::merge::Sibling;
use core::fmt;
use std::string::String;

/// A law that does not hold, and the smallest siblings that were found to show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The law.
    pub law: Law,
    /// The key.
    pub key: Vec<u8>,
    /// The siblings, as they were given to the merge.
    pub siblings: Vec<Sibling>,
    /// The two answers that should have been one.
    pub violation: Violation,
    /// How the siblings are drawn again from the sampler.
    pub case: Case,
    /// The seed of the run that found it.
    pub seed: u64,
}

impl std::error::Error for Counterexample {}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the merge breaks the law of {} (found with seed {}): {}", self.law, self.seed, self.violation.equation)?;
        writeln!(f, "  key:     {}", readable(&self.key))?;
        for (index, sibling) in self.siblings.iter().enumerate() {
            let Sibling { value, stamp_ms, writer } = sibling;
            writeln!(f, "  input {index}: {}  (written at {stamp_ms} ms by {writer:x})", readable(value))?;
        }
        writeln!(f, "  left:    {}", answer(&self.violation.left))?;
        write!(f, "  right:   {}", answer(&self.violation.right))
    }
}

fn answer(result: &Result<Vec<u8>, String>) -> String {
    match result {
        Ok(value) => readable(value),
        Err(reason) => format!("no answer: {reason}"),
    }
}

/// Bytes as a person can read and copy them: UTF-8 in quotes where it is, hexadecimal otherwise.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    match core::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => bytes.iter().fold(String::from("hex "), |text, byte| text + &format!("{byte:02x}")),
    }
}
