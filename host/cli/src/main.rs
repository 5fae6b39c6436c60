//! The `rejoin` command: a node, a development cluster, and every verb an operator or plugin author types.
//!
//! Nothing is decided here: each verb asks a cluster through the SDK, starts nodes, or makes files. stdout is data and
//! stderr is talk; how a verb has ended is in its exit code.
//!
//! In reading order: [`args`] is what can be typed, [`verbs`] what talks to a cluster, [`serve`] runs a node, [`dev`] a
//! cluster, [`demo`] tells the story, [`mod@bench`] measures; [`failure`] and [`output`] are how all of them speak.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod cart;
mod cluster;
mod connect;
mod demo;
mod descriptors;
mod dev;
mod failure;
mod files;
mod http;
mod output;
mod processes;
mod serve;
mod signals;
mod verbs;

use std::io::IsTerminal;
use std::process::ExitCode;

use args::{Cli, DemoVerb, ServeArgs, Verb};
use clap::Parser;
use failure::Failure;
use output::{Output, no_color};
use verbs::{bucket, cert, object, plugin, status, token};

/// A node allocates a dozen times for every message, on one thread, and frees on another: the C library's allocator was
/// seen to take an eighth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if rejoin_merge::is_child() {
        return rejoin_merge::child_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return mistyped(&error),
    };
    let on = |terminal| cli.global.color.on(terminal, no_color());
    let talk_in_color = on(std::io::stderr().is_terminal());
    let out = Output { json: cli.global.json, color: on(std::io::stdout().is_terminal()) };
    match run(cli, out, talk_in_color) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(talk_in_color, out.json);
            failure.exit.into()
        }
    }
}

/// Answers what cannot be parsed, and `--help` and `--version`. What was typed wrongly is told programs in their own
/// form.
fn mistyped(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && args::wants_json(std::env::args_os().skip(1)) {
        let failure = Failure::mistyped(error);
        failure.report(false, true);
        return failure.exit.into();
    }
    error.exit()
}

/// Runs the verb to its end. The story and a cluster begin on this very thread: what they start ends with it.
fn run(cli: Cli, out: Output, talk_in_color: bool) -> Result<(), Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Verb::Serve(ServeArgs { threads: Some(threads), .. }) = cli.verb {
        builder.worker_threads(usize::from(threads));
    }
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|why| Failure::usage(format!("no threads can be started: {why}")))?;
    let ended = runtime.block_on(verb(cli, out, talk_in_color));
    // A blocked read of stdin, say, is not waited for.
    runtime.shutdown_background();
    ended
}

async fn verb(cli: Cli, out: Output, talk_in_color: bool) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.verb {
        Verb::Dev(args) => dev::run(out, &args, talk_in_color).await,
        Verb::Demo(DemoVerb::Partition) => demo::partition(out).await,
        Verb::Bench(args) => bench::run(global, out, &args).await,
        Verb::Serve(args) => serve::run(out, &args, talk_in_color).await,
        Verb::Get(args) => object::get(global, out, &args).await,
        Verb::Put(args) => object::put(global, out, &args).await,
        Verb::Delete(args) => object::delete(global, out, &args).await,
        Verb::Status(args) => status::status(global, out, &args).await,
        Verb::Bucket(verb) => bucket::run(global, out, verb).await,
        Verb::Plugin(verb) => plugin::run(global, out, verb).await,
        Verb::Token(verb) => token::run(global, out, verb).await,
        Verb::Cert(verb) => cert::run(out, &verb),
    }
}
