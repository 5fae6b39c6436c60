//! Runs a compiling process. All its output is bounded, and it is always waited for.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

use rustix::process::Signal;

use super::{CancelToken, ChildCompiler, Compiled, child, wire};
use crate::escape::escape_untrusted;
use crate::fault::Rejection;
use crate::json_line;
use crate::limits::ModuleLimits;
use crate::scan::check_header;

/// Bytes of an answer besides the machine code.
const WORDS_BYTES: u64 = 256 << 10;
/// Bytes of stderr that are used.
const STDERR_BYTES: u64 = 4 << 10;

/// The events that end the wait for a process.
#[derive(Debug)]
pub(super) enum ChildEvent {
    /// It has written its whole answer.
    Answered(Vec<u8>),
    /// The compilation was cancelled.
    Cancelled,
}

impl ChildCompiler {
    /// Compiles a component in a process of its own, and returns when the process has ended.
    ///
    /// # Errors
    /// A [`Rejection`]; [`Rejection::TooCostly`] if the process exceeds a limit.
    pub fn compile(
        &self,
        component: &[u8],
        limits: &ModuleLimits,
        cancel: &CancelToken,
    ) -> Result<Compiled, Rejection> {
        check_header(component, limits)?;
        let request = json_line::to_line(limits).map_err(not_tried)?;
        let mut process = self.spawn()?;
        let outcome = self.supervise(&mut process, component, &request, cancel);
        // No effect on a process that has ended. Any other must not go on.
        let _ = process.kill();
        let status = process.wait().map_err(not_tried)?;
        let (answer, words) = outcome?;
        let too_much_code =
            || Rejection::TooCostly { limit: format!("{} bytes of machine code", self.limits.artefact_bytes) };
        if answer.len() as u64 > self.most_bytes() {
            return Err(too_much_code());
        }
        match wire::read_answer(&answer).filter(|_| status.success()) {
            Some((_, artefact)) if artefact.len() > self.limits.artefact_bytes => Err(too_much_code()),
            Some((verdict, artefact)) => verdict
                .into_result(component, artefact)
                .map_err(|rejection| rejection.unwrap_or_else(|| self.out_of_memory())),
            None => Err(self.exit_reason(status, &words)),
        }
    }

    fn spawn(&self) -> Result<Child, Rejection> {
        let arguments = child::arguments(child::CHILD_VERB, self.limits.memory_bytes, self.limits.cpu_seconds);
        spawn(&self.program, &arguments).map_err(|why| {
            let reason = format!("the compiling process {} cannot be started: {why}", self.program.display());
            Rejection::NotTried { reason }
        })
    }

    /// Sends the request and waits for the answer, the wall-clock limit or a cancellation.
    fn supervise(
        &self,
        process: &mut Child,
        component: &[u8],
        request: &[u8],
        cancel: &CancelToken,
    ) -> Result<(Vec<u8>, String), Rejection> {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(not_tried("the compiling process has no pipes"));
        };
        let (told, events) = channel();
        let wake = told.clone();
        // The receiver may have finished.
        if !cancel.watch(move || drop(wake.send(ChildEvent::Cancelled))) {
            return Err(cancelled());
        }
        let most = self.most_bytes();
        std::thread::scope(|scope| {
            let exchange =
                move || drop(told.send(ChildEvent::Answered(exchange(stdin, stdout, [request, component], most))));
            std::thread::Builder::new().name("compile-pipe".into()).spawn_scoped(scope, exchange).map_err(not_tried)?;
            // Read while the process runs: with a full pipe it would block.
            let listen = || read_stderr(stderr);
            let words = std::thread::Builder::new()
                .name("compile-words".into())
                .spawn_scoped(scope, listen)
                .map_err(not_tried)?;
            let event = events.recv_timeout(self.limits.wall);
            // Before the end of the scope, which waits for the pipe threads: they end with the process.
            let _ = process.kill();
            match event {
                Ok(ChildEvent::Answered(answer)) => Ok((answer, words.join().unwrap_or_default())),
                Ok(ChildEvent::Cancelled) => Err(cancelled()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    Err(Rejection::TooCostly { limit: format!("{:?}", self.limits.wall) })
                }
            }
        })
    }

    fn most_bytes(&self) -> u64 {
        WORDS_BYTES + self.limits.artefact_bytes as u64
    }

    /// Why a process ended without an answer.
    fn exit_reason(&self, status: ExitStatus, stderr: &str) -> Rejection {
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        let memory = ["memory allocation", "out of memory", "Cannot allocate memory", "os error 12"];
        if is(Signal::XCPU) {
            return Rejection::TooCostly { limit: format!("{} s of a processor", self.limits.cpu_seconds) };
        }
        if is(Signal::KILL) {
            return not_tried("the compiling process was killed: is this machine short of memory?");
        }
        if memory.iter().any(|words| stderr.contains(words)) {
            return self.out_of_memory();
        }
        if status.signal().is_some() {
            return Rejection::Uncompilable { reason: format!("the compiler crashed on it ({status})") };
        }
        let program = self.program.display();
        let said = escape_untrusted(stderr.trim());
        Rejection::NotTried {
            reason: format!(
                "{program} ended with {status} and no answer (it said: {said}); is it a program of this release that \
                    compiles?"
            ),
        }
    }

    fn out_of_memory(&self) -> Rejection {
        Rejection::TooCostly { limit: format!("{} MiB of memory", self.limits.memory_bytes >> 20) }
    }
}

/// Starts a child process with pipes.
pub(crate) fn spawn(program: &Path, arguments: &[String]) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0("rejoin").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own: Ctrl-C at a terminal is for the node, which ends its processes itself. No
    // environment: it may hold credentials, which a process that reads untrusted bytes must not have.
    command.current_dir("/").env_clear().env("RUST_BACKTRACE", "0").process_group(0);
    command.spawn()
}

/// Writes the request and reads the answer, which is empty or incomplete if the process ends early.
fn exchange(mut stdin: ChildStdin, stdout: ChildStdout, request: [&[u8]; 2], most: u64) -> Vec<u8> {
    let written = request.iter().try_for_each(|part| stdin.write_all(part));
    drop(stdin);
    let mut answer = Vec::new();
    if let Err(why) = written.and_then(|()| stdout.take(most + 1).read_to_end(&mut answer).map(drop)) {
        tracing::debug!(%why, "a compiling process has ended early");
    }
    answer
}

/// The first bytes of stderr. The rest is read and dropped.
pub(crate) fn read_stderr(mut stderr: ChildStderr) -> String {
    let mut words = Vec::new();
    // An unreadable text counts as empty: the exit status says more.
    let read = stderr.by_ref().take(STDERR_BYTES).read_to_end(&mut words);
    let _ = read.and_then(|_| std::io::copy(&mut stderr, &mut std::io::sink()));
    String::from_utf8_lossy(&words).into_owned()
}

fn not_tried(why: impl std::fmt::Display) -> Rejection {
    Rejection::NotTried { reason: why.to_string() }
}

fn cancelled() -> Rejection {
    not_tried("the compilation was cancelled")
}
