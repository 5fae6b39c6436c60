//! Errors: a kind for programs ([`ErrorKind`]) and a text for people.

use std::fmt;
use std::time::Duration;

use rejoin_proto::{ErrorCode, ErrorReply};

use crate::Context;

/// The result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error, for programs.
///
/// ```
/// use rejoin_client::ErrorKind;
///
/// assert!(ErrorKind::Overloaded.is_retryable());
/// // The outcome of the write is not known: read the key again and decide.
/// assert!(!ErrorKind::Unknown.is_retryable());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration of the client is invalid: no seed, an unreadable CA or profile, a malformed name.
    Config,
    /// A value could not be encoded, or a stored one could not be decoded.
    Codec,
    /// The object has several siblings that were not merged: the bucket has no plugin, or the plugin failed.
    Conflict,
    /// No node could be reached. Nothing was sent.
    Unreachable,
    /// The other side has no certificate of a node from the given authority. Nothing was sent.
    Untrusted,
    /// The request is invalid. Retrying it does not help.
    BadRequest,
    /// The token is unknown, revoked, or does not allow this.
    Denied,
    /// No such bucket, plugin or token.
    NotFound,
    /// The object to be created exists.
    Exists,
    /// The context is malformed, altered, or of another key.
    BadContext,
    /// The key, value, context or module is above a limit.
    TooLarge,
    /// The object is at its sibling limit and could not be folded.
    TooManySiblings,
    /// Too few replicas can be reached. Nothing was written.
    Unavailable,
    /// The time-out passed before an answer came. Nothing was written.
    TimedOut,
    /// The outcome of a write is not known: it was sent and may have taken effect, or may still do so.
    Unknown,
    /// The node has too many queued requests. Nothing was done.
    Overloaded,
    /// The request was routed by an outdated layout. Nothing was done.
    StaleLayout,
    /// The record was changed meanwhile. Read it again.
    VersionConflict,
    /// The disk is full: writes are refused, reads go on.
    DiskFull,
    /// The replica cannot read its copy. The write was not done.
    Damaged,
    /// The plugin was refused.
    PluginRejected,
    /// The node uses another protocol version, or sent an unexpected reply.
    Protocol,
    /// The node is stopping or has failed.
    Stopping,
    /// The bucket's plugin refuses the value, now and at every retry. Nothing was written.
    InvalidValue,
    /// The node admits no clients: it is starting, or it and its peers disagree about the cluster. Nothing was done.
    NotServing,
    /// A quota of the tenant or bucket is used up. Nothing was done. The message has the limit, and when to try again.
    QuotaExceeded,
    /// Nodes that are alive are not ready to run a plugin that a bucket is to get. Nothing was changed. The message has
    /// the nodes; they are ready soon.
    PluginNotReady,
}

impl ErrorKind {
    /// Whether this call certainly wrote nothing, and the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        use ErrorKind::{
            DiskFull, NotServing, Overloaded, PluginNotReady, StaleLayout, Stopping, TimedOut, Unavailable, Unreachable,
        };
        matches!(
            self,
            Unreachable
                | Unavailable
                | TimedOut
                | Overloaded
                | StaleLayout
                | Stopping
                | DiskFull
                | NotServing
                | PluginNotReady
        )
    }
}

impl From<ErrorCode> for ErrorKind {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BadRequest => Self::BadRequest,
            ErrorCode::Denied => Self::Denied,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Exists => Self::Exists,
            ErrorCode::BadContext => Self::BadContext,
            ErrorCode::TooLarge => Self::TooLarge,
            ErrorCode::TooManySiblings => Self::TooManySiblings,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::TimedOut => Self::TimedOut,
            ErrorCode::Unknown => Self::Unknown,
            ErrorCode::Overloaded => Self::Overloaded,
            ErrorCode::QuotaExceeded => Self::QuotaExceeded,
            ErrorCode::StaleLayout => Self::StaleLayout,
            ErrorCode::VersionConflict => Self::VersionConflict,
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::Damaged => Self::Damaged,
            ErrorCode::PluginRejected => Self::PluginRejected,
            ErrorCode::Stopping => Self::Stopping,
            ErrorCode::InvalidValue => Self::InvalidValue,
            ErrorCode::NotServing => Self::NotServing,
            ErrorCode::PluginNotReady => Self::PluginNotReady,
            // A code of a later release.
            _ => Self::Protocol,
        }
    }
}

/// Why a replica does not count towards a quorum, as the coordinating node reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NodeFailure {
    /// The node's name.
    pub node: String,
    /// For people.
    pub why: String,
}

/// A failed operation. Its text says what happened, why, and what to do.
///
/// ```no_run
/// use rejoin_client::{Bytes, Client, ErrorKind};
///
/// # async fn run(client: Client) -> rejoin_client::Result<()> {
/// match client.bucket::<Bytes>("notes")?.put("k", b"v".to_vec()).create().await {
///     Ok(written) => println!("{} of {} replicas have it", written.acked, written.needed),
///     Err(error) if error.kind() == ErrorKind::Exists => println!("the key exists"),
///     Err(error) if error.is_retryable() => println!("later: {error} (got {})", error.got()),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Error(Box<Detail>);

#[derive(Clone, Debug)]
struct Detail {
    kind: ErrorKind,
    message: String,
    needed: u8,
    got: u8,
    why: Vec<NodeFailure>,
    retry_after: Option<Duration>,
    context: Option<Context>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let detail = Detail {
            kind,
            message: message.into(),
            needed: 0,
            got: 0,
            why: Vec::new(),
            retry_after: None,
            context: None,
        };
        Self(Box::new(detail))
    }

    /// An error of kind [`ErrorKind::Unknown`], with the reason.
    pub(crate) fn unknown(why: impl fmt::Display) -> Self {
        let advice = "it may or may not have been written: read the key again before writing anew";
        Self::new(ErrorKind::Unknown, format!("the outcome of the write is unknown ({why}); {advice}"))
    }

    /// The same of a change that an administrator has asked for.
    pub(crate) fn unknown_change(why: impl fmt::Display) -> Self {
        let advice = "it may or may not have been made: look whether it was before you ask for it again";
        Self::new(ErrorKind::Unknown, format!("the outcome of the change is unknown ({why}); {advice}"))
    }

    pub(crate) fn quorum(mut self, needed: u8, got: u8) -> Self {
        (self.0.needed, self.0.got) = (needed, got);
        self
    }

    pub(crate) fn with_context(mut self, context: Context) -> Self {
        self.0.context = Some(context);
        self
    }

    /// Ranks the errors of an operation's attempts, to report the most specific one: the refusal of a request before a
    /// temporary problem of a node, and an unreachable node last.
    pub(crate) fn specificity(&self) -> u8 {
        use ErrorKind::{
            Damaged, DiskFull, NotServing, Overloaded, StaleLayout, Stopping, TimedOut, Unavailable, Unknown,
            Unreachable,
        };
        match self.0.kind {
            Unreachable => 0,
            TimedOut if self.0.needed == 0 => 1,
            StaleLayout | Stopping => 2,
            Overloaded => 3,
            Unavailable | TimedOut | NotServing => 4,
            DiskFull | Damaged => 5,
            Unknown => 7 + u8::from(self.0.needed > 0),
            _ => 6,
        }
    }

    /// The kind, for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether this call certainly wrote nothing, and the same call may succeed later. The client has used up its own
    /// retries.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// With a quorum error: the answers needed, otherwise 0.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.0.needed
    }

    /// With a quorum error: the answers received, otherwise 0.
    #[must_use]
    pub fn got(&self) -> u8 {
        self.0.got
    }

    /// With a quorum error: the replicas that do not count, and why.
    #[must_use]
    pub fn why(&self) -> &[NodeFailure] {
        &self.0.why
    }

    /// The pause that the node asks for before a retry.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// With [`ErrorKind::Unknown`]: the context after the write, if the coordinating node answered.
    #[must_use]
    pub fn context(&self) -> Option<&Context> {
        self.0.context.as_ref()
    }
}

impl From<ErrorReply> for Error {
    fn from(reply: ErrorReply) -> Self {
        let retry_after = (reply.retry_after_ms > 0).then(|| Duration::from_millis(u64::from(reply.retry_after_ms)));
        let why = reply.why.into_iter().map(|v| NodeFailure { node: v.node.to_string(), why: v.why }).collect();
        let (needed, got) = (reply.needed, reply.got);
        let kind = reply.code.into();
        Self(Box::new(Detail { kind, message: reply.message, needed, got, why, retry_after, context: None }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if self.0.needed > 0 {
            write!(f, " ({} of {} needed)", self.0.got, self.0.needed)?;
        }
        self.0.why.iter().try_for_each(|failure| write!(f, "; {}: {}", failure.node, failure.why))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{Name, NodeFailure};

    #[test]
    fn a_quorum_error_says_needed_got_and_why() {
        let why = vec![NodeFailure { node: Name::new("n2").unwrap(), why: "no answer".into() }];
        let error =
            Error::from(ErrorReply::new(ErrorCode::Unavailable, "too few replicas").quorum(2, 1, why).retry_after(40));
        assert_eq!((error.needed(), error.got(), error.why().len()), (2, 1, 1));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(40)));
        assert_eq!(error.to_string(), "too few replicas (1 of 2 needed); n2: no answer");
    }

    #[test]
    fn kinds_and_codes_agree_on_what_may_be_retried() {
        let codes = [
            ErrorCode::BadRequest,
            ErrorCode::Denied,
            ErrorCode::NotFound,
            ErrorCode::Exists,
            ErrorCode::BadContext,
            ErrorCode::TooLarge,
            ErrorCode::TooManySiblings,
            ErrorCode::Unavailable,
            ErrorCode::TimedOut,
            ErrorCode::Unknown,
            ErrorCode::Overloaded,
            ErrorCode::StaleLayout,
            ErrorCode::VersionConflict,
            ErrorCode::DiskFull,
            ErrorCode::Damaged,
            ErrorCode::PluginRejected,
            ErrorCode::Protocol,
            ErrorCode::Stopping,
            ErrorCode::InvalidValue,
            ErrorCode::NotServing,
            ErrorCode::QuotaExceeded,
            ErrorCode::PluginNotReady,
        ];
        for code in codes {
            assert_eq!(ErrorKind::from(code).is_retryable(), code.is_retryable(), "{code:?}");
        }
    }
}
