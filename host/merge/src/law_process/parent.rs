//! Runs a process that checks laws. All its output is bounded, and it is always waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Instant;

use rustix::process::Signal;

use super::wire::{LawRequest, read_line};
use super::{LawError, LawInputs, LawProcess, LawProgress};
use crate::compile::{CancelToken, child, parent};
use crate::escape::escape_untrusted;
use crate::json_line;
use crate::law_report::LawTest;
use crate::limits::ModuleLimits;

/// Bytes of all lines together. A report has the siblings of one counterexample for each law, up to four of a MiB in
/// two forms.
const ANSWER_BYTES: u64 = 128 << 20;

/// What the process has answered, if anything.
type Answer = Option<Result<LawTest, LawError>>;

/// What the waiting thread is told.
enum LawEvent {
    Line(Vec<u8>),
    End,
    Cancelled,
}

impl LawProcess {
    /// Checks the laws of a component in a process of its own, and returns when the process has ended.
    ///
    /// # Errors
    /// A [`LawError`]; [`LawError::TooCostly`] if the process exceeds a limit.
    pub(crate) fn check(
        &self,
        (component, inputs): (&[u8], &LawInputs),
        modules: &ModuleLimits,
        cancel: &CancelToken,
        watch: &mut dyn FnMut(LawProgress),
    ) -> Result<LawTest, LawError> {
        let request = json_line::to_line(&LawRequest::new(*modules, inputs)).map_err(not_tried)?;
        let arguments = child::arguments(child::LAW_VERB, self.limits.memory_bytes, self.limits.cpu_seconds);
        let mut process = parent::spawn(&self.program, &arguments).map_err(|why| {
            not_tried(format!("the process {} that checks laws cannot be started: {why}", self.program.display()))
        })?;
        let outcome = self.supervise(&mut process, [&request, component], cancel, watch);
        // No effect on a process that has ended. Any other must not go on.
        let _ = process.kill();
        let status = process.wait().map_err(not_tried)?;
        match outcome? {
            (Some(answer), _) => answer,
            (None, words) => Err(self.exit_reason(status, &words)),
        }
    }

    /// Sends the request and reads lines until the last one, the wall-clock limit or a cancellation.
    fn supervise(
        &self,
        process: &mut Child,
        request: [&[u8]; 2],
        cancel: &CancelToken,
        watch: &mut dyn FnMut(LawProgress),
    ) -> Result<(Answer, String), LawError> {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(not_tried("the process that checks laws has no pipes"));
        };
        let (told, events) = channel();
        let wake = told.clone();
        // The receiver may have finished.
        if !cancel.watch(move || drop(wake.send(LawEvent::Cancelled))) {
            return Err(not_tried("the check was cancelled"));
        }
        let until = Instant::now() + self.limits.wall;
        std::thread::scope(|scope| {
            let thread = |name: &str| std::thread::Builder::new().name(name.into());
            thread("laws-pipe")
                .spawn_scoped(scope, move || exchange(stdin, stdout, request, &told))
                .map_err(not_tried)?;
            // Read while the process runs: with a full pipe it would block.
            let words = thread("laws-words").spawn_scoped(scope, || parent::read_stderr(stderr)).map_err(not_tried)?;
            let answer = loop {
                match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(LawEvent::Line(line)) => match read_line(&line) {
                        Some(Ok(progress)) => watch(progress),
                        Some(Err(answer)) => break Ok(Some(answer)),
                        None => break Ok(None),
                    },
                    Ok(LawEvent::End) => break Ok(None),
                    Ok(LawEvent::Cancelled) => break Err(not_tried("the check was cancelled")),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        break Err(LawError::TooCostly { limit: format!("{:?}", self.limits.wall) });
                    }
                }
            };
            // Before the end of the scope, which waits for the pipe threads: they end with the process.
            let _ = process.kill();
            Ok((answer?, words.join().unwrap_or_default()))
        })
    }

    /// Why a process ended without an answer.
    fn exit_reason(&self, status: ExitStatus, stderr: &str) -> LawError {
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        let memory = ["memory allocation", "out of memory", "Cannot allocate memory", "os error 12"];
        if is(Signal::XCPU) {
            return LawError::TooCostly { limit: format!("{} s of a processor", self.limits.cpu_seconds) };
        }
        if memory.iter().any(|words| stderr.contains(words)) {
            return LawError::TooCostly { limit: format!("{} MiB of memory", self.limits.memory_bytes >> 20) };
        }
        let said = escape_untrusted(stderr.trim());
        not_tried(format!("{} ended with {status} and no report (it said: {said})", self.program.display()))
    }
}

/// Writes the request and tells each line of the answer.
fn exchange(mut stdin: ChildStdin, stdout: ChildStdout, request: [&[u8]; 2], told: &Sender<LawEvent>) {
    let written = request.iter().try_for_each(|part| stdin.write_all(part));
    drop(stdin);
    let mut lines = BufReader::new(stdout.take(ANSWER_BYTES));
    while written.is_ok() {
        let mut line = Vec::new();
        match lines.read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => break,
        }
        // The receiver may have finished.
        if told.send(LawEvent::Line(line)).is_err() {
            return;
        }
    }
    let _ = told.send(LawEvent::End);
}

fn not_tried(why: impl std::fmt::Display) -> LawError {
    LawError::NotTried { reason: why.to_string() }
}
