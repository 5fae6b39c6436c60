//! The attempts of one operation: how many, how long, and how one failed.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::{ErrorCode, NodeId};

use crate::retry::{self, Doubt, Failure};
use crate::{Error, ErrorKind};

/// A failed attempt.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) error: Error,
    /// If something was sent: what the doubt would be.
    pub(crate) sent: Option<Doubt>,
}

/// The attempts of one operation.
pub(crate) struct Tries {
    pub(crate) deadline: Instant,
    pub(crate) trace: u64,
    pub(crate) attempts: u8,
    pub(crate) attempts_left: u8,
    pub(crate) dials_left: usize,
    pub(crate) asked: Vec<NodeId>,
    /// The most telling error so far.
    pub(crate) told: Option<Error>,
}

impl Tries {
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Until when the next attempt may take: a share of what is left.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + retry::share(self.left(), self.attempts_left)
    }

    /// Puts the most telling error so far in the place of that of the latest attempt: an owner whose disk is full says
    /// more about why a write has failed than the next one, which could not be reached.
    pub(crate) fn tell(&mut self, mut failed: Failed) -> Failed {
        if let Some(told) = self.told.take().filter(|told| told.telling() > failed.error.telling()) {
            failed.error = told;
        }
        self.told = Some(failed.error.clone());
        failed
    }

    /// The pause before the next attempt, with that jitter (0 to 1).
    pub(crate) fn pause(&self, jitter: f64) -> Duration {
        retry::pause(self.attempts - self.attempts_left + 1, jitter)
    }
}

/// The outcome of one attempt.
pub(crate) type Attempt<T> = std::result::Result<T, Failed>;

/// A failure before anything was sent. Some would be the same at every node.
pub(crate) fn not_sent(error: Error) -> Failed {
    let everywhere = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config | ErrorKind::TooLarge);
    let failure = if everywhere { Failure::Said(ErrorCode::BadRequest, Duration::ZERO) } else { Failure::NotSent };
    Failed { failure, error, sent: None }
}
