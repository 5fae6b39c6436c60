//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, for as long as one likes.

use std::path::{Path, PathBuf};

use crate::steps::{Step, cargo_with};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// For so long each target.
    minutes: u64,
    /// Only this target.
    target: Option<String>,
    /// Only this input of it, once.
    input: Option<PathBuf>,
}

impl Options {
    /// Reads what stands behind the verb.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { minutes: 1, target: None, input: None };
        let (pairs, rest) = words.as_chunks::<2>();
        for [flag, value] in pairs {
            match *flag {
                "--minutes" => {
                    options.minutes = value.parse().map_err(|_| format!("`{value}` is no number of minutes"))?
                }
                "--target" => options.target = Some((*value).to_owned()),
                "--input" => options.input = Some(PathBuf::from(value)),
                other => return Err(format!("fuzz has no flag `{other}`")),
            }
        }
        if let [flag] = rest {
            return Err(format!("`{flag}` lacks its value"));
        }
        if options.input.is_some() && options.target.is_none() {
            return Err("--input needs the --target that it is for".to_owned());
        }
        Ok(options)
    }

    /// The run.
    ///
    /// # Errors
    /// When there is no such target: the test runner would run nothing and be content.
    pub(crate) fn plan(&self, root: &Path) -> Result<Vec<Step>, String> {
        let mut arguments = vec!["test", "--workspace", "--test", "fuzz", "--", "--nocapture"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        if let Some(target) = &self.target {
            if !root.join("tests/fuzz/corpus").join(target).is_dir() {
                return Err(format!("there is no target `{target}`: they are the folders of tests/fuzz/corpus"));
            }
            arguments.push(format!("::{target}"));
        }
        let environment = match &self.input {
            None => ("BOLERO_RANDOM_TEST_TIME_MS", (self.minutes * 60_000).to_string()),
            Some(input) => {
                // The tests run in their own folder.
                let path = std::path::absolute(input).map_err(|error| format!("{}: {error}", input.display()))?;
                ("REJOIN_FUZZ_INPUT", path.display().to_string())
            }
        };
        Ok(vec![cargo_with("the fuzz targets", arguments, vec![environment])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn shown(line: &str) -> Result<String, String> {
        let options = Options::parse(&line.split_whitespace().collect::<Vec<_>>())?;
        Ok(options.plan(&root())?.iter().map(Step::to_string).collect())
    }

    #[test]
    fn minutes_targets_and_inputs_reach_the_tests() {
        let all = shown("--minutes 5").unwrap();
        assert_eq!(all, "BOLERO_RANDOM_TEST_TIME_MS='300000' cargo test --workspace --test fuzz -- --nocapture");
        assert!(
            shown("--target frames --minutes 2")
                .unwrap()
                .ends_with("'120000' cargo test --workspace --test fuzz -- --nocapture ::frames")
        );
        let one = shown("--target frames --input /kept/frames.hex").unwrap();
        assert_eq!(
            one,
            "REJOIN_FUZZ_INPUT='/kept/frames.hex' cargo test --workspace --test fuzz -- --nocapture ::frames"
        );
    }

    #[test]
    fn what_would_run_nothing_is_refused() {
        for (line, why) in [
            ("--target no-such", "`no-such`"),
            ("--input /kept/frames.hex", "--target"),
            ("--minutes soon", "`soon`"),
            ("--minutes", "lacks its value"),
            ("--hours 3", "`--hours`"),
        ] {
            assert!(shown(line).unwrap_err().contains(why), "{line}");
        }
    }
}
