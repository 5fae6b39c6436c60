//! `cargo xtask sim`: seeds of the simulator, or what happened in one of them.

use std::path::Path;

use crate::steps::{Step, cargo_with, program};

/// What is to be run: the words of `rejoin-sim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Reads what stands behind the verb. Whatever else the simulator understands is passed on to it.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let words = match words {
            ["--replay", seed, rest @ ..] => [&["replay", *seed][..], rest].concat(),
            ["--members", rest @ ..] => [&["members"][..], rest].concat(),
            ["--seeds", ..] => [&["run"][..], words].concat(),
            _ => return Err("sim needs --seeds FIRST..END, --replay SEED or --members".to_owned()),
        };
        Ok(Self(words.into_iter().map(str::to_owned).collect()))
    }

    /// The build of the simulator at `binary`, and the run.
    pub(crate) fn plan(&self, binary: &Path) -> Vec<Step> {
        let build = ["build", "--workspace", "--bin", "rejoin-sim"].map(str::to_owned).to_vec();
        vec![cargo_with("the build", build, Vec::new()), program("the simulator", binary, self.0.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Result<String, String> {
        let options = Options::parse(&line.split_whitespace().collect::<Vec<_>>())?;
        Ok(options.plan(Path::new("/elsewhere/rejoin-sim")).last().expect("the run").to_string())
    }

    #[test]
    fn ranges_and_seeds_reach_the_simulator() {
        assert_eq!(shown("--seeds 0..1000 --jobs 2").unwrap(), "/elsewhere/rejoin-sim run --seeds 0..1000 --jobs 2");
        assert_eq!(shown("--members --nodes 3,10").unwrap(), "/elsewhere/rejoin-sim members --nodes 3,10");
        assert_eq!(shown("--replay 7 --key 3").unwrap(), "/elsewhere/rejoin-sim replay 7 --key 3");
    }

    #[test]
    fn what_would_run_nothing_is_refused() {
        for line in ["", "--jobs 2", "--replay"] {
            assert!(shown(line).unwrap_err().contains("--members"), "{line}");
        }
    }
}
