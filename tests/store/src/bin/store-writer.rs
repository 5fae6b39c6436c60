//! Writes rows into a store, from the one that is named on, until it is killed. It commits every fifth row, and any row
//! that meets a busy store; after a fifth row it prints its number, with `d` if it is durable too.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helper")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::{OsDisk, ShardStore, Start};
use rejoin_test_store::small;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap());
    let first: u64 = args.next().unwrap().parse().unwrap();
    let start = if first == 0 { Start::FIRST } else { Start::KILLED };
    let (mut store, recovery) = ShardStore::open(dir, small(), Arc::new(OsDisk), &start).unwrap();
    assert!(recovery.lost.is_empty(), "{:?}", recovery.lost);
    let _maintenance = store.maintenance().spawn("maintenance").unwrap();
    let mut out = std::io::stdout();
    for row in first.. {
        let mut change = Change::default();
        change.put(Space::Objects, format!("{row:06}"), "v".repeat(200));
        change.put(Space::Pinned, "last", row.to_string());
        while store.write(change.clone()) == Err(StoreFault::Busy) {
            store.commit().unwrap();
            std::thread::yield_now();
        }
        if row % 5 == 4 {
            store.commit().unwrap();
            let durable = row % 7 == 0 && store.syncer().sync().is_ok();
            writeln!(out, "{row}{}", if durable { " d" } else { "" }).unwrap();
        }
    }
}
