//! The command line, as a script uses it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::process::sibling;

/// How a command has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The exit code; none if it was killed.
    pub code: Option<i32>,
    /// What it has written to stdout.
    pub out: Vec<u8>,
    /// What it has written to stderr.
    pub talk: String,
}

impl Ran {
    /// stdout as text, without the last newline.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text").trim_end()
    }

    /// stdout as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|why| panic!("no JSON ({why}): {self:?}"))
    }

    /// It must have ended with that code, and have said that.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn said(&self, code: i32, words: &str) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.talk.contains(words), "{words:?} is missing in {self:#?}");
        self
    }

    /// It must have succeeded.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn done(&self) -> &Self {
        self.said(0, "")
    }
}

/// Runs `rejoin` in a directory, with a profile if there is one, and something on stdin.
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

/// Runs the examples of the ready-made merges.
///
/// # Panics
/// If they cannot be run.
#[must_use]
pub fn merges(dir: &Path, profile: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(sibling("rejoin-example-merges"));
    command.arg("--profile").arg(profile).args(arguments);
    run(command, dir, None, b"")
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command, dir: &Path, profile: Option<&Path>, stdin: &[u8]) -> Ran {
    command.current_dir(dir).env_remove("REJOIN_PROFILE").env("NO_COLOR", "1");
    if let Some(profile) = profile {
        command.env("REJOIN_PROFILE", profile);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    // One that does not read its stdin may have closed it.
    let _ = child.stdin.take().expect("it was piped").write_all(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it can be waited for");
    Ran { code: status.code(), out: stdout, talk: String::from_utf8_lossy(&stderr).into_owned() }
}
