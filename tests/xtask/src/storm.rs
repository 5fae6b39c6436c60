//! `cargo xtask storm`: real processes under faults from a seed.

use std::path::Path;

use crate::steps::{Step, cargo_with, program};

/// The length of the storm in CI, in minutes.
const CI_MINUTES: &str = "2";

/// What is to be run: the words of `rejoin-storm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Reads what stands behind the verb. `rejoin-storm` says itself what it does not understand.
    pub(crate) fn parse(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// The build of the nodes and of the storm at `binary`, and the run. Built with the features of the tests, so that
    /// they build nothing again.
    pub(crate) fn plan(&self, binary: &Path) -> Vec<Step> {
        let build = ["build", "--workspace", "--bin", "rejoin", "--bin", "rejoin-storm", "--test", "the_house"];
        let build = build.map(str::to_owned).to_vec();
        vec![cargo_with("the build", build, Vec::new()), program("the storm", binary, self.0.clone())]
    }
}

/// The storm of CI, once everything is built.
pub(crate) fn in_ci(binary: &Path) -> Step {
    program("the storm", binary, vec!["--minutes".to_owned(), CI_MINUTES.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_reach_the_storm_that_was_built() {
        let steps = Options::parse(&["--minutes", "30", "--seed", "7"]).plan(Path::new("/elsewhere/rejoin-storm"));
        let shown: Vec<String> = steps.iter().map(Step::to_string).collect();
        let build = "cargo build --workspace --bin rejoin --bin rejoin-storm --test the_house";
        assert_eq!(shown, [build, "/elsewhere/rejoin-storm --minutes 30 --seed 7"]);
    }
}
