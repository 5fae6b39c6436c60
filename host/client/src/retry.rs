//! Whether, where and when a failed attempt is made again. Pure: time is an argument, nothing is sent from here.
//!
//! A read may be repeated anywhere. A write that certainly did not happen may be sent anywhere too, as a first attempt.
//! A write in *doubt* (it was sent and may have happened) may only be repeated where the coordinator still remembers
//! it: at the same node, within its retry window, and while its start id is the one of the doubtful attempt. Anywhere
//! else it would be a second, concurrent write.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::StartId;
use rejoin_proto::{ErrorCode, NodeId};

/// How one attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Nothing left this client: no connection, or no room in its queue.
    NotSent,
    /// It was sent, and then nothing came back.
    Lost,
    /// The node said no.
    Said(ErrorCode, Duration),
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Send it anew, as a first attempt, to the next node, after a pause.
    Anywhere(Duration),
    /// Repeat it at that node, as a later attempt, after a pause.
    Same(NodeId, Duration),
    /// No more attempts.
    GiveUp,
}

/// The pause before the `n`th retry (from 1): 10 ms, doubled each time up to 320 ms, with up to as much again by
/// `jitter` (0 to 1).
pub(crate) fn pause(n: u8, jitter: f64) -> Duration {
    let base = Duration::from_millis(10 << u32::from(n.clamp(1, 6) - 1));
    base + base.mul_f64(jitter.clamp(0.0, 1.0))
}

/// What one attempt may take: half of what is left, so that another one has a chance, or all of it if it is the last.
pub(crate) fn share(left: Duration, attempts_left: u8) -> Duration {
    if attempts_left <= 1 { left } else { left / 2 }
}

/// After a failed read.
pub(crate) fn after_read(failure: Failure, pause: Duration) -> Next {
    match failure {
        Failure::NotSent => Next::Anywhere(Duration::ZERO),
        Failure::Lost => Next::Anywhere(pause),
        Failure::Said(code, wait) if code.is_retryable() => Next::Anywhere(wait.max(pause)),
        // Another replica may well be whole.
        Failure::Said(ErrorCode::Damaged, _) => Next::Anywhere(pause),
        Failure::Said(..) => Next::GiveUp,
    }
}

/// An attempt at a write that may have happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doubt {
    pub(crate) node: NodeId,
    pub(crate) start: StartId,
    pub(crate) since: Instant,
    pub(crate) window: Duration,
}

impl Doubt {
    /// Whether the coordinator still answers for this write when it is repeated at `now` and the node's start is
    /// `start`.
    pub(crate) fn repeatable(&self, now: Instant, start: StartId) -> bool {
        start == self.start && now.saturating_duration_since(self.since) < self.window
    }
}

/// The story of one write.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct WriteStory {
    doubt: Option<Doubt>,
    repeats: u8,
}

impl WriteStory {
    /// The doubt there is, if any.
    pub(crate) fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// The number of the next attempt as its node counts them: 0 unless it repeats a doubtful one.
    pub(crate) fn attempt(&self) -> u8 {
        self.repeats
    }

    /// After a failed attempt; `sent` describes that attempt, should it come to be in doubt.
    pub(crate) fn after(&mut self, failure: Failure, sent: Option<Doubt>, now: Instant, pause: Duration) -> Next {
        let lost = matches!(failure, Failure::Lost | Failure::Said(ErrorCode::Unknown, _));
        if let Some(sent) = sent.filter(|_| lost && self.doubt.is_none()) {
            self.doubt = Some(sent);
        }
        let Some(doubt) = self.doubt else { return after_certain_failure(failure, pause) };
        // A later start has forgotten the first attempt, and with that its answer says nothing about it.
        let forgotten = sent.is_some_and(|sent| sent.start != doubt.start);
        let wait = match failure {
            Failure::NotSent | Failure::Lost | Failure::Said(ErrorCode::Unknown, _) => pause,
            Failure::Said(code, wait) if code.is_retryable() => wait.max(pause),
            Failure::Said(..) => return Next::GiveUp,
        };
        if forgotten || !doubt.repeatable(now + wait, doubt.start) {
            return Next::GiveUp;
        }
        self.repeats = self.repeats.saturating_add(u8::from(sent.is_some()));
        Next::Same(doubt.node, wait)
    }
}

fn after_certain_failure(failure: Failure, pause: Duration) -> Next {
    match failure {
        Failure::NotSent => Next::Anywhere(Duration::ZERO),
        Failure::Said(code, wait) if code.is_retryable() => Next::Anywhere(wait.max(pause)),
        // Nothing was written, and another coordinator may be able to read its copy.
        Failure::Said(ErrorCode::Damaged, _) => Next::Anywhere(pause),
        Failure::Lost | Failure::Said(..) => Next::GiveUp,
    }
}

/// How many retries a client may make in relation to its successes, so that a cluster in trouble is not buried under
/// repetitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryBudget {
    tenths: u32,
}

impl RetryBudget {
    /// The most retries that can be saved up, in tenths.
    const CAP: u32 = 1_000;

    /// A budget with room for a bad start.
    pub(crate) fn new() -> Self {
        Self { tenths: Self::CAP / 2 }
    }

    /// Ten successes pay for one retry.
    pub(crate) fn succeeded(&mut self) {
        self.tenths = (self.tenths + 1).min(Self::CAP);
    }

    /// Takes a retry out. False if there is none left.
    pub(crate) fn take(&mut self) -> bool {
        let enough = self.tenths >= 10;
        self.tenths -= if enough { 10 } else { 0 };
        enough
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
