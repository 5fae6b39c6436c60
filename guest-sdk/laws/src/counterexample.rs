//! A broken law, with everything needed to reproduce it.

use core::fmt;
use std::string::String;

use crate::judge::{Trial, Verdict, Violation};
use crate::laws::Law;
use crate::merge::{Merge, MergeResult, Sibling};

/// A broken law, and the smallest siblings found that break it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The broken law.
    pub law: Law,
    /// The key and siblings that break it.
    pub trial: Trial,
    /// How the law is broken.
    pub violation: Violation,
    /// The seed of the run that found it.
    pub seed: u64,
}

impl Counterexample {
    /// Judges the law again on the same siblings, for example on a corrected merge.
    #[must_use]
    pub fn replay(&self, merge: &dyn Merge) -> Verdict {
        self.law.judge(merge, &self.trial)
    }
}

impl std::error::Error for Counterexample {}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the merge breaks the law of {} (found with seed {}): {}",
            self.law,
            self.seed,
            self.law.statement()
        )?;
        writeln!(f, "  key:     {}", readable(&self.trial.key))?;
        for (index, sibling) in self.trial.siblings.iter().enumerate() {
            write_sibling(f, &format!("input {index}"), sibling)?;
        }
        match &self.violation {
            Violation::Differ { equation, left, right } => {
                writeln!(f, "  {equation}")?;
                writeln!(f, "  left:    {}", shown(left))?;
                write!(f, "  right:   {}", shown(right))
            }
            Violation::NoAnswer { siblings, failure } => {
                if *siblings != self.trial.siblings {
                    siblings.iter().try_for_each(|sibling| write_sibling(f, "merging", sibling))?;
                }
                write!(f, "  {failure}")
            }
            Violation::Grown { bytes, limit } => {
                write!(f, "  merged, they have {bytes} bytes, and should have at most {limit}")
            }
            Violation::NoSample { seed, size, reason } => {
                write!(f, "  the sampler has no value for seed {seed} and size {size}: {reason}")
            }
        }
    }
}

fn write_sibling(f: &mut fmt::Formatter<'_>, what: &str, sibling: &Sibling) -> fmt::Result {
    let Sibling { value, stamp_ms, writer } = sibling;
    writeln!(f, "  {what}: {}  (written at {stamp_ms} ms by {writer:x})", readable(value))
}

fn shown(answer: &MergeResult) -> String {
    match answer {
        Ok(value) => readable(value),
        Err(failure) => failure.to_string(),
    }
}

/// The most characters of a value that are printed.
const READABLE: usize = 400;

/// Bytes for people: quoted if they are UTF-8, hexadecimal otherwise. Long values are cut, and their length is added.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let start = match str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("{:?}", text.chars().take(READABLE).collect::<String>())
        }
        _ => bytes.iter().take(READABLE / 2).fold(String::from("hex "), |text, byte| text + &format!("{byte:02x}")),
    };
    if bytes.len() > READABLE { format!("{start}… ({} bytes)", bytes.len()) } else { start }
}
