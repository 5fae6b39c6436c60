//! Components that are refused when they are pushed.

use super::{Hostile, Outcome};
use crate::{bombs, guests, oddities};

const ANSWER: &str = "(i32.const 1024)";

/// A component that is refused in one of these words.
fn refused(name: impl Into<String>, component: Vec<u8>, words: &'static [&'static str]) -> Hostile {
    Hostile { name: name.into(), component, outcome: Outcome::Refused(words) }
}

pub(super) fn all() -> Vec<Hostile> {
    [forms(), contracts(), features(), types(), parts(), bodies(), names(), starts(), cards()]
        .into_iter()
        .flatten()
        .collect()
}

/// Bytes that are no component.
fn forms() -> Vec<Hostile> {
    let good = guests::first();
    let unreadable: &[&str] = &["no WebAssembly component", "does not export", "cannot be compiled"];
    let promises = [(2, "core instances"), (5, "instances"), (7, "types"), (11, "exports")].map(|(section, of)| {
        let unreadable: &[&str] = &["no WebAssembly component", "does not export", "are allowed"];
        refused(format!("four thousand million {of} that are not there"), bombs::empty_promise(section), unreadable)
    });
    let mut all = vec![
        refused("a shell script", b"#!/bin/sh\nexit 0\n".to_vec(), &["no WebAssembly component"]),
        refused("a core module", vec![0, b'a', b's', b'm', 1, 0, 0, 0], &["core WebAssembly module"]),
        refused("half of a component", good[..good.len() / 2].to_vec(), unreadable),
        refused("two components one after the other", [&good[..], &good].concat(), unreadable),
        refused("a component and garbage", [&good[..], &[0xff; 100]].concat(), unreadable),
        refused("a length in six bytes", oddities::overlong_length(6), &["no WebAssembly component"]),
        refused("three megabytes of remarks", bombs::customs(1, 3 << 20), &["bytes, and 2097152 are allowed"]),
    ];
    all.extend(promises);
    all
}

/// Components that are no plugin of this contract.
fn contracts() -> Vec<Hostile> {
    let other: &[&str] = &["is not what this host expects"];
    vec![
        refused("a plugin that wants a clock", guests::importing(), &["imports \"clock\""]),
        refused("a plugin that wants an interface", guests::importing_an_interface(), &["imports \"wall\""]),
        refused("a presenter without a merger", guests::without_merger(), &["does not export rejoin:plugin/merger"]),
        refused("the next version of the contract", guests::from_the_future(), other),
        refused("a merger of numbers", guests::of_another_type(), other),
        refused("an interface without its function", oddities::hollow(), other),
    ]
}

/// What other engines can do and this one must not.
fn features() -> Vec<Hostile> {
    let field = |name: &str, field: &str, words| refused(name, oddities::beside(field), words);
    let relaxed = "(core module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))";
    let wide = "(core module (func (param i64) (i64.mul_wide_u (local.get 0) (local.get 0)) drop drop))";
    vec![
        field("garbage collection", "(core module (type (struct (field i32))))", &["gc"]),
        field("references to functions", "(core module (type $f (func)) (func (param (ref $f))))", &["reference"]),
        field("threads", "(core module (memory 1 1 shared))", &["threads"]),
        field("atomics", "(core module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))", &["threads"]),
        field("exceptions", "(core module (tag $t) (func (throw $t)))", &["exceptions"]),
        field("64-bit memory", "(core module (memory i64 1))", &["memory64"]),
        field("several memories", "(core module (memory 1) (memory 1))", &["multi"]),
        field("tail calls", "(core module (func $f (return_call $f)))", &["tail calls"]),
        field("relaxed vectors", relaxed, &["relaxed"]),
        field("pages of other sizes", "(core module (memory 1 (pagesize 1)))", &["page"]),
        field("wide arithmetic", wide, &["wide"]),
        field("streams", "(type (stream u8))", &["async"]),
        field("futures", "(type (future u8))", &["async"]),
        field("error contexts", "(type error-context)", &["error-context"]),
    ]
}

/// Types that grow, and many of them.
fn types() -> Vec<Hostile> {
    let field = |name: &str, field: &str, words| refused(name, oddities::beside(field), words);
    let mut all: Vec<Hostile> = ["tuple", "record", "variant", "result", "list"]
        .map(|kind| {
            let types = oddities::beside(&oddities::doubling(kind, 40));
            refused(format!("a {kind} of two, forty times over"), types, &["type"])
        })
        .into();
    let long = format!(r#"(type (record (field "{}" u8)))"#, "n".repeat(200_000));
    all.extend([
        refused("a function of 65 536 numbers", oddities::lifted("tuple", 16), &["is not what this host expects"]),
        refused("a function of 65 536 cases", oddities::lifted("result", 16), &["is not what this host expects"]),
        refused("component types within one another", bombs::deep_types(600_000), &["types of components within"]),
        field("a record of 20 000 fields", &oddities::type_of("record", r#"(field "f#" u8)"#, 20_000), &["record"]),
        field("a variant of 20 000 cases", &oddities::type_of("variant", r#"(case "c#")"#, 20_000), &["variant"]),
        field("5 000 flags", &oddities::type_of("flags", r#""f#" "#, 5_000), &["flag"]),
        field("an enum of 20 000", &oddities::type_of("enum", r#""e#" "#, 20_000), &["enum"]),
        field("a tuple of 20 000", &oddities::type_of("tuple", "u8 ", 20_000), &["tuple"]),
        field("20 000 types of lists", &"(type (list u8))".repeat(20_000), &["types"]),
        field("20 000 core types", &"(core type (func))".repeat(20_000), &["types"]),
        field("a field with a name of 200 000 bytes", &long, &["string"]),
    ]);
    all
}

/// Many of a part, and parts that make many of themselves.
fn parts() -> Vec<Hostile> {
    let memories = format!("(core module {})", "(memory 1)".repeat(50));
    let exports = (0..5_000).fold("(type u8)".to_owned(), |text, at| text + &format!(r#"(export "e{at}" (type 0))"#));
    vec![
        refused("two to the 40 instances", bombs::nested_instances(40), &["instances, counted"]),
        refused("components that are passed on", bombs::passed_instances(20), &["components that are passed"]),
        refused("fifty components within one another", bombs::deep_components(50), &["levels of nested"]),
        refused("aliases of one function", bombs::aliases(30_000), &["parts of components"]),
        refused("modules of the outer component", oddities::alone(&oddities::outer_modules(10, 20)), &["instances"]),
        refused("30 000 empty components", oddities::beside(&"(component)".repeat(30_000)), &["component"]),
        refused("a hundred core modules", bombs::many_in_component("(core module)", 100), &["core modules"]),
        refused("30 000 functions", bombs::many("(func)", 30_000), &["functions"]),
        refused("30 000 types of functions", bombs::many("(type (func (param i32)))", 30_000), &["types"]),
        refused("3 000 exports of a module", bombs::many(r#"(func (export "e#"))"#, 3_000), &["exports"]),
        refused("5 000 exports of a component", oddities::beside(&exports), &["exports"]),
        refused("20 000 imports of a module", bombs::imports(20_000), &["imports"]),
        refused("5 000 globals", bombs::many("(global i32 (i32.const 1))", 5_000), &["globals"]),
        refused("fifty tables", bombs::many("(table 1 funcref)", 50), &["tables"]),
        refused("fifty memories", bombs::many_in_component(&memories, 1), &["memories"]),
        refused("a table of four million", bombs::many("(table 4000000 funcref)", 1), &["table elements"]),
        refused("four gigabytes of memory", bombs::large_memory(), &["bytes of initial memory"]),
        refused("20 000 segments", bombs::many(r#"(data (i32.const 1) "x")"#, 20_000), &["data and element"]),
        refused("5 000 custom sections", bombs::customs(5_000, 1), &["custom sections"]),
    ]
}

/// Functions that are expensive to compile.
fn bodies() -> Vec<Hostile> {
    let (types, values) = ("i64 ".repeat(1_000), "(i64.const 1)".repeat(1_000));
    let results = format!("(core module (func (block (result {types}) {values}) {}))", "(drop)".repeat(1_000));
    vec![
        refused("a function of a thousand parameters", bombs::params(1_000), &["parameters"]),
        refused("a function of a thousand results", bombs::results(1_000), &["results"]),
        refused("a block of a thousand parameters", bombs::block_params(1_000), &["parameters"]),
        refused("a block of a thousand results", oddities::beside(&results), &["results"]),
        refused("50 000 locals", bombs::locals(50_000), &["locals"]),
        refused("20 000 blocks within one another", bombs::deep_blocks(20_000), &["blocks within"]),
        refused("joins of many locals", bombs::joins(1_500, 2_500), &["times its locals"]),
        refused("a branch table of 100 000", bombs::branch_table(100_000), &["branch table"]),
        refused("a branch table of a million", bombs::branch_table(1_000_000), &["bytes in one function"]),
        refused("a function of a megabyte", bombs::busy_body(1 << 20), &["bytes in one function"]),
    ]
}

/// Names that are long.
fn names() -> Vec<Hostile> {
    let long = "n".repeat(50_000);
    let export = format!(r#"(type u8) (export "{}" (type 0))"#, "n".repeat(20_000));
    vec![
        refused("an export of a module with a long name", bombs::export_name(&long), &["bytes in one name"]),
        refused("an export of a component with a long name", oddities::beside(&export), &["bytes in one name"]),
    ]
}

/// Plugins that misbehave while they are loaded.
fn starts() -> Vec<Hostile> {
    let start = |name: &str, body: &str| {
        let start = format!("(func $begin {body}) (start $begin)");
        refused(name, guests::merging(&start, ANSWER), &["cannot be started"])
    };
    let outside: &[&str] = &["outside its memory"];
    let data = r#"(data (i32.const 65530) "0123456789")"#;
    let elements = "(table 1 funcref) (func $f) (elem (i32.const 1) $f)";
    vec![
        start("a start that never ends", "(loop $again (br $again))"),
        start("a start that traps", "(unreachable)"),
        start("a start that grows its memory", "(loop $again (drop (memory.grow (i32.const 1))) (br $again))"),
        start("a start that calls itself", "(call $begin)"),
        refused("data outside of memory", guests::merging(data, ANSWER), outside),
        refused("elements outside of a table", guests::merging(elements, ANSWER), outside),
    ]
}

/// Plugins that lie about themselves.
fn cards() -> Vec<Hostile> {
    [
        ("a name that is no text", "(call $card (i32.const 3000) (i32.const 6))"),
        ("a name of no bytes", "(call $card (i32.const 3000) (i32.const 0))"),
        ("a name outside of memory", "(call $card (i32.const 65000) (i32.const 65000))"),
        ("a name of 60 000 bytes", "(call $card (i32.const 4096) (i32.const 60000))"),
        ("a card that never comes", "(loop $again (br $again)) (unreachable)"),
        ("a card that traps", "(unreachable)"),
        ("a card outside of memory", "(i32.const -4)"),
    ]
    .map(|(name, body)| refused(name, guests::describing(body), &["cannot describe itself"]))
    .into()
}
