//! `cargo xtask`: set-up, tests, the demo and what CI runs, from a clean clone.
//!
//! It has no dependencies, so that it builds in a second before anything else does. Every command is a list of
//! [`steps`]; [`setup`] finds what the machine lacks and says in one line what to do about it; [`licences`] stands in
//! for cargo-deny where that is not installed, [`sbom`] says what the binary is made of, and [`reproduce`] builds it so
//! that others get the same one.
#![forbid(unsafe_code)]

mod bench;
mod fuzz;
mod guests;
mod json;
mod licences;
mod programs;
mod reproduce;
mod sbom;
mod setup;
mod sim;
mod spdx;
mod steps;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use programs::Program;
use steps::Step;

const USAGE: &str = "\
Usage: cargo xtask COMMAND [OPTIONS] [--dry-run]

Try it:
  demo         Build the rejoin binary, then run the demo: cut a cluster in two, write on both sides, heal it, read the
               merged cart.

Test it:
  test         Check proto and core without the standard library, then build and run every test of the workspace.
  ci           Run what CI runs: formatting, Cargo.lock and licences, then all of `test`. Before its tests come two
               minutes of `storm`, with clippy and the documentation beside it.
               Prints how long each step took.
  guests       Build the carts in C and in JavaScript where their tools are (clang and wasm-ld; node and npm), and check
               that they obey the laws and give the bytes of the one in Rust. Says what it skips, and why.
               `ci` does this too.
  fuzz         Run every fuzz target for one minute.
                 --minutes M        run each target for M minutes
                 --target NAME      run one target only
                 --input FILE       run the target once, on one input
  sim          Run the simulator. Needs one of:
                 --seeds FIRST..END [--jobs J] [--json]
                                    run a range of seeds
                 --replay SEED [--key K] [--node N] [--from S] [--to S]
                                    show what happened in one seed
                 --members [--nodes N,..] [--loss PERCENT,..] [--seed S]
                                    measure membership alone: detection, false suspicions, load of a node
  storm        Run seven real nodes in three zones under kills, stops, partitions, wiped and full disks, clock jumps
               and changes of layout, with clients that write. Exit code 1 if an acknowledged write is lost, a deleted
               one comes back, or a strict read fails that a healthy quorum could have answered.
                 --minutes M        go on for M minutes (2)
                 --seed S           draw plan and clients from S (1)
                 --plan             print the plan and run nothing
                 --sabotage         lose writes on purpose; it must then fail
                 --loopback         do without network namespaces
  licences     Check the licences of all dependencies against deny.toml.

Ship it:
  release      Build the binary so that the same sources give the same bytes in every directory: target/release/rejoin.
  reproduce    Build it so twice, in two directories, and compare. Takes two release builds.
  sbom         Print what the binary is made of, as CycloneDX 1.6 in JSON.

Measure it (all but fairness build with --release):
  bench        Measure the parts of an operation and whole operations, and compare them.
  bench-peers  Put the same load on a cluster, on Redis with two replicas and on three members of etcd, where
               redis-server and etcd are installed, and measure how the costs of a cluster grow. Writes an HTML page
               and a JSON document below the target directory. Takes about ten minutes; more keys take longer.
                 --keys-up-to N     grow from 1000 to N keys, at most 10000000 (100000)
                 --values-up-to B   grow from values of 100 to B bytes, at most 1048576 (10000)
                 --seconds S        measure each load for S seconds (2)
                 --rounds R         take R rounds, in which the systems take turns (3)
  overload     Offer three nodes many times what they can do: goodput, refusals, memory, and when it is over.
                 --seconds S        offer it for S seconds (10)
                 --times T          offer T times the peak (10)
                 --processes P      from P generator processes (one for each processor, at least 2)
                 --clients C        with C operations under way at most (8192)
  fairness     Measure what one tenant feels of another one that floods it, on three nodes in processes of their own:
               goodput and p99 beside 100 times its rate, slow merges, 16 MiB values, a hot key, connections, compiles,
               and, to tell what is the machine's, beside the same on another cluster of three nodes.
                 --seconds S        measure each load for S seconds (10)
                 --turns T          take turns T times (3)
                 --connections N    make up to N connections (10000)
                 --case CASE        measure one case only; may be given again

  help         Print this text.

--dry-run prints the commands and runs nothing.
demo, test and ci first add the wasm32-unknown-unknown target if the toolchain lacks it.
Exit codes: 0 done, 1 a step failed, 2 wrong usage.";

/// What is said before the demo is built. The figures are those of `cargo xtask demo` in a fresh clone on two cores.
const DEMO: &str = "\
xtask: the demo needs the rejoin binary, which is built from 280 packages. The first build takes about 7 minutes on two
xtask: cores; cargo shows below how far it is. Later runs take seconds, and `cargo xtask test` uses all that is built now.";

/// What `cargo xtask` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verb {
    Demo,
    Test,
    Ci,
    Guests,
    Bench,
    Fuzz(fuzz::Options),
    Sim(sim::Options),
    /// With the words for it.
    Program(Program, Vec<String>),
    Licences,
    Release,
    Reproduce,
    Sbom,
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, dry_run) = match parse(&arguments) {
        Ok(request) => request,
        Err(reason) => {
            eprintln!("xtask: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(verb, dry_run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Verb, bool), String> {
    if let Some((verb, options)) = arguments.split_first()
        && matches!(verb.as_str(), "bench-peers" | "fairness" | "fuzz" | "overload" | "sim" | "storm")
        && !options.iter().any(|option| option == "--help")
    {
        let (dry_run, options): (Vec<&str>, Vec<&str>) =
            options.iter().map(String::as_str).partition(|option| *option == "--dry-run");
        let words = || options.iter().map(|word| (*word).to_owned()).collect();
        let verb = match verb.as_str() {
            "bench-peers" => Verb::Program(Program::Peers, words()),
            "fairness" => Verb::Program(Program::Fairness, words()),
            "overload" => Verb::Program(Program::Overload, words()),
            "fuzz" => Verb::Fuzz(fuzz::Options::parse(&options)?),
            "sim" => Verb::Sim(sim::Options::parse(&options)?),
            _ => Verb::Program(Program::Storm, words()),
        };
        return Ok((verb, !dry_run.is_empty()));
    }
    let (flags, words): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    let verb = match words.as_slice() {
        [] if flags.iter().any(|flag| *flag == "--help") => return Ok((Verb::Help, false)),
        [] => return Err("no command given".to_owned()),
        [verb] => match verb.as_str() {
            "demo" => Verb::Demo,
            "test" => Verb::Test,
            "ci" => Verb::Ci,
            "guests" => Verb::Guests,
            "bench" => Verb::Bench,
            "licences" => Verb::Licences,
            "release" => Verb::Release,
            "reproduce" => Verb::Reproduce,
            "sbom" => Verb::Sbom,
            "bench-peers" | "fairness" | "fuzz" | "overload" | "sim" | "storm" | "help" => Verb::Help,
            other => return Err(format!("there is no command `{other}`")),
        },
        [_, extra, ..] => return Err(format!("`{extra}` is one argument too many")),
    };
    match flags.iter().find(|flag| !matches!(flag.as_str(), "--dry-run" | "--help")) {
        Some(flag) => Err(format!("there is no flag `{flag}`")),
        None if flags.iter().any(|flag| *flag == "--help") => Ok((Verb::Help, false)),
        None => Ok((verb, !flags.is_empty())),
    }
}

fn run(verb: Verb, dry_run: bool) -> Result<(), String> {
    let root = workspace_root();
    let plan = match &verb {
        Verb::Help => {
            print(USAGE);
            return Ok(());
        }
        Verb::Demo => steps::demo(&setup::binary(&root, "rejoin")?),
        Verb::Test => steps::test(),
        Verb::Ci => {
            let storm = Program::Storm.path(&root)?;
            steps::ci(setup::has_cargo_deny(), &storm, &setup::target(&root)?)
        }
        Verb::Guests => steps::guests(&setup::target(&root)?),
        Verb::Bench => steps::bench(),
        Verb::Fuzz(options) => options.plan(&root)?,
        Verb::Sim(options) => options.plan(&setup::binary(&root, "rejoin-sim")?),
        Verb::Program(program, words) => program.plan(&program.path(&root)?, words),
        Verb::Licences => steps::licences(setup::has_cargo_deny()),
        Verb::Release => vec![reproduce::build(&root, &setup::target(&root)?)],
        Verb::Reproduce => vec![Step::Reproduce(setup::target(&root)?.join("reproduce"))],
        Verb::Sbom => vec![Step::Sbom],
    };
    if dry_run {
        plan.iter().for_each(|step| print(&step.to_string()));
        return Ok(());
    }
    if !matches!(verb, Verb::Licences | Verb::Sbom) {
        setup::check_and_add(&root)?;
    }
    if verb == Verb::Ci && !setup::has_cargo_deny() {
        eprintln!(
            "xtask: skipped: cargo-deny (not installed); licences and sources are checked by xtask, bans are not"
        );
    }
    if matches!(verb, Verb::Ci | Verb::Guests) {
        guests::missing(&root).iter().for_each(|why| eprintln!("xtask: skipped: {why}"));
    }
    if verb == Verb::Demo {
        eprintln!("{DEMO}");
    }
    perform_all(&plan, &root)
}

/// Performs the steps in order, and says how long each took.
fn perform_all(plan: &[Step], root: &Path) -> Result<(), String> {
    let mut took = Vec::new();
    for (index, step) in plan.iter().enumerate() {
        eprintln!("xtask: [{}/{}] {}: {step}", index + 1, plan.len(), step.what());
        let began = Instant::now();
        let result = perform(step, root);
        took.push((step.what(), began.elapsed()));
        if let Err(reason) = result {
            eprintln!("{}", summary(&took));
            return Err(reason);
        }
    }
    eprintln!("{}", summary(&took));
    Ok(())
}

/// How long each step took, the longest first.
fn summary(took: &[(&str, Duration)]) -> String {
    let total: Duration = took.iter().map(|(_, time)| *time).sum();
    let mut steps = took.to_vec();
    steps.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let steps: Vec<String> = steps.iter().map(|(what, time)| format!("{what} {} s", time.as_secs())).collect();
    format!("xtask: {} s in all: {}", total.as_secs(), steps.join(", "))
}

fn perform(step: &Step, root: &Path) -> Result<(), String> {
    match step {
        Step::Command(run) => run.run(root),
        Step::Beside(run, others) => run.run_beside(others, root),
        Step::Licences => licences::check(root),
        Step::Sbom => sbom::document(root).map(|document| print(document.trim_end())),
        Step::Reproduce(work) => reproduce::check(root, work),
        Step::Packages(target) => {
            guests::install(root, target);
            Ok(())
        }
        Step::Distance => bench::distance(root),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for is data, and goes to stdout; all talk goes to stderr")]
fn print(text: &str) {
    println!("{text}");
}

/// Where the workspace is. Cargo says so at run time too, which is right also when the clone was moved after xtask was
/// built.
fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    let manifest = PathBuf::from(manifest);
    manifest.ancestors().nth(2).map_or_else(|| manifest.clone(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Verb, bool), String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn verbs_and_flags_are_understood() {
        assert_eq!(parsed("demo"), Ok((Verb::Demo, false)));
        assert_eq!(parsed("ci --dry-run"), Ok((Verb::Ci, true)));
        assert_eq!(parsed("--help"), Ok((Verb::Help, false)));
        assert_eq!(parsed("test --help"), Ok((Verb::Help, false)));
        assert_eq!(parsed("fuzz --help"), Ok((Verb::Help, false)));
        assert!(matches!(parsed("fuzz --dry-run --minutes 3"), Ok((Verb::Fuzz(_), true))));
        assert!(matches!(parsed("storm --dry-run --minutes 3"), Ok((Verb::Program(Program::Storm, _), true))));
        assert!(matches!(parsed("storm"), Ok((Verb::Program(Program::Storm, _), false))));
        let words = ["--seconds", "2"].map(str::to_owned).to_vec();
        for (verb, program) in
            [("fairness", Program::Fairness), ("bench-peers", Program::Peers), ("overload", Program::Overload)]
        {
            let line = format!("{verb} --seconds 2");
            assert_eq!(parsed(&line), Ok((Verb::Program(program, words.clone()), false)));
        }
        assert_eq!(parsed("bench-peers --help"), Ok((Verb::Help, false)));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(parsed("").unwrap_err().contains("no command"));
        assert!(parsed("bulid").unwrap_err().contains("`bulid`"));
        assert!(parsed("test core").unwrap_err().contains("`core`"));
        assert!(parsed("test --release").unwrap_err().contains("`--release`"));
    }

    #[test]
    fn the_help_explains_every_command() {
        let shipping = ["release", "reproduce", "sbom"];
        let others =
            ["demo", "test", "ci", "fuzz", "sim", "storm", "licences", "bench", "bench-peers", "guests", "help"];
        let measuring = ["fairness", "overload"];
        for command in others.into_iter().chain(shipping).chain(measuring) {
            let explained = |line: &str| {
                line.strip_prefix("  ")
                    .and_then(|line| line.strip_prefix(command))
                    .is_some_and(|rest| rest.starts_with("  "))
            };
            assert!(USAGE.lines().any(explained), "{command}");
        }
        assert!(USAGE.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn the_summary_names_the_longest_step_first() {
        let took = [
            ("clippy", Duration::from_secs(7)),
            ("the build", Duration::from_secs(90)),
            ("the tests", Duration::from_secs(8)),
        ];
        assert_eq!(summary(&took), "xtask: 105 s in all: the build 90 s, the tests 8 s, clippy 7 s");
    }

    #[test]
    fn the_workspace_root_is_two_folders_above_this_crate() {
        assert!(workspace_root().join("deny.toml").is_file());
    }
}
