//! Runs the scripts of the `shards` target on the twin of the core: the checks must find a broken rule.
#![forbid(unsafe_code)]

// The scripts name the core; here that is the twin.
extern crate rejoin_test_twin as rejoin_core;

#[path = "shards/mod.rs"]
mod shards;

use std::panic::catch_unwind;

use rejoin_core::mutants::{Rule, without};
use rejoin_test_fuzz::Hostile;

/// The same scripts against shards that break a rule: what is watched must show it, or watching proves nothing.
#[test]
fn a_shard_that_breaks_a_rule_is_caught_by_some_script() {
    use Rule::*;
    let told = [
        AcksWaitForTheDisk,
        NodesCountOnce,
        RefusalsDoNotCount,
        RefusedIsNotSent,
        JoinsKeepBoth,
        FoldsForgetNothing,
        ContextsAreRemembered,
        ContextsOpenOneKey,
        WritesReplaceWhatWasSeen,
        InvalidIsNotWritten,
    ];
    let hostile = Hostile::of(shards::seeds());
    for rule in told {
        let caught = |bytes: &[u8]| catch_unwind(|| without(rule, || shards::play(bytes))).is_err();
        let random = (0..5000u64).map(|seed| hostile.drawn(seed));
        assert!(shards::seeds().into_iter().chain(random).any(|bytes| caught(&bytes)), "{rule:?} can be broken unseen");
    }
}
