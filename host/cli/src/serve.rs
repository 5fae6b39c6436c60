//! `serve`: one node, until a signal stops it or it fails.

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use rejoin_node::{Config, LoopThreads, Node, Platform};

use crate::args::{MAX_THREADS, ServeArgs};
use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::ready;
use crate::signals::{SignalAction, Signals};

/// The output of `--json` once the node serves.
#[derive(Serialize, Debug)]
struct Serving {
    node: String,
    address: String,
    admin: Option<String>,
}

pub(crate) async fn run(out: Output, args: &ServeArgs, color_stderr: bool) -> Result<(), Failure> {
    if args.with_parent {
        end_with_parent()?;
    }
    log(out.json, color_stderr, "info,lsm_tree=warn");
    descriptors::raise();
    let mut signals = Signals::listen()?;
    let path = args.config.display();
    let mut config = Config::load(&args.config).map_err(|why| Failure::usage(format!("{path}: {why}")).next(KEYS))?;
    config.released = ready::released()?;
    let (name, data) = (config.name.to_string(), config.data.display().to_string());
    // Ended at the end of this function, when the node has stopped.
    let loops = LoopThreads::start(args.threads.unwrap_or_else(processors), args.pin)
        .map_err(|why| Failure::usage(format!("{name} does not start: no threads can be started: {why}")))?;
    let platform = Platform { loops: loops.loops(), ..Platform::machine() };
    let started = tokio::select! {
        biased;
        // A node that waits until it may join can be stopped meanwhile.
        () = stopped(&mut signals) => {
            note(format!("{name} is stopped before it has started"));
            return Ok(());
        }
        started = Node::start_on(platform, config) => started,
    };
    let node = started.map_err(|why| Failure::usage(format!("{name} does not start: {why}")))?;
    loops.pin_first();
    let serving = Serving {
        node: name,
        address: node.address().to_string(),
        admin: node.admin_address().map(|address| address.to_string()),
    };
    if out.json {
        out.json(&serving)?;
    } else {
        let admin = serving.admin.as_ref().map_or_else(String::new, |admin| format!(", admin on {admin}"));
        out.line(format!("{} serves on {}{admin}, data in {data}", serving.node, serving.address))?;
    }
    let name = serving.node;
    let failed = until_it_ends(&node, &mut signals).await;
    if let Some(why) = failed {
        // The failure is reported below; an error of the stop adds nothing.
        let _ = node.stop().await;
        let what = format!("{name} has stopped: {why}");
        return Err(Failure::new(Exit::Negative, what)
            .next("remove the cause, then start it again: acknowledged writes are kept"));
    }
    note(format!("{name} is stopping: pending requests are completed first"));
    node.stop().await.map_err(|why| Failure::new(Exit::Negative, format!("{name}: {why}")))?;
    note(format!("{name} has stopped"));
    Ok(())
}

/// The processors that this process may use.
fn processors() -> u16 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(count).unwrap_or(MAX_THREADS).min(MAX_THREADS)
}

/// Waits for a signal to stop.
async fn stopped(signals: &mut Signals) {
    while !matches!(signals.next().await, SignalAction::Stop) {}
}

/// Waits for a signal to stop, or for a failure of the node, which is returned. SIGHUP reloads the certificates.
async fn until_it_ends(node: &Node, signals: &mut Signals) -> Option<String> {
    let failed = node.failed();
    let mut failed = std::pin::pin!(failed);
    loop {
        let hung_up = tokio::select! {
            biased;
            asked = signals.next() => match asked {
                SignalAction::Stop => return None,
                SignalAction::Reload => node.reload_certificates(),
            },
            why = &mut failed => return Some(why),
        };
        match hung_up {
            Ok(true) => note(format!("{}: the new certificates are in use", node.name())),
            Ok(false) => note(format!("{}: the certificate files are the ones in use", node.name())),
            Err(why) => note(format!("{}: the certificate files are not used: {why}", node.name())),
        }
    }
}

const KEYS: &str = "the keys and their defaults are in the reference page of the book (host/cli/book/reference.md)";

/// Logs to stderr. `REJOIN_LOG` sets the filter, such as `debug` or `rejoin_node=trace,warn`.
pub(crate) fn log(json: bool, color: bool, default: &str) {
    let filter = EnvFilter::try_from_env("REJOIN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
    // Fails if the process has a subscriber already, which then stays.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
}

/// Asks the kernel to kill this process when the thread that started it ends.
///
/// # Errors
/// The kernel refuses.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|why| Failure::usage(format!("cannot be tied to the parent process: {why}")))
}

/// Other systems have no such request.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent() -> Result<(), Failure> {
    Ok(())
}
