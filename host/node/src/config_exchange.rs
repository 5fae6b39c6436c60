//! The `[exchange]` table of the configuration: how often a node compares its partitions with their other owners, and
//! how much of its time and network the walks take.
//!
//! Nodes need not agree on it: each paces its own part of the work.

use serde::Deserialize;

use rejoin_core::exchange::ExchangeConfig as Pace;

use crate::config::ConfigError;

/// The least and the most of the interval, in milliseconds.
const LEAST_INTERVAL_MS: u32 = 100;
const MOST_INTERVAL_MS: u32 = 3_600_000;
/// The most walks of a shard. Each keeps what it has read and not sent yet in memory.
const MOST_WALKS: usize = 64;
/// The least and the most of both rates, in bytes per second. Below the least, one object of 16 MiB would stop the
/// walks of a shard for longer than four minutes.
const LEAST_RATE: u64 = 64 << 10;
const MOST_RATE: u64 = 1 << 40;
/// The least and the most that requests may be slowed down, in percent.
const LEAST_SLOWDOWN: u32 = 5;
const MOST_SLOWDOWN: u32 = 10_000;
/// The least and the most bytes of a message of objects.
const LEAST_PIECE: usize = 4 << 10;
const MOST_PIECE: usize = 1 << 20;
/// The most comparisons of views in a minute, of each shard. Each runs merges on two nodes.
const MOST_SAMPLES: u32 = 600;
const MINUTE_US: u64 = 60_000_000;

/// How each shard of a node exchanges. See [`Pace`] for what each value is; the interval of walks is in milliseconds
/// here, and that of comparisons is given by their number in a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[allow(missing_docs)] // They are those of `Pace`.
pub struct ExchangeConfig {
    pub interval_ms: u32,
    pub max_walks: usize,
    pub floor_bytes: u64,
    pub max_bytes: u64,
    pub slowdown_percent: u32,
    pub piece_bytes: usize,
    pub view_samples_per_minute: u32,
    pub paused: bool,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        let pace = Pace::default();
        Self {
            interval_ms: u32::try_from(pace.interval_us / 1_000).unwrap_or(u32::MAX),
            max_walks: pace.max_walks,
            floor_bytes: pace.floor_bytes,
            max_bytes: pace.max_bytes,
            slowdown_percent: pace.slowdown_percent,
            piece_bytes: pace.piece_bytes,
            view_samples_per_minute: u32::try_from(MINUTE_US / pace.view_interval_us.max(1)).unwrap_or(0),
            paused: pace.paused,
        }
    }
}

impl ExchangeConfig {
    /// The configuration of each shard.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            interval_us: u64::from(self.interval_ms) * 1_000,
            max_walks: self.max_walks,
            floor_bytes: self.floor_bytes,
            max_bytes: self.max_bytes,
            slowdown_percent: self.slowdown_percent,
            piece_bytes: self.piece_bytes,
            view_interval_us: MINUTE_US.checked_div(self.view_samples_per_minute.into()).unwrap_or(0),
            paused: self.paused,
        }
    }

    /// Refuses values with which exchanges would stand still, or would not be bounded.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid =
            |key: &str, message: String| Err(ConfigError::Invalid { key: format!("exchange.{key}"), message });
        if !(LEAST_INTERVAL_MS..=MOST_INTERVAL_MS).contains(&self.interval_ms) {
            let message = format!("must be {LEAST_INTERVAL_MS} to {MOST_INTERVAL_MS} (a tenth of a second to an hour)");
            return invalid("interval_ms", message);
        }
        if !(1..=MOST_WALKS).contains(&self.max_walks) {
            return invalid("max_walks", format!("must be 1 to {MOST_WALKS}; to begin none, set paused = true"));
        }
        if !(LEAST_RATE..=MOST_RATE).contains(&self.floor_bytes) {
            let message = format!("must be {LEAST_RATE} to {MOST_RATE} bytes per second (64 KiB/s to 1 TiB/s)");
            return invalid("floor_bytes", message);
        }
        if !(self.floor_bytes..=MOST_RATE).contains(&self.max_bytes) {
            let message =
                format!("must be at least floor_bytes, which is {}, and at most {MOST_RATE}", self.floor_bytes);
            return invalid("max_bytes", message);
        }
        if !(LEAST_SLOWDOWN..=MOST_SLOWDOWN).contains(&self.slowdown_percent) {
            return invalid("slowdown_percent", format!("must be {LEAST_SLOWDOWN} to {MOST_SLOWDOWN}"));
        }
        if !(LEAST_PIECE..=MOST_PIECE).contains(&self.piece_bytes) {
            return invalid("piece_bytes", format!("must be {LEAST_PIECE} to {MOST_PIECE} (4 KiB to 1 MiB)"));
        }
        if self.view_samples_per_minute > MOST_SAMPLES {
            return invalid("view_samples_per_minute", format!("must be 0 to {MOST_SAMPLES}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_a_shard() {
        assert_eq!(ExchangeConfig::default().pace(), Pace::default());
        assert!(ExchangeConfig::default().check().is_ok());
    }

    #[test]
    fn values_out_of_range_are_refused_by_their_key() {
        let refused = |change: fn(&mut ExchangeConfig)| {
            let mut config = ExchangeConfig::default();
            change(&mut config);
            config.check().expect_err("must be refused").to_string()
        };
        assert!(refused(|config| config.interval_ms = 99).starts_with("exchange.interval_ms: must be 100 to 3600000"));
        assert!(refused(|config| config.interval_ms = 3_600_001).starts_with("exchange.interval_ms: "));
        assert!(refused(|config| config.max_walks = 0).starts_with("exchange.max_walks: must be 1 to 64; "));
        assert!(refused(|config| config.max_walks = 65).starts_with("exchange.max_walks: "));
        assert!(refused(|config| config.floor_bytes = 0).starts_with("exchange.floor_bytes: must be 65536 to "));
        assert!(refused(|config| config.floor_bytes = u64::MAX).starts_with("exchange.floor_bytes: "));
        assert!(refused(|config| config.max_bytes = 1 << 20).starts_with("exchange.max_bytes: must be at least "));
        assert!(
            refused(|config| config.view_samples_per_minute = 601).starts_with("exchange.view_samples_per_minute: ")
        );
        assert!(refused(|config| config.max_bytes = u64::MAX).starts_with("exchange.max_bytes: "));
        assert!(refused(|config| config.slowdown_percent = 4).starts_with("exchange.slowdown_percent: must be 5 to "));
        assert!(refused(|config| config.slowdown_percent = 10_001).starts_with("exchange.slowdown_percent: "));
        assert!(refused(|config| config.piece_bytes = 4095).starts_with("exchange.piece_bytes: must be 4096 to "));
        assert!(refused(|config| config.piece_bytes = (1 << 20) + 1).starts_with("exchange.piece_bytes: "));
    }
}
