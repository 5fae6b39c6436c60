//! What a cluster's size costs is what the figures of the book say. Times are printed and never asserted.

use rejoin_test_bench::Crowd;
use rejoin_test_bench::layouts::typical;

#[test]
fn typical_changes_move_what_shares_and_zones_demand() {
    let changes = typical();
    assert_eq!(changes.len(), 20);
    for change in changes {
        let moves = change.moves();
        println!("{}: {} moved, {} at least", change.what, moves.moved, moves.least());
        assert!(moves.moved >= moves.least(), "{}: {moves:?}", change.what);
        // Shares and zones together may demand more than either of them, and no more than both.
        assert!(moves.moved <= moves.shares + moves.places, "{}: {moves:?}", change.what);
    }
}

#[test]
fn messages_and_bytes_of_an_operation_do_not_grow_with_the_cluster() {
    let cost = |nodes| {
        let mut crowd = Crowd::new(nodes);
        let (put, get) = (crowd.puts(800), crowd.gets(400));
        [put.messages, put.bytes, get.messages, get.bytes]
    };
    let small = cost(3);
    assert!(small.iter().all(|cost| *cost > 0), "{small:?}");
    for nodes in [30, 1_000] {
        let large = cost(nodes);
        let is_flat = |(small, large): (&u64, &u64)| large * 5 <= small * 6 && small * 5 <= large * 6;
        assert!(small.iter().zip(&large).all(is_flat), "{small:?} with 3 nodes, {large:?} with {nodes}");
    }
}
