//! The attempts of one operation: how many and how long they may be, and how one failed.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::NodeId;

use crate::retry::{self, Failure, SentAttempt};
use crate::{Error, ErrorKind};

/// A failed attempt.
pub(crate) struct FailedAttempt {
    pub(crate) failure: Failure,
    pub(crate) error: Error,
    /// `None` if nothing was sent.
    pub(crate) sent: Option<SentAttempt>,
}

/// The outcome of one attempt.
pub(crate) type AttemptResult<T> = std::result::Result<T, FailedAttempt>;

/// The attempts of one operation.
pub(crate) struct Attempts {
    pub(crate) deadline: Instant,
    pub(crate) trace: u64,
    pub(crate) limit: u8,
    pub(crate) left: u8,
    /// Failed dials are counted apart: nothing was sent.
    pub(crate) dials_left: usize,
    /// The nodes that were asked, so that the next attempt goes to another one.
    pub(crate) asked: Vec<NodeId>,
    pub(crate) most_specific: Option<Error>,
}

impl Attempts {
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The deadline of the next attempt: it gets a share of the time that is left.
    pub(crate) fn attempt_deadline(&self) -> Instant {
        Instant::now() + retry::share(self.time_left(), self.left)
    }

    /// Replaces the error of the latest attempt by the most specific one so far. An owner whose disk is full says more
    /// about why a write failed than the next node, which could not be reached.
    pub(crate) fn with_most_specific(&mut self, mut failed: FailedAttempt) -> FailedAttempt {
        if let Some(earlier) =
            self.most_specific.take().filter(|error| error.specificity() > failed.error.specificity())
        {
            failed.error = earlier;
        }
        self.most_specific = Some(failed.error.clone());
        failed
    }

    /// The pause before the next attempt, with `jitter` from 0 to 1.
    pub(crate) fn pause(&self, jitter: f64) -> Duration {
        retry::pause(self.limit - self.left + 1, jitter)
    }
}

/// A failure before anything was sent. A client that is denied, set up wrongly or sends too much fails at every node.
pub(crate) fn not_sent(error: Error) -> FailedAttempt {
    let everywhere = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config | ErrorKind::TooLarge);
    let failure = if everywhere { Failure::AtEveryNode } else { Failure::NotSent };
    FailedAttempt { failure, error, sent: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_fails_everywhere_is_told_from_a_node_that_is_away() {
        let failure = |kind| not_sent(Error::new(kind, "x")).failure;
        for kind in [ErrorKind::Denied, ErrorKind::Config, ErrorKind::TooLarge] {
            assert_eq!(failure(kind), Failure::AtEveryNode, "{kind:?}");
        }
        for kind in [ErrorKind::Unreachable, ErrorKind::Overloaded, ErrorKind::Untrusted, ErrorKind::Protocol] {
            assert_eq!(failure(kind), Failure::NotSent, "{kind:?}");
        }
    }
}
