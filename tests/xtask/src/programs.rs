//! Programs of the workspace that drive real nodes: `cargo xtask storm` and `cargo xtask fairness`. They are built with
//! the binary of the nodes, and then run with the words that stand behind the verb.

use std::path::Path;

use crate::steps::{Step, cargo_with, program};

/// The length of the storm in CI, in minutes.
const CI_MINUTES: &str = "2";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Faults from a seed.
    Storm,
    /// What one tenant feels of another one. Both loads meet the same nodes, and it is their ratio that is asked for.
    Fairness,
}

impl Program {
    /// The name of its binary.
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Storm => "rejoin-storm",
            Self::Fairness => "rejoin-bench-fairness",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Storm => "the storm",
            Self::Fairness => "the measurement",
        }
    }

    /// Its build, with that of the nodes, and its run from `path` with these words, which it understands itself. Built
    /// with the features of the tests, so that they build nothing again.
    pub(crate) fn plan(self, path: &Path, words: &[String]) -> Vec<Step> {
        let build = ["build", "--workspace", "--bin", "rejoin", "--bin", self.binary(), "--test", "the_house"];
        let features: &[&str] = if self == Self::Fairness { &["--features", "measure"] } else { &[] };
        let build = build.iter().chain(features).map(|word| (*word).to_owned()).collect();
        vec![cargo_with("the build", build, Vec::new()), program(self.what(), path, words.to_vec())]
    }
}

/// The storm of CI, once everything is built.
pub(crate) fn storm_in_ci(path: &Path) -> Step {
    program(Program::Storm.what(), path, vec!["--minutes".to_owned(), CI_MINUTES.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

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
