//! Values of options that more than one command takes, and how they are parsed.

use std::time::Duration;

use clap::ValueEnum;

use rejoin_client::admin::{Durability, PluginDigest, Quorum};

/// The value of `--plugin`: a digest, or `none`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PluginChoice {
    None,
    Digest(PluginDigest),
}

/// The value of `--ttl`: a length of time, or `none`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ttl {
    None,
    After(Duration),
}

/// The value of `--durability`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DurabilityArg {
    Fsync,
    Os,
}

impl From<DurabilityArg> for Durability {
    fn from(given: DurabilityArg) -> Self {
        match given {
            DurabilityArg::Fsync => Self::Fsync,
            DurabilityArg::Os => Self::Os,
        }
    }
}

/// Parses a length of time: a number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a length of time: write a number and ms, s, m, h or d, such as 500ms or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or_else(bad)?;
    if ms == 0 { Err(format!("{text:?} is zero: give a longer time")) } else { Ok(Duration::from_millis(ms)) }
}

/// Parses a length of time that may be nothing.
pub(crate) fn some_duration(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { duration(text) }
}

/// Parses a time to live, or `none`.
pub(crate) fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "none" { Ok(Ttl::None) } else { duration(text).map(Ttl::After) }
}

/// Parses a number of replicas, or `quorum`.
pub(crate) fn quorum(text: &str) -> Result<Quorum, String> {
    if text == "quorum" {
        return Ok(Quorum::Majority);
    }
    text.parse().map(Quorum::Count).map_err(|_| format!("{text:?} is neither a number nor `quorum`"))
}

/// Parses a digest, or `none`.
pub(crate) fn plugin(text: &str) -> Result<PluginChoice, String> {
    if text == "none" {
        return Ok(PluginChoice::None);
    }
    let digest: Result<PluginDigest, _> = text.parse();
    digest.map(PluginChoice::Digest).map_err(|why| format!("{why}, or `none`; `rejoin plugin list` shows them"))
}

/// Parses a plugin's digest.
pub(crate) fn digest(text: &str) -> Result<PluginDigest, String> {
    text.parse().map_err(|why| format!("{why}; `rejoin plugin list` shows the digests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "5", "s", "0s", "1w", "-1s", "1.5s", "99999999999999999999d", "999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!([some_duration("0s"), some_duration("1s")], [Ok(Duration::ZERO), Ok(Duration::from_secs(1))]);
        assert!(some_duration("0").is_err());
        assert_eq!((ttl("none"), ttl("1h")), (Ok(Ttl::None), Ok(Ttl::After(Duration::from_secs(3600)))));
    }

    #[test]
    fn quorums_and_plugins_are_read_or_refused_with_advice() {
        assert_eq!((quorum("quorum"), quorum("0")), (Ok(Quorum::Majority), Ok(Quorum::Count(0))));
        assert!(quorum("most").is_err());
        assert_eq!(plugin("none"), Ok(PluginChoice::None));
        assert!(plugin("cart").unwrap_err().contains("rejoin plugin list"));
    }
}
