//! What each command of xtask does, as a list of steps that can be printed before they run.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use crate::programs;
use crate::setup::WASM;

const FORMATTING: &str = "formatting";
const LOCK: &str = "Cargo.lock";
/// The variable by which the test runner is told how many tests to run at once.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Run a program.
    Command(Run),
    /// Run a program that leaves processors idle, and others one after another at the lowest priority beside it.
    Beside(Run, Vec<Run>),
    /// Check the licences here, without cargo-deny.
    Licences,
    /// Print what the binary is made of.
    Sbom,
    /// Build for release twice, in that directory, and compare.
    Reproduce(PathBuf),
    /// Install what the cart in JavaScript is built with, below that target directory.
    Packages(PathBuf),
    /// Measure the parts and the whole.
    Distance,
}

/// A program to run in the workspace root.
#[derive(Debug)]
pub(crate) struct Run {
    what: &'static str,
    program: OsString,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// Builds the binary and nothing else, then runs the demo with the binary at `rejoin`.
///
/// `--workspace` and the test target are there for the features only: with them cargo gives every dependency the
/// features that it has in `test`, where dev-dependencies count too, and `test` builds none of them again
/// (`tests/house` looks).
pub(crate) fn demo(rejoin: &Path) -> Vec<Step> {
    vec![
        cargo("the build", &["build", "--workspace", "--bin", "rejoin", "--test", "the_house"]),
        program("the demo", rejoin, owned(&["demo", "partition"])),
    ]
}

/// The no_std check, then all tests. The tests come last, so that what the runner prints about them ends the output.
///
/// The binaries are built first, and with the same features as the tests: tests of other crates start `rejoin`.
pub(crate) fn test() -> Vec<Step> {
    let bare = ["check", "-p", "rejoin-proto", "-p", "rejoin-core", "--target", WASM, "--no-default-features"];
    vec![
        cargo("the no_std check of proto and core", &bare),
        cargo("the build", &["build", "--workspace", "--bins", "--tests"]),
        cargo_with("the tests", owned(&["test", "--workspace"]), vec![(TEST_THREADS, test_threads())]),
    ]
}

/// How many tests run at once, unless the shell says it: two on each processor, because those of processes mostly wait.
/// On two processors they take 303 s instead of 448, beside the same builds.
fn test_threads() -> String {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    std::env::var(TEST_THREADS).unwrap_or_else(|_| (2 * processors).to_string())
}

/// Builds the carts in C and in JavaScript, and checks their laws, scenarios and bytes.
pub(crate) fn guests(target: &Path) -> Vec<Step> {
    let tests = ["test", "--workspace", "--test", "laws", "--", "languages::", "cart::"];
    vec![Step::Packages(target.into()), cargo("the carts", &tests)]
}

/// Everything that must hold before a change is merged. The storm at that path runs once all is built. It leaves
/// processors idle, so clippy and the documentation have them: they add faults of time to the storm, no others.
pub(crate) fn ci(cargo_deny: bool, storm: &Path, target: &Path) -> Vec<Step> {
    let mut steps = vec![cargo(FORMATTING, &["fmt", "--all", "--check"]), cargo(LOCK, &["fetch", "--locked"])];
    steps.extend(licences(cargo_deny));
    steps.push(Step::Packages(target.into()));
    steps.extend(test());
    steps.insert(steps.len() - 1, Step::Beside(programs::storm_in_ci(storm), lints()));
    steps
}

/// Programs that only measure are checked here and built by nobody else. Both runs have one set of features, so that
/// the second checks no dependency again.
fn lints() -> Vec<Run> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--features", "measure", "--", "-D", "warnings"];
    // The twin is the core once more.
    let doc = ["doc", "--workspace", "--no-deps", "--features", "measure", "--exclude", "rejoin-test-twin"];
    vec![
        Run::cargo("clippy", owned(&clippy), Vec::new()),
        Run::cargo("the documentation", owned(&doc), vec![("RUSTDOCFLAGS", "-D warnings".to_owned())]),
    ]
}

/// The licences of all dependencies: by cargo-deny where it is installed, otherwise by our own reading of deny.toml.
pub(crate) fn licences(cargo_deny: bool) -> Vec<Step> {
    if cargo_deny {
        vec![cargo("licences, bans and sources", &["deny", "check", "licenses", "bans", "sources"])]
    } else {
        vec![Step::Licences]
    }
}

/// Builds as for a release, and measures the parts of an operation and whole ones.
pub(crate) fn bench() -> Vec<Step> {
    let build = ["build", "--release", "-p", "rejoin", "-p", "rejoin-test-bench", "--bins", "--features", "measure"];
    vec![cargo("the build", &build), Step::Distance]
}

fn cargo(what: &'static str, arguments: &[&'static str]) -> Step {
    cargo_with(what, owned(arguments), Vec::new())
}

/// A step that calls cargo with these arguments, and these variables beside the shell's.
pub(crate) fn cargo_with(what: &'static str, arguments: Vec<String>, environment: Vec<(&'static str, String)>) -> Step {
    Step::Command(Run::cargo(what, arguments, environment))
}

/// A step that runs a program of the workspace.
pub(crate) fn program(what: &'static str, path: &Path, arguments: Vec<String>) -> Step {
    Step::Command(Run::program(what, path, arguments))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The cargo that runs us.
pub(crate) fn cargo_path() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A command that sees the environment of the shell, not that of the `cargo run` which started us.
///
/// Build scripts that watch these variables (ring's does) would otherwise run again, and everything above them be built
/// again, each time one types `cargo test` after `cargo xtask test`.
pub(crate) fn command(program: &OsString, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root);
    let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

impl Run {
    fn cargo(what: &'static str, arguments: Vec<String>, environment: Vec<(&'static str, String)>) -> Self {
        Self { what, program: cargo_path(), arguments, environment }
    }

    /// A program of the workspace.
    pub(crate) fn program(what: &'static str, path: &Path, arguments: Vec<String>) -> Self {
        Self { what, program: path.into(), arguments, environment: Vec::new() }
    }

    /// Runs it to its end, with our output.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed.
    pub(crate) fn run(&self, root: &Path) -> Result<(), String> {
        let began = Instant::now();
        let status = self.prepared(&self.program, root).args(&self.arguments).status();
        self.judge(status, began)
    }

    /// Runs it to its end, and others one after another at the lowest priority beside it, until one fails. What these
    /// print comes when all have ended.
    ///
    /// # Errors
    /// Those of [`Run::run`], of the run itself before the others'.
    pub(crate) fn run_beside(&self, others: &[Self], root: &Path) -> Result<(), String> {
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let mut said = Vec::new();
                let result = others.iter().try_for_each(|other| other.run_quietly(root, &mut said));
                (said, result)
            });
            let result = self.run(root);
            let (said, others) = beside.join().map_err(|_| "a step beside another one has panicked".to_owned())?;
            // If that fails, the reason is lost, but not that there is one.
            let _ = std::io::stderr().write_all(&said);
            result.and(others)
        })
    }

    /// Runs it at the lowest priority, where there is a program for that, and keeps what it prints.
    fn run_quietly(&self, root: &Path, said: &mut Vec<u8>) -> Result<(), String> {
        let began = Instant::now();
        let mut nice = self.prepared(&"nice".into(), root);
        nice.args(["-n", "19"]).arg(&self.program).args(&self.arguments);
        let output = match nice.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.prepared(&self.program, root).args(&self.arguments).output()
            }
            output => output,
        };
        let status = output.map(|output| {
            said.extend([output.stdout, output.stderr].concat());
            output.status
        });
        let result = self.judge(status, began);
        said.extend(format!("xtask: {} took {} s\n", self.what, began.elapsed().as_secs()).bytes());
        result
    }

    fn prepared(&self, program: &OsString, root: &Path) -> Command {
        let mut command = command(program, root);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn judge(&self, status: io::Result<ExitStatus>, began: Instant) -> Result<(), String> {
        let status = status.map_err(|error| format!("{} could not be started: {error}: {self}", self.what))?;
        if !status.success() {
            let (what, seconds) = (self.what, began.elapsed().as_secs());
            return Err(format!("{what} failed after {seconds} s ({status}): {self}{}", self.advice()));
        }
        Ok(())
    }

    /// What to do where the output of the program does not say it.
    fn advice(&self) -> &'static str {
        match self.what {
            FORMATTING => "\n  run `cargo fmt --all`",
            LOCK => "\n  commit Cargo.lock together with the change of the manifest",
            _ => "",
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}='{value}' ")?;
        }
        let name = if self.program == cargo_path() { "cargo".into() } else { self.program.to_string_lossy() };
        write!(f, "{name} {}", self.arguments.join(" "))
    }
}

impl Step {
    /// Its name, for people.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Command(run) | Self::Beside(run, _) => run.what,
            Self::Licences => "licences",
            Self::Sbom => "the bill of materials",
            Self::Reproduce(_) => "two builds",
            Self::Packages(_) => "packages of npm",
            Self::Distance => "the measurement",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(run) => run.fmt(f),
            Self::Beside(run, others) => {
                run.fmt(f)?;
                others.iter().try_for_each(|other| write!(f, "\n    beside it: {other}"))
            }
            Self::Licences => f.write_str("(here) cargo tree, against the allow list of deny.toml"),
            Self::Sbom => f.write_str("(here) cargo tree, with the checksums of Cargo.lock"),
            Self::Reproduce(work) => {
                write!(f, "(here) the build of `cargo xtask release`, in two directories below {}", work.display())
            }
            Self::Packages(target) => {
                write!(f, "(here) npm ci, in {} and with the lock file of plugins/cart-js", target.display())
            }
            Self::Distance => f.write_str("(here) rejoin-bench-distance"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(steps: &[Step]) -> Vec<String> {
        steps.iter().map(Step::to_string).collect()
    }

    fn storm() -> &'static Path {
        Path::new("/elsewhere/rejoin-storm")
    }

    fn target() -> &'static Path {
        Path::new("/elsewhere")
    }

    #[test]
    fn ci_ends_with_what_xtask_test_does_with_the_storm_before_the_tests() {
        let (mut ci, test) = (shown(&ci(false, storm(), target())), shown(&test()));
        let storm = ci.remove(ci.len() - 2);
        let lines: Vec<&str> = storm.lines().collect();
        assert_eq!(lines[0], "/elsewhere/rejoin-storm --minutes 2");
        assert!(lines[1].contains("cargo clippy") && lines[2].contains("cargo doc") && lines.len() == 3, "{storm}");
        assert!(ci.ends_with(&test));
        assert!(test.last().is_some_and(|last| last.ends_with("' cargo test --workspace")), "{test:?}");
    }

    #[test]
    fn everything_but_the_no_std_builds_is_built_with_the_features_of_the_whole_workspace() {
        let builds = |line: &&String| {
            ["build", "clippy", "doc", "test"].iter().any(|verb| line.contains(&format!("cargo {verb} ")))
        };
        for line in shown(&ci(false, storm(), target())).iter().chain(&shown(&demo(Path::new("rejoin")))).filter(builds)
        {
            assert!(line.contains("--workspace") != line.contains(WASM), "{line}");
        }
    }

    #[test]
    fn nothing_is_built_in_a_second_profile() {
        assert!(
            !shown(&ci(true, storm(), target()))
                .iter()
                .any(|line| line.contains("--release") || line.contains("--profile"))
        );
    }

    #[test]
    fn the_demo_runs_the_binary_that_was_built() {
        let steps = shown(&demo(Path::new("/elsewhere/debug/rejoin")));
        let build = "cargo build --workspace --bin rejoin --test the_house";
        assert_eq!(steps, [build, "/elsewhere/debug/rejoin demo partition"]);
    }

    #[test]
    fn a_failing_command_and_a_missing_one_are_named() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let run = |program: OsString| Run {
            what: "a step",
            program,
            arguments: owned(&["no-such-verb"]),
            environment: Vec::new(),
        };
        let failed = run(cargo_path()).run(here).unwrap_err();
        assert!(failed.starts_with("a step failed") && failed.ends_with("cargo no-such-verb"), "{failed}");
        let unformatted = Run {
            what: FORMATTING,
            program: cargo_path(),
            arguments: owned(&["no-such-verb"]),
            environment: Vec::new(),
        };
        assert!(unformatted.run(here).unwrap_err().ends_with("run `cargo fmt --all`"));
        assert!(run("no such program".into()).run(here).unwrap_err().starts_with("a step could not be started"));
    }

    #[test]
    fn what_runs_beside_a_step_fails_it_too_and_ends_what_would_follow() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let run = |verb: &str| Run::cargo("a step", owned(&[verb]), Vec::new());
        assert_eq!(run("--version").run_beside(&[run("--version"), run("--list")], here), Ok(()));
        let failed = run("--version").run_beside(&[run("no-such-verb"), run("neither")], here).unwrap_err();
        assert!(failed.ends_with("cargo no-such-verb"), "{failed}");
        let failed = run("no-such-verb").run_beside(&[run("neither")], here).unwrap_err();
        assert!(failed.ends_with("cargo no-such-verb"), "{failed}");
    }

    #[test]
    fn commands_do_not_inherit_what_cargo_run_says_about_xtask() {
        let command = command(&cargo_path(), Path::new("."));
        let removed = |name: &str| command.get_envs().any(|(key, value)| key == name && value.is_none());
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR") && !removed("PATH"));
    }
}
