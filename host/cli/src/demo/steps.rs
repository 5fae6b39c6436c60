//! What the stories have in common: how they begin, and how they wait.

use std::time::{Duration, Instant};

use rejoin_client::Client;

use crate::demo::printer::Printer;
use crate::dev::wait_connected;
use crate::failure::{Exit, Failure};
use crate::processes::Processes;

/// The pause between two looks at the cluster.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts the nodes, tells where they are, and waits until they are connected.
///
/// # Errors
/// A node that does not start, or ends at once.
pub(super) async fn begin(processes: &mut Processes, printer: &Printer, title: &str) -> Result<Client, Failure> {
    printer.chapter(title)?;
    let ids = processes.start()?;
    for (node, id) in processes.cluster.nodes().iter().zip(ids) {
        printer.line(&format!("{} is process {id}, on {}", node.name(), node.address))?;
    }
    let cluster = processes.cluster.clone();
    tokio::select! {
        biased;
        client = wait_connected(&cluster) => client,
        ended = processes.one_has_ended() => Err(ended),
    }
}

/// Looks again and again until there is something to see.
///
/// # Errors
/// What `look` fails with; and after `limit` one that says what is `not_yet` so.
pub(super) async fn until<T>(
    limit: Duration,
    not_yet: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if Instant::now() >= end {
            return Err(Failure::new(Exit::Retry, not_yet));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
