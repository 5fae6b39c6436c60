//! Hybrid logical clock stamps (Kulkarni, Demirbas, Madappa, Avva, Leone 2014): wall milliseconds with a counter for
//! ties.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Stamps order values for people and for
/// last-writer plugins; causality never reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first stamp of a millisecond. Times after the year 10889 become the last stamp that fits.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        let limit = (1 << 48) - 1;
        Self(if ms > limit { limit << 16 } else { ms << 16 })
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The stamp after `self` at wall time `now_ms`: later than `self`, and not before `now_ms`.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        let wall = Self::from_ms(now_ms);
        if wall > self { wall } else { Self(self.0.saturating_add(1)) }
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.ms(), self.0 & 0xffff)
    }
}
