//! How far a check has come, for whoever waits.

use std::time::Duration;

use crate::laws::Law;

/// What a check does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A law is tried on its next case.
    Checking {
        /// The law.
        law: Law,
        /// The case's number, from 1.
        case: u32,
        /// How many there are.
        cases: u32,
    },
    /// A counterexample has been found and is made smaller. Told at its beginning and with every step that succeeds or
    /// fails.
    Shrinking {
        /// The law.
        law: Law,
        /// Smaller cases that were tried so far.
        attempts: usize,
        /// Siblings of the smallest counterexample so far.
        siblings: usize,
        /// Bytes of their values.
        bytes: usize,
    },
    /// The time for shrinking was over before nothing smaller could be found; the smallest counterexample so far is
    /// kept.
    OutOfTime {
        /// The law.
        law: Law,
        /// How long it was.
        budget: Duration,
    },
}
