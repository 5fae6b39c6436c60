//! Guests that never end, each in another way. The slowest one for its fuel shows how long a budget can last.

use crate::guests::{merging, with_memory};

/// Memory of the guests that walk through it, once they have grown it: 60 MiB, more than any cache of a core.
const PAGES: &str = "1 1000";
const GROW: &str = "(drop (memory.grow (i32.const 959)))";

fn repeated(step: &str) -> String {
    format!("(loop $again {} (br $again)) (unreachable)", step.repeat(64))
}

/// A number from which every other follows.
const NEXT: &str = "(local.set $at (i32.and (i32.add (i32.mul (local.get $at) (i32.const 1664525)) (i32.const \
    1013904223)) (i32.const 0x3ffffff)))";

/// Each way, by name.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let walk = |step: &str| {
        let fill = format!("{GROW} (memory.fill (i32.const 0) (i32.const 1) (i32.const 62914560))");
        format!(
            "(local $at i32) (local $wide i64) {fill} (loop $again (local.set $at (i32.rem_u (local.get $at) \
                (i32.const 62900000))) {step}
             (br $again)) (unreachable)"
        )
    };
    let chase = format!(
        "{NEXT} (local.set $at (i32.add (local.get $at) (i32.load (i32.rem_u (local.get $at) (i32.const 62900000)))))"
    );
    let tight = format!(
        "{NEXT} (local.set $at (i32.xor (local.get $at) (i32.load (i32.shr_u (local.get $at) (i32.const 1)))))"
    );
    let store = format!("{NEXT} (i32.store (i32.shr_u (local.get $at) (i32.const 1)) (local.get $at))");
    let forward =
        "(i64.store (i32.const 4096) (local.get $wide)) (local.set $wide (i64.load (i32.const 4100)))".repeat(32);
    vec![
        ("an empty loop", merging("", "(loop $again (br $again)) (unreachable)")),
        (
            "a counted loop",
            merging(
                "",
                &format!("(local $n i32) {}", repeated("(local.set $n (i32.add (local.get $n) (i32.const 3)))")),
            ),
        ),
        ("short loops within a loop", {
            let inner =
                "(local.set $n (i32.const 2)) (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
            merging("", &format!("(local $n i32) {}", repeated(inner)))
        }),
        ("64-bit division", {
            let step =
                "(local.set $d (i64.div_s (i64.add (local.get $d) (i64.const 0x7fffffffffff0123)) (i64.const 3)))";
            merging("", &format!("(local $d i64) {}", repeated(step)))
        }),
        ("64-bit division by a variable", {
            let step =
                "(local.set $d (i64.add (i64.const 0x7fffffffffff0123) (i64.rem_u (local.get $d) (local.get $by))))";
            merging("", &format!("(local $d i64) (local $by i64) (local.set $by (i64.const 7)) {}", repeated(step)))
        }),
        ("square roots", {
            let step = "(local.set $x (f64.sqrt (local.get $x)))";
            merging("", &format!("(local $x f64) (local.set $x (f64.const 1e300)) {}", repeated(step)))
        }),
        ("division of tiny numbers", {
            let step = "(local.set $x (f64.div (local.get $x) (f64.const 1.0000001)))";
            merging("", &format!("(local $x f64) (local.set $x (f64.const 1e-310)) {}", repeated(step)))
        }),
        ("products of tiny numbers", {
            let step = "(local.set $x (f64.mul (local.get $x) (f64.const 0.9999999)))";
            merging("", &format!("(local $x f64) (local.set $x (f64.const 1e-310)) {}", repeated(step)))
        }),
        (
            "calls",
            merging("(func $f (param i32) (result i32) (local.get 0))", &repeated("(drop (call $f (i32.const 1)))")),
        ),
        ("indirect calls", {
            let table = "(type $t (func (param i32) (result i32))) (table 1 funcref) (elem (i32.const 0) $f)
                (func $f (type $t) (local.get 0))";
            merging(table, &repeated("(drop (call_indirect (type $t) (i32.const 1) (i32.const 0)))"))
        }),
        ("calls with 60 parameters", {
            let many = format!("(func $f (param {}))", "i64 ".repeat(60));
            merging(&many, &repeated(&format!("(call $f {})", "(i64.const 1)".repeat(60))))
        }),
        ("reads all over the memory", with_memory(PAGES, &walk(&tight.repeat(8)))),
        ("reads that wait for each other", with_memory(PAGES, &walk(&chase.repeat(8)))),
        ("writes all over the memory", with_memory(PAGES, &walk(&store.repeat(8)))),
        (
            "reads of what was just written",
            merging("", &format!("(local $wide i64) (loop $again {forward} (br $again)) (unreachable)")),
        ),
        ("copies of 30 MiB", {
            let copy = "(memory.copy (i32.const 0) (i32.const 31457280) (i32.const 31457280))";
            with_memory(PAGES, &format!("{GROW} (loop $again {copy} (br $again)) (unreachable)"))
        }),
        ("copies of nothing", {
            let copy = "(memory.copy (i32.const 0) (i32.const 64) (i32.const 0))";
            with_memory(PAGES, &repeated(copy))
        }),
        ("fills of one byte", merging("", &repeated("(memory.fill (i32.const 4096) (i32.const 7) (i32.const 1))"))),
        ("growing by nothing", merging("", &repeated("(drop (memory.grow (i32.const 0)))"))),
        ("growing to the limit, for ever", {
            let body =
                "(loop $again (drop (memory.grow (i32.const 0))) (drop (memory.size)) (br $again)) (unreachable)";
            with_memory("1 1000", body)
        }),
        ("growing tables by nothing", {
            let step = "(drop (table.grow $t (ref.null func) (i32.const 0)))";
            merging("(table $t 1 funcref)", &repeated(step))
        }),
        ("filling and copying tables", {
            let step = "(table.copy $t $t (i32.const 0) (i32.const 5000) (i32.const 5000))";
            merging("(table $t 10000 funcref)", &repeated(step))
        }),
        ("vectors", {
            let step =
                "(local.set $v (i64x2.mul (local.get $v) (i8x16.popcnt (i8x16.shl (local.get $v) (i32.const 3)))))";
            merging("", &format!("(local $v v128) {}", repeated(step)))
        }),
        ("square roots of vectors", {
            let step = "(local.set $v (f64x2.sqrt (f64x2.nearest (local.get $v))))";
            merging("", &format!("(local $v v128) {}", repeated(step)))
        }),
    ]
}
