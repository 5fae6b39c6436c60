//! From when to when a certificate is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;

use crate::{Error, der};

/// A day in seconds.
const DAY: u64 = 86_400;

/// The validity period of a certificate, in seconds since 1970 (UTC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// The first second, X.509's `notBefore`.
    pub from: u64,
    /// The last second, X.509's `notAfter`.
    pub until: u64,
}

impl Validity {
    /// From one day before `now`, because clocks differ, until `days` after it.
    #[must_use]
    pub fn days(now: SystemTime, days: u32) -> Self {
        let now = seconds(now);
        Self { from: now.saturating_sub(DAY), until: now + DAY * u64::from(days) }
    }

    /// As [`Validity::days`], in years of 365 days, at most 100. Usual are ten for an authority and two for a node.
    #[must_use]
    pub fn years(now: SystemTime, years: u32) -> Self {
        Self::days(now, years.saturating_mul(365).min(36_500))
    }

    /// The second at which it was made, if it was made as [`Validity::days`] does.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.from.saturating_add(DAY)
    }

    /// The last second as a system time.
    #[must_use]
    pub fn end(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.until)
    }

    /// Whether the certificate is not valid yet at `now`.
    #[must_use]
    pub fn begins_after(&self, now: SystemTime) -> bool {
        seconds(now) < self.from
    }

    /// Whether the certificate has expired at `now`.
    #[must_use]
    pub fn ended_before(&self, now: SystemTime) -> bool {
        seconds(now) > self.until
    }

    /// The time until the certificate expires, zero if it has.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        Duration::from_secs(self.until.saturating_sub(seconds(now)))
    }

    /// Reads the period from a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let malformed = || Error::BadPem { what: "a certificate", why: "its validity period cannot be read".into() };
        der::validity(certificate).map(|(from, until)| Self { from, until }).ok_or_else(malformed)
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::ClusterCa;
    use crate::identity::certificates;
    use rejoin_proto::{ClusterId, Name};

    #[test]
    fn the_period_of_a_certificate_is_the_one_it_was_made_with() {
        // Days on both sides of 2050, where the form of a time changes, of leap days, and of the year's ends.
        for (day, length) in [(20_000, 2), (20_453, 365), (29_218, 2), (29_219, 36_500), (11_016, 1), (19_782, 60)] {
            let now = UNIX_EPOCH + Duration::from_secs(day * 86_400 + 3_723);
            let valid = Validity::days(now, length);
            let ca = ClusterCa::create(ClusterId(5), valid).unwrap();
            let node = ca.issue_node(&Name::new("n1").unwrap(), &[], valid).unwrap();
            for pem in [ca.cert_pem(), &node.cert_pem] {
                let period = Validity::of(&certificates("it", pem).unwrap()[0]).unwrap();
                let until = day * 86_400 + 3_723 + u64::from(length) * 86_400;
                assert_eq!(period, Validity { from: (day - 1) * 86_400 + 3_723, until }, "day {day}");
                assert!(
                    !period.ended_before(period.end()) && period.ended_before(period.end() + Duration::from_secs(1))
                );
                assert!(!period.begins_after(now) && period.begins_after(now - Duration::from_secs(86_401)));
                assert_eq!(period.left(now), Duration::from_secs(u64::from(length) * 86_400));
            }
        }
    }
}
