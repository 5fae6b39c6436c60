//! Programs of the workspace that drive real nodes: `cargo xtask storm`, `fairness`, `bench-peers` and `overload`. They
//! are built with the binary of the nodes, and then run with the words that stand behind the verb.

use std::path::{Path, PathBuf};

use crate::setup;
use crate::steps::{Run, Step, cargo_with, program};

/// The length of the storm in CI, in minutes.
const CI_MINUTES: &str = "2";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Faults from a seed.
    Storm,
    /// What one tenant feels of another one. Both loads meet the same nodes, and it is their ratio that is asked for.
    Fairness,
    /// Rejoin, Redis and etcd under the same load, and how the costs of Rejoin grow.
    Peers,
    /// What a cluster does that is offered far more than it can do.
    Overload,
}

impl Program {
    /// The name of its binary.
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Storm => "rejoin-storm",
            Self::Fairness => "rejoin-bench-fairness",
            Self::Peers => "rejoin-bench-peers",
            Self::Overload => "rejoin-bench-overload",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Storm => "the storm",
            Self::Fairness | Self::Peers | Self::Overload => "the measurement",
        }
    }

    /// Whether its figures are to be those of a release.
    fn is_released(self) -> bool {
        matches!(self, Self::Peers | Self::Overload)
    }

    /// Where its binary is, once it is built.
    ///
    /// # Errors
    /// When cargo does not say.
    pub(crate) fn path(self, root: &Path) -> Result<PathBuf, String> {
        if self.is_released() { setup::released(root, self.binary()) } else { setup::binary(root, self.binary()) }
    }

    /// Its build, with that of the nodes, and its run from `path` with these words, which it understands itself. Built
    /// with the features of the tests, so that they build nothing again, or as for a release. The report of the peers
    /// goes beside the folder of its binary, below the target directory.
    pub(crate) fn plan(self, path: &Path, words: &[String]) -> Vec<Step> {
        if self.is_released() {
            let build = ["build", "--release", "-p", "rejoin", "-p", "rejoin-test-cluster", "--bin", "rejoin", "--bin"];
            let measure = [self.binary(), "--features", "measure"];
            let build = build.into_iter().chain(measure).map(str::to_owned).collect();
            let target = path.ancestors().nth(2).filter(|_| self == Self::Peers);
            let into = target.map(|target| ["--into".to_owned(), target.join("bench-peers").display().to_string()]);
            let words = into.into_iter().flatten().chain(words.iter().cloned()).collect();
            return vec![cargo_with("the build", build, Vec::new()), program(self.what(), path, words)];
        }
        let build = ["build", "--workspace", "--bin", "rejoin", "--bin", self.binary(), "--test", "the_house"];
        let features: &[&str] = if self == Self::Fairness { &["--features", "measure"] } else { &[] };
        let build = build.iter().chain(features).map(|word| (*word).to_owned()).collect();
        vec![cargo_with("the build", build, Vec::new()), program(self.what(), path, words.to_vec())]
    }
}

/// The storm of CI, once everything is built.
pub(crate) fn storm_in_ci(path: &Path) -> Run {
    Run::program(Program::Storm.what(), path, vec!["--minutes".to_owned(), CI_MINUTES.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_measures_a_release_is_built_as_one() {
        for (of, words, told) in [
            (Program::Peers, "--rounds 1", "--into /elsewhere/bench-peers --rounds 1"),
            (Program::Overload, "--seconds 3 --times 10", "--seconds 3 --times 10"),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let path = Path::new("/elsewhere/release/program");
            let shown: Vec<String> = of.plan(path, &words).iter().map(Step::to_string).collect();
            let build = "cargo build --release -p rejoin -p rejoin-test-cluster --bin rejoin --bin";
            let build = format!("{build} {} --features measure", of.binary());
            assert_eq!(shown, [build, format!("/elsewhere/release/program {told}")]);
        }
    }

    #[test]
    fn the_words_reach_the_program_that_was_built() {
        let runs =
            [(Program::Storm, "--minutes 30 --seed 7", ""), (Program::Fairness, "--seconds 2", " --features measure")];
        for (of, line, features) in runs {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let steps = of.plan(Path::new("/elsewhere/program"), &words);
            let shown: Vec<String> = steps.iter().map(Step::to_string).collect();
            let build =
                format!("cargo build --workspace --bin rejoin --bin {} --test the_house{features}", of.binary());
            assert_eq!(shown, [build, format!("/elsewhere/program {line}")]);
        }
    }
}
