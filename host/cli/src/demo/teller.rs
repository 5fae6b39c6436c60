//! How the story looks: short lines that a person reads.

use std::time::Duration;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Prints the story.
#[derive(Clone, Copy)]
pub(super) struct Teller {
    out: Output,
}

impl Teller {
    pub(super) fn new(out: Output) -> Self {
        Self { out }
    }

    /// A chapter begins.
    pub(super) fn chapter(self, title: &str) -> Result<(), Failure> {
        self.print(&format!("\n{}", self.out.bold(title)))
    }

    /// Something happens.
    pub(super) fn line(self, text: &str) -> Result<(), Failure> {
        self.print(&format!("  {text}"))
    }

    /// Something was claimed, and looked up. The story ends here if it is not so.
    pub(super) fn claim(self, holds: bool, claim: &str, seen: &str) -> Result<(), Failure> {
        if !holds {
            return Err(Failure::new(Exit::Negative, format!("this did not hold: {claim}; seen was {seen}")));
        }
        self.print(&format!("  {} {claim}", self.mark()))
    }

    /// The end.
    pub(super) fn end(self, took: Duration) -> Result<(), Failure> {
        self.print(&format!("\n{} {:.1} s, every claim was checked.", self.out.bold("Done."), took.as_secs_f64()))?;
        self.print("Try it yourself: `rejoin dev` starts a cluster and says what to type.")
    }

    fn mark(self) -> &'static str {
        if self.out.color { "\x1b[32m✓\x1b[0m" } else { "✓" }
    }

    /// With `--json` the exit code is all that is wanted.
    fn print(self, text: &str) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { self.out.line(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_ends_the_story() {
        let teller = Teller::new(Output { json: true, color: false });
        assert!(teller.claim(true, "a", "b").is_ok());
        let failure = teller.claim(false, "the carts are equal", "two carts").unwrap_err();
        assert!(failure.exit == Exit::Negative && failure.to_string().contains("two carts"), "{failure}");
    }
}
