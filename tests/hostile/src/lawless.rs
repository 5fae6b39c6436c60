//! Plugins that break one law each and are correct otherwise: they draw values, show them, and refuse garbage.
//!
//! Their values are single digits, which are JSON. A merge is a few instructions, so that a reader sees that it breaks
//! this law and no other.

use crate::component;

/// Draws and shows values, and calls `$merge` with those that `$fits` has found to be digits from 0 to `$most`.
const SKELETON: &str = r#"
  (memory (export "memory") 64)
  (global $top (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  ;; What `merge` returns: a pointer to (0 = a result, 1 = a fault), then pointer and length of the bytes.
  (func $bytes (param $at i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (local.get $at))
    (i32.store (i32.const 1032) (local.get $length))
    (i32.const 1024))
  (func $number (param $digit i32) (result i32)
    (i32.store8 (i32.const 2000) (i32.add (local.get $digit) (i32.const 48)))
    (call $bytes (i32.const 2000) (i32.const 1)))
  (func $sibling (param $siblings i32) (param $index i32) (result i32)
    (i32.add (local.get $siblings) (i32.mul (local.get $index) (i32.const 24))))
  (func $digit (param $siblings i32) (param $index i32) (result i32)
    (i32.sub (i32.load8_u (i32.load (call $sibling (local.get $siblings) (local.get $index)))) (i32.const 48)))
  (func $fits (param $siblings i32) (param $count i32) (result i32)
    (local $index i32) (local $bad i32)
    (loop $next
      (local.set $bad (i32.or (local.get $bad)
        (i32.ne (i32.load offset=4 (call $sibling (local.get $siblings) (local.get $index))) (i32.const 1))))
      (if (i32.eqz (local.get $bad)) (then
        (local.set $bad (i32.gt_u (call $digit (local.get $siblings) (local.get $index)) (global.get $most)))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $index) (local.get $count))))
    (i32.eqz (local.get $bad)))
  (func (export "rejoin:plugin/presenter@0.1.0#show") (param $at i32) (param $length i32) (result i32)
    (i32.store (i32.const 1040) (local.get $at)) (i32.store (i32.const 1044) (local.get $length)) (i32.const 1040))
  (func (export "rejoin:plugin/merger@0.1.0#merge") (param i32 i32) (param $siblings i32) (param $count i32) (result i32)
    (if (i32.eqz (call $fits (local.get $siblings) (local.get $count)))
      (then (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0)) (return (i32.const 1024))))
    (call $merge (local.get $siblings) (local.get $count)))
  (func (export "rejoin:plugin/sampler@0.1.0#sample") (param $seed i64) (param $size i32) (result i32)
    (i32.store8 (i32.const 2000)
      (i32.add (i32.const 48)
        (i32.wrap_i64 (i64.rem_u (local.get $seed) (i64.extend_i32_u (i32.add (global.get $most) (i32.const 1)))))))
    (i32.store (i32.const 1040) (i32.const 2000)) (i32.store (i32.const 1044) (i32.const 1)) (i32.const 1040))"#;

/// A loop over all siblings: `step` uses `$index` and `$siblings`, and the result is in `$so_far`.
fn folding(start: &str, step: &str, end: &str) -> String {
    format!(
        r#"(func $merge (param $siblings i32) (param $count i32) (result i32)
          (local $index i32) (local $so_far i32) (local $other i32)
          (local.set $so_far {start})
          (loop $next
            (local.set $other (call $digit (local.get $siblings) (local.get $index)))
            {step}
            (local.set $index (i32.add (local.get $index) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $index) (local.get $count))))
          {end})"#
    )
}

/// Keeps the larger of the number so far and the next.
const LARGER: &str =
    "(if (i32.gt_u (local.get $other) (local.get $so_far)) (then (local.set $so_far (local.get $other))))";
const ANSWER: &str = "(call $number (local.get $so_far))";

/// A plugin whose digits go up to `most`, and whose `$merge` is that function.
fn plugin(most: u8, merge: &str) -> Vec<u8> {
    plugin_on(SKELETON, most, merge)
}

fn plugin_on(skeleton: &str, most: u8, merge: &str) -> Vec<u8> {
    let core = format!("(module (global $most i32 (i32.const {most})) {skeleton} {merge})");
    component(&core, "lawless", "world lawless { export merger; export sampler; export presenter; }")
}

/// The skeleton with one part of it changed.
fn changed(part: &str, to: &str) -> String {
    let skeleton = SKELETON.replace(part, to);
    assert_ne!(skeleton, SKELETON, "the skeleton has no such part: {part}");
    skeleton
}

/// The largest digit: breaks no law. What mends each of the others.
#[must_use]
pub fn largest() -> Vec<u8> {
    plugin(7, &folding("(i32.const 0)", LARGER, ANSWER))
}

/// Refuses everything, which is not total.
#[must_use]
pub fn refusing() -> Vec<u8> {
    let skeleton = changed("(if (i32.eqz (call $fits (local.get $siblings) (local.get $count)))", "(if (i32.const 1)");
    plugin_on(&skeleton, 7, &folding("(i32.const 0)", LARGER, ANSWER))
}

/// Takes the first: the order decides.
#[must_use]
pub fn first() -> Vec<u8> {
    plugin(7, &folding("(call $digit (local.get $siblings) (i32.const 0))", "", ANSWER))
}

/// The last writer wins, and of equal stamps the first in line: right as long as clocks never agree.
#[must_use]
pub fn last_writer() -> Vec<u8> {
    let stamp = "(i64.load offset=8 (call $sibling (local.get $siblings) (local.get $index)))";
    let best = "(i64.load offset=8 (call $sibling (local.get $siblings) (local.get $so_far)))";
    let step = format!("(if (i64.gt_u {stamp} {best}) (then (local.set $so_far (local.get $index))))");
    plugin(
        7,
        &folding("(i32.const 0)", &step, "(call $number (call $digit (local.get $siblings) (local.get $so_far)))"),
    )
}

/// Rock (1), paper (2), scissors (4): of two the winner, and of all three a draw (7) for ever. Two by two it goes
/// otherwise than at once.
///
/// What has been seen is a set of bits, and the table has the outcome of each set; a digit of several bits counts as
/// their outcome.
#[must_use]
pub fn rock_paper_scissors() -> Vec<u8> {
    let table = r#"(data (i32.const 3000) "01224147")"#;
    let outcome = |bits: &str| format!("(i32.sub (i32.load8_u (i32.add (i32.const 3000) {bits})) (i32.const 48))");
    let step = format!("(local.set $so_far (i32.or (local.get $so_far) {}))", outcome("(local.get $other)"));
    let merge = folding("(i32.const 0)", &step, &format!("(call $number {})", outcome("(local.get $so_far)")));
    plugin(7, &format!("{table} {merge}"))
}

/// The largest of the first five digits, as if there were never more siblings.
#[must_use]
pub fn first_five() -> Vec<u8> {
    let few = "(if (i32.gt_u (local.get $count) (i32.const 5)) (then (local.set $count (i32.const 5))))";
    let merge = folding("(i32.const 0)", LARGER, ANSWER);
    let merge = merge.replacen("(loop $next", &format!("{few} (loop $next"), 1);
    plugin(7, &merge)
}

/// Adds up, modulo ten: a value that is merged twice counts twice.
#[must_use]
pub fn sum() -> Vec<u8> {
    let step = "(local.set $so_far (i32.rem_u (i32.add (local.get $so_far) (local.get $other)) (i32.const 10)))";
    plugin(9, &folding("(i32.const 0)", step, ANSWER))
}

/// Never (0), once (1), or more often (2): what comes again late is counted again, though a sum that ends at two is
/// idempotent.
#[must_use]
pub fn once_or_twice() -> Vec<u8> {
    let step = "(local.set $so_far (i32.add (local.get $so_far) (local.get $other)))
      (if (i32.gt_u (local.get $so_far) (i32.const 2)) (then (local.set $so_far (i32.const 2))))";
    plugin(2, &folding("(i32.const 0)", step, ANSWER))
}

/// The largest digit, computed by dividing by something that is 0 for the valid value 5.
#[must_use]
pub fn trapping() -> Vec<u8> {
    let divide = "(drop (i32.div_u (i32.const 1) (i32.sub (local.get $other) (i32.const 5))))";
    plugin(7, &folding("(i32.const 0)", &format!("{divide} {LARGER}"), ANSWER))
}

/// The largest digit; with garbage it reaches past the end of its memory.
#[must_use]
pub fn trusting() -> Vec<u8> {
    let refuse = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0)) (return \
        (i32.const 1024))";
    let skeleton = changed(refuse, "(return (i32.load (i32.const -4)))");
    plugin_on(&skeleton, 7, &folding("(i32.const 0)", LARGER, ANSWER))
}

/// Values that differ are a conflict (9), which is told on a whole page, and is a conflict with everything.
#[must_use]
pub fn verbose() -> Vec<u8> {
    let length = "(i32.load offset=4 (call $sibling (local.get $siblings) (local.get $index)))";
    // A page of nines is as good as one.
    let skeleton = changed(
        &format!("(i32.ne {length} (i32.const 1))"),
        &format!("(i32.and (i32.ne {length} (i32.const 1)) (i32.ne {length} (i32.const 4096)))"),
    );
    let step = "(if (i32.ne (local.get $other) (local.get $so_far)) (then (local.set $so_far (i32.const 9))))";
    let end = format!(
        "(if (result i32) (i32.eq (local.get $so_far) (i32.const 9))
           (then (memory.fill (i32.const 4096) (i32.const 57) (i32.const 4096)) (call $bytes (i32.const 4096) (i32.const 4096)))
           (else {ANSWER}))"
    );
    plugin_on(&skeleton, 9, &folding("(call $digit (local.get $siblings) (i32.const 0))", step, &end))
}

/// Keeps the greatest value by its bytes, and for more than a million bytes takes for ever. It draws no values.
#[must_use]
pub fn slow() -> Vec<u8> {
    let greater = r#"
      (func $greater (param $one i32) (param $length i32) (param $two i32) (param $other_length i32) (result i32)
        (local $index i32) (local $byte i32) (local $other i32)
        (loop $next
          (if (i32.ge_u (local.get $index) (local.get $other_length))
            (then (return (i32.gt_u (local.get $length) (local.get $other_length)))))
          (if (i32.ge_u (local.get $index) (local.get $length)) (then (return (i32.const 0))))
          (local.set $byte (i32.load8_u (i32.add (local.get $one) (local.get $index))))
          (local.set $other (i32.load8_u (i32.add (local.get $two) (local.get $index))))
          (if (i32.ne (local.get $byte) (local.get $other)) (then (return (i32.gt_u (local.get $byte) (local.get $other)))))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $next))
        (unreachable))"#;
    let body = r#"(local $bytes i32) (local $at i32) (local $best i32) (local $best_length i32)
      (loop $next
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (local.set $at (i32.add (local.get $siblings) (i32.mul (local.get $count) (i32.const 24))))
        (local.set $bytes (i32.add (local.get $bytes) (i32.load offset=4 (local.get $at))))
        (if (call $greater (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)) (local.get $best) (local.get $best_length))
          (then (local.set $best (i32.load (local.get $at))) (local.set $best_length (i32.load offset=4 (local.get $at)))))
        (br_if $next (local.get $count)))
      (if (i32.gt_u (local.get $bytes) (i32.const 1000000)) (then (loop $again (br $again))))
      (call $answer (local.get $best) (local.get $best_length))"#;
    crate::guests::with_memory_and("256", greater, body)
}
