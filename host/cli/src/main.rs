//! The `rejoin` command: a node, a development cluster, and the commands of operators and plugin authors.
//!
//! It decides nothing: a command asks a cluster through the SDK, starts nodes, or makes files. Data goes to stdout,
//! messages go to stderr, and the exit code says how the command ended.
//!
//! In reading order: [`args`], [`commands`] for the commands that ask a cluster, [`serve`] for a node, [`dev`],
//! [`demo`] and [`mod@bench`] for clusters on this machine; [`failure`] and [`output`] are used by all.
#![forbid(unsafe_code)]

mod args;
mod audit_args;
mod bench;
mod cart;
mod commands;
mod conflict_args;
mod connect;
mod demo;
mod descriptors;
mod dev;
mod encryption_args;
mod failure;
mod files;
mod fold_args;
mod global;
mod http;
mod layout_args;
mod local_cluster;
mod merge_bench_args;
mod operation_args;
mod output;
mod processes;
mod progress;
mod push_args;
mod quota_args;
mod ready;
mod serve;
mod signals;
mod signing_args;
mod token_args;
mod trial_args;
mod values;

use std::io::IsTerminal;
use std::process::ExitCode;

use args::{Cli, Command, DemoCommand, NodeCommand};
use clap::Parser;
use commands::{
    audit, bucket, cert, completions, conflict, encryption, exchange, explain, layout, node, object, operation, plugin,
    status, tenant, token,
};
use failure::Failure;
use output::{Output, no_color};
use tokio::runtime::Builder;

use rejoin_node::LoopThreads;

/// A node allocates a dozen times for each message on one thread and frees on another. The C library's allocator took
/// an eighth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if rejoin_merge::is_child() {
        return rejoin_merge::child_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let on = |terminal| cli.global.color.on(terminal, no_color());
    let color_stderr = on(std::io::stderr().is_terminal());
    let out = Output { json: cli.global.json, color: on(std::io::stdout().is_terminal()) };
    match run(cli, out, color_stderr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(color_stderr, out.json);
            failure.exit.into()
        }
    }
}

/// Handles `--help`, `--version` and command lines that cannot be parsed. With `--json` the error is printed as JSON.
fn usage_error(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && args::wants_json(std::env::args_os().skip(1)) {
        let failure = Failure::usage_error(error);
        failure.report(false, true);
        return failure.exit.into();
    }
    error.exit()
}

/// Runs the command to its end. `demo` and `dev` start on this very thread, so that their processes end with it.
fn run(cli: Cli, out: Output, color_stderr: bool) -> Result<(), Failure> {
    let runtime = runtime_for(&cli.command).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::usage(format!("no threads can be started: {why}")))?;
    let ended = runtime.block_on(command(cli, out, color_stderr));
    // Does not wait for a blocked thread, such as a read of stdin.
    runtime.shutdown_background();
    ended
}

/// The runtime of a command. For a node it is the first of its loops, on this very thread.
fn runtime_for(command: &Command) -> Builder {
    match command {
        Command::Serve(args) => LoopThreads::first(args.pin),
        _ => Builder::new_multi_thread(),
    }
}

async fn command(cli: Cli, out: Output, color_stderr: bool) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Dev(args) => dev::run(out, &args, color_stderr).await,
        Command::Demo(DemoCommand::Partition) => demo::partition(out).await,
        Command::Demo(DemoCommand::Handoff) => demo::handoff(out).await,
        Command::Demo(DemoCommand::Grow) => demo::grow(out).await,
        Command::Demo(DemoCommand::Tenants) => demo::tenants(out).await,
        Command::Bench(args) => bench::run(global, out, &args).await,
        Command::Serve(args) => serve::run(out, &args, color_stderr).await,
        Command::Get(args) => object::get(global, out, &args).await,
        Command::Put(args) => object::put(global, out, &args).await,
        Command::Delete(args) => object::delete(global, out, &args).await,
        Command::Apply(args) => operation::apply(global, out, &args).await,
        Command::Query(args) => operation::query(global, out, &args).await,
        Command::Conflict(command) => conflict::run(global, out, command).await,
        Command::Explain(args) => explain::run(global, out, &args).await,
        Command::Status(args) => status::status(global, out, &args).await,
        Command::Node(NodeCommand::List) => node::list(global, out).await,
        Command::Node(NodeCommand::Drain { member }) => layout::drain(global, out, member).await,
        Command::Layout(command) => layout::run(global, out, command).await,
        Command::Exchange(command) => exchange::run(global, out, &command).await,
        Command::Bucket(command) => bucket::run(global, out, command).await,
        Command::Plugin(command) => plugin::run(global, out, command).await,
        Command::Token(command) => token::run(global, out, command).await,
        Command::Tenant(command) => tenant::run(global, out, command).await,
        Command::Audit(command) => audit::run(global, out, command).await,
        Command::Cert(command) => cert::run(global, out, &command),
        Command::Encryption(command) => encryption::run(out, &command),
        Command::Dashboard => out.bytes(rejoin_node::DASHBOARD.as_bytes()),
        Command::Completions(args) => completions::run(out, &args),
    }
}
