//! Prints the demo, and fails it at the first claim that does not hold.

use std::time::Duration;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Prints the steps of the demo.
#[derive(Clone, Copy)]
pub(super) struct Printer {
    out: Output,
}

impl Printer {
    pub(super) fn new(out: Output) -> Self {
        Self { out }
    }

    /// Begins a chapter.
    pub(super) fn chapter(self, title: &str) -> Result<(), Failure> {
        self.print(&format!("\n{}", self.out.bold(title)))
    }

    /// Prints a line.
    pub(super) fn line(self, text: &str) -> Result<(), Failure> {
        self.print(&format!("  {text}"))
    }

    /// Prints a claim that was checked. Fails if it does not hold.
    pub(super) fn claim(self, holds: bool, claim: &str, seen: &str) -> Result<(), Failure> {
        if !holds {
            return Err(Failure::new(Exit::Negative, format!("this did not hold: {claim}; the cluster has {seen}")));
        }
        self.print(&format!("  {} {claim}", self.mark()))
    }

    /// Prints the end.
    pub(super) fn end(self, took: Duration) -> Result<(), Failure> {
        self.print(&format!("\n{} {:.1} s, every claim was checked.", self.out.bold("Done."), took.as_secs_f64()))?;
        self.print("Try it yourself: `rejoin dev` starts a cluster and says what to type.")
    }

    fn mark(self) -> &'static str {
        if self.out.color { "\x1b[32m✓\x1b[0m" } else { "✓" }
    }

    /// Prints nothing with `--json`: the exit code is the result.
    fn print(self, text: &str) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { self.out.line(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_fails_the_demo() {
        let printer = Printer::new(Output { json: true, color: false });
        assert!(printer.claim(true, "a", "b").is_ok());
        let failure = printer.claim(false, "the carts are equal", "two carts").unwrap_err();
        assert!(failure.exit == Exit::Negative && failure.to_string().contains("two carts"), "{failure}");
    }
}
