//! The schedule of operations: closed loop (a client sends its next operation after the last reply), or open loop
//! (operations are due at fixed times).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use super::args::{Plan, RunLength};

/// The part of the deadline by which an operation may begin late.
const PATIENCE_SHARE: u32 = 10;

/// Hands out the times at which operations are due to the clients.
pub(crate) struct Schedule {
    pub(crate) began: Instant,
    length: RunLength,
    /// Operations that counted so far.
    counted: AtomicU64,
    /// Open loop: the due times, from the thread that keeps the time.
    due: Option<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    /// Open loop: the time after which pending operations are dropped.
    give_up: Option<Instant>,
    /// Open loop with a deadline: how long after it was due an operation may begin.
    patience: Option<Duration>,
}

impl Schedule {
    /// The schedule of a plan. The measurement begins after the warm-up.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(plan: &Plan) -> std::io::Result<Self> {
        let start = Instant::now();
        let began = start + plan.warm_up;
        let (mut due, mut give_up) = (None, None);
        if let Some(rate) = plan.rate {
            let length = match plan.length {
                RunLength::Time(time) => time,
                RunLength::Operations(operations) => moment(operations, rate),
            };
            let (sender, receiver) = mpsc::unbounded_channel();
            let end = began + length;
            std::thread::Builder::new().name("schedule".into()).spawn(move || keep_time(start, end, rate, &sender))?;
            due = Some(Mutex::new(receiver));
            give_up = Some(end + plan.timeout);
        }
        let patience = plan.deadline.map(|deadline| deadline / PATIENCE_SHARE);
        Ok(Self { began, length: plan.length, counted: AtomicU64::new(0), due, give_up, patience })
    }

    /// The time at which the next operation is due, now or in the past. `None` at the end.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let Some(due) = &self.due else {
            let now = Instant::now();
            return self.goes_on(now).then_some(now);
        };
        due.lock().await.recv().await
    }

    /// Whether an operation that was due then is not sent any more, because the open loop is too far behind its rate.
    /// With a deadline that is a tenth of it: what is sent later says more of the generator than of the servers.
    pub(crate) fn is_too_late(&self, due: Instant, now: Instant) -> bool {
        self.give_up.is_some_and(|give_up| now > give_up)
            || self.patience.is_some_and(|patience| now.saturating_duration_since(due) > patience)
    }

    /// Whether an operation that is due then is measured.
    pub(crate) fn counts(&self, due: Instant) -> bool {
        due >= self.began
    }

    fn goes_on(&self, now: Instant) -> bool {
        match self.length {
            RunLength::Time(time) => now < self.began + time,
            RunLength::Operations(most) => !self.counts(now) || self.counted.fetch_add(1, Ordering::Relaxed) < most,
        }
    }
}

/// The time of an operation after the start, by its number.
fn moment(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Sends the time of each operation when it is due. Runs on a thread, because the runtime's timers have a resolution of
/// one millisecond.
fn keep_time(start: Instant, end: Instant, rate: u32, out: &mpsc::UnboundedSender<Instant>) {
    for number in 0.. {
        let due = start + moment(number, rate);
        if due >= end {
            return;
        }
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if out.send(due).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::args::Mode;

    fn plan(rate: Option<u32>, length: RunLength, warm_up: Duration) -> Plan {
        Plan {
            mode: Mode::Put,
            rate,
            clients: 1,
            value_bytes: 0,
            keys: 1,
            reads: 0,
            length,
            warm_up,
            timeout: Duration::from_secs(5),
            deadline: None,
            prefix: String::new(),
        }
    }

    #[tokio::test]
    async fn an_open_loop_gives_every_operation_its_moment_however_late_it_is_asked_for() {
        let warm_up = Duration::from_millis(2);
        let schedule = Schedule::start(&plan(Some(10_000), RunLength::Operations(30), warm_up)).unwrap();
        let mut due = Vec::new();
        while let Some(moment) = schedule.next().await {
            assert!(moment <= Instant::now(), "none is given out before it is due");
            due.push(moment);
        }
        assert_eq!(due.len(), 50, "20 of the warm-up and 30 that count");
        assert_eq!(due.iter().filter(|moment| schedule.counts(**moment)).count(), 30);
        assert!(
            due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_micros(100)),
            "evenly, whatever the clients do"
        );
        let began = schedule.began;
        let six = Duration::from_secs(6);
        assert!(!schedule.is_too_late(began, began) && schedule.is_too_late(began + six, began + six));
    }

    #[tokio::test]
    async fn with_a_deadline_an_operation_that_would_begin_late_is_dropped() {
        let mut plan = plan(Some(100), RunLength::Operations(1), Duration::ZERO);
        let due = Instant::now();
        let late = |schedule: &Schedule, ms| schedule.is_too_late(due, due + Duration::from_millis(ms));
        let patient = Schedule::start(&plan).unwrap();
        assert!(!late(&patient, 900));
        plan.deadline = Some(Duration::from_secs(1));
        let strict = Schedule::start(&plan).unwrap();
        assert!(!late(&strict, 100) && late(&strict, 101));
    }

    #[tokio::test]
    async fn a_closed_loop_ends_after_its_operations_or_its_time() {
        let schedule = Schedule::start(&plan(None, RunLength::Operations(3), Duration::ZERO)).unwrap();
        for _ in 0..3 {
            assert!(schedule.next().await.is_some_and(|moment| schedule.counts(moment)));
        }
        assert_eq!(schedule.next().await, None);
        let schedule = Schedule::start(&plan(None, RunLength::Time(Duration::ZERO), Duration::ZERO)).unwrap();
        assert_eq!(schedule.next().await, None);
    }
}
