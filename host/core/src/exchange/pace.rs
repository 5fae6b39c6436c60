//! How much exchange work a shard may do: as much as its clients' requests let it.
//!
//! The pacer has a rate, in bytes of objects per second. It is fed with the time that each request takes, and learns
//! how long requests take while no exchange is at work. Every tenth of a second it looks at the requests since: while
//! hardly any takes much longer than requests do alone, the rate grows by a fixed step, otherwise it is halved
//! (additive increase, multiplicative decrease: Chiu and Jain 1989). It never falls below the floor, so that a rebuild
//! ends, and without requests it is the most that is configured.
//!
//! To know what requests take alone during a rebuild of hours, exchanges are silent for [`QUIET_MS`] in every
//! [`QUIET_EVERY_MS`] of the wall clock. All nodes are then silent at about the same time, and each learns what
//! requests take without the work of any. A clock that is wrong only makes the silence a lonely one.
//!
//! A shard that coordinates nothing does not know what clients wait for. It times the acknowledgements that it gives to
//! the coordinators of writes instead, as far as these wait for its disk. Of reads that it serves, and of writes that
//! do not wait for the disk, it knows nothing; with no others its rate stays as it is.

use crate::exchange::ExchangeConfig;
use crate::shard::event::Now;

/// An object counts as so many bytes at least, because it takes that much work however small it is.
pub(crate) const OBJECT_BYTES: u64 = 512;
/// How often the rate is changed, in microseconds.
const WINDOW_US: u64 = 100_000;
/// Of fewer requests than these the pacer judges only after [`LONG_WINDOW_US`].
const MIN_JUDGED: u32 = 16;
const LONG_WINDOW_US: u64 = 1_000_000;
/// The rate is halved if one in so many requests is late.
const LATE_SHARE: u32 = 10;
/// A request is not late before it has taken so much longer than alone, in microseconds, however short that is: timers
/// and schedulers are not more exact.
const SLACK_US: u64 = 300;
/// The rate grows by the most that is configured, divided by this.
const STEPS: u64 = 64;
/// Without a request for so long a shard has the whole time for exchanges, in microseconds.
const IDLE_US: u64 = 1_000_000;
/// A request that begins so long after the last exchange work feels nothing of it, in microseconds.
const SETTLE_US: u64 = 50_000;
/// The silence of exchanges: how long, and how often, in milliseconds.
const QUIET_MS: u64 = 250;
const QUIET_EVERY_MS: u64 = 10_000;
/// Not more often than that the acknowledgement of a write is timed that another node coordinates, in microseconds.
const TIMED_EVERY_US: u64 = 5_000;
/// An acknowledgement that takes longer is not waited for any more.
const TIMED_FOR_US: u64 = 5_000_000;
/// The bytes that were not used are kept for a fiftieth of a second.
const BURST: u64 = 50;

/// What a request does. Reads and writes are compared with their like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write that another node coordinates, until it is acknowledged to that one.
    Served,
}

/// Chooses how much exchange work a shard does.
#[derive(Debug)]
pub(crate) struct Pacer {
    floor: u64,
    most: u64,
    slowdown_percent: u64,
    /// Bytes per second beside requests.
    rate: u64,
    /// Bytes that may be moved now. Below zero after more than that.
    tokens: i64,
    refilled_us: u64,
    /// What nine of ten reads, and writes, take at most while no exchange is at work.
    alone: [Quantile; 3],
    window: Window,
    /// The served write that is timed: its number, and when it came. Its end is known to be awaited until then.
    timed: Option<(u64, u64)>,
    last_timed_us: u64,
    /// When something was last done for an exchange.
    worked_us: Option<u64>,
    /// When a request was last answered, or known to be under way.
    asked_us: Option<u64>,
}

/// The requests since the rate was last changed.
#[derive(Debug, Default)]
struct Window {
    since_us: u64,
    judged: u32,
    late: u32,
    /// Requests of which it is not known whether they were late.
    unknown: u32,
}

impl Pacer {
    pub(crate) fn new(config: &ExchangeConfig) -> Self {
        Self {
            floor: config.floor_bytes.max(1),
            most: config.max_bytes.max(config.floor_bytes).max(1),
            slowdown_percent: u64::from(config.slowdown_percent),
            rate: config.floor_bytes.max(1),
            tokens: 0,
            refilled_us: 0,
            alone: [Quantile::default(); 3],
            window: Window::default(),
            timed: None,
            last_timed_us: 0,
            worked_us: None,
            asked_us: None,
        }
    }

    /// A client's request is answered.
    pub(crate) fn answered(&mut self, now_us: u64, begun_us: u64, kind: Kind) {
        self.asked_us = Some(now_us);
        let took_us = now_us.saturating_sub(begun_us);
        let was_alone = self.worked_us.is_none_or(|worked_us| begun_us >= worked_us.saturating_add(SETTLE_US));
        if was_alone {
            self.alone[kind as usize].see(took_us);
        } else if begun_us >= self.window.since_us {
            self.judge(kind, took_us);
        }
    }

    /// A request of a peer is served here. How long the peer's client waits for it is not known here.
    pub(crate) fn served(&mut self, now_us: u64) {
        self.asked_us = Some(now_us);
        self.window.unknown = self.window.unknown.saturating_add(1);
    }

    /// Whether the write that is served now is to be timed, under that number.
    pub(crate) fn times(&mut self, now_us: u64, number: u64) -> bool {
        let since_us = now_us.saturating_sub(self.last_timed_us);
        let is_due = if self.timed.is_some() { since_us >= TIMED_FOR_US } else { since_us >= TIMED_EVERY_US };
        if is_due {
            (self.timed, self.last_timed_us) = (Some((number, now_us)), now_us);
        }
        is_due
    }

    /// Whether a write is timed under that number.
    pub(crate) fn is_timed(&self, number: u64) -> bool {
        self.timed.is_some_and(|(timed, _)| timed == number)
    }

    /// The write that is timed is acknowledged, or it will never be known when it was.
    pub(crate) fn acknowledged(&mut self, now_us: u64, is_durable: bool) {
        if let Some((_, begun_us)) = self.timed.take().filter(|_| is_durable) {
            self.answered(now_us, begun_us, Kind::Served);
        }
    }

    /// Whether the rate is due for a change, with [`adapt`](Self::adapt).
    pub(crate) fn is_due(&self, now_us: u64) -> bool {
        let passed_us = now_us.saturating_sub(self.window.since_us);
        passed_us >= LONG_WINDOW_US || passed_us >= WINDOW_US && self.window.judged >= MIN_JUDGED
    }

    /// Changes the rate. `waiting` has the requests that are not answered yet: kind, and when it began.
    pub(crate) fn adapt(&mut self, now_us: u64, waiting: impl Iterator<Item = (Kind, u64)>) {
        for (kind, begun_us) in waiting {
            self.asked_us = Some(now_us);
            let waited_us = now_us.saturating_sub(begun_us);
            if self.late_after_us(kind).is_some_and(|late_us| waited_us > late_us) {
                self.judge(kind, waited_us);
            }
        }
        let Window { judged, late, unknown, .. } = self.window;
        // Rule: exchanges yield to requests.
        if late * LATE_SHARE > judged {
            self.rate = (self.rate / 2).max(self.floor);
        } else if judged > 0 || unknown == 0 {
            self.rate = self.rate.saturating_add((self.most / STEPS).max(1)).min(self.most);
        }
        self.window = Window { since_us: now_us, ..Window::default() };
    }

    /// When the next exchange work may begin: now, or later.
    pub(crate) fn may_work_at(&mut self, now: Now, requests: usize) -> u64 {
        let now_us = now.mono_us;
        if requests > 0 {
            self.asked_us = Some(now_us);
        }
        let is_idle = self.asked_us.is_none_or(|asked_us| now_us.saturating_sub(asked_us) > IDLE_US);
        let rate = if is_idle { self.most } else { self.rate };
        let passed_us = now_us.saturating_sub(self.refilled_us).min(1_000_000);
        let refill = i64::try_from(u128::from(rate) * u128::from(passed_us) / 1_000_000).unwrap_or(i64::MAX);
        let burst = i64::try_from((rate / BURST).max(1)).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(refill).min(burst);
        self.refilled_us = now_us;
        let in_quiet_ms = now.wall_ms % QUIET_EVERY_MS;
        if !is_idle && in_quiet_ms < QUIET_MS {
            return now_us + (QUIET_MS - in_quiet_ms) * 1_000;
        }
        if self.tokens > 0 {
            return now_us;
        }
        let missing = self.tokens.unsigned_abs() + 1;
        now_us + u64::try_from(u128::from(missing) * 1_000_000 / u128::from(rate)).unwrap_or(u64::MAX).max(1_000)
    }

    /// Something was done for an exchange, and so many bytes were moved by it or will be.
    pub(crate) fn spend(&mut self, now_us: u64, bytes: u64) {
        self.worked_us = Some(now_us);
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Fewer bytes were moved than was said before.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How long work that takes so many bytes has to wait at least while the rate is as low as it may become, in
    /// microseconds.
    pub(crate) fn longest_us(&self, bytes: u64) -> u64 {
        u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(self.floor)).unwrap_or(u64::MAX)
    }

    fn judge(&mut self, kind: Kind, took_us: u64) {
        match self.late_after_us(kind) {
            Some(late_us) => {
                self.window.judged += 1;
                self.window.late += u32::from(took_us > late_us);
            }
            None => self.window.unknown += 1,
        }
    }

    /// When a request is late; `None` while it is not known what its like take alone.
    fn late_after_us(&self, kind: Kind) -> Option<u64> {
        let alone_us = self.alone[kind as usize].value()?;
        Some(alone_us + (alone_us * self.slowdown_percent / 100).max(SLACK_US))
    }
}

/// Follows the value below which nine of ten samples are, by small steps: up for one that is above, a ninth as far down
/// for one that is not (Ma, Muthukrishnan and Sandler 2013).
#[derive(Clone, Copy, Default, Debug)]
struct Quantile {
    /// In 1/256; 0: nothing was seen yet.
    value: u64,
}

impl Quantile {
    fn see(&mut self, sample: u64) {
        let sample = sample.max(1).saturating_mul(256);
        if self.value == 0 {
            self.value = sample;
            return;
        }
        let step = (self.value / 128).max(1);
        self.value = match sample > self.value {
            true => self.value.saturating_add(step * 9).min(sample),
            false => self.value.saturating_sub(step).max(256),
        };
    }

    fn value(self) -> Option<u64> {
        (self.value > 0).then_some(self.value / 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer() -> Pacer {
        Pacer::new(&ExchangeConfig { floor_bytes: 1 << 20, max_bytes: 64 << 20, ..ExchangeConfig::default() })
    }

    fn at(ms: u64) -> Now {
        // Behind the silence.
        Now { mono_us: ms * 1_000, wall_ms: 1_000_000 + QUIET_MS + ms % (QUIET_EVERY_MS - QUIET_MS) }
    }

    /// Lets requests come for some time, one each millisecond, that take so long. Each is beside exchange work or not.
    fn requests(pacer: &mut Pacer, ms: core::ops::Range<u64>, took_us: u64, beside: bool) {
        for ms in ms {
            let now_us = ms * 1_000;
            if beside {
                pacer.spend(now_us, 0);
            }
            pacer.answered(now_us, now_us - took_us, Kind::Read);
            if pacer.is_due(now_us) {
                pacer.adapt(now_us, core::iter::empty());
            }
        }
    }

    #[test]
    fn the_rate_falls_to_the_floor_while_requests_are_late_and_grows_while_they_are_not() {
        let mut pacer = pacer();
        requests(&mut pacer, 1_000..3_000, 500, false);
        requests(&mut pacer, 3_000..6_000, 600, true);
        let grown = pacer.rate;
        assert!(grown > 20 << 20, "{grown}");
        requests(&mut pacer, 6_000..6_150, 5_000, true);
        assert!(pacer.rate <= grown / 2 + (1 << 20), "{}", pacer.rate);
        requests(&mut pacer, 6_150..8_000, 5_000, true);
        assert_eq!(pacer.rate, 1 << 20);
        requests(&mut pacer, 8_000..12_000, 700, true);
        assert!(pacer.rate > 20 << 20);
    }

    #[test]
    fn requests_that_are_not_answered_at_all_are_late() {
        let mut pacer = pacer();
        requests(&mut pacer, 1_000..3_000, 500, false);
        requests(&mut pacer, 3_000..6_000, 600, true);
        for second in 7..14 {
            let waiting = (0..20).map(|at| (Kind::Read, 6_000_000 + at));
            assert!(pacer.is_due(second * 1_000_000));
            pacer.adapt(second * 1_000_000, waiting);
        }
        assert_eq!(pacer.rate, 1 << 20);
    }

    #[test]
    fn before_it_is_known_what_requests_take_alone_the_rate_stays_low() {
        let mut pacer = pacer();
        requests(&mut pacer, 1_000..9_000, 500, true);
        assert_eq!(pacer.rate, 1 << 20);
    }

    #[test]
    fn without_requests_the_rate_is_the_most() {
        let mut pacer = pacer();
        pacer.may_work_at(at(1_000), 0);
        pacer.spend(1_000_000, 64 << 20);
        let next_us = pacer.may_work_at(at(1_000), 0);
        assert!((1_900_000..=2_000_001).contains(&next_us), "{next_us}");
        // With them it is the floor at first.
        let next_us = pacer.may_work_at(at(1_000), 1);
        assert!(next_us > 60_000_000, "{next_us}");
    }

    /// Lets writes come that other nodes coordinate, one each millisecond, and each is acknowledged after so long.
    fn served(pacer: &mut Pacer, ms: core::ops::Range<u64>, took_us: u64, beside: bool) {
        for ms in ms {
            let now_us = ms * 1_000;
            if beside {
                pacer.spend(now_us, 0);
            }
            pacer.served(now_us);
            if pacer.times(now_us, ms) {
                assert!(pacer.is_timed(ms) && !pacer.is_timed(ms + 1));
                pacer.acknowledged(now_us + took_us, true);
            }
            if pacer.is_due(now_us) {
                pacer.adapt(now_us, core::iter::empty());
            }
        }
    }

    #[test]
    fn a_shard_that_coordinates_nothing_goes_by_what_its_acknowledgements_take() {
        let mut pacer = pacer();
        served(&mut pacer, 1_000..3_000, 500, false);
        let before = pacer.rate;
        served(&mut pacer, 3_000..9_000, 600, true);
        assert!(pacer.rate > before + (8 << 20), "{} and {before}", pacer.rate);
        served(&mut pacer, 9_000..12_000, 9_000, true);
        assert_eq!(pacer.rate, 1 << 20);
        // An acknowledgement of which nothing is heard does not end the timing.
        assert!(pacer.times(20_000_000, 1) && !pacer.times(21_000_000, 2) && pacer.times(26_000_000, 3));
        pacer.acknowledged(26_100_000, false);
        assert!(!pacer.is_timed(3));
    }

    #[test]
    fn exchanges_are_silent_for_a_while_when_there_are_requests() {
        let mut pacer = pacer();
        let quiet = Now { mono_us: 5_000_000, wall_ms: 1_000_000 + 50 };
        assert_eq!(pacer.may_work_at(quiet, 0), 5_000_000);
        assert_eq!(pacer.may_work_at(quiet, 1), 5_000_000 + (QUIET_MS - 50) * 1_000);
    }

    #[test]
    fn a_quantile_follows_nine_of_ten_samples() {
        let mut quantile = Quantile::default();
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            quantile.see(1_000 + (seed >> 33) % 1_000);
        }
        let value = quantile.value().expect("samples were seen");
        assert!((1_750..=2_000).contains(&value), "{value}");
        // One freak does not move it far.
        quantile.see(1_000_000);
        assert!(quantile.value().expect("a value") < 2_200);
        let mut short = Quantile::default();
        short.see(0);
        assert_eq!(short.value(), Some(1));
    }
}
