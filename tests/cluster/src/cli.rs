//! Runs the command line as a script does.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::sibling;
use crate::wait::PATIENCE;

/// The result of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub out: Vec<u8>,
    /// Everything on stderr, as text.
    pub talk: String,
}

impl Ran {
    /// stdout as text, without the last newline.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text").trim_end()
    }

    /// stdout as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|why| panic!("no JSON ({why}): {self:?}"))
    }

    /// Asserts the exit code, and that stderr contains these words.
    ///
    /// # Panics
    /// If the code differs or the words are missing.
    #[track_caller]
    pub fn said(&self, code: i32, words: &str) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.talk.contains(words), "{words:?} is missing in {self:#?}");
        self
    }

    /// Asserts success.
    ///
    /// # Panics
    /// If the exit code is not 0.
    #[track_caller]
    pub fn done(&self) -> &Self {
        self.said(0, "")
    }
}

/// Runs `rejoin` in a directory, with a profile if there is one, and with these bytes on stdin.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn rejoin(dir: &Path, profile: Option<&Path>, arguments: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(sibling("rejoin"));
    command.args(arguments);
    run(command, dir, profile, stdin)
}

/// Runs the example service.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn cart_service(dir: &Path, profile: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(sibling("rejoin-example-cart-service"));
    command.arg("--profile").arg(profile).args(arguments);
    run(command, dir, None, b"")
}

/// Runs `rejoin serve` with a configuration that it must refuse. A node that starts nevertheless is killed.
///
/// # Panics
/// If it cannot be run, or has not ended after 20 s.
#[must_use]
#[track_caller]
pub fn refused_start(dir: &Path, config: &str) -> Ran {
    let mut command = Command::new(sibling("rejoin"));
    command.args(["serve", "--config", config]);
    let child = spawn(command, dir, None);
    let pid = Pid::from_child(&child);
    let (ended, ran) = mpsc::channel();
    let waiting = std::thread::spawn(move || ended.send(wait(child)));
    let in_time = ran.recv_timeout(PATIENCE);
    if in_time.is_err() {
        // The child is still waited for, so the id is its own.
        kill_process(pid, Signal::KILL).expect("it can be killed");
    }
    let ran = in_time.or_else(|_| ran.recv());
    let _ = waiting.join();
    let ran = ran.expect("the thread sends the result");
    assert!(ran.code.is_some(), "the node was not refused, but has started: {ran:#?}");
    ran
}

/// Runs a command to its end.
pub(crate) fn run(command: Command, dir: &Path, profile: Option<&Path>, stdin: &[u8]) -> Ran {
    let mut child = spawn(command, dir, profile);
    // A command that does not read its stdin may have closed it.
    let _ = child.stdin.take().expect("it was piped").write_all(stdin);
    wait(child)
}

fn spawn(mut command: Command, dir: &Path, profile: Option<&Path>) -> Child {
    command.current_dir(dir).env_remove("REJOIN_PROFILE").env("NO_COLOR", "1");
    if let Some(profile) = profile {
        command.env("REJOIN_PROFILE", profile);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it can be started")
}

fn wait(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it can be waited for");
    Ran { code: status.code(), out: stdout, talk: String::from_utf8_lossy(&stderr).into_owned() }
}
