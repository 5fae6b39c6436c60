//! The error reply of a request.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Name;

/// The kind of an error, for programs. The order is frozen: new codes are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
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
    /// The deadline passed before enough replicas had answered a read.
    TimedOut,
    /// A write did not reach its quorum in time. It may still take effect.
    Unknown,
    /// Too many requests are queued. Nothing was done; retry after the given time.
    Overloaded,
    /// The request was routed by an older layout than that of this node.
    StaleLayout,
    /// The record was changed meanwhile. Read it again.
    VersionConflict,
    /// The disk is full: writes are refused, reads go on.
    DiskFull,
    /// The replica cannot read its copy. A write with this reply was not done.
    Damaged,
    /// The plugin was refused.
    PluginRejected,
    /// The other side uses another protocol version.
    Protocol,
    /// The node is stopping or has failed.
    Stopping,
    /// The bucket's plugin refuses the value, now and at every retry. Nothing was written.
    InvalidValue,
    /// The node does not serve clients now; another node may. Nothing was done.
    NotServing,
    /// A quota of the tenant or bucket is used up. Nothing was done; it may be possible after the given time.
    QuotaExceeded,
    /// A node that is alive is not ready to run a plugin that a bucket is to get. Nothing was changed; try again soon.
    PluginNotReady,
}

impl ErrorCode {
    /// Whether this request wrote nothing and the same one may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::TimedOut
                | Self::Overloaded
                | Self::StaleLayout
                | Self::Stopping
                | Self::DiskFull
                | Self::NotServing
                | Self::PluginNotReady
        )
    }
}

/// Why a replica does not count towards a quorum.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeFailure {
    /// The node of the replica.
    pub node: Name,
    /// The reason, for people.
    pub why: String,
}

/// An error as a reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The kind, for programs.
    pub code: ErrorCode,
    /// For people: what happened, and what to do.
    pub message: String,
    /// With [`ErrorCode::Overloaded`] and [`ErrorCode::QuotaExceeded`]: milliseconds to wait, else 0.
    pub retry_after_ms: u32,
    /// With a quorum error: answers needed, else 0.
    pub needed: u8,
    /// With a quorum error: answers received.
    pub got: u8,
    /// With a quorum error: the replicas that do not count, and why.
    pub why: Vec<NodeFailure>,
}

impl ErrorReply {
    /// An error with a message only.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0, needed: 0, got: 0, why: Vec::new() }
    }

    /// Sets the time to wait before a retry, in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, ms: u32) -> Self {
        self.retry_after_ms = ms;
        self
    }

    /// Sets how a quorum was missed.
    #[must_use]
    pub fn quorum(mut self, needed: u8, got: u8, why: Vec<NodeFailure>) -> Self {
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
