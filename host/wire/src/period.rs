//! What is read from the DER of a certificate beside what verifiers look at: from when to when it holds, for people who
//! want to know beforehand, and the names in it, for a new certificate in its place.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;

use crate::Error;

/// From when to when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// Its first second.
    pub from: u64,
    /// Its last second.
    pub until: u64,
}

impl Period {
    /// When it ends.
    #[must_use]
    pub fn end(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.until)
    }

    /// Whether that moment lies before it.
    #[must_use]
    pub fn begins_after(&self, now: SystemTime) -> bool {
        seconds(now) < self.from
    }

    /// Whether that moment lies behind it.
    #[must_use]
    pub fn ended_before(&self, now: SystemTime) -> bool {
        seconds(now) > self.until
    }

    /// How long it still holds; nothing once it has ended.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        Duration::from_secs(self.until.saturating_sub(seconds(now)))
    }

    /// The period of a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        parse(certificate).ok_or(Error::BadPem { what: "a certificate", why: "it does not say when it ends".into() })
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A further name in a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AltName {
    Dns(String),
    Ip(IpAddr),
}

/// The DNS names and IP addresses in a certificate, in their order.
pub(crate) fn alt_names(der: &[u8]) -> Option<Vec<AltName>> {
    let (_, rest) = split(der)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, mut rest) = element(rest, SEQUENCE)?;
    // Unique ids, which nobody uses, may stand before the extensions.
    while let Some((_, after)) = element(rest, 0xa1).or_else(|| element(rest, 0xa2)) {
        rest = after;
    }
    let (extensions, _) = element(rest, EXTENSIONS)?;
    let (mut extensions, _) = element(extensions, SEQUENCE)?;
    while let Some((extension, rest)) = element(extensions, SEQUENCE) {
        let (id, content) = element(extension, OBJECT_ID)?;
        let content = element(content, BOOLEAN).map_or(content, |(_, rest)| rest);
        if id == SUBJECT_ALT_NAME {
            return names(element(element(content, OCTETS)?.0, SEQUENCE)?.0);
        }
        extensions = rest;
    }
    Some(Vec::new())
}

fn names(mut der: &[u8]) -> Option<Vec<AltName>> {
    let mut found = Vec::new();
    while let Some(&tag) = der.first() {
        let (name, rest) = element(der, tag)?;
        match (tag, name.len()) {
            (DNS, _) => found.push(AltName::Dns(std::str::from_utf8(name).ok()?.to_owned())),
            (IP, 4) => found.push(AltName::Ip(<[u8; 4]>::try_from(name).ok()?.into())),
            (IP, 16) => found.push(AltName::Ip(<[u8; 16]>::try_from(name).ok()?.into())),
            _ => {}
        }
        der = rest;
    }
    Some(found)
}

const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17, and two of the kinds of names in it.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const DNS: u8 = 0x82;
const IP: u8 = 0x87;
const INTEGER: u8 = 0x02;
/// The optional version in front of the serial number.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Walks to the validity (RFC 5280, 4.1): version, serial number, algorithm and issuer stand before it.
fn parse(der: &[u8]) -> Option<Period> {
    split(der).map(|(period, _)| period)
}

/// The validity, and what follows it.
fn split(der: &[u8]) -> Option<(Period, &[u8])> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (body, _) = element(certificate, SEQUENCE)?;
    let rest = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(rest, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (validity, rest) = element(rest, SEQUENCE)?;
    let (from, until) = time(validity)?;
    let (until, _) = time(until)?;
    Some((Period { from, until }, rest))
}

/// The content of an element with that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time in seconds since 1970 (one before counts as 1970), and what follows it.
fn time(der: &[u8]) -> Option<(u64, &[u8])> {
    if let Some((text, rest)) = element(der, UTC_TIME) {
        let (year, text) = number(text, 2)?;
        // Two digits mean 1950 to 2049.
        return Some((moment(if year < 50 { 2000 + year } else { 1900 + year }, text)?, rest));
    }
    let (text, rest) = element(der, GENERALIZED_TIME)?;
    let (year, text) = number(text, 4)?;
    Some((moment(year, text)?, rest))
}

/// The rest of a time behind its year: month, day, hour, minute and second, in UTC.
fn moment(year: i64, text: &[u8]) -> Option<u64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if text != b"Z" || !in_range {
        return None;
    }
    let at = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(u64::try_from(at).unwrap_or(0))
}

/// A moment as people write it: `2026-11-28 17:10:00 UTC`.
#[must_use]
pub fn utc_text(seconds: u64) -> String {
    let (mut day, second) = (i64::try_from(seconds / 86_400).unwrap_or(i64::MAX / 2), seconds % 86_400);
    day = day.min(days(9999, 12, 31));
    // Near enough from above, then down to the right one: a year has more than 365 days only now and then.
    let mut year = 1970 + day / 365;
    while days(year, 1, 1) > day {
        year -= 1;
    }
    let month = (1..=12).rev().find(|month| days(year, *month, 1) <= day).unwrap_or(1);
    let date = day - days(year, month, 1) + 1;
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

/// Days since 1970 in the Gregorian calendar. Years begin in March here, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let sum = digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))?;
    Some((sum, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::{ClusterCa, Validity};
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
                let period = Period::of(&certificates("it", pem).unwrap()[0]).unwrap();
                let until = day * 86_400 + 3_723 + u64::from(length) * 86_400;
                assert_eq!(period, Period { from: (day - 1) * 86_400 + 3_723, until }, "day {day}");
                assert!(!period.ended_before(period.end()) && period.ended_before(period.end() + Duration::from_secs(1)));
                assert!(!period.begins_after(now) && period.begins_after(now - Duration::from_secs(86_401)));
                assert_eq!(period.left(now), Duration::from_secs(u64::from(length) * 86_400));
            }
        }
    }

    #[test]
    fn no_cut_of_a_certificate_is_read_beyond_its_end() {
        let valid = Validity::days(UNIX_EPOCH + Duration::from_secs(1_767_225_600), 9);
        let ca = ClusterCa::create(ClusterId(5), valid).unwrap();
        let der = certificates("it", ca.cert_pem()).unwrap().swap_remove(0);
        assert!(parse(&der).is_some());
        for length in 0..der.len() {
            assert_eq!(parse(&der[..length]), None, "{length} bytes");
        }
        assert_eq!(parse(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]), None);
        assert_eq!(utc_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc_text(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(utc_text(1_798_761_600), "2027-01-01 00:00:00 UTC");
        assert!(utc_text(u64::MAX).starts_with("9999-12-31"));
        assert_eq!((days(1970, 1, 1), days(2000, 2, 29), days(2000, 3, 1), days(1969, 12, 31)), (0, 11_016, 11_017, -1));
    }
}
