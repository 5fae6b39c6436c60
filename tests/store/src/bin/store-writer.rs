//! Writes into a store until it is killed. After every commit it prints how far it has come, with `d` once that is
//! durable too.
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
    for batch in first.. {
        for row in 0..5 {
            let mut change = Change::default();
            change.put(Space::Objects, format!("{:06}", batch * 5 + row), "v".repeat(200));
            change.put(Space::Pinned, "last", (batch * 5 + row).to_string());
            while store.write(change.clone()) == Err(StoreFault::Busy) {
                store.commit().unwrap();
                std::thread::yield_now();
            }
        }
        store.commit().unwrap();
        let durable = batch % 7 == 0 && store.syncer().sync().is_ok();
        writeln!(out, "{batch}{}", if durable { " d" } else { "" }).unwrap();
    }
}
