//! Failures of commands: an exit code for scripts, and a text for people.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use rejoin_client::ErrorKind;

/// The exit codes. 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A negative answer: not found, or it exists already.
    Negative = 1,
    /// Usage or configuration: the same command will fail again.
    Usage = 2,
    /// No node could be reached.
    Unreachable = 3,
    /// A quorum or the time-out was missed: it may succeed later.
    Retry = 4,
    /// The token does not allow it.
    Denied = 5,
    /// The record was changed meanwhile.
    Stale = 6,
    /// The plugin was refused.
    Rejected = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code for an error of the SDK.
pub(crate) fn exit_of(kind: ErrorKind) -> Exit {
    use ErrorKind as Kind;
    match kind {
        Kind::NotFound | Kind::Exists | Kind::Conflict | Kind::TooManySiblings => Exit::Negative,
        Kind::Unreachable | Kind::Untrusted | Kind::Protocol => Exit::Unreachable,
        Kind::Unavailable
        | Kind::TimedOut
        | Kind::Unknown
        | Kind::Overloaded
        | Kind::QuotaExceeded
        | Kind::DiskFull
        | Kind::Damaged
        | Kind::StaleLayout
        | Kind::Stopping
        | Kind::NotServing
        | Kind::PluginNotReady => Exit::Retry,
        Kind::Denied => Exit::Denied,
        Kind::VersionConflict => Exit::Stale,
        Kind::PluginRejected => Exit::Rejected,
        // Config, codec, bad request, bad context, too large, invalid value, and kinds of a later SDK.
        _ => Exit::Usage,
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What happened and why. Empty if it was printed already.
    what: String,
    /// The next command, if the text does not name it.
    next: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), next: None }
    }

    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A command line that cannot be parsed. The first paragraph of clap's text has the error, the rest the usage.
    pub(crate) fn usage_error(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let lines = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (what, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self::usage("a subcommand is missing").next("`rejoin --help` lists them");
        }
        let failure = Self::usage(lines(what.trim_start_matches("error: ")));
        if rest.is_empty() { failure } else { failure.next(lines(rest)) }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, what: &str, why: &std::io::Error) -> Self {
        Self::usage(format!("{} cannot be {what}: {why}", path.display()))
    }

    /// An exit code without a text.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Sets the advice that is printed after `next:`.
    pub(crate) fn next(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// Prefixes the text with the failed step.
    pub(crate) fn during(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    /// Prints it on stderr, with `--json` as one object, so that stdout has data only.
    pub(crate) fn report(&self, color: bool, json: bool) {
        if json {
            if !self.what.is_empty() {
                eprintln!("{}", serde_json::json!({ "error": self.what, "exit": self.exit as u8, "next": self.next }));
            }
            return;
        }
        let (red, plain) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        if !self.what.is_empty() {
            eprintln!("{red}error:{plain} {}", self.what);
        }
        if let Some(next) = &self.next {
            eprintln!("next: {next}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<rejoin_client::Error> for Failure {
    fn from(error: rejoin_client::Error) -> Self {
        let failure = Self::new(exit_of(error.kind()), &error);
        match error.kind() {
            ErrorKind::Unreachable => failure.next("start the nodes, or check the seeds in the profile"),
            ErrorKind::Denied => failure.next(
                "check the token in the profile; an administrator makes another with `rejoin token create NAME --scope \
                 SCOPE`",
            ),
            ErrorKind::Unavailable | ErrorKind::TimedOut => {
                failure.next("`rejoin status` shows which nodes are up; then try again")
            }
            ErrorKind::VersionConflict => failure.next("read it again and repeat the change"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_map_to_the_documented_codes() {
        let table = [
            (ErrorKind::NotFound, 1),
            (ErrorKind::Exists, 1),
            (ErrorKind::Config, 2),
            (ErrorKind::BadContext, 2),
            (ErrorKind::TooLarge, 2),
            (ErrorKind::Unreachable, 3),
            (ErrorKind::Untrusted, 3),
            (ErrorKind::Unavailable, 4),
            (ErrorKind::TimedOut, 4),
            (ErrorKind::Unknown, 4),
            (ErrorKind::Overloaded, 4),
            (ErrorKind::NotServing, 4),
            (ErrorKind::PluginNotReady, 4),
            (ErrorKind::Denied, 5),
            (ErrorKind::VersionConflict, 6),
            (ErrorKind::PluginRejected, 7),
        ];
        for (kind, code) in table {
            assert_eq!(exit_of(kind) as u8, code, "{kind:?}");
        }
    }

    #[test]
    fn whatever_may_be_retried_exits_with_3_or_4() {
        let kinds = [
            ErrorKind::Unreachable,
            ErrorKind::Unavailable,
            ErrorKind::Overloaded,
            ErrorKind::StaleLayout,
            ErrorKind::DiskFull,
            ErrorKind::PluginNotReady,
        ];
        for kind in kinds {
            assert!(kind.is_retryable() && matches!(exit_of(kind), Exit::Unreachable | Exit::Retry), "{kind:?}");
        }
    }
}
