//! `serve`: one node, until it is asked to stop or has to.

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use rejoin_node::{Config, Node};

use crate::args::ServeArgs;
use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::signals::{Asked, Stop};

/// What `--json` prints once the node serves.
#[derive(Serialize, Debug)]
struct Serving {
    node: String,
    address: String,
    admin: Option<String>,
}

pub(crate) async fn run(out: Output, args: &ServeArgs, talk_in_color: bool) -> Result<(), Failure> {
    if args.with_parent {
        end_with_parent()?;
    }
    log(out.json, talk_in_color, "info,lsm_tree=warn");
    descriptors::raise();
    let mut stop = Stop::listen()?;
    let path = args.config.display();
    let config = Config::load(&args.config).map_err(|why| Failure::usage(format!("{path}: {why}")).next(KEYS))?;
    let (name, data) = (config.name.to_string(), config.data.display().to_string());
    let node = Node::start(config).await.map_err(|why| Failure::usage(format!("{name} does not start: {why}")))?;
    let serving =
        Serving { node: name, address: node.address().to_string(), admin: node.admin_address().map(|address| address.to_string()) };
    if out.json {
        out.json(&serving)?;
    } else {
        let admin = serving.admin.as_ref().map_or_else(String::new, |admin| format!(", admin on {admin}"));
        out.line(format!("{} serves on {}{admin}, data in {data}", serving.node, serving.address))?;
    }
    let name = serving.node;
    let failed = until_it_ends(&node, &mut stop).await;
    if let Some(why) = failed {
        // That it cannot end cleanly now says nothing new.
        let _ = node.stop().await;
        let what = format!("{name} has stopped: {why}");
        return Err(Failure::new(Exit::Negative, what).next("repair the cause, then start it again: acknowledged writes are kept"));
    }
    note(format!("{name} is stopping: requests under way end first"));
    node.stop().await.map_err(|why| Failure::new(Exit::Negative, format!("{name}: {why}")))?;
    note(format!("{name} has stopped"));
    Ok(())
}

/// Until the node is asked to stop, or has failed: then why. SIGHUP reads the certificates anew.
async fn until_it_ends(node: &Node, stop: &mut Stop) -> Option<String> {
    let failed = node.failed();
    let mut failed = std::pin::pin!(failed);
    loop {
        let hung_up = tokio::select! {
            biased;
            asked = stop.next() => match asked {
                Asked::Stop => return None,
                Asked::Reload => node.reload_certificates(),
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

/// Sends what the nodes have to tell to stderr. `REJOIN_LOG` chooses what, such as `debug` or `rejoin_node=trace,warn`.
pub(crate) fn log(json: bool, color: bool, default: &str) {
    let filter = EnvFilter::try_from_env("REJOIN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
    // A second subscriber in one process is no reason to fail.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
}

/// The kernel ends this process when the thread that started it ends, however that happens.
#[cfg(target_os = "linux")]
fn end_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|why| Failure::usage(format!("cannot be tied to the parent process: {why}")))
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent() -> Result<(), Failure> {
    Ok(())
}
