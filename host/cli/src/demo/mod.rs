//! Stories on a cluster of real processes: `demo partition`, a network split and its end, and `demo handoff`, a node
//! that is away and one that loses its disk; `demo grow`, a cluster that grows and shrinks; `demo tenants`, two teams
//! on one cluster. Each line that they print was read from the cluster, and each claim is checked.
//!
//! [`partition`](mod@partition), [`handoff`](mod@handoff), [`grow`](mod@grow) and [`tenants`](mod@tenants) have the
//! steps, [`cart_client`] reads and writes carts, [`printer`] prints and checks, [`steps`] has what they have in
//! common.

mod cart_client;
mod grow;
mod handoff;
mod partition;
mod printer;
mod steps;
mod tenants;

use std::time::{Duration, Instant};

use grow::{FOUNDERS, GrowDemo};
use handoff::HandoffDemo;
use partition::PartitionDemo;
use printer::Printer;
use tenants::TenantsDemo;

use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::signals::Signals;

/// Well above the time that the demo takes. A demo that takes longer hangs, and fails.
const LIMIT: Duration = Duration::from_secs(58);

/// Runs the demo of a network split.
///
/// # Errors
/// A claim that did not hold, or a cluster that does not start. The processes have ended in any case.
pub(crate) async fn partition(out: Output) -> Result<(), Failure> {
    tell(out, Processes::prepare_with_faults("demo", 3)?, PartitionDemo::run).await
}

/// Runs the demo of a node that is away.
///
/// # Errors
/// As [`partition`](fn@partition).
pub(crate) async fn handoff(out: Output) -> Result<(), Failure> {
    tell(out, Processes::prepare_with_faults("demo", 4)?, HandoffDemo::run).await
}

/// Runs the demo of a cluster that grows.
///
/// # Errors
/// As [`partition`](fn@partition).
pub(crate) async fn grow(out: Output) -> Result<(), Failure> {
    tell(out, Processes::prepare_growing("demo", 5, FOUNDERS)?, GrowDemo::run).await
}

/// Runs the demo of two teams on one cluster.
///
/// # Errors
/// As [`partition`](fn@partition).
pub(crate) async fn tenants(out: Output) -> Result<(), Failure> {
    tell(out, Processes::prepare("demo", 3)?, TenantsDemo::run).await
}

async fn tell(
    out: Output,
    mut processes: Processes,
    story: impl AsyncFnOnce(&mut Processes, Printer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let began = Instant::now();
    let printer = Printer::new(out);
    let mut interrupted = false;
    let done = tokio::select! {
        biased;
        () = signals.any() => {
            interrupted = true;
            Err(Failure::new(Exit::Negative, "the demo was interrupted"))
        }
        done = tokio::time::timeout(LIMIT, story(&mut processes, printer)) => {
            done.unwrap_or_else(|_| {
                let why = format!("the demo did not end within {} s", LIMIT.as_secs());
                Err(Failure::new(Exit::Retry, why))
            })
        }
    };
    if done.is_err() && !interrupted {
        processes.log_tails().iter().for_each(note);
    }
    processes.end().await;
    done?;
    printer.end(began.elapsed())
}
