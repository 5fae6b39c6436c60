//! Which failed handshakes were warned of lately. A dialler that is refused tries again for ever, and one line says it
//! all.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{Error, runtime::lock};

/// A reason is warned of again for one address after so long.
const EVERY: Duration = Duration::from_secs(60);
/// Pairs of address and reason that are remembered; beyond it nothing is warned of.
const MOST: usize = 256;

/// The pairs of address and reason that were warned of, and when.
#[derive(Debug, Default)]
pub(crate) struct Warned(Mutex<BTreeMap<(IpAddr, &'static str), Instant>>);

impl Warned {
    /// Whether an operator should be warned now: the other side shows or expects the wrong certificate, which time
    /// alone will not change.
    pub(crate) fn is_news(&self, from: IpAddr, error: &Error, now: Instant) -> bool {
        let Some(reason) = reason(error) else { return false };
        let mut warned = lock(&self.0);
        warned.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        if warned.len() >= MOST || warned.contains_key(&(from, reason)) {
            return false;
        }
        warned.insert((from, reason), now);
        true
    }
}

/// What is wrong with certificates, if they are what is wrong.
fn reason(error: &Error) -> Option<&'static str> {
    match error {
        Error::Untrusted { why, .. } if why.contains("expired") => Some("expired"),
        Error::Untrusted { .. } => Some("untrusted"),
        Error::CertificateRefused { .. } => Some("refused"),
        Error::WrongCluster { .. } => Some("another cluster"),
        Error::WrongNode { .. } | Error::NotANode { .. } => Some("another subject"),
        Error::NoCertificate => Some("no certificate"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_reason_is_warned_of_once_a_minute() {
        let (warned, begun) = (Warned::default(), Instant::now());
        let untrusted = |why: &str| Error::Untrusted { addr: ([10, 0, 0, 1], 7400).into(), why: why.into() };
        let news = |host: u8, error: &Error, after| warned.is_news([10, 0, 0, host].into(), error, begun + Duration::from_secs(after));
        assert!(news(1, &untrusted("UnknownIssuer"), 0) && !news(1, &untrusted("BadSignature"), 59));
        assert!(news(1, &untrusted("certificate expired: 7 s ago"), 59) && !news(1, &untrusted("certificate expired: 8 s ago"), 60));
        assert!(news(2, &untrusted("UnknownIssuer"), 59) && news(1, &untrusted("UnknownIssuer"), 60));
        assert!(!news(1, &Error::NoPlace { whom: "handshakes" }, 60), "load is none of it");
        let warned_of = (0..=255_u8).filter(|host| news(*host, &Error::NoCertificate, 61)).count();
        assert!(warned_of < 256, "{warned_of}: what is remembered is bounded");
    }
}
