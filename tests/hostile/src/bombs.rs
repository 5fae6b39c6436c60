//! Small components that are expensive to read or to compile.
//!
//! Each is a plugin or begins as one, so that only the limit that it exceeds speaks against it.

use std::fmt::Write;

use crate::guests::{merging, with_memory};

const ANSWER: &str = "(i32.const 1024)";

fn parsed(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn repeated(count: usize, part: impl FnMut(usize) -> String) -> String {
    (0..count).map(part).collect()
}

/// Components of which each instantiates the one before it twice: two to the power of `levels` instances in a few bytes
/// each.
#[must_use]
pub fn nested_instances(levels: usize) -> Vec<u8> {
    let mut text =
        String::from("(component $root (component $c0 (core module $m (func)) (core instance (instantiate $m)))");
    for level in 1..=levels {
        let one = format!("(instance (instantiate $c{}))", level - 1);
        let _ =
            write!(text, "(component $c{level} (alias outer $root $c{0} (component $c{0})) {one} {one})", level - 1);
    }
    let _ = write!(text, "(instance (instantiate $c{levels})))");
    parsed(&text)
}

/// As [`nested_instances`], but each component is given the one before it as an argument, so that none names what it
/// instantiates.
#[must_use]
pub fn passed_instances(levels: usize) -> Vec<u8> {
    let mut text =
        String::from("(component $root (component $c0 (core module $m (func)) (core instance (instantiate $m)))");
    for level in 1..=levels {
        let _ = write!(
            text,
            r#"(component $d{level} (import "f" (component $f)) (instance (instantiate $f)) (instance (instantiate $f))
                 (component $g (alias outer $d{level} $f (component $h)) (instance (instantiate $h)) (instance (instantiate $h)))
                 (export "g" (component $g)))
               (instance $i{level} (instantiate $d{level} (with "f" (component $c{0}))))
               (alias export $i{level} "g" (component $c{level}))"#,
            level - 1
        );
    }
    let _ = write!(text, "(instance (instantiate $c{levels})))");
    parsed(&text)
}

/// Components within one another.
#[must_use]
pub fn deep_components(depth: usize) -> Vec<u8> {
    parsed(&format!("{}{}", "(component ".repeat(depth), ")".repeat(depth)))
}

/// A section of one type, with component types declared within one another. No text form is that deep.
#[must_use]
pub fn deep_types(depth: usize) -> Vec<u8> {
    with_section(7, &[&[1][..], &[0x41, 0x01, 0x01].repeat(depth), &[0x41, 0x00]].concat())
}

/// A type of tuples of tuples: two to the power of `levels` numbers.
#[must_use]
pub fn wide_types(levels: usize) -> Vec<u8> {
    let mut text = String::from("(component (type $t0 (tuple u64 u64))");
    for level in 1..=levels {
        let _ = write!(text, "(type $t{level} (tuple $t{0} $t{0}))", level - 1);
    }
    let _ =
        write!(text, r#"(type $f (func (param "x" $t{levels}) (result $t{levels}))) (import "f" (func (type $f))))"#);
    parsed(&text)
}

/// A component of one raw section.
fn with_section(id: u8, content: &[u8]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0", &section(id, content)[..]].concat()
}

/// A raw section.
pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    let mut length = content.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        bytes.push(if length == 0 { low } else { low | 0x80 });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// A section that announces four thousand million items and has none.
#[must_use]
pub fn empty_promise(id: u8) -> Vec<u8> {
    with_section(id, &[0xff, 0xff, 0xff, 0xff, 0x0f])
}

/// A function of that many parameters, called by another.
#[must_use]
pub fn params(count: usize) -> Vec<u8> {
    let call = "(i64.const 1)".repeat(count);
    merging(&format!("(func $f (param {})) (func (call $f {call}))", "i64 ".repeat(count)), ANSWER)
}

/// A function of that many results, called by another.
#[must_use]
pub fn results(count: usize) -> Vec<u8> {
    let (types, values) = ("i64 ".repeat(count), "(i64.const 1)".repeat(count));
    merging(&format!("(func $f (result {types}) {values}) (func (result {types}) (call $f))"), ANSWER)
}

/// A block with that many parameters.
#[must_use]
pub fn block_params(count: usize) -> Vec<u8> {
    let (types, values) = ("i64 ".repeat(count), "(i64.const 1)".repeat(count));
    let block = format!("{values} (loop (param {types}) {})", "(drop)".repeat(count));
    merging(&format!("(func {block})"), ANSWER)
}

/// A function of that many locals.
#[must_use]
pub fn locals(count: usize) -> Vec<u8> {
    merging(&format!("(func (local {}))", "i64 ".repeat(count)), ANSWER)
}

/// Blocks within one another, each with a value.
#[must_use]
pub fn deep_blocks(depth: usize) -> Vec<u8> {
    let body = format!("{} i32.const 1 {}", "block (result i32) ".repeat(depth), "end ".repeat(depth));
    merging(&format!("(func (result i32) {body})"), ANSWER)
}

/// Loops one after the other over locals that all change: at each, the compiler joins every local.
#[must_use]
pub fn joins(locals: usize, loops: usize) -> Vec<u8> {
    let change =
        repeated(locals, |local| format!("(local.set {0} (i32.add (local.get {0}) (i32.const 1)))", local + 1));
    let body = format!(
        "{} {change} {}",
        "(loop (br_if 0 (local.get 0)))".repeat(loops),
        "(loop (br_if 0 (local.get 0)))".repeat(loops)
    );
    merging(
        &format!("(func (param i32) (local {}) (loop {body} (br_if 0 (local.get 0))))", "i32 ".repeat(locals)),
        ANSWER,
    )
}

/// A branch table of that many targets.
#[must_use]
pub fn branch_table(targets: usize) -> Vec<u8> {
    merging(
        &format!("(func (param i32) (block (block (br_table {} (local.get 0)))))", "0 1 ".repeat(targets / 2)),
        ANSWER,
    )
}

/// So many of a thing that a core module can list, beside a plugin.
#[must_use]
pub fn many(part: &str, count: usize) -> Vec<u8> {
    merging(&repeated(count, |number| part.replace('#', &number.to_string())), ANSWER)
}

/// A component that has no core module but so many of these parts.
#[must_use]
pub fn many_in_component(part: &str, count: usize) -> Vec<u8> {
    parsed(&format!("(component {})", repeated(count, |number| part.replace('#', &number.to_string()))))
}

/// One function of a module under so many names.
#[must_use]
pub fn aliases(count: usize) -> Vec<u8> {
    let alias = r#"(alias core export $i "f" (core func))"#.repeat(count);
    parsed(&format!(r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m)) {alias})"#))
}

/// A component that imports a function under that name, which no tool would write.
#[must_use]
pub fn import_name(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or_else(|_| panic!("a short name"));
    with_section(10, &[&[1, 0, length][..], name.as_bytes(), &[1, 0]].concat())
}

/// A module within a component that imports so many functions under long names.
#[must_use]
pub fn imports(count: usize) -> Vec<u8> {
    let import = repeated(count, |number| format!(r#"(import "m" "f{number}" (func))"#));
    parsed(&format!("(component (core module {import}))"))
}

/// A module that exports a function under that name.
#[must_use]
pub fn export_name(name: &str) -> Vec<u8> {
    let bytes = name.bytes().fold(String::new(), |text, byte| format!("{text}\\{byte:02x}"));
    parsed(&format!(r#"(component (core module (func (export "{bytes}"))))"#))
}

/// A module with a custom section of that many bytes, so many times.
#[must_use]
pub fn customs(count: usize, bytes: usize) -> Vec<u8> {
    let section = format!(r#"(@custom "x" "{}")"#, "y".repeat(bytes));
    parsed(&format!("(component (core module {}))", section.repeat(count)))
}

/// A memory of the most pages that there can be, which nobody touches.
#[must_use]
pub fn large_memory() -> Vec<u8> {
    with_memory("65536", ANSWER)
}

/// A body of so many bytes that costs the compiler about as much as a body of that length can.
#[must_use]
pub fn busy_body(bytes: usize) -> Vec<u8> {
    let step = "(local.set 0 (i32.add (i32.mul (local.get 0) (local.get 1)) (local.get 0)))";
    // Eleven bytes a step.
    merging(&format!("(func (param i32 i32) {})", step.repeat(bytes / 11)), ANSWER)
}
