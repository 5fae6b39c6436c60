//! Runs a property on its corpus and then on hostile inputs for a while, and stores inputs that fail.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::{Hostile, corpus};

/// How long one target runs in `cargo test`. `cargo xtask fuzz` says otherwise through `BOLERO_RANDOM_TEST_TIME_MS`.
const SHORT: Duration = Duration::from_millis(2500);
/// How long an input that has failed is made smaller at most. On a busy machine a second was too short for a single
/// step.
const SHRINKING: Duration = Duration::from_secs(20);
/// Names a file with the one input that is to be looked at, instead of the corpus and random ones.
const INPUT: &str = "REJOIN_FUZZ_INPUT";

/// A property of bytes, and what to find a counterexample with.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name of its test, and of its folder in the corpus.
    pub name: &'static str,
    /// What hostile bytes are made of, beside the corpus. Each is looked at as it is, too.
    pub seeds: Vec<Vec<u8>>,
    /// Panics if the bytes refute it.
    pub property: fn(&[u8]),
    /// Where an input that refutes it is kept.
    pub keep: PathBuf,
}

impl Target {
    /// Tries to refute the property.
    ///
    /// # Panics
    /// If it is refuted, after saying by which file and how to look at it again.
    pub fn run(self) {
        if let Some(path) = std::env::var_os(INPUT) {
            return (self.property)(&corpus::read(Path::new(&path)));
        }
        let known = corpus::of(self.name);
        for (path, bytes) in &known {
            if let Err(panic) = catch_unwind(|| (self.property)(bytes)) {
                self.tell(path);
                resume_unwind(panic);
            }
        }
        for bytes in &self.seeds {
            if let Err(panic) = catch_unwind(|| (self.property)(bytes)) {
                self.keep(bytes);
                resume_unwind(panic);
            }
        }
        let seeds = known.into_iter().map(|(_, bytes)| bytes).chain(self.seeds.iter().cloned()).collect();
        let failed: Mutex<Option<Vec<u8>>> = Mutex::new(None);
        let property = self.property;
        let search = || {
            let check = bolero::check!(name = self.name)
                .with_generator(Hostile::of(seeds))
                .with_test_time(SHORT)
                .with_shrink_time(SHRINKING);
            check.for_each(|bytes: &Vec<u8>| {
                if let Err(panic) = catch_unwind(|| property(bytes)) {
                    // The engine looks for smaller ones that fail as well: the smallest is the one to keep.
                    let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|smallest| bytes.len() < smallest.len()) {
                        *failed = Some(bytes.clone());
                    }
                    drop(failed);
                    resume_unwind(panic);
                }
            });
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(search)) {
            if let Some(bytes) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
                self.keep(&bytes);
            }
            resume_unwind(panic);
        }
    }

    /// Keeps an input that has failed, and says so.
    fn keep(&self, bytes: &[u8]) {
        let path = self.keep.join(format!("{}.hex", self.name));
        std::fs::write(&path, corpus::text("refutes the target; say here why, once that is known", bytes)).unwrap();
        self.tell(&path);
    }

    /// Says which input has failed, and how to look at it again.
    fn tell(&self, path: &Path) {
        eprintln!(
            "\nrefuted by {}; to look at it again:\n  cargo xtask fuzz --target {} --input {0}\n",
            path.display(),
            self.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds for the corpus of the target whose name is borrowed here.
    fn no_ee(bytes: &[u8]) {
        assert!(!bytes.contains(&0xee), "there is one in it");
    }

    #[test]
    fn what_refutes_a_property_is_found_kept_and_refutes_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let target =
            Target { name: "frames", seeds: vec![vec![8; 40]], property: no_ee, keep: dir.path().to_path_buf() };
        assert!(catch_unwind(AssertUnwindSafe(|| target.run())).is_err());
        let kept = corpus::read(&dir.path().join("frames.hex"));
        // How much smaller the engine makes it depends on the time that it has.
        assert!(kept.contains(&0xee), "{kept:?}");
    }
}
