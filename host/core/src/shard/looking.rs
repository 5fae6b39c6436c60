//! Ranges whose rows are too large to be read on the shard's turn: they are read off it, on both sides of a walk.

use alloc::vec::Vec;

use rejoin_proto::exchange::{Answer, Ask, BucketRanges, ExchangeAnswer, HashRange, RangeHashes};
use rejoin_proto::peer::PeerBody;

use super::Shard;
use super::event::{Effect, ScanTicket, ScannedRows};
use super::exchange::ANSWER_US;
use super::serving::{COMPARED_ROWS, compared};
use super::turn::{Turn, fault_code};
use super::walking::Step;
use crate::exchange::own::{Own, RangeScan, salt_of};
use crate::exchange::state::{Served, Serving, ServingWork};
use crate::exchange::walk::{Waits, Walk};
use crate::port::StoreFault;

/// The most rows that are read so of one range. One that needs more is about to be divided.
const MOST_ROWS: usize = 4096;

impl Shard {
    /// A walk of this node needs the rows of a range.
    pub(super) fn look_off_turn(&mut self, turn: &mut Turn<'_>, walk: &mut Walk, range: HashRange) -> Step {
        let (ticket, scan) = (self.scan_ticket(), RangeScan::new(range));
        turn.effects.push(Effect::Scan(ticket, scan.job(None)));
        walk.waits = Waits::Look(ticket, scan);
        Step::Waits
    }

    /// Rows for a walk of this node were read.
    pub(super) fn looked(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        (ticket, mut scan): (ScanTicket, RangeScan),
        found: ScannedRows,
    ) -> Step {
        self.spend_scanned(turn, &found);
        if !found.unreadable.is_empty() {
            // What cannot be read here the peer may have or not.
            walk.fail_range(&scan.range);
        }
        walk.deadline_us = turn.now.mono_us + ANSWER_US;
        if let Some(job) = scan.take(&self.config.causal_key, found, MOST_ROWS) {
            turn.effects.push(Effect::Scan(ticket, job));
            walk.waits = Waits::Look(ticket, scan);
            return Step::Waits;
        }
        let (range, has_more) = (scan.range, scan.has_more);
        let own = Own::of_rows(&range, scan.into_rows());
        match walk.hashes_of(&own) {
            Some(hashes) if !has_more => {
                let (asked, ranges) = (alloc::vec![(range, own)], alloc::vec![(range, hashes)]);
                self.ask_compare(turn, walk, asked, ranges)
            }
            _ => Step::Failed,
        }
    }

    /// Asks a peer to compare ranges.
    pub(super) fn ask_compare(
        &self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        asked: Vec<(HashRange, Own)>,
        ranges: Vec<(HashRange, RangeHashes)>,
    ) -> Step {
        walk.waits = Waits::Compare(asked);
        let first = ranges.first().map(|(range, _)| walk.partition(range));
        let mut groups: Vec<BucketRanges> = Vec::new();
        for (range, hashes) in ranges {
            match groups.last_mut().filter(|group| group.bucket == range.bucket) {
                Some(group) => group.ranges.push((range.into(), hashes)),
                None => groups.push(BucketRanges { bucket: range.bucket, ranges: alloc::vec![(range.into(), hashes)] }),
            }
        }
        self.ask(turn, walk, first, Ask::Compare { width: walk.width, ranges: groups });
        Step::Waits
    }

    /// The next rows that a peer's walk has to be answered from.
    pub(super) fn compare_scanned(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: ScanTicket,
        (served, mut scan, theirs): (Served, RangeScan, RangeHashes),
        scanned: Result<ScannedRows, StoreFault>,
    ) {
        let Served { peer, of: (walk, number), width } = served;
        let answer = match scanned {
            Ok(found) => {
                self.spend_scanned(turn, &found);
                let most = if matches!(theirs, RangeHashes::Parts(_)) { MOST_ROWS } else { COMPARED_ROWS };
                if let Some(job) = scan.take(&self.config.causal_key, found, most) {
                    turn.effects.push(Effect::Scan(ticket, job));
                    let work = ServingWork::Compare(scan, theirs);
                    self.exchanges.serving.insert(ticket, Serving { served, work });
                    return;
                }
                // The layout may have changed meanwhile.
                self.check_range(peer, scan.range)
                    .map(|_| Answer::Compared(alloc::vec![compared(scan, (salt_of(walk), width), &theirs)]))
            }
            Err(fault) => Err(fault_code(turn, fault)),
        };
        let body = ExchangeAnswer { walk, number, epoch: self.epoch(), answer };
        self.send(turn, peer, 0, PeerBody::ExchangeAnswer(body));
    }

    fn spend_scanned(&mut self, turn: &Turn<'_>, found: &ScannedRows) {
        let bytes = found.rows.iter().map(|(_, row)| row.len() as u64).sum();
        self.spend_reading(turn.now, (found.rows.len(), bytes));
    }
}
