//! Scans of object rows, with the gaps that a scan of the real store has.

use std::ops::Bound;

use bytes::Bytes;

use rejoin_core::port::{StoreFault, key_after};
use rejoin_core::shard::event::{ScanJob, ScannedRows};

use super::Disk;

impl Disk {
    /// One result of a scan at the present position. As in `rejoin-store`, the rows in front of a bad block are a
    /// result of their own, and the next one passes the block without a row.
    pub(crate) fn scanned(&self, job: &ScanJob) -> Result<ScannedRows, StoreFault> {
        self.check()?;
        let mut found = ScannedRows::default();
        let is_inside = |key: &Bytes| job.to.as_ref().is_none_or(|to| key < to);
        if !is_inside(&job.from) {
            return Ok(found);
        }
        let (mut bytes, last) = (0, job.to.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
        for (key, object) in self.objects.range::<Bytes, _>((Bound::Included(&job.from), last)) {
            if self.trouble.bad_blocks.contains(key) {
                if let Some((last, _)) = found.rows.last() {
                    found.next = Some(key_after(last));
                } else {
                    found.damaged = true;
                    found.unreadable.push((job.from.clone(), Some(key_after(key))));
                    found.damaged = true;
                    found.next = Some(key_after(key));
                }
                break;
            }
            bytes += key.len() + object.len();
            found.rows.push((key.clone(), object.clone()));
            if found.rows.len() >= job.max_rows || bytes >= job.max_bytes {
                found.next = Some(key_after(key));
                break;
            }
        }
        found.next = found.next.filter(is_inside);
        let end = found.next.clone().or_else(|| job.to.clone());
        for range in &self.lost {
            let from = job.from.clone().max(range.first.clone());
            let behind = key_after(&range.last);
            let to = end.clone().map_or(behind.clone(), |end| end.min(behind));
            if from < to {
                found.unreadable.push((from, Some(to)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use rejoin_core::port::{Change, Space, Store};

    use super::*;

    fn disk(keys: &[&'static str]) -> Disk {
        let mut disk = Disk::default();
        for key in keys {
            let mut change = Change::default();
            change.put(Space::Objects, *key, "v").put(Space::Pinned, *key, "p");
            disk.write(change).unwrap();
        }
        let written = disk.commit().unwrap();
        disk.sync(written);
        disk
    }

    fn job(from: &'static str, to: Option<&'static str>, max_rows: usize) -> ScanJob {
        ScanJob { from: from.into(), to: to.map(Bytes::from), max_rows, max_bytes: 1000 }
    }

    fn range(from: &'static str, to: &'static str) -> (Bytes, Option<Bytes>) {
        (from.into(), Some(to.into()))
    }

    fn keys(found: &ScannedRows) -> Vec<&str> {
        found.rows.iter().map(|(key, _)| str::from_utf8(key).unwrap()).collect()
    }

    #[test]
    fn a_scan_goes_on_where_it_stopped_and_ends_at_its_bound() {
        let disk = disk(&["a", "b", "c", "d"]);
        let first = disk.scanned(&job("a", Some("d"), 2)).unwrap();
        assert_eq!((keys(&first), first.next.as_deref()), (vec!["a", "b"], Some(&b"b\0"[..])));
        let rest = disk.scanned(&job("b\0", Some("d"), 2)).unwrap();
        assert_eq!((keys(&rest), &rest.next), (vec!["c"], &None));
        assert_eq!(disk.scanned(&job("d", Some("d"), 2)).unwrap(), ScannedRows::default());
    }

    #[test]
    fn a_bad_block_is_named_and_passed_and_a_lost_range_is_named_as_far_as_it_was_passed() {
        let mut disk = disk(&["a", "b", "c", "d", "e"]);
        disk.trouble.bad_blocks.insert("b".into());
        let first = disk.scanned(&job("", None, 10)).unwrap();
        assert_eq!((keys(&first), first.next.as_deref()), (vec!["a"], Some(&b"a\0"[..])));
        let second = disk.scanned(&job("a\0", None, 10)).unwrap();
        assert_eq!((second.rows.len(), second.next.as_deref()), (0, Some(&b"b\0"[..])));
        assert_eq!(second.unreadable, [range("a\0", "b\0")]);
        disk.lose_range("c".into(), "d".into());
        let third = disk.scanned(&job("b\0", None, 10)).unwrap();
        assert_eq!((keys(&third), &third.next), (vec!["e"], &None));
        assert_eq!(third.unreadable, [range("c", "d\0")]);
    }
}
