//! A process that is killed under load has lost nothing that it committed.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rejoin_core::port::Space;
use rejoin_store::Start;
use rejoin_test_store::{get, open, rows};

#[test]
fn a_killed_writer_has_lost_nothing_that_it_committed() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("shard");
    let mut next = 0;
    for round in 0..10 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_store-writer"))
            .arg(&shard)
            .arg(next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = next + 500 + round * 300;
        let mut last = None;
        // It is killed in the middle of whatever it does; what it had printed by then was committed.
        while let Some(Ok(line)) = lines.next() {
            let row: u64 = line.split(' ').next().unwrap().parse().unwrap();
            if row >= enough {
                child.kill().unwrap();
            }
            last = Some(row);
        }
        child.wait().unwrap();
        let committed = last.unwrap();
        assert!(committed >= enough, "round {round}: the writer stopped by itself after {committed}");
        let (store, recovery) = open(&shard, Start::KILLED);
        assert_eq!(recovery.lost, Vec::<String>::new());
        let pinned: u64 = get(&store, Space::Pinned, "last").unwrap().parse().unwrap();
        assert!(pinned >= committed, "{pinned} after row {committed}");
        let rows = rows(&store, Space::Objects);
        assert_eq!(rows.len() as u64, pinned + 1, "the rows of a change are there together");
        assert!(
            rows.iter().enumerate().all(|(index, (key, value))| *key == format!("{index:06}") && value.len() == 200)
        );
        // A batch may have been committed in part, if it met a busy store: the next writer goes on behind the last row.
        next = pinned + 1;
    }
}
