//! The membership machines of small clusters: what a run of `cargo xtask sim --members` shows for large ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use rejoin_test_sim::options::PerMillion;
use rejoin_test_sim::swarm::{Outcome, Setup, run};

const SECOND: u64 = 1_000_000;

fn outcome(nodes: u64, loss_percent: u32) -> Outcome {
    run(Setup { nodes, known: nodes, loss: PerMillion(loss_percent * 10_000), seed: 1 })
}

#[test]
fn a_dead_node_is_known_everywhere_and_the_load_of_a_node_does_not_grow() {
    let outcomes = [3, 10, 100].map(|nodes| outcome(nodes, 0));
    for outcome in &outcomes {
        let others = outcome.setup.nodes as usize - 1;
        assert_eq!((outcome.false_suspects, outcome.false_downs), (0, 0), "{outcome}");
        assert_eq!((outcome.suspected_us.len(), outcome.down_us.len()), (others, others), "{outcome}");
        assert!(
            outcome.suspected_us[others - 1] < 10 * SECOND && outcome.down_us[others - 1] < 25 * SECOND,
            "{outcome}"
        );
        assert_eq!((outcome.suspected_by_stalled, outcome.estranged), (0, 0), "{outcome}");
    }
    let [small, _, large] = outcomes;
    assert!(large.datagrams * 2 < small.datagrams * 3, "{small} and {large}");
}

#[test]
fn lost_datagrams_make_few_suspects_and_none_is_taken_for_down() {
    let outcome = outcome(20, 10);
    assert_eq!(outcome.false_downs, 0, "{outcome}");
    assert!(outcome.false_suspects < 5, "{outcome}");
    assert_eq!((outcome.suspected_us.len(), outcome.estranged), (19, 0), "{outcome}");
}

#[test]
fn at_five_percent_loss_the_load_of_a_node_does_not_grow_either() {
    let (small, large) = (outcome(30, 5), outcome(300, 5));
    assert!(large.datagrams * 2 < small.datagrams * 3, "{small} and {large}");
    assert_eq!((large.false_downs, large.estranged), (0, 0), "{large}");
    assert_eq!((large.suspected_us.len(), large.down_us.len()), (299, 299), "{large}");
}

/// Not even when the nodes have begun as a cluster of three.
#[test]
fn at_twenty_percent_loss_the_load_of_a_node_does_not_grow_while_the_cluster_does() {
    let small = outcome(30, 20);
    let grown = run(Setup { nodes: 300, known: 3, loss: PerMillion(200_000), seed: 1 });
    assert!(grown.datagrams * 4 < small.datagrams * 5, "{small} and {grown}");
    assert_eq!((grown.false_downs, grown.estranged), (0, 0), "{grown}");
    assert_eq!((grown.suspected_us.len(), grown.down_us.len()), (299, 299), "{grown}");
}

#[test]
fn the_same_seed_twice_gives_the_same_outcome() {
    assert_eq!(outcome(5, 5), outcome(5, 5));
}
