//! The decisions of `retry`, one by one.

use super::*;

const PAUSE: Duration = Duration::from_millis(10);
const A: NodeId = NodeId(1);

fn sent(since: Instant) -> SentAttempt {
    SentAttempt { node: A, start: StartId(7), since, window: Duration::from_secs(10) }
}

#[test]
fn a_read_goes_anywhere_unless_repeating_is_pointless() {
    assert_eq!(after_read(Failure::NoAnswer, PAUSE), Decision::AnyNode(PAUSE));
    assert_eq!(after_read(Failure::NotSent, PAUSE), Decision::AnyNode(Duration::ZERO));
    let wait = Duration::from_millis(300);
    assert_eq!(after_read(Failure::Refused(ErrorCode::Overloaded, wait), PAUSE), Decision::AnyNode(wait));
    assert_eq!(after_read(Failure::Held(wait), PAUSE), Decision::AnyNode(wait));
    assert_eq!(after_read(Failure::Refused(ErrorCode::Damaged, Duration::ZERO), PAUSE), Decision::AnyNode(PAUSE));
    for failure in [
        Failure::Refused(ErrorCode::Denied, Duration::ZERO),
        Failure::AtEveryNode,
        Failure::OutcomeUnknown,
        Failure::Forgotten,
    ] {
        assert_eq!(after_read(failure, PAUSE), Decision::GiveUp, "{failure:?}");
    }
}

#[test]
fn a_write_that_did_not_happen_goes_anywhere_as_a_first_attempt() {
    let now = Instant::now();
    let codes = [ErrorCode::Unavailable, ErrorCode::Overloaded, ErrorCode::StaleLayout, ErrorCode::Stopping];
    for code in codes.into_iter().chain([ErrorCode::Damaged]) {
        let mut write = WriteAttempts::default();
        let next = write.after(Failure::Refused(code, Duration::ZERO), Some(sent(now)), now, PAUSE);
        assert_eq!((next, write.number()), (Decision::AnyNode(PAUSE), 0), "{code:?}");
        assert!(write.uncertain().is_none());
    }
    let mut write = WriteAttempts::default();
    let wait = Duration::from_millis(300);
    let next = write.after(Failure::Held(wait), Some(sent(now)), now, PAUSE);
    assert_eq!((next, write.number()), (Decision::AnyNode(wait), 0));
    assert!(write.uncertain().is_none());
}

#[test]
fn a_lost_write_is_repeated_only_at_its_node() {
    let now = Instant::now();
    let mut write = WriteAttempts::default();
    assert_eq!(write.after(Failure::NoAnswer, Some(sent(now)), now, PAUSE), Decision::SameNode(A, PAUSE));
    assert_eq!(write.number(), 1);
    // Not even a refusal that says "nothing was written" frees it: that speaks of the second attempt only.
    let refused = Failure::Refused(ErrorCode::Unavailable, Duration::ZERO);
    assert_eq!(write.after(refused, Some(sent(now)), now, PAUSE), Decision::SameNode(A, PAUSE));
    assert_eq!(write.number(), 2);
    // Nor does a connection that cannot be made.
    assert_eq!(write.after(Failure::NotSent, None, now, PAUSE), Decision::SameNode(A, PAUSE));
    assert_eq!(write.number(), 2);
    // Nor an overloaded node.
    assert_eq!(write.after(Failure::Held(PAUSE), Some(sent(now)), now, PAUSE), Decision::SameNode(A, PAUSE));
    assert_eq!(write.number(), 3);
}

#[test]
fn an_uncertain_write_ends_with_its_window() {
    let since = Instant::now();
    let mut write = WriteAttempts::default();
    assert_eq!(
        write.after(Failure::NoAnswer, Some(sent(since)), since + Duration::from_secs(10), PAUSE),
        Decision::GiveUp
    );
    let mut write = WriteAttempts::default();
    assert_eq!(
        write.after(Failure::NoAnswer, Some(sent(since)), since + Duration::from_secs(9), PAUSE),
        Decision::SameNode(A, PAUSE)
    );
    // The pause counts: it must still be within the window when it is sent.
    let late = Failure::Refused(ErrorCode::Overloaded, Duration::from_secs(2));
    assert_eq!(write.after(late, Some(sent(since)), since + Duration::from_secs(9), PAUSE), Decision::GiveUp);
}

#[test]
fn an_uncertain_write_ends_with_the_start_of_its_node() {
    let now = Instant::now();
    assert!(sent(now).repeatable(now, StartId(7)));
    assert!(!sent(now).repeatable(now, StartId(8)));
    let mut write = WriteAttempts::default();
    assert_eq!(write.after(Failure::NoAnswer, Some(sent(now)), now, PAUSE), Decision::SameNode(A, PAUSE));
    let renewed = SentAttempt { start: StartId(8), ..sent(now) };
    let refused = Failure::Refused(ErrorCode::Overloaded, Duration::ZERO);
    assert_eq!(write.after(refused, Some(renewed), now, PAUSE), Decision::GiveUp);
}

#[test]
fn a_definite_refusal_of_an_uncertain_write_leaves_it_uncertain() {
    let now = Instant::now();
    let mut write = WriteAttempts::default();
    write.after(Failure::NoAnswer, Some(sent(now)), now, PAUSE);
    for code in [ErrorCode::Exists, ErrorCode::Damaged] {
        let refused = Failure::Refused(code, Duration::ZERO);
        assert_eq!(write.after(refused, Some(sent(now)), now, PAUSE), Decision::GiveUp);
        assert!(write.uncertain().is_some());
    }
}

#[test]
fn a_write_ends_where_no_node_can_take_it_or_its_node_has_forgotten_it() {
    let now = Instant::now();
    for failure in [Failure::AtEveryNode, Failure::Forgotten] {
        let mut write = WriteAttempts::default();
        assert_eq!(write.after(failure, None, now, PAUSE), Decision::GiveUp, "{failure:?}");
        assert!(write.uncertain().is_none(), "nothing was sent");
        write.after(Failure::OutcomeUnknown, Some(sent(now)), now, PAUSE);
        assert_eq!((write.after(failure, None, now, PAUSE), write.number()), (Decision::GiveUp, 1), "{failure:?}");
        assert!(write.uncertain().is_some(), "the first attempt may have taken effect");
    }
}

#[test]
fn shares_leave_time_for_another_attempt_and_pauses_grow() {
    let left = Duration::from_secs(4);
    assert_eq!((share(left, 3), share(left, 1)), (left / 2, left));
    assert_eq!(pause(1, 0.0), Duration::from_millis(10));
    assert_eq!(pause(3, 1.0), Duration::from_millis(80));
    assert_eq!(pause(200, 0.0), Duration::from_millis(320));
}

#[test]
fn the_budget_is_paid_for_by_successes() {
    let mut budget = RetryBudget::new();
    let taken = (0..1_000).take_while(|_| budget.take()).count();
    assert_eq!(taken, 50);
    (0..9).for_each(|_| budget.succeeded());
    assert!(!budget.take());
    budget.succeeded();
    assert!(budget.take());
    assert!(!budget.take());
}
