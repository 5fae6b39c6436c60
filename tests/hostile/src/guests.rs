//! Guests that misbehave when they run. Each is a minimal plugin with its own body of `merge`.

use crate::component;

/// The memory every guest has unless it says otherwise: 64 KiB.
const MEMORY: &str = r#"(memory (export "memory") 1)"#;

/// Gives out memory from 4 096 upwards and never takes any back.
const REALLOC: &str = r#"
  (global $top (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  ;; What `merge` returns: a pointer to (0 = a result, 1 = a fault), then pointer and length of the bytes.
  (func $answer (param $at i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (local.get $at))
    (i32.store (i32.const 1032) (local.get $length))
    (i32.const 1024))"#;

/// The core module with that body of `merge`, and with `more` beside it.
fn core(memory: &str, realloc: &str, more: &str, body: &str) -> String {
    format!(
        r#"(module {memory} {realloc} {more}
          (func (export "rejoin:plugin/merger@0.1.0#merge")
            (param $key i32) (param $key_length i32) (param $siblings i32) (param $count i32) (result i32)
            {body}))"#
    )
}

/// A plugin whose `merge` has that body, beside whatever else is given. Parameters: `$key $key_length $siblings
/// $count`; a sibling has 24 bytes: pointer, length, stamp, writer.
#[must_use]
pub fn merging(more: &str, body: &str) -> Vec<u8> {
    component(&core(MEMORY, REALLOC, more, body), "merge", "")
}

/// As [`merging`], with a memory of that declaration, such as `64` or `1 4` (pages of 64 KiB).
#[must_use]
pub fn with_memory(pages: &str, body: &str) -> Vec<u8> {
    with_memory_and(pages, "", body)
}

/// As [`with_memory`], with `more` beside the `merge`.
#[must_use]
pub fn with_memory_and(pages: &str, more: &str, body: &str) -> Vec<u8> {
    component(&core(&format!(r#"(memory (export "memory") {pages})"#), REALLOC, more, body), "merge", "")
}

/// As [`merging`], with an allocator of its own.
#[must_use]
pub fn with_realloc(body_of_realloc: &str) -> Vec<u8> {
    let realloc = format!(r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {body_of_realloc})"#);
    component(&core(MEMORY, &realloc, "", "(i32.const 1024)"), "merge", "")
}

/// Answers with the first sibling: well-behaved, if order were a merge.
#[must_use]
pub fn first() -> Vec<u8> {
    with_memory("128", "(call $answer (i32.load (local.get $siblings)) (i32.load offset=4 (local.get $siblings)))")
}

/// The plugin `pick` of that version, one digit, which answers with the sibling of that place: two versions of it make
/// different values of the same siblings.
#[must_use]
pub fn picking(version: u8, place: u32) -> Vec<u8> {
    let about = format!(
        r#"(data (i32.const 3000) "pick{version}")
           (func (export "rejoin:plugin/about@0.1.0#describe") (result i32)
             (i32.store (i32.const 1100) (i32.const 3000)) (i32.store (i32.const 1104) (i32.const 4))
             (i32.store (i32.const 1108) (i32.const 3004)) (i32.store (i32.const 1112) (i32.const 1))
             (i32.store (i32.const 1116) (i32.const 1)) (i32.store8 (i32.const 1120) (i32.const 0))
             (i32.const 1100))"#
    );
    let at = 24 * place;
    let body = format!(
        "(call $answer (i32.load offset={at} (local.get $siblings)) (i32.load offset={} (local.get $siblings)))",
        at + 4
    );
    let memory = r#"(memory (export "memory") 128)"#;
    component(&core(memory, REALLOC, &about, &body), "hostile", "world hostile { export merger; export about; }")
}

/// Refuses every value as malformed, and draws none.
#[must_use]
pub fn refusing() -> Vec<u8> {
    with_memory(
        "128",
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0)) (i32.const 1024)",
    )
}

/// As [`first`], after it has counted down from `rounds`, which takes about six units of fuel and less than two
/// nanoseconds each.
#[must_use]
pub fn slow(rounds: u32) -> Vec<u8> {
    let count = format!(
        "(local $left i32) (local.set $left (i32.const {rounds}))
         (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
    );
    let answer = "(call $answer (i32.load (local.get $siblings)) (i32.load offset=4 (local.get $siblings)))";
    with_memory("128", &format!("{count} {answer}"))
}

/// Counts its calls in a global and in memory, and answers with both counts: with 1 and 1, if every call gets a fresh
/// instance.
#[must_use]
pub fn counter() -> Vec<u8> {
    let core = core(
        r#"(memory (export "memory") 128)"#,
        REALLOC,
        "(global $calls (mut i32) (i32.const 0))",
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i32.store8 (i32.const 2001) (i32.add (i32.load8_u (i32.const 2001)) (i32.const 1)))
         (i32.store8 (i32.const 2000) (global.get $calls))
         (call $answer (i32.const 2000) (i32.const 2))",
    );
    component(&core, "merge", "")
}

/// Panics as guests of the SDK do, with the first 200 bytes of the first sibling as its message.
#[must_use]
pub fn telling() -> Vec<u8> {
    let mark: String = rejoin_laws::panic_record::mark().iter().map(|byte| format!("\\{byte:02x}")).collect();
    let body = r"(local $from i32) (local $length i32) (local $at i32) (local $hash i32) (local $byte i32)
        (local.set $from (i32.load (local.get $siblings)))
        (local.set $length (i32.load offset=4 (local.get $siblings)))
        (if (i32.gt_u (local.get $length) (i32.const 200)) (then (local.set $length (i32.const 200))))
        (local.set $hash (i32.const 0x811c9dc5))
        (block $done (loop $again
          (br_if $done (i32.ge_u (local.get $at) (local.get $length)))
          (local.set $byte (i32.load8_u (i32.add (local.get $from) (local.get $at))))
          (i32.store8 (i32.add (i32.const 2024) (local.get $at)) (local.get $byte))
          (local.set $hash (i32.mul (i32.xor (local.get $hash) (local.get $byte)) (i32.const 0x01000193)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $again)))
        (i32.store (i32.const 2016) (local.get $length)) (i32.store (i32.const 2020) (local.get $hash))
        (unreachable)";
    with_memory_and("128", &format!(r#"(data (i32.const 2000) "{mark}")"#), body)
}

/// Answers with all its memory, after it has let it grow: 8 MiB that it begins with, and 4 MiB more.
#[must_use]
pub fn dumping() -> Vec<u8> {
    let body = "(drop (memory.grow (i32.const 64))) (call $answer (i32.const 0) (i32.const 12582912))";
    with_memory("128", body)
}

/// Never comes back.
#[must_use]
pub fn endless() -> Vec<u8> {
    merging("", "(loop $again (br $again)) (unreachable)")
}

/// Never comes back from being instantiated.
#[must_use]
pub fn endless_start() -> Vec<u8> {
    merging("(func $spin (loop $again (br $again))) (start $spin)", "(i32.const 1024)")
}

/// A plugin with a card: `describe` has that body, and answers with a pointer to name (pointer, length), version
/// (likewise), schema, self-causal.
#[must_use]
pub fn describing(body: &str) -> Vec<u8> {
    let about = format!(
        r#"(data (i32.const 3000) "good\ff\fe\0a")
           (func $card (param $at i32) (param $length i32) (result i32)
             (i32.store (i32.const 1100) (local.get $at)) (i32.store (i32.const 1104) (local.get $length))
             (i32.store (i32.const 1108) (i32.const 3000)) (i32.store (i32.const 1112) (i32.const 4))
             (i32.const 1100))
           (func (export "rejoin:plugin/about@0.1.0#describe") (result i32) {body})"#
    );
    component(
        &core(MEMORY, REALLOC, &about, "(i32.const 1024)"),
        "hostile",
        "world hostile { export merger; export about; }",
    )
}

/// A plugin that validates: it refuses what begins with `!` as malformed and with `#` as unsupported, traps on `?` and
/// loops on `~`. It merges as [`first`] does.
#[must_use]
pub fn validating() -> Vec<u8> {
    let is = |byte: char| format!("(i32.eq (i32.load8_u (local.get $value)) (i32.const {}))", u32::from(byte));
    let refuse = |fault: u8| {
        format!(
            "(i32.store8 (i32.const 1100) (i32.const 1)) (i32.store8 (i32.const 1101) (i32.const {fault})) (return \
                (i32.const 1100))"
        )
    };
    let validate = format!(
        r#"(func (export "rejoin:plugin/validator@0.1.0#validate")
             (param $key i32) (param $key_length i32) (param $value i32) (param $length i32) (result i32)
             (if {} (then {}))
             (if {} (then {}))
             (if {} (then (unreachable)))
             (if {} (then (loop $again (br $again))))
             (i32.store8 (i32.const 1100) (i32.const 0)) (i32.const 1100))"#,
        is('!'),
        refuse(0),
        is('#'),
        refuse(1),
        is('?'),
        is('~'),
    );
    let body = "(call $answer (i32.load (local.get $siblings)) (i32.load offset=4 (local.get $siblings)))";
    let memory = r#"(memory (export "memory") 128)"#;
    component(&core(memory, REALLOC, &validate, body), "hostile", "world hostile { export merger; export validator; }")
}

/// A plugin that merges as [`first`] does and exports another interface as well, whose functions are in `more`.
#[must_use]
pub fn also(interface: &str, more: &str) -> Vec<u8> {
    let body = "(call $answer (i32.load (local.get $siblings)) (i32.load offset=4 (local.get $siblings)))";
    let memory = r#"(memory (export "memory") 128)"#;
    let world = format!("world hostile {{ export merger; export {interface}; }}");
    component(&core(memory, REALLOC, more, body), "hostile", &world)
}

/// Wants an interface of the world around it.
#[must_use]
pub fn importing_an_interface() -> Vec<u8> {
    let core =
        core(r#"(import "wall" "now" (func (result i64)))"#, &format!("{MEMORY} {REALLOC}"), "", "(i32.const 1024)");
    component(&core, "wants", "world wants { import wall: interface { now: func() -> u64; } export merger; }")
}

/// Wants a clock.
#[must_use]
pub fn importing() -> Vec<u8> {
    let core =
        core(r#"(import "$root" "clock" (func (result i64)))"#, &format!("{MEMORY} {REALLOC}"), "", "(i32.const 1024)");
    component(&core, "wants", "world wants { import clock: func() -> u64; export merger; }")
}

/// Can show values and cannot merge.
#[must_use]
pub fn without_merger() -> Vec<u8> {
    let show = r#"(func (export "rejoin:plugin/presenter@0.1.0#show") (param i32 i32) (result i32) (i32.const 1024))"#;
    component(&format!("(module {MEMORY} {REALLOC} {show})"), "present", "")
}

/// Speaks the next version of the contract.
#[must_use]
pub fn from_the_future() -> Vec<u8> {
    let core = core(MEMORY, REALLOC, "", "(i32.const 1024)").replace("@0.1.0", "@0.2.0");
    crate::component_of(&core, "merge", &crate::WIT.replace("@0.1.0", "@0.2.0"))
}

/// Has a merger of another type.
#[must_use]
pub fn of_another_type() -> Vec<u8> {
    let core = format!(
        r#"(module {MEMORY} {REALLOC} (func (export "rejoin:plugin/merger@0.1.0#merge") (param i32) (result i32) (local.get 0)))"#
    );
    let wit =
        "package rejoin:plugin@0.1.0; interface merger { merge: func(a: u32) -> u32; } world merge { export merger; }";
    crate::component_of(&core, "merge", wit)
}
