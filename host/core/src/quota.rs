//! Quotas: rates, and what is stored.
//!
//! Rates are kept by a node for itself ([`Rate`]). What is stored is estimated by every node from its own copies
//! ([`whole`]), because keys are spread evenly over the ring; the shards are told which buckets are full, and refuse
//! writes before they mint a dot.

use alloc::string::String;

use rejoin_proto::quota::{Amounts, Limit, Quota};
use rejoin_proto::{ErrorCode, ErrorReply};

/// The length of a burst that a rate allows, in microseconds: what was not used in a second can be used at once.
const BURST_US: u64 = 1_000_000;
/// How long a writer should wait that was refused for what is stored, in milliseconds: usage is looked at so often.
pub const USAGE_EVERY_MS: u32 = 1_000;

/// A rate limiter (the generic cell rate algorithm, ITU-T I.371): it remembers only when the next unit is due.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rate {
    due_us: u64,
}

impl Rate {
    /// Takes so many units at a rate per second.
    ///
    /// # Errors
    /// It is used up; how long to wait, in milliseconds. Nothing was taken.
    pub fn take(&mut self, now_us: u64, per_second: u64, units: u64) -> Result<(), u32> {
        let ahead_us = self.due_us.saturating_sub(now_us);
        // One that is larger than a whole burst waits for a full one, or it would never pass.
        let room_us = u128::from(BURST_US).saturating_sub(cost_us(per_second, units));
        // Rule: rates are kept.
        if u128::from(ahead_us) > room_us {
            return Err(wait_ms(u128::from(ahead_us) - room_us));
        }
        self.owe(now_us, per_second, units);
        Ok(())
    }

    /// Takes units of which the number was not known before they were used.
    pub fn owe(&mut self, now_us: u64, per_second: u64, units: u64) {
        let cost_us = u64::try_from(cost_us(per_second, units)).unwrap_or(u64::MAX);
        self.due_us = self.due_us.max(now_us).saturating_add(cost_us);
    }

    /// Whether what is owed leaves nothing for now.
    ///
    /// # Errors
    /// How long to wait, in milliseconds.
    pub fn check(&self, now_us: u64) -> Result<(), u32> {
        match self.due_us.saturating_sub(now_us) {
            // Rule: debts are paid first.
            ahead_us if ahead_us >= BURST_US => Err(wait_ms(u128::from(ahead_us - BURST_US + 1))),
            _ => Ok(()),
        }
    }
}

fn cost_us(per_second: u64, units: u64) -> u128 {
    u128::from(units) * 1_000_000 / u128::from(per_second.max(1))
}

fn wait_ms(us: u128) -> u32 {
    u32::try_from(us.div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// A limit that is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reached {
    /// Whose it is, such as `tenant shop`.
    pub whose: String,
    /// What it limits.
    pub limit: Limit,
    /// How much there may be.
    pub most: u64,
    /// What is used, as far as it is known.
    pub used: Option<u64>,
}

impl Reached {
    /// The refusal. The client may try again after so many milliseconds; 0 if waiting does not help.
    #[must_use]
    pub fn refusal(&self, retry_ms: u32) -> ErrorReply {
        let Self { whose, limit, most, used } = self;
        let used = used.map_or_else(String::new, |used| alloc::format!(", and has about {used}"));
        let advice = match retry_ms {
            0 => "an operator can allow more".into(),
            retry_ms => alloc::format!("try again in {retry_ms} ms, or ask for more"),
        };
        let what = limit.what();
        let message =
            alloc::format!("quota exceeded: {whose} may have {most} {what}{used}; nothing was done; {advice}");
        ErrorReply::new(ErrorCode::QuotaExceeded, message).retry_after(retry_ms)
    }
}

/// The limits of a quota that are reached by what is used: of each whether it is a hard one, how much there may be and
/// how much there is.
pub fn reached<'a>(quota: &'a Quota, used: &'a Amounts) -> impl Iterator<Item = (Limit, bool, u64, u64)> + 'a {
    let of = |hard: bool, amounts: &'a Amounts| {
        amounts.iter().filter_map(move |(limit, most)| {
            let used = used.get(limit).filter(|used| *used >= most)?;
            Some((limit, hard, most, used))
        })
    };
    of(true, &quota.hard).chain(of(false, &quota.soft))
}

/// What a whole bucket comes to, if a node has `own` of it in `owned` of `partitions` partitions. A node without
/// partitions cannot tell.
#[must_use]
pub fn whole(own: u64, owned: u32, partitions: u32) -> u64 {
    match owned {
        0 => 0,
        owned => u64::try_from(u128::from(own) * u128::from(partitions) / u128::from(owned)).unwrap_or(u64::MAX),
    }
}
