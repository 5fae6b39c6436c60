//! The runs: peaks and curves of all systems in turns, and the growth of Rejoin.

use std::path::Path;
use std::process::Command;

use crate::peers::figures::{Figures, percent_of};
use crate::peers::options::Options;
use crate::peers::systems::{Running, System};
use crate::runs::report;

/// The operations whose peak is measured.
pub(crate) const MODES: [&str; 2] = ["put", "get"];
/// The rates of the curve of latency, in percent of the peak of PUT in the same round.
pub(crate) const PERCENTS: [u32; 5] = [10, 30, 50, 70, 90];
/// Bytes of a value where that does not vary, and keys.
const VALUE_BYTES: u64 = 100;
const KEYS: u64 = 10_000;
/// The values of the curve over their size take so many bytes together, and are at least and at most so many.
const VALUES_BYTES: u64 = 64 << 20;
const FEWEST_KEYS: u64 = 64;
const MOST_KEYS: u64 = 1_000;
const WARM_UP: &str = "500ms";

/// All runs of one system with one operation, as fast as they go.
pub(crate) struct Peak {
    pub(crate) system: System,
    pub(crate) mode: &'static str,
    pub(crate) runs: Vec<Figures>,
}

/// All runs of one system at a share of its peak.
pub(crate) struct Share {
    pub(crate) system: System,
    pub(crate) percent: u32,
    pub(crate) runs: Vec<Figures>,
}

/// What varies in a curve of growth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Along {
    Keys,
    Values,
}

impl Along {
    /// What the axis says.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Values => "bytes of a value",
        }
    }

    /// The number of keys and the size of their values there.
    pub(crate) fn load(self, at: u64) -> (u64, u64) {
        match self {
            Self::Keys => (at, VALUE_BYTES),
            Self::Values => ((VALUES_BYTES / at.max(1)).clamp(FEWEST_KEYS, MOST_KEYS), at),
        }
    }
}

/// All runs of Rejoin with so many keys, or values of that size.
pub(crate) struct Growth {
    pub(crate) along: Along,
    pub(crate) at: u64,
    pub(crate) runs: Vec<Figures>,
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) peaks: Vec<Peak>,
    pub(crate) shares: Vec<Share>,
    pub(crate) growth: Vec<Growth>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
}

/// Runs everything, round after round. The systems take turns, each round in another order.
///
/// # Errors
/// A run of Rejoin fails. A peer that fails is left out from then on.
pub(crate) async fn all(rejoin: &Path, work: &Path, options: &Options) -> Result<Measured, String> {
    let mut measured = Measured::default();
    let mut systems: Vec<System> = Vec::new();
    for system in System::ALL {
        match system.program().and_then(|program| program.missing()) {
            None => systems.push(system),
            Some(why) if !measured.notes.contains(&why) => {
                eprintln!("{why}");
                measured.notes.push(why);
            }
            Some(_) => {}
        }
    }
    let bench = Bench { rejoin, work, seconds: options.seconds.to_string() };
    for round in 0..options.rounds {
        let mut turn = systems.clone();
        turn.rotate_left(round as usize % systems.len().max(1));
        for system in turn {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, system.name());
            match one_system(&bench, &mut measured, system).await {
                Ok(()) => {}
                Err(why) if system.program().is_none() => return Err(why),
                Err(why) => {
                    eprintln!("{} is left out: {why}", system.name());
                    measured.notes.push(format!("{} is left out from round {}: {why}", system.name(), round + 1));
                    systems.retain(|other| *other != system);
                }
            }
        }
        let keys = options.keys().into_iter().map(|at| (Along::Keys, at));
        for (along, at) in keys.chain(options.values().into_iter().map(|at| (Along::Values, at))) {
            eprintln!("round {} of {}: rejoin with {at} {}", round + 1, options.rounds, along.title());
            let figures = bench.grown(along, at).await?;
            measured.growth_at(along, at).push(figures);
        }
    }
    Ok(measured)
}

/// The peaks of one system, then its latency at shares of the peak of PUT.
async fn one_system(bench: &Bench<'_>, measured: &mut Measured, system: System) -> Result<(), String> {
    let running = system.start(bench.work).await?;
    let mut peak = f64::NAN;
    for mode in MODES {
        let figures = bench.peak(&running, mode).await?;
        if mode == MODES[0] {
            peak = figures.rate;
        }
        measured.peak_of(system, mode).push(figures);
    }
    for percent in PERCENTS {
        let figures = bench.at_rate(&running, percent_of(peak, percent)).await?;
        measured.share_of(system, percent).push(figures);
    }
    Ok(())
}

impl Measured {
    fn peak_of(&mut self, system: System, mode: &'static str) -> &mut Vec<Figures> {
        let at = self.peaks.iter().position(|peak| peak.system == system && peak.mode == mode);
        let at = at.unwrap_or_else(|| {
            self.peaks.push(Peak { system, mode, runs: Vec::new() });
            self.peaks.len() - 1
        });
        &mut self.peaks[at].runs
    }

    fn share_of(&mut self, system: System, percent: u32) -> &mut Vec<Figures> {
        let at = self.shares.iter().position(|share| share.system == system && share.percent == percent);
        let at = at.unwrap_or_else(|| {
            self.shares.push(Share { system, percent, runs: Vec::new() });
            self.shares.len() - 1
        });
        &mut self.shares[at].runs
    }

    fn growth_at(&mut self, along: Along, at: u64) -> &mut Vec<Figures> {
        let there = self.growth.iter().position(|growth| growth.along == along && growth.at == at);
        let there = there.unwrap_or_else(|| {
            self.growth.push(Growth { along, at, runs: Vec::new() });
            self.growth.len() - 1
        });
        &mut self.growth[there].runs
    }
}

/// How `rejoin bench` is run.
struct Bench<'a> {
    rejoin: &'a Path,
    /// Where everything writes, so that it meets the same disk.
    work: &'a Path,
    seconds: String,
}

impl Bench<'_> {
    async fn peak(&self, running: &Running, mode: &str) -> Result<Figures, String> {
        self.run(&[mode, "--keys", &KEYS.to_string()], &running.arguments()).await
    }

    async fn at_rate(&self, running: &Running, rate: u32) -> Result<Figures, String> {
        let (keys, rate) = (KEYS.to_string(), rate.to_string());
        let load = [MODES[0], "--keys", &keys, "--rate", &rate];
        self.run(&load, &running.arguments()).await
    }

    /// Reads and writes, half and half, of a cluster that has all keys.
    async fn grown(&self, along: Along, at: u64) -> Result<Figures, String> {
        let (keys, bytes) = along.load(at);
        let (keys, bytes) = (keys.to_string(), bytes.to_string());
        let load = ["mixed", "--keys", &keys, "--value-bytes", &bytes, "--durability", "os", "--dev", "3", "--restart"];
        self.run(&load, &[]).await
    }

    async fn run(&self, load: &[&str], more: &[String]) -> Result<Figures, String> {
        let mut command = Command::new(self.rejoin);
        command.arg("bench").args(load).args(more);
        command.args(["--warm-up", WARM_UP, "--seconds", &self.seconds, "--json"]);
        command.env("TMPDIR", self.work).env_remove("REJOIN_PROFILE");
        Figures::of(&report(&mut command, &[0]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_along_one_axis_leaves_the_other_alone() {
        assert_eq!(Along::Keys.load(10_000_000), (10_000_000, VALUE_BYTES));
        assert_eq!([100, 100_000, 1 << 20].map(|bytes| Along::Values.load(bytes).0), [1_000, 671, 64]);
        assert_eq!(Along::Values.load(100).1, 100);
    }

    #[test]
    fn rounds_are_gathered_under_what_they_measure() {
        let mut measured = Measured::default();
        let report = serde_json::json!({"rate": 1.0, "latency": {"p50_us": 1, "p99_us": 2}});
        let figures = Figures::of(&report).unwrap();
        let [first, second] = [System::Rejoin { fsync: true }, System::Rejoin { fsync: false }];
        for system in [first, second, first] {
            measured.peak_of(system, "put").push(figures);
            measured.share_of(system, 10).push(figures);
        }
        measured.share_of(first, 30).push(figures);
        measured.growth_at(Along::Keys, 1_000).push(figures);
        measured.growth_at(Along::Values, 1_000).push(figures);
        assert_eq!(measured.peaks.iter().map(|peak| peak.runs.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(measured.shares.iter().map(|share| share.runs.len()).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(measured.growth.len(), 2);
    }
}
