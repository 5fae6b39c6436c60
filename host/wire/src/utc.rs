//! Moments as text, in UTC.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

/// 1970-01-01 00:00:00.
pub(crate) const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Seconds since 1970 as `2026-11-28 17:10:00 UTC`. Moments after the year 9999 are shown as its last second.
#[must_use]
pub fn utc_text(seconds: u64) -> String {
    date_time(seconds.saturating_mul(1_000)).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Milliseconds since 1970 as `2026-11-28 17:10:00.123 UTC`. Moments after the year 9999 are shown as its last
/// millisecond.
#[must_use]
pub fn utc_text_ms(ms: u64) -> String {
    date_time(ms).strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

fn date_time(ms: u64) -> DateTime {
    EPOCH.saturating_add(SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(utc_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc_text(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(utc_text(1_798_761_600), "2027-01-01 00:00:00 UTC");
        assert_eq!(utc_text(u64::MAX), "9999-12-31 23:59:59 UTC");
        assert_eq!(utc_text_ms(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc_text_ms(951_827_696_007), "2000-02-29 12:34:56.007 UTC");
        assert_eq!(utc_text_ms(1_798_761_599_999), "2026-12-31 23:59:59.999 UTC");
        assert_eq!(utc_text_ms(4_107_542_400_000), "2100-03-01 00:00:00.000 UTC");
        assert_eq!(utc_text_ms(u64::MAX), "9999-12-31 23:59:59.999 UTC");
    }
}
