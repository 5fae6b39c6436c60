//! `cargo xtask fairness`: what one tenant feels of another one, on real processes.

use std::path::Path;

use crate::steps::{Step, cargo_with, program};

/// What is to be run: the words of `rejoin-bench-fairness`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Reads what stands behind the verb. `rejoin-bench-fairness` says itself what it does not understand.
    pub(crate) fn parse(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// The build of the nodes and of the program at `binary`, and the run. Built as the tests are, so that they build
    /// nothing again: both loads meet the same nodes, and it is their ratio that is asked for.
    pub(crate) fn plan(&self, binary: &Path) -> Vec<Step> {
        let build =
            ["build", "--workspace", "--bin", "rejoin", "--bin", "rejoin-bench-fairness", "--test", "the_house"];
        let build = build.map(str::to_owned).to_vec();
        vec![cargo_with("the build", build, Vec::new()), program("the measurement", binary, self.0.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_reach_the_program_that_was_built() {
        let steps = Options::parse(&["--seconds", "2"]).plan(Path::new("/elsewhere/rejoin-bench-fairness"));
        let shown: Vec<String> = steps.iter().map(Step::to_string).collect();
        let build = "cargo build --workspace --bin rejoin --bin rejoin-bench-fairness --test the_house";
        assert_eq!(shown, [build, "/elsewhere/rejoin-bench-fairness --seconds 2"]);
    }
}
