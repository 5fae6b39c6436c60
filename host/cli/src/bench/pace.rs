//! When operations are due: as soon as a client is free, or at fixed times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use super::args::{Extent, Plan};

/// Gives out the moments at which operations are due, to whichever client asks first.
pub(crate) struct Pace {
    pub(crate) began: Instant,
    extent: Extent,
    /// Operations that counted so far, where their number is the end.
    counted: AtomicU64,
    /// Of an open loop: what is due, from the thread that keeps the time.
    due: Option<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    /// Of an open loop: when what is still due is given up.
    give_up: Option<Instant>,
}

impl Pace {
    /// The pace of a plan, whose measuring begins once it has warmed up.
    ///
    /// # Errors
    /// The operating system has no thread.
    pub(crate) fn start(plan: &Plan) -> std::io::Result<Self> {
        let start = Instant::now();
        let began = start + plan.warm_up;
        let (mut due, mut give_up) = (None, None);
        if let Some(rate) = plan.rate {
            let length = match plan.extent {
                Extent::Time(time) => time,
                Extent::Operations(operations) => moment(operations, rate),
            };
            let (sender, receiver) = mpsc::unbounded_channel();
            let end = began + length;
            std::thread::Builder::new().name("pace".into()).spawn(move || keep_time(start, end, rate, &sender))?;
            due = Some(Mutex::new(receiver));
            give_up = Some(end + plan.timeout);
        }
        Ok(Self { began, extent: plan.extent, counted: AtomicU64::new(0), due, give_up })
    }

    /// When the next operation is due, which is now or in the past. None at the end.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let Some(due) = &self.due else {
            let now = Instant::now();
            return self.goes_on(now).then_some(now);
        };
        due.lock().await.recv().await
    }

    /// Whether what is due then is not begun any more: an open loop that is far behind its rate comes to an end all the
    /// same.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.give_up.is_some_and(|give_up| now > give_up)
    }

    /// Whether an operation that is due at that moment counts.
    pub(crate) fn counts(&self, due: Instant) -> bool {
        due >= self.began
    }

    fn goes_on(&self, now: Instant) -> bool {
        match self.extent {
            Extent::Time(time) => now < self.began + time,
            Extent::Operations(most) => !self.counts(now) || self.counted.fetch_add(1, Ordering::Relaxed) < most,
        }
    }
}

/// How far from the start the operation of that number is due.
fn moment(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Says of each operation when it is due. A thread, because the runtime's timers have a grain of a millisecond.
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

    fn plan(rate: Option<u32>, extent: Extent, warm_up: Duration) -> Plan {
        let (timeout, prefix) = (Duration::from_secs(5), String::new());
        Plan { mode: Mode::Put, rate, clients: 1, value_bytes: 0, keys: 1, reads: 0, extent, warm_up, timeout, prefix }
    }

    #[tokio::test]
    async fn an_open_loop_gives_every_operation_its_moment_however_late_it_is_asked_for() {
        let warm_up = Duration::from_millis(2);
        let pace = Pace::start(&plan(Some(10_000), Extent::Operations(30), warm_up)).unwrap();
        let mut due = Vec::new();
        while let Some(moment) = pace.next().await {
            assert!(moment <= Instant::now(), "none is given out before it is due");
            due.push(moment);
        }
        assert_eq!(due.len(), 50, "20 of the warm-up and 30 that count");
        assert_eq!(due.iter().filter(|moment| pace.counts(**moment)).count(), 30);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_micros(100)), "evenly, whatever the clients do");
        assert!(!pace.is_over(pace.began) && pace.is_over(pace.began + Duration::from_secs(6)));
    }

    #[tokio::test]
    async fn a_closed_loop_ends_after_its_operations_or_its_time() {
        let pace = Pace::start(&plan(None, Extent::Operations(3), Duration::ZERO)).unwrap();
        for _ in 0..3 {
            assert!(pace.next().await.is_some_and(|moment| pace.counts(moment)));
        }
        assert_eq!(pace.next().await, None);
        let pace = Pace::start(&plan(None, Extent::Time(Duration::ZERO), Duration::ZERO)).unwrap();
        assert_eq!(pace.next().await, None);
    }
}
