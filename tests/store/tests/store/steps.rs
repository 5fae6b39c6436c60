//! A new segment is made in steps: no commit copies more pinned rows than its share, and what was copied too early is
//! made good.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::{Options, ShardStore, Start};
use rejoin_test_store::{
    Call, DiskEvent, FRONT, Fault, FileChange, Image, MemoryDisk, Outcome, Random, SHARD, Survival, campaign,
    recording, rows, scratch, small,
};

/// Where the next segment is made.
const NEXT: &str = "shard-000/journal/next";

/// Bytes of a segment's records; what it may have more while the next one is made; the rows that a commit copies at
/// least.
const SEGMENT: u64 = 1 << 20;
const HEADROOM: u64 = SEGMENT / 8;
const ROWS: u64 = 8;
/// Pinned rows, and the bytes of one in a segment's snapshot.
const PINNED: u64 = 3000;
const ROW_BYTES: u64 = 5 + 12 + 4 + 20;

/// A change of one pinned row, and of an object's that has so many bytes.
fn change(number: u64, object: usize) -> Change {
    let mut change = Change::default();
    // Every second one is far from those before it.
    let row = if number.is_multiple_of(2) { number } else { number * 1009 } % PINNED;
    change.put(Space::Pinned, format!("row {row:08}"), format!("{number:020}"));
    change.put(Space::Objects, "object", "v".repeat(object));
    change
}

/// What happens to the next segment.
#[derive(Default)]
struct Watch {
    file: Option<usize>,
}

impl Watch {
    /// Bytes of rows that were copied since this was last asked.
    fn copied(&mut self, disk: &MemoryDisk) -> u64 {
        let mut copied = 0;
        for seen in disk.seen() {
            match seen {
                DiskEvent::Call(Call::Create(name, file)) if name == NEXT => self.file = Some(file),
                DiskEvent::Call(Call::Change(file, FileChange::Write(at, bytes)))
                    if self.file == Some(file) && at > 0 =>
                {
                    copied += bytes.len() as u64
                }
                DiskEvent::Call(Call::Rename(name, _)) if name == NEXT => self.file = None,
                _ => {}
            }
        }
        copied
    }
}

/// Whether a next segment is on the disk.
fn is_there(disk: &MemoryDisk) -> bool {
    disk.machine().crash(Survival::Everything, &mut Random::new(0, 0)).image.files.contains_key(NEXT)
}

#[test]
fn no_commit_copies_more_than_its_share_and_the_segment_is_left_in_time() {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default()).watching(&root.path().join(SHARD).join("tree"));
    let options = || Options { segment_bytes: SEGMENT, memtable_bytes: 64 << 20, free_space_floor: 1, ..small() };
    let open = |start| ShardStore::open(root.path().join(SHARD), options(), Arc::new(disk.clone()), &start).unwrap();
    let (mut store, mut watch) = (open(Start::FIRST).0, Watch::default());
    (0..2 * PINNED).for_each(|number| store.write(change(number, 1)).unwrap());
    store.commit().unwrap();
    assert_eq!(rows(&store, Space::Pinned).len() as u64, PINNED);
    let (mut number, mut steps) = (2 * PINNED, 0);
    let mut step = |store: &mut ShardStore| {
        let before = store.stats().journal_bytes;
        store.write(change(number, [100, 100, 6000][(number % 3) as usize])).unwrap();
        store.commit().unwrap();
        number += 1;
        let (batch, copied) = (store.stats().journal_bytes - before, watch.copied(&disk));
        let share = ROWS.max(PINNED * batch / HEADROOM) + 1;
        assert!(
            copied <= share * ROW_BYTES,
            "a batch of {batch} bytes has copied {copied}, and its share were {share} rows"
        );
        steps += u64::from(copied > 0);
    };
    while store.stats().segments < 5 {
        step(&mut store);
    }
    let bytes = store.stats().journal_bytes;
    assert!((4 * SEGMENT..4 * (SEGMENT + HEADROOM)).contains(&bytes), "{bytes} bytes in four segments");
    // The disk is full while one is made: it is given up, and begun again when there is room.
    while !is_there(&disk) {
        step(&mut store);
    }
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) });
    store.maintenance().run().unwrap();
    store.commit().unwrap();
    assert!(!is_there(&disk), "its room is needed");
    disk.heal();
    store.maintenance().run().unwrap();
    // A clean stop comes while one is made, and the next start finds no room for anything.
    while !is_there(&disk) {
        step(&mut store);
    }
    assert!(steps > 100, "{steps}");
    let there = rows(&store, Space::Pinned);
    store.close().unwrap();
    assert!(is_there(&disk));
    drop(disk.seen());
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) });
    // It opens, to be read.
    drop(ShardStore::open(root.path().join(SHARD), options(), Arc::new(disk.clone()), &Start::CLEAN).unwrap());
    let first = disk.seen().into_iter().find(|seen| !matches!(seen, DiskEvent::Call(Call::SyncNames(_))));
    assert!(matches!(first, Some(DiskEvent::Call(Call::Remove(name))) if name == NEXT), "its room goes first");
    disk.heal();
    let (store, recovery) = open(Start::CLEAN);
    assert_eq!((recovery.lost, rows(&store, Space::Pinned)), (vec![], there));
}

/// Or the scripts that are cut everywhere would show nothing about it.
#[test]
fn the_scripts_make_segments_in_steps_in_which_rows_change_behind_the_copy() {
    campaign("the_scripts_make_segments_in_steps_in_which_rows_change_behind_the_copy", 0..5, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        let (mut moments, mut again, mut removed) = (0, 0, 0);
        while let Some(seen) = walk.next_moment() {
            let image = walk.machine.crash(Survival::Everything, &mut Random::new(seed, 0)).image;
            if let Some(made) = image.files.get(NEXT) {
                moments += 1;
                if matches!(seen, DiskEvent::Call(Call::Rename(name, _)) if name == NEXT) {
                    let (twice, gone) = snapshot(made.written());
                    (again, removed) = (again + twice, removed + gone);
                }
            }
            walk.pass();
        }
        let enough = moments > 500 && again > 50 && removed > 10;
        cuts.on_a_fresh_directory(0, &"the script's calls", |_| {
            if enough {
                Ok(())
            } else {
                Err(format!("{moments} moments, {again} rows copied again, {removed} removed"))
            }
        });
        cuts.count(&Outcome::Sound);
    });
}

/// How many rows of a segment's snapshot are there again, and how many say that a row is gone.
fn snapshot(segment: &[u8]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    let (mut seen, mut again, mut removed) = (BTreeSet::new(), 0, 0);
    let (count, mut at) = (word(FRONT + 49), FRONT + 53);
    for _ in 0..count {
        let (has_value, length) = (segment[at] & 2 > 0, word(at + 1));
        let key = segment[at + 5..at + 5 + length].to_vec();
        at += 5 + length;
        again += u64::from(!seen.insert(key));
        removed += u64::from(!has_value);
        if has_value {
            at += 4 + word(at);
        }
    }
    (again, removed)
}
