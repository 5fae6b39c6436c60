//! Scans: the rows are read at once, and the shard has them after a while, when its store may be newer.

use rejoin_core::port::StoreFault;
use rejoin_core::shard::event::{Event, ScanJob, ScanTicket};

use super::{Occurrence, World};
use crate::history::NodeIndex;
use crate::options::MS;

/// The mean time of a scan, in microseconds.
const SCAN_US: u64 = 300;

impl World {
    /// Scans a shard's disk. The result may be shorter than asked for, and late. A full disk may give up the snapshot.
    pub(super) fn scan(&mut self, node: NodeIndex, shard: u16, ticket: ScanTicket, mut job: ScanJob) {
        if self.scans.percent(20) {
            job.max_rows = job.max_rows.min(1 + self.scans.index(4));
        }
        let slow = self.scans.percent(2);
        let took_us = self.scans.exponential(if slow { 300 * MS } else { SCAN_US });
        let of = &self.nodes[usize::from(node)];
        let disk = &of.disks[usize::from(shard)];
        let expired = self.scans.percent(if disk.trouble.full { 50 } else { 1 });
        let scanned = if expired { Err(StoreFault::Busy) } else { disk.scanned(&job) };
        let (life, event) = (of.life, Box::new(Event::Scanned(ticket, scanned)));
        self.plan_in(took_us, Occurrence::Notice { node, life, shard, event });
    }
}
