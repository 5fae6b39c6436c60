//! `demo partition`: a story told by a cluster of real processes. Everything it says was looked up in the cluster, and
//! every claim is checked.

mod shopper;
mod story;
mod teller;

use std::time::{Duration, Instant};

use story::Story;
use teller::Teller;

use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::signals::Stop;

/// Longer than the story ever takes; when it is over something hangs, and that is a failure.
const LIMIT: Duration = Duration::from_secs(58);

/// Tells the story of a split.
///
/// # Errors
/// A claim that did not hold, or a cluster that does not start. The processes have ended in any case.
pub(crate) async fn partition(out: Output) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let began = Instant::now();
    let mut processes = Processes::prepare_with_faults("demo", 3)?;
    let teller = Teller::new(out);
    let mut interrupted = false;
    let told = tokio::select! {
        biased;
        () = stop.asked() => {
            interrupted = true;
            Err(Failure::new(Exit::Negative, "the demo was interrupted"))
        }
        told = tokio::time::timeout(LIMIT, Story::tell(&mut processes, teller)) => {
            told.unwrap_or_else(|_| Err(Failure::new(Exit::Retry, format!("the demo is not through after {} s", LIMIT.as_secs()))))
        }
    };
    if told.is_err() && !interrupted {
        processes.last_words().iter().for_each(note);
    }
    processes.end().await;
    told?;
    teller.end(began.elapsed())
}
