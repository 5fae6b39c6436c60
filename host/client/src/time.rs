//! Checks of durations: zero is refused, and very long ones are capped.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// The longest wait: a year. Small enough that adding it to an `Instant` does not overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Refuses zero and caps at [`LONGEST`].
pub(crate) fn bounded(what: &str, given: Duration) -> Result<Duration> {
    if given.is_zero() {
        let message = format!("{what} of no time at all cannot be kept: give 1 ms or more");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(given.min(LONGEST))
}

/// A time to live in milliseconds, rounded up.
pub(crate) fn ttl_ms(given: Duration) -> Result<u64> {
    if given.is_zero() {
        let message =
            "a time to live of no time at all would hide the value at once: give 1 ms or more, or delete the key";
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(u64::try_from(given.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_refused_and_the_endless_is_cut() {
        assert_eq!(bounded("a time-out", Duration::ZERO).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(bounded("a time-out", Duration::MAX).unwrap(), LONGEST);
        assert_eq!(bounded("a time-out", Duration::from_nanos(1)).unwrap(), Duration::from_nanos(1));
        assert!(tokio::time::Instant::now().checked_add(LONGEST).is_some());
        assert_eq!(ttl_ms(Duration::ZERO).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!((ttl_ms(Duration::from_micros(1)).unwrap(), ttl_ms(Duration::from_millis(7)).unwrap()), (1, 7));
        assert_eq!(ttl_ms(Duration::MAX).unwrap(), u64::MAX);
    }
}
