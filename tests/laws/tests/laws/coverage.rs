//! The report of a check says which code of the merge it has run, and cases that run new code lead to more of them.

use std::time::Duration;

use rejoin_laws::{CheckConfig, Merge as _, Sibling};
use rejoin_merge::{Compiler, Coverage, ModuleLimits, PluginUnderTest, check_laws};
use rejoin_proto::catalog::BucketProps;
use rejoin_test_hostile::{component as of_text, lawless};
use rejoin_test_laws::component;

fn load(bytes: &[u8]) -> PluginUnderTest {
    let props = BucketProps { fuel: 500_000_000, ..BucketProps::default() };
    let loaded = PluginUnderTest::load(bytes, &Compiler::InProcess, &ModuleLimits::default(), &props);
    loaded.unwrap_or_else(|why| panic!("{why}"))
}

/// Counterexamples are not looked at, so they need not be small.
fn quick(cases: u32) -> CheckConfig {
    CheckConfig { cases, shrink: Duration::ZERO, smallest: 8, ..CheckConfig::default() }
}

fn checked(bytes: &[u8], cases: u32) -> Coverage {
    let under_test = load(bytes);
    let props = BucketProps { fuel: 500_000_000, ..BucketProps::default() };
    let _ = check_laws(&under_test, &props, quick(cases));
    under_test.coverage().unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn a_check_of_a_plugin_of_the_tree_runs_a_good_part_of_its_merge() {
    for plugin in ["cart", "session", "highest"] {
        let coverage = checked(&component::built(plugin), 60);
        let Coverage { edges, seen, functions, never_called } = &coverage;
        assert!(*edges > 50 && *functions > 5, "{plugin}: {coverage:?}");
        // The rest is mostly the standard library: panics, the end of memory, numbers that are not whole.
        assert!(seen * 5 > *edges && seen < edges, "{plugin}: {seen} of {edges}");
        assert!(never_called.len() < *functions, "{plugin}: {coverage:?}");
    }
}

/// Merges to the longest value, and calls `$rare` for values that are longer than eight bytes.
const RARE: &str = r#"(module
  (memory (export "memory") 64)
  (global $top (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func $rare (param $length i32) (result i32)
    (if (result i32) (i32.gt_u (local.get $length) (i32.const 10)) (then (i32.const 1)) (else (i32.const 1))))
  (func $never (result i32) (i32.const 0))
  (func $merge (export "rejoin:plugin/merger@0.1.0#merge") (param i32 i32) (param $siblings i32) (param $count i32)
      (result i32)
    (local $index i32) (local $length i32) (local $best i32) (local $at i32)
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
      (local.set $at (i32.add (local.get $siblings) (i32.mul (local.get $index) (i32.const 24))))
      (local.set $length (i32.load offset=4 (local.get $at)))
      (if (i32.gt_u (local.get $length) (i32.const 8)) (then (drop (call $rare (local.get $length)))))
      (if (i32.ge_u (local.get $length) (local.get $best)) (then
        (local.set $best (local.get $length))
        (i32.store (i32.const 1028) (i32.load (local.get $at)))
        (i32.store (i32.const 1032) (local.get $length))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next)))
    (if (i32.gt_u (local.get $count) (i32.const 100000)) (then (drop (call $never))))
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.const 1024)))"#;

fn rare() -> PluginUnderTest {
    load(&of_text(RARE, "rare", "world rare { export merger; }"))
}

fn merge(under_test: &PluginUnderTest, lengths: &[usize]) -> Vec<u8> {
    let sibling = |length: &usize| Sibling { value: vec![b'x'; *length], stamp_ms: 1, writer: 1 };
    under_test.merge(b"k", &lengths.iter().map(sibling).collect::<Vec<_>>()).unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn every_way_of_a_branch_counts_once_and_functions_that_never_run_are_named() {
    let under_test = rare();
    assert_eq!(merge(&under_test, &[1, 2]), b"xx");
    let few = under_test.coverage().expect("it has counters");
    // `cabi_realloc` 1, `$rare` 1 + 2, `$never` 1, `$merge` 1 + 4 × 2.
    assert_eq!((few.edges, few.functions), (14, 4), "{few:?}");
    // Both ends of the loop, no value that is longer than eight, each longer than the last, few siblings.
    assert_eq!((few.seen, few.never_called.as_slice()), (7, ["rare", "never"].map(String::from).as_slice()));
    assert!(under_test.has_reached_new_code() && !under_test.has_reached_new_code());
    merge(&under_test, &[1, 2]);
    assert!(!under_test.has_reached_new_code(), "the same again is nothing new");

    merge(&under_test, &[9, 2]);
    let more = under_test.coverage().expect("it has counters");
    assert_eq!((more.seen, more.never_called.as_slice()), (11, ["never"].map(String::from).as_slice()), "{more:?}");
    assert!(under_test.has_reached_new_code());
}

#[test]
fn counters_change_no_result() {
    for bytes in [lawless::first(), lawless::sum(), lawless::trusting(), lawless::refusing()] {
        let under_test = load(&bytes);
        let _ = check_laws(&under_test, &BucketProps::default(), quick(40));
        let coverage = under_test.coverage().unwrap_or_else(|why| panic!("{why}"));
        assert!(coverage.seen > 0 && coverage.seen <= coverage.edges, "{coverage:?}");
    }
}
