//! The `[members]` table of the configuration: how soon a peer that does not answer is asked last, and how soon another
//! node takes writes in its place.
//!
//! Nodes need not agree on it: each judges its peers by its own table. A node with shorter times tells others sooner
//! that a peer is down; they heed it only while they have no newer answer of the peer themselves.

use serde::Deserialize;

use rejoin_core::members::Timing;

use crate::config::ConfigError;

/// The least and the most of every time, in milliseconds.
const LEAST_MS: u32 = 10;
const MOST_MS: u32 = 600_000;
/// The highest threshold of suspicion. At phi 100 one peer in 10¹⁰⁰ that is well is taken for dead.
const MOST_PHI: u32 = 100;

/// Times in milliseconds, and thresholds of suspicion in phi. See [`Timing`] for what each is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[allow(missing_docs)] // They are those of `Timing`.
pub struct MembersConfig {
    pub probe_ms: u32,
    pub indirect_ms: u32,
    pub check_ms: u32,
    pub longest_check_ms: u32,
    pub request_ms: u32,
    pub suspect_phi: u32,
    pub down_phi: u32,
    pub fresh_ms: u32,
    pub settle_ms: u32,
    pub spread_step_ms: u32,
    pub forget_ms: u32,
    pub pause_ms: u32,
}

impl Default for MembersConfig {
    fn default() -> Self {
        let timing = Timing::default();
        let thousandth = |value: u64| u32::try_from(value / 1_000).unwrap_or(u32::MAX);
        Self {
            probe_ms: thousandth(timing.probe_us),
            indirect_ms: thousandth(timing.indirect_us),
            check_ms: thousandth(timing.check_us),
            longest_check_ms: thousandth(timing.longest_check_us),
            request_ms: thousandth(timing.request_us),
            suspect_phi: thousandth(timing.suspect_phi),
            down_phi: thousandth(timing.down_phi),
            fresh_ms: thousandth(timing.fresh_us),
            settle_ms: thousandth(timing.settle_us),
            spread_step_ms: thousandth(timing.spread_step_us),
            forget_ms: thousandth(timing.forget_us),
            pause_ms: thousandth(timing.pause_us),
        }
    }
}

impl MembersConfig {
    /// What the machine is made with.
    pub(crate) fn timing(&self) -> Timing {
        let thousand = |value: u32| u64::from(value) * 1_000;
        Timing {
            probe_us: thousand(self.probe_ms),
            indirect_us: thousand(self.indirect_ms),
            check_us: thousand(self.check_ms),
            longest_check_us: thousand(self.longest_check_ms),
            request_us: thousand(self.request_ms),
            suspect_phi: thousand(self.suspect_phi),
            down_phi: thousand(self.down_phi),
            fresh_us: thousand(self.fresh_ms),
            settle_us: thousand(self.settle_ms),
            spread_step_us: thousand(self.spread_step_ms),
            forget_us: thousand(self.forget_ms),
            pause_us: thousand(self.pause_ms),
        }
    }

    /// Refuses what the machine cannot work with.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, message: String| Err(ConfigError::Invalid { key: format!("members.{key}"), message });
        let times = [
            ("probe_ms", self.probe_ms),
            ("indirect_ms", self.indirect_ms),
            ("check_ms", self.check_ms),
            ("longest_check_ms", self.longest_check_ms),
            ("request_ms", self.request_ms),
            ("fresh_ms", self.fresh_ms),
            ("settle_ms", self.settle_ms),
            ("spread_step_ms", self.spread_step_ms),
            ("forget_ms", self.forget_ms),
            ("pause_ms", self.pause_ms),
        ];
        if let Some((key, _)) = times.iter().find(|(_, time)| !(LEAST_MS..=MOST_MS).contains(time)) {
            return invalid(key, format!("must be {LEAST_MS} to {MOST_MS} (ten milliseconds to ten minutes)"));
        }
        if self.indirect_ms >= self.probe_ms {
            return invalid("indirect_ms", format!("must be below probe_ms, which is {}", self.probe_ms));
        }
        if self.check_ms > self.longest_check_ms {
            return invalid("longest_check_ms", format!("must be at least check_ms, which is {}", self.check_ms));
        }
        if self.suspect_phi == 0 {
            return invalid("suspect_phi", "must be at least 1".to_owned());
        }
        if self.down_phi <= self.suspect_phi || self.down_phi > MOST_PHI {
            let message = format!("must be above suspect_phi, which is {}, and at most {MOST_PHI}", self.suspect_phi);
            return invalid("down_phi", message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_machine() {
        assert_eq!(MembersConfig::default().timing(), Timing::default());
        assert!(MembersConfig::default().check().is_ok());
    }

    #[test]
    fn what_the_machine_cannot_work_with_is_refused_by_its_key() {
        let refused = |change: fn(&mut MembersConfig)| {
            let mut config = MembersConfig::default();
            change(&mut config);
            config.check().expect_err("must be refused").to_string()
        };
        assert!(refused(|config| config.probe_ms = 0).starts_with("members.probe_ms: must be 10 to 600000"));
        assert!(refused(|config| config.forget_ms = 600_001).starts_with("members.forget_ms: "));
        assert!(
            refused(|config| config.indirect_ms = 1_000).starts_with("members.indirect_ms: must be below probe_ms")
        );
        assert!(refused(|config| config.longest_check_ms = 100).starts_with("members.longest_check_ms: "));
        assert!(refused(|config| config.suspect_phi = 0).starts_with("members.suspect_phi: "));
        assert!(refused(|config| config.suspect_phi = u32::MAX).starts_with("members.down_phi: "));
        assert!(refused(|config| config.down_phi = 3).starts_with("members.down_phi: must be above suspect_phi"));
        assert!(refused(|config| config.down_phi = 101).starts_with("members.down_phi: "));
    }
}
