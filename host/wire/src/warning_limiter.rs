//! Limits the warnings about refused handshakes: a dialer with a wrong certificate retries for ever.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{Error, runtime::lock};

/// The pause between two warnings with the same address and reason.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most pairs of address and reason that are kept. Beyond it there are no warnings.
const MAX_PAIRS: usize = 256;

/// The pairs of address and reason, and when each was last warned of.
#[derive(Debug, Default)]
pub(crate) struct WarningLimiter(Mutex<BTreeMap<(IpAddr, &'static str), Instant>>);

impl WarningLimiter {
    /// Whether to warn the operator of this error now. Only errors about certificates are: they need a change by hand.
    pub(crate) fn allows(&self, from: IpAddr, error: &Error, now: Instant) -> bool {
        let Some(reason) = reason(error) else { return false };
        let mut warned = lock(&self.0);
        warned.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        if warned.len() >= MAX_PAIRS || warned.contains_key(&(from, reason)) {
            return false;
        }
        warned.insert((from, reason), now);
        true
    }
}

/// The kind of an error about certificates, `None` for other errors.
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
        let (warned, begun) = (WarningLimiter::default(), Instant::now());
        let untrusted = |why: &str| Error::Untrusted { addr: ([10, 0, 0, 1], 7400).into(), why: why.into() };
        let news = |host: u8, error: &Error, after| {
            warned.allows([10, 0, 0, host].into(), error, begun + Duration::from_secs(after))
        };
        assert!(news(1, &untrusted("UnknownIssuer"), 0) && !news(1, &untrusted("BadSignature"), 59));
        assert!(
            news(1, &untrusted("certificate expired: 7 s ago"), 59)
                && !news(1, &untrusted("certificate expired: 8 s ago"), 60)
        );
        assert!(news(2, &untrusted("UnknownIssuer"), 59) && news(1, &untrusted("UnknownIssuer"), 60));
        assert!(!news(1, &Error::NoSlot { whom: "handshakes" }, 60), "load is none of it");
        let warned_of = (0..=255_u8).filter(|host| news(*host, &Error::NoCertificate, 61)).count();
        assert!(warned_of < 256, "{warned_of}: what is remembered is bounded");
    }
}
