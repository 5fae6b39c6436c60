//! Progress reports of a check.

use std::time::Duration;

use crate::laws::Law;

/// What a check is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A law is checked on its next case.
    Checking {
        /// The law that is checked.
        law: Law,
        /// The number of the case, from 1.
        case: u32,
        /// The number of cases for this law.
        cases: u32,
    },
    /// A counterexample is being shrunk. Sent before every attempt.
    Shrinking {
        /// The law that is checked.
        law: Law,
        /// Smaller cases tried so far.
        attempts: usize,
        /// Siblings of the smallest counterexample so far.
        siblings: usize,
        /// Bytes of their values together.
        bytes: usize,
    },
    /// All triples of small values are checked.
    Exhausting {
        /// All triples of so many values have been checked.
        values: usize,
        /// The number of values.
        of: usize,
    },
    /// Histories are checked.
    Histories {
        /// Histories checked so far.
        histories: u64,
        /// Operations of the longest history.
        operations: usize,
    },
    /// Shrinking ran out of time. The smallest counterexample found so far is kept.
    OutOfTime {
        /// The law that is checked.
        law: Law,
        /// The time limit, [`CheckConfig::shrink`](crate::CheckConfig::shrink).
        budget: Duration,
    },
}
