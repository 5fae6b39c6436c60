//! When the power fails, what was synced is there, what was not is there up to some record, and neither is called a loss.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::Start;
use rejoin_test_store::{PowerDisk, get, open_on, rows};
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: u64 = 300;

/// One run of many power failures.
fn run(seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % below
    };
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("shard");
    let disk = PowerDisk::default();
    let (mut last, mut synced, mut start) = (0, 0, Start::FIRST);
    for round in 0..12 {
        let (mut store, recovery) = open_on(&dir, Arc::new(disk.clone()), start).unwrap();
        assert_eq!(recovery.lost, Vec::<String>::new(), "seed {seed} round {round}");
        let found = get(&store, Space::Pinned, "last").map_or(0, |last| last.parse::<u64>().unwrap());
        assert!((synced..=last).contains(&found), "seed {seed} round {round}: {found} is not in {synced}..={last}");
        let expected: BTreeMap<_, _> = (1..=found).map(|n| (format!("{:03}", n % KEYS), format!("{n:0500}"))).collect();
        let there: BTreeMap<_, _> = rows(&store, Space::Objects).into_iter().collect();
        let wrong: Vec<_> = expected.iter().filter(|(key, value)| there.get(*key) != Some(value)).map(|(key, _)| key).collect();
        assert!(wrong.is_empty() && there.len() == expected.len(), "seed {seed} round {round}, record {found}: {wrong:?}");
        // What is there after a start was made durable anew.
        (last, synced, start) = (found, found, Start::POWER_LOST);
        for _ in 0..next(900) {
            last += 1;
            let mut change = Change::default();
            change.put(Space::Objects, format!("{:03}", last % KEYS), format!("{last:0500}"));
            change.put(Space::Pinned, "last", last.to_string());
            store.write(change).unwrap();
            if next(3) == 0 {
                store.commit().unwrap();
                if next(6) == 0 {
                    synced = store.syncer().sync().unwrap().0;
                }
                if next(30) == 0 || store.stats().memtable_bytes > 140_000 {
                    store.maintenance().run().unwrap();
                }
            }
        }
        drop(store);
        disk.fail(&mut next);
    }
}

#[test]
fn a_power_failure_takes_only_what_was_never_synced() {
    (1..=8).for_each(run);
}
