//! Components with strange content: what no compiler writes, what only other engines allow, and what no plugin has.

use std::fmt::Write;

use crate::bombs::section;
use crate::guests;

/// The magic number, version and layer of a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// The id of a section that holds a component.
const NESTED: u8 = 4;

/// The well-behaved plugin with another component beside it, of these fields in text form. It is validated and compiled
/// with the plugin.
///
/// # Panics
/// If the text is wrong: a mistake of the test.
#[must_use]
pub fn beside(fields: &str) -> Vec<u8> {
    [guests::first(), section(NESTED, &alone(fields))].concat()
}

/// A component of these fields in text form, and no plugin.
///
/// # Panics
/// If the text is wrong: a mistake of the test.
#[must_use]
pub fn alone(fields: &str) -> Vec<u8> {
    wat::parse_str(format!("(component $root {fields})")).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`beside`], with a section of these bytes, which may be no text's.
#[must_use]
pub fn beside_section(id: u8, content: &[u8]) -> Vec<u8> {
    [guests::first(), section(id, content)].concat()
}

/// Fields of a type with so many parts, such as a record's fields: `part` with a number for each `#`.
#[must_use]
pub fn type_of(kind: &str, part: &str, count: usize) -> String {
    let parts = (0..count).fold(String::new(), |parts, number| parts + &part.replace('#', &number.to_string()));
    format!("(type ({kind} {parts}))")
}

/// Types of which each holds the one before it twice, and a function that takes and gives the last.
#[must_use]
pub fn doubling(kind: &str, levels: usize) -> String {
    let mut text = String::from("(type $t0 u64)");
    for level in 1..=levels {
        let inner = format!("$t{}", level - 1);
        let body = match kind {
            "record" => format!(r#"(record (field "a" {inner}) (field "b" {inner}))"#),
            "variant" => format!(r#"(variant (case "a" {inner}) (case "b" {inner}))"#),
            "result" => format!("(result {inner} (error {inner}))"),
            "list" => format!("(tuple (list {inner}) (list {inner}))"),
            _ => format!("(tuple {inner} {inner})"),
        };
        let _ = write!(text, "(type $t{level} {body})");
    }
    text + &format!(r#"(type $f (func (param "x" $t{levels}) (result $t{levels})))"#)
}

/// A component that passes for a plugin until it is loaded, with a function of such types ([`doubling`]).
#[must_use]
pub fn lifted(kind: &str, levels: usize) -> Vec<u8> {
    let module = r#"(core module $m (memory (export "memory") 1) (func (export "f") (param i32) (result i32) (unreachable))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (unreachable)))"#;
    let lift = r#"(core instance $i (instantiate $m)) (func $lifted (type $f)
        (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))"#;
    let exports = r#"(export "f" (func $lifted)) (instance $h) (export "rejoin:plugin/merger@0.1.0" (instance $h))"#;
    alone(&[module, &doubling(kind, levels), lift, exports].concat())
}

/// Core instances of one module that inner components take from the outer one.
#[must_use]
pub fn outer_modules(components: usize, instances: usize) -> String {
    let instance = "(core instance (instantiate $m))".repeat(instances);
    let inner = format!("(component (alias outer $root $m (core module $m)) {instance})").repeat(components);
    let made = (0..components).fold(String::new(), |made, number| made + &format!("(instance (instantiate {number}))"));
    format!("(core module $m (func)) {inner} {made}")
}

/// A function of so many equal steps in one basic block, on locals `$i` and `$v` (a vector).
#[must_use]
pub fn steps(step: &str, count: usize) -> String {
    format!("(core module (func (param $i i32) (local $v v128) {}))", step.repeat(count))
}

/// An empty component under the names of a plugin: the interface without its function.
///
/// # Panics
/// Never.
#[must_use]
pub fn hollow() -> Vec<u8> {
    let text = r#"(component (instance $i) (export "rejoin:plugin/merger@0.1.0" (instance $i)))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The well-behaved plugin, with its first section's length written in so many bytes.
#[must_use]
pub fn overlong_length(bytes: usize) -> Vec<u8> {
    let good = guests::first();
    let (header, rest) = good.split_at(COMPONENT.len() + 1);
    let digits = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let mut length: Vec<u8> = rest[..digits].iter().map(|byte| byte | 0x80).collect();
    length.resize(bytes.saturating_sub(1).max(digits), 0x80);
    length.push(0);
    [header, &length, &rest[digits..]].concat()
}
