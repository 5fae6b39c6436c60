//! What was asked for.

use std::path::PathBuf;

use crate::runs::number;

/// How the program is called.
pub(crate) const USAGE: &str =
    "rejoin-bench-peers [--keys-up-to N] [--values-up-to BYTES] [--seconds S] [--rounds R] [--into DIR]";

/// The most keys and the largest values of the curves of growth, by default those that end in about ten minutes.
const KEYS: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const VALUES: [u64; 5] = [100, 1_000, 10_000, 100_000, 1 << 20];
const KEYS_UP_TO: u64 = 100_000;
const VALUES_UP_TO: u64 = 10_000;

/// The options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) keys_up_to: u64,
    pub(crate) values_up_to: u64,
    /// Of each run.
    pub(crate) seconds: u64,
    pub(crate) rounds: u64,
    /// Where the report goes.
    pub(crate) into: PathBuf,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// There is no such option, or it cannot have that value.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            keys_up_to: KEYS_UP_TO,
            values_up_to: VALUES_UP_TO,
            seconds: 2,
            rounds: 3,
            into: std::env::temp_dir().join("rejoin-bench-peers"),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = |from: u64, to: u64| number(word, value, from, to);
            match word.as_str() {
                "--keys-up-to" => options.keys_up_to = number(KEYS[0], KEYS[KEYS.len() - 1])?,
                "--values-up-to" => options.values_up_to = number(VALUES[0], VALUES[VALUES.len() - 1])?,
                "--seconds" => options.seconds = number(1, 600)?,
                "--rounds" => options.rounds = number(1, 99)?,
                "--into" => options.into = value.into(),
                _ => return Err(format!("there is no option {word}")),
            }
        }
        Ok(options)
    }

    /// The numbers of keys of the curve of growth.
    pub(crate) fn keys(&self) -> Vec<u64> {
        KEYS.into_iter().filter(|keys| *keys <= self.keys_up_to).collect()
    }

    /// The sizes of values of the curve of growth.
    pub(crate) fn values(&self) -> Vec<u64> {
        VALUES.into_iter().filter(|bytes| *bytes <= self.values_up_to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_bound_the_curves() {
        let plain = parsed("").unwrap();
        assert_eq!((plain.seconds, plain.rounds), (2, 3));
        assert_eq!((plain.keys(), plain.values()), (vec![1_000, 10_000, 100_000], vec![100, 1_000, 10_000]));
        let all =
            parsed("--keys-up-to 10000000 --values-up-to 1048576 --seconds 10 --rounds 5 --into target/x").unwrap();
        assert_eq!((all.seconds, all.rounds, all.into.to_str()), (10, 5, Some("target/x")));
        assert_eq!((all.keys().len(), all.values().last()), (5, Some(&1_048_576)));
        assert_eq!(parsed("--keys-up-to 1000").unwrap().keys(), [1_000]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (line, reason) in [
            ("--seconds", "--seconds needs a value"),
            ("--seconds 0", "--seconds 0: give a number from 1 to 600"),
            ("--rounds many", "--rounds many: give a number from 1 to 99"),
            ("--keys-up-to 999", "from 1000 to 10000000"),
            ("--values-up-to 1048577", "from 100 to 1048576"),
            ("--speed 3", "there is no option --speed"),
        ] {
            let refused = parsed(line).expect_err(line);
            assert!(refused.contains(reason), "{line}: {refused}");
        }
    }
}
