//! Decides whether, where and when a failed attempt is repeated. Pure: time is an argument, and nothing is sent here.
//!
//! A read may be repeated at any node. So may a write that certainly did not happen: it is sent again as a first
//! attempt. A write that was sent and may have happened is *uncertain*. It is repeated only where the coordinator
//! recognises it: at the same node, within that node's retry window, and while the node's start id is the one of the
//! uncertain attempt. Anywhere else it would become a second, concurrent write.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::StartId;
use rejoin_proto::{ErrorCode, NodeId};

/// How one attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Nothing was sent: there is no connection, or no space in its queue.
    NotSent,
    /// Nothing was sent, and the same would happen at every node.
    AtEveryNode,
    /// It was sent, and no usable answer came.
    NoAnswer,
    /// The node answered that it does not know whether the write took effect.
    OutcomeUnknown,
    /// Nothing was sent, because the node no longer recognises the uncertain attempt.
    Forgotten,
    /// The node refused it, and asks to wait that long.
    Refused(ErrorCode, Duration),
    /// The node is overloaded and has done nothing; the client waits for so long and until the node takes more. That is
    /// no attempt: it is as if the request had not been sent yet.
    Held(Duration),
}

/// The next step after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// Send it as a first attempt to the next node, after a pause.
    AnyNode(Duration),
    /// Repeat it at that node, as a later attempt, after a pause.
    SameNode(NodeId, Duration),
    /// No more attempts.
    GiveUp,
}

/// The pause before the `n`th retry (from 1): 10 ms, doubled each time up to 320 ms, plus up to as much again by
/// `jitter` (0 to 1).
pub(crate) fn pause(n: u8, jitter: f64) -> Duration {
    let base = Duration::from_millis(10 << u32::from(n.clamp(1, 6) - 1));
    base + base.mul_f64(jitter.clamp(0.0, 1.0))
}

/// The time of one attempt: half of what is left, so that another attempt can follow; all of it for the last one.
pub(crate) fn share(left: Duration, attempts_left: u8) -> Duration {
    if attempts_left <= 1 { left } else { left / 2 }
}

/// The decision after a failed read.
pub(crate) fn after_read(failure: Failure, pause: Duration) -> Decision {
    match failure {
        Failure::NotSent => Decision::AnyNode(Duration::ZERO),
        Failure::NoAnswer => Decision::AnyNode(pause),
        Failure::Refused(code, wait) if code.is_retryable() => Decision::AnyNode(wait.max(pause)),
        Failure::Held(wait) => Decision::AnyNode(wait.max(pause)),
        // Another replica may have an undamaged copy.
        Failure::Refused(ErrorCode::Damaged, _) => Decision::AnyNode(pause),
        Failure::AtEveryNode | Failure::OutcomeUnknown | Failure::Forgotten | Failure::Refused(..) => Decision::GiveUp,
    }
}

/// An attempt at a write that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SentAttempt {
    pub(crate) node: NodeId,
    pub(crate) start: StartId,
    pub(crate) since: Instant,
    /// How long the node recognises repetitions.
    pub(crate) window: Duration,
}

impl SentAttempt {
    /// Whether the node recognises a repetition at `now`, when its start id is `start`.
    pub(crate) fn repeatable(&self, now: Instant, start: StartId) -> bool {
        start == self.start && now.saturating_duration_since(self.since) < self.window
    }
}

/// The attempts at one write so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct WriteAttempts {
    uncertain: Option<SentAttempt>,
    repeats: u8,
}

impl WriteAttempts {
    /// The first attempt that may have taken effect.
    pub(crate) fn uncertain(&self) -> Option<&SentAttempt> {
        self.uncertain.as_ref()
    }

    /// The number of the next attempt as its node counts them: 0 unless it repeats an uncertain one.
    pub(crate) fn number(&self) -> u8 {
        self.repeats
    }

    /// The decision after a failed attempt. `sent` describes it, `None` if nothing was sent.
    pub(crate) fn after(
        &mut self,
        failure: Failure,
        sent: Option<SentAttempt>,
        now: Instant,
        pause: Duration,
    ) -> Decision {
        let unknown = matches!(failure, Failure::NoAnswer | Failure::OutcomeUnknown);
        if let Some(sent) = sent.filter(|_| unknown && self.uncertain.is_none()) {
            self.uncertain = Some(sent);
        }
        let Some(uncertain) = self.uncertain else { return after_certain_failure(failure, pause) };
        // Under a later start id the node has forgotten the first attempt, so its answer says nothing about that one.
        let forgotten = sent.is_some_and(|sent| sent.start != uncertain.start);
        let wait = match failure {
            Failure::NotSent | Failure::NoAnswer | Failure::OutcomeUnknown => pause,
            Failure::Refused(code, wait) if code.is_retryable() => wait.max(pause),
            Failure::Held(wait) => wait.max(pause),
            Failure::AtEveryNode | Failure::Forgotten | Failure::Refused(..) => return Decision::GiveUp,
        };
        if forgotten || !uncertain.repeatable(now + wait, uncertain.start) {
            return Decision::GiveUp;
        }
        self.repeats = self.repeats.saturating_add(u8::from(sent.is_some()));
        Decision::SameNode(uncertain.node, wait)
    }
}

/// The decision after an attempt that certainly wrote nothing.
fn after_certain_failure(failure: Failure, pause: Duration) -> Decision {
    match failure {
        Failure::NotSent => Decision::AnyNode(Duration::ZERO),
        Failure::Refused(code, wait) if code.is_retryable() => Decision::AnyNode(wait.max(pause)),
        Failure::Held(wait) => Decision::AnyNode(wait.max(pause)),
        // Another coordinator may be able to read its copy.
        Failure::Refused(ErrorCode::Damaged, _) => Decision::AnyNode(pause),
        _ => Decision::GiveUp,
    }
}

/// Limits a client's retries to a share of its successes, so that they do not add to the load of a cluster in trouble.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryBudget {
    tenths: u32,
}

impl RetryBudget {
    /// The most retries that can be saved up, in tenths.
    const CAP: u32 = 1_000;

    /// A budget of fifty retries.
    pub(crate) fn new() -> Self {
        Self { tenths: Self::CAP / 2 }
    }

    /// Counts a success: ten of them pay for one retry.
    pub(crate) fn succeeded(&mut self) {
        self.tenths = (self.tenths + 1).min(Self::CAP);
    }

    /// Takes one retry out. False if none is left.
    pub(crate) fn take(&mut self) -> bool {
        let enough = self.tenths >= 10;
        self.tenths -= if enough { 10 } else { 0 };
        enough
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
