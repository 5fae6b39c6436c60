//! The process that checks laws: it reads a component from stdin, and writes lines to stdout.

use std::io::Write;
use std::time::{Duration, Instant};

use super::wire::{LawAnswer, LawRequest};
use super::{LawError, LawProgress, check_here};
use crate::compile::child;
use crate::escape::escape_untrusted;
use crate::json_line;
use crate::workers::panic_message;

/// The least time between two lines about the progress.
const EVERY: Duration = Duration::from_millis(200);

/// Checks the component of the request, after the process has limited itself.
///
/// # Errors
/// The request cannot be read, or the answer not be written.
pub(crate) fn work() -> Result<(), String> {
    let request = child::read_request()?;
    let checking = std::thread::Builder::new().name("laws".into()).stack_size(child::STACK_BYTES);
    let checked = checking.spawn(move || check(&request)).map_err(|why| why.to_string())?.join();
    let answer = checked.unwrap_or_else(|panic| {
        LawAnswer::NotTried(format!("the check failed: {}", escape_untrusted(&panic_message(&*panic))))
    });
    write(&answer)
}

fn check(request: &[u8]) -> LawAnswer {
    let read = json_line::split::<LawRequest>(request);
    let Some((modules, inputs, component)) = read.and_then(|(request, component)| {
        let (modules, inputs) = request.read()?;
        Some((modules, inputs, component))
    }) else {
        return LawAnswer::NotTried("the request is not one of a node of this release".into());
    };
    let mut last: Option<Instant> = None;
    let mut tell = |LawProgress { law, case, cases }: LawProgress| {
        if last.is_none_or(|last| last.elapsed() >= EVERY) {
            last = Some(Instant::now());
            // Without a reader the process is about to be killed.
            let _ = write(&LawAnswer::Checking { law, case, cases });
        }
    };
    match check_here((component, &inputs), &modules, &mut tell) {
        Ok(test) => LawAnswer::Checked(Box::new(test)),
        Err(LawError::Rejected(why)) => LawAnswer::Rejected(why),
        Err(why) => LawAnswer::NotTried(why.to_string()),
    }
}

fn write(answer: &LawAnswer) -> Result<(), String> {
    let line = json_line::to_line(answer).map_err(|why| why.to_string())?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(|why| format!("the answer cannot be written: {why}"))
}
