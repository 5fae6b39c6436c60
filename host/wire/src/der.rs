//! Reads two fields of an X.509 certificate that webpki does not expose: the validity period, and the alternative names
//! that a renewed certificate takes over. It does not verify anything: that is TLS's part (`tls.rs`).

use std::net::IpAddr;

use jiff::civil::DateTime;

use crate::utc;

/// A subject alternative name other than the `rejoin://` URI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AltName {
    Dns(String),
    Ip(IpAddr),
}

/// The DNS names and IP addresses of a certificate, in their order. `None` if the certificate is malformed.
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
/// The object id 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const DNS: u8 = 0x82;
const IP: u8 = 0x87;
const INTEGER: u8 = 0x02;
/// The optional version before the serial number.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// First and last second of the validity period, since 1970. `None` if the certificate is malformed.
pub(crate) fn validity(der: &[u8]) -> Option<(u64, u64)> {
    split(der).map(|(validity, _)| validity)
}

/// The validity period, and the bytes after it. Version, serial number, algorithm and issuer precede it (RFC 5280,
/// 4.1).
fn split(der: &[u8]) -> Option<((u64, u64), &[u8])> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (body, _) = element(certificate, SEQUENCE)?;
    let rest = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(rest, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (validity, rest) = element(rest, SEQUENCE)?;
    let (from, until) = time(validity)?;
    let (until, _) = time(until)?;
    Some(((from, until), rest))
}

/// The content of an element with that tag, and the bytes after it.
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

/// A time in seconds since 1970, 0 for an earlier one, and the bytes after it.
fn time(der: &[u8]) -> Option<(u64, &[u8])> {
    if let Some((text, rest)) = element(der, UTC_TIME) {
        let (year, text) = number(text, 2)?;
        // A year of two digits stands for 1950 to 2049.
        return Some((moment(if year < 50 { 2000 + year } else { 1900 + year }, text)?, rest));
    }
    let (text, rest) = element(der, GENERALIZED_TIME)?;
    let (year, text) = number(text, 4)?;
    Some((moment(year, text)?, rest))
}

/// Seconds since 1970 of a year and the text after it: two digits each of month, day, hour, minute and second, then
/// `Z`.
fn moment(year: i16, text: &[u8]) -> Option<u64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    if text != b"Z" {
        return None;
    }
    let small = |number: i16| i8::try_from(number).ok();
    // A leap second counts as the second before it.
    let second = small(if second == 60 { 59 } else { second })?;
    let at = DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, second, 0).ok()?;
    Some(u64::try_from(at.duration_since(utc::EPOCH).as_secs()).unwrap_or(0))
}

/// A decimal number of so many digits, and the bytes after it.
fn number(text: &[u8], digits: usize) -> Option<(i16, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let sum =
        digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))?;
    Some((sum, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms_and_checked_against_the_calendar() {
        let read = |tag: u8, text: &str| {
            let der = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            time(&der).map(|(seconds, rest)| (seconds, rest.len()))
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some((0, 0)));
        assert_eq!(read(UTC_TIME, "000229000000Z"), Some((11_016 * 86_400, 0)));
        assert_eq!(read(UTC_TIME, "000301000000Z"), Some((11_017 * 86_400, 0)));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Some((0, 0)), "1950");
        assert_eq!(read(GENERALIZED_TIME, "19691231235959Z"), Some((0, 0)));
        assert_eq!(read(GENERALIZED_TIME, "99991231235959Z"), Some((253_402_300_799, 0)), "no end (RFC 5280, 4.1.2.5)");
        assert_eq!(
            read(GENERALIZED_TIME, "20261231235960Z"),
            read(GENERALIZED_TIME, "20261231235959Z"),
            "a leap second"
        );
        for bad in [
            "20260229000000Z",
            "20261301000000Z",
            "20260101240000Z",
            "20260101006000Z",
            "20260101000061Z",
            "2026010100000Z",
        ] {
            assert_eq!(read(GENERALIZED_TIME, bad), None, "{bad}");
        }
    }
}
