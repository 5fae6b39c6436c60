//! The decisions of `retry`, one by one.

use super::*;

const PAUSE: Duration = Duration::from_millis(10);
const A: NodeId = NodeId(1);

fn doubt(since: Instant) -> Doubt {
    Doubt { node: A, start: StartId(7), since, window: Duration::from_secs(10) }
}

#[test]
fn a_read_goes_anywhere_unless_repeating_is_pointless() {
    assert_eq!(after_read(Failure::Lost, PAUSE), Next::Anywhere(PAUSE));
    assert_eq!(after_read(Failure::NotSent, PAUSE), Next::Anywhere(Duration::ZERO));
    let wait = Duration::from_millis(300);
    assert_eq!(after_read(Failure::Said(ErrorCode::Overloaded, wait), PAUSE), Next::Anywhere(wait));
    assert_eq!(after_read(Failure::Said(ErrorCode::Damaged, Duration::ZERO), PAUSE), Next::Anywhere(PAUSE));
    assert_eq!(after_read(Failure::Said(ErrorCode::Denied, Duration::ZERO), PAUSE), Next::GiveUp);
}

#[test]
fn a_write_that_did_not_happen_goes_anywhere_as_a_first_attempt() {
    let now = Instant::now();
    let codes = [ErrorCode::Unavailable, ErrorCode::Overloaded, ErrorCode::StaleLayout, ErrorCode::Stopping];
    for code in codes.into_iter().chain([ErrorCode::Damaged]) {
        let mut story = WriteStory::default();
        let next = story.after(Failure::Said(code, Duration::ZERO), Some(doubt(now)), now, PAUSE);
        assert_eq!((next, story.attempt()), (Next::Anywhere(PAUSE), 0), "{code:?}");
        assert!(story.doubt().is_none());
    }
}

#[test]
fn a_lost_write_is_repeated_only_at_its_node() {
    let now = Instant::now();
    let mut story = WriteStory::default();
    assert_eq!(story.after(Failure::Lost, Some(doubt(now)), now, PAUSE), Next::Same(A, PAUSE));
    assert_eq!(story.attempt(), 1);
    // Not even a refusal that says "nothing was written" frees it: that speaks of the second attempt only.
    let refused = Failure::Said(ErrorCode::Unavailable, Duration::ZERO);
    assert_eq!(story.after(refused, Some(doubt(now)), now, PAUSE), Next::Same(A, PAUSE));
    assert_eq!(story.attempt(), 2);
    // Nor does a connection that cannot be made.
    assert_eq!(story.after(Failure::NotSent, None, now, PAUSE), Next::Same(A, PAUSE));
    assert_eq!(story.attempt(), 2);
}

#[test]
fn a_doubtful_write_ends_with_its_window() {
    let since = Instant::now();
    let mut story = WriteStory::default();
    assert_eq!(story.after(Failure::Lost, Some(doubt(since)), since + Duration::from_secs(10), PAUSE), Next::GiveUp);
    let mut story = WriteStory::default();
    assert_eq!(story.after(Failure::Lost, Some(doubt(since)), since + Duration::from_secs(9), PAUSE), Next::Same(A, PAUSE));
    // The pause counts: it must still be within the window when it is sent.
    let late = Failure::Said(ErrorCode::Overloaded, Duration::from_secs(2));
    assert_eq!(story.after(late, Some(doubt(since)), since + Duration::from_secs(9), PAUSE), Next::GiveUp);
}

#[test]
fn a_doubtful_write_ends_with_the_start_of_its_node() {
    let now = Instant::now();
    assert!(doubt(now).repeatable(now, StartId(7)));
    assert!(!doubt(now).repeatable(now, StartId(8)));
    let mut story = WriteStory::default();
    assert_eq!(story.after(Failure::Lost, Some(doubt(now)), now, PAUSE), Next::Same(A, PAUSE));
    let renewed = Doubt { start: StartId(8), ..doubt(now) };
    let refused = Failure::Said(ErrorCode::Overloaded, Duration::ZERO);
    assert_eq!(story.after(refused, Some(renewed), now, PAUSE), Next::GiveUp);
}

#[test]
fn a_definite_refusal_of_a_doubtful_write_ends_it_in_doubt() {
    let now = Instant::now();
    let mut story = WriteStory::default();
    story.after(Failure::Lost, Some(doubt(now)), now, PAUSE);
    for code in [ErrorCode::Exists, ErrorCode::Damaged] {
        let refused = Failure::Said(code, Duration::ZERO);
        assert_eq!(story.after(refused, Some(doubt(now)), now, PAUSE), Next::GiveUp);
        assert!(story.doubt().is_some());
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
