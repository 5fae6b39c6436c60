//! `demo partition`: a network split and its end, on a cluster of real processes. Each line that it prints was read
//! from the cluster, and each claim is checked.
//!
//! [`partition`](mod@partition) has the steps, [`cart_client`] reads and writes carts, [`printer`] prints and checks.

mod cart_client;
mod partition;
mod printer;

use std::time::{Duration, Instant};

use partition::PartitionDemo;
use printer::Printer;

use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::signals::Signals;

/// Well above the time that the demo takes. A demo that takes longer hangs, and fails.
const LIMIT: Duration = Duration::from_secs(58);

/// Runs the demo.
///
/// # Errors
/// A claim that did not hold, or a cluster that does not start. The processes have ended in any case.
pub(crate) async fn partition(out: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let began = Instant::now();
    let mut processes = Processes::prepare_with_faults("demo", 3)?;
    let printer = Printer::new(out);
    let mut interrupted = false;
    let done = tokio::select! {
        biased;
        () = signals.any() => {
            interrupted = true;
            Err(Failure::new(Exit::Negative, "the demo was interrupted"))
        }
        done = tokio::time::timeout(LIMIT, PartitionDemo::run(&mut processes, printer)) => {
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
