//! What a request can be answered with instead of a result.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Name;

/// What went wrong, for programs. The order is frozen: codes are only ever added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request makes no sense; retrying it will not help.
    BadRequest,
    /// The token is unknown, withdrawn, or does not allow this.
    Denied,
    /// No such bucket, plugin or token.
    NotFound,
    /// What was to be created is already there.
    Exists,
    /// The context is malformed, altered or another key's.
    BadContext,
    /// The key, value, context or module is above a limit.
    TooLarge,
    /// The object is at its sibling limit and could not be folded.
    TooManySiblings,
    /// Too few replicas can be reached. Nothing was written.
    Unavailable,
    /// The deadline passed before enough replicas had answered a read.
    TimedOut,
    /// A write did not reach its quorum in time. It may still take effect.
    Unknown,
    /// Too much work is waiting. Nothing was done; try again after the given time.
    Overloaded,
    /// The request was routed by a layout this node has moved on from.
    StaleLayout,
    /// Someone else changed it first; read it again.
    VersionConflict,
    /// The disk is full: writes are refused, reads go on.
    DiskFull,
    /// This replica cannot read what it has stored. A write that is answered so was not done.
    Damaged,
    /// The plugin was refused.
    PluginRejected,
    /// Another protocol version.
    Protocol,
    /// The node is stopping or has failed.
    Stopping,
    /// The bucket's plugin does not take the value. Nothing was written; the same value is refused again.
    InvalidValue,
    /// The node does not serve clients now; another one may. Nothing was done.
    NotServing,
}

impl ErrorCode {
    /// Whether the same request may succeed later, and nothing was written by this one.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::TimedOut | Self::Overloaded | Self::StaleLayout | Self::Stopping | Self::DiskFull | Self::NotServing
        )
    }
}

/// How one replica answered, or why it did not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeVerdict {
    /// The node.
    pub node: Name,
    /// For people.
    pub why: String,
}

/// An answer that is no result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened, why, and what to do.
    pub message: String,
    /// With [`ErrorCode::Overloaded`]: milliseconds to wait, else 0.
    pub retry_after_ms: u32,
    /// With a quorum error: answers needed, else 0.
    pub needed: u8,
    /// With a quorum error: answers that came.
    pub got: u8,
    /// With a quorum error: each replica that did not answer well, and why.
    pub why: Vec<NodeVerdict>,
}

impl ErrorReply {
    /// An error with a message and nothing else.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0, needed: 0, got: 0, why: Vec::new() }
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, ms: u32) -> Self {
        self.retry_after_ms = ms;
        self
    }

    /// Says how a quorum was missed.
    #[must_use]
    pub fn quorum(mut self, needed: u8, got: u8, why: Vec<NodeVerdict>) -> Self {
        (self.needed, self.got, self.why) = (needed, got, why);
        self
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for verdict in &self.why {
            write!(f, "; {}: {}", verdict.node, verdict.why)?;
        }
        Ok(())
    }
}

impl core::error::Error for ErrorReply {}
