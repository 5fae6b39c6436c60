//! `rejoin-storm`: seven real nodes under faults and changes of their layout, from a seed.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the verdict and the plan go to stdout")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use rejoin_test_cluster::guests;
use rejoin_test_storm::ground::{self, Ground};
use rejoin_test_storm::storm::{self, Orders};
use rejoin_test_storm::{changes, plan};

/// Set in the process in the middle: the directory of the storm.
const DIR: &str = "REJOIN_STORM_DIR";
/// Set beside it: why there are no namespaces, or nothing.
const WITHOUT: &str = "REJOIN_STORM_WITHOUT";
/// The exit code of a storm that was interrupted or could not be run.
const NOT_RUN: u8 = 2;

/// Runs seven real nodes in three zones under faults, changes of the layout and load, and checks that nothing
/// acknowledged is lost, nothing deleted comes back, and no strict read fails that could have been answered.
#[derive(Parser)]
#[command(name = "rejoin-storm")]
struct Args {
    /// How long faults go on, in minutes.
    #[arg(long, default_value = "2", value_parser = minutes)]
    minutes: Duration,
    /// The seed of the plan and of the clients.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the plan and run nothing.
    #[arg(long)]
    plan: bool,
    /// Put old disks under all nodes in the end. The storm must then fail.
    #[arg(long)]
    sabotage: bool,
    /// Do without namespaces, as where they cannot be made.
    #[arg(long)]
    loopback: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.plan {
        let length_ms = u64::try_from(args.minutes.as_millis()).unwrap_or(u64::MAX);
        let (faults, changes) = (plan::draw(args.seed, length_ms), changes::draw(args.seed, length_ms));
        let mut steps: Vec<(u64, String)> = faults.iter().map(|step| (step.at_ms, step.to_string())).collect();
        steps.extend(changes.iter().map(|due| (due.at_ms, due.to_string())));
        steps.sort();
        steps.iter().for_each(|(_, step)| println!("{step}"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(|error| error.to_string()).and_then(|runtime| match std::env::var_os(DIR) {
        Some(dir) => runtime.block_on(inside(&args, Path::new(&dir))),
        None => runtime.block_on(outside(&args)),
    });
    ended.map(ExitCode::from).unwrap_or_else(|why| {
        eprintln!("storm: could not be run: {why}");
        ExitCode::from(NOT_RUN)
    })
}

/// Makes the directory and runs the storm in a process in the middle, which may have namespaces of its own. That one
/// ends when this one does, for whatever reason, and everything in the namespaces with it.
async fn outside(args: &Args) -> Result<u8, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut interrupted = signal(SignalKind::interrupt()).map_err(text)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(text)?;
    let dir = tempfile::Builder::new().prefix("rejoin-storm-").tempdir().map_err(text)?;
    // Built here, because a namespace has no network.
    std::fs::write(component(dir.path()), guests::cart()).map_err(text)?;
    let this = std::env::current_exe().map_err(text)?;
    let entered = if args.loopback { Err("as told".to_owned()) } else { ground::enter() };
    let (mut command, without) = match entered {
        Ok(mut by) => {
            by.arg(&this);
            (Command::from(by), String::new())
        }
        Err(why) => (Command::new(&this), why),
    };
    command.args(std::env::args_os().skip(1)).env(DIR, dir.path()).env(WITHOUT, without);
    let mut middle = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().map_err(text)?;
    // Closed when this process ends, which ends the one in the middle.
    let _alive = middle.stdin.take();
    tokio::select! {
        ended = middle.wait() => {
            let code = ended.map_err(text)?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_RUN);
            if code == NOT_RUN {
                keep(dir.path(), &this, args.seed);
            }
            Ok(code)
        }
        _ = async { tokio::select! { _ = interrupted.recv() => (), _ = terminated.recv() => () } } => {
            // The nodes end with it, and only then the directory goes.
            let _ = middle.kill().await;
            Err("interrupted".to_owned())
        }
    }
}

async fn inside(args: &Args, dir: &Path) -> Result<u8, String> {
    std::thread::spawn(|| {
        // Until the process outside ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(NOT_RUN.into());
    });
    let without = std::env::var(WITHOUT).unwrap_or_default();
    let ground = Ground::make(dir, if without.is_empty() { Ok(()) } else { Err(without) })?;
    let component = std::fs::read(component(dir)).map_err(|error| error.to_string())?;
    let orders = Orders { seed: args.seed, length: args.minutes, sabotage: args.sabotage };
    let verdict = storm::run(orders, ground, component).await?;
    if verdict.exit_code() != 0 {
        // Before the verdict, whose last line is the last of all.
        keep(dir, &std::env::current_exe().map_err(|error| error.to_string())?, args.seed);
    }
    println!("{verdict}");
    Ok(verdict.exit_code())
}

fn component(dir: &Path) -> PathBuf {
    dir.join("cart.wasm")
}

/// Keeps what the nodes have said, beside the program.
fn keep(dir: &Path, this: &Path, seed: u64) {
    let to = this.with_file_name(format!("storm-{seed}"));
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.extension().is_some_and(|of| of == "log"), path.file_name()) {
                std::fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    };
    match copy() {
        Ok(()) => eprintln!("storm: the logs of the nodes are in {}", to.display()),
        Err(error) => eprintln!("storm: the logs of the nodes could not be kept in {}: {error}", to.display()),
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text:?} is no number of minutes"))?;
    if !(0.1..=1440.0).contains(&minutes) {
        return Err("must be 0.1 to 1440".to_owned());
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}
