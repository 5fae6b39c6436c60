//! Plugins that are taken and misbehave when they are called.

use super::{Call, Hostile, Outcome};
use crate::{bombs, costly, guests, oddities};

const GROW: &str = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
const SPIN: &str = "(loop $again (br $again)) (unreachable)";
const STOP: &str = "(unreachable)";
/// Leaves pointer and length of three megabytes, and returns where they are.
const GIANT: &str =
    "(i32.store (i32.const 1100) (i32.const 0)) (i32.store (i32.const 1104) (i32.const 3145728)) (i32.const 1100)";
/// As [`GIANT`], of four gigabytes.
const LIE: &str =
    "(i32.store (i32.const 1100) (i32.const 64)) (i32.store (i32.const 1104) (i32.const -1)) (i32.const 1100)";

const FUEL: &[&str] = &["out_of_fuel"];
const MEMORY: &[&str] = &["too_much_memory"];
const STACK: &[&str] = &["stack_overflow"];
const PANIC: &[&str] = &["panicked"];
const TRAP: &[&str] = &["trapped"];
const LARGE: &[&str] = &["result_too_large"];
/// What the engine cannot read, whatever it notices first.
const UNREADABLE: &[&str] = &["bad_result", "trapped"];
const UNREADABLE_OR_LARGE: &[&str] = &["bad_result", "trapped", "result_too_large"];

/// A plugin whose merge fails for one of these reasons.
fn fails(name: impl Into<String>, component: Vec<u8>, reasons: &'static [&'static str]) -> Hostile {
    Hostile { name: name.into(), component, outcome: Outcome::Fails(Call::Merge, reasons) }
}

fn answers(name: &str, component: Vec<u8>) -> Hostile {
    Hostile { name: name.into(), component, outcome: Outcome::Answers(Call::Merge) }
}

/// A merge of that body, beside `more`.
fn merge(name: &str, more: &str, body: &str, reasons: &'static [&'static str]) -> Hostile {
    fails(name, guests::merging(more, body), reasons)
}

pub(super) fn all() -> Vec<Hostile> {
    let burners = costly::all().into_iter().map(|(name, guest)| fails(format!("{name}, for ever"), guest, FUEL));
    let mut all: Vec<Hostile> = burners.collect();
    all.extend(traps());
    all.extend(bulk());
    all.extend(growth());
    all.extend(lies());
    all.extend(allocators());
    all.extend(around_the_answer());
    all.extend(abilities());
    all.extend(harmless());
    all
}

fn traps() -> Vec<Hostile> {
    let frames = format!(
        "(func $down (param {0}) (result i64) (i64.add (i64.const 1) (call $down {1})))",
        "i64 ".repeat(60),
        (0..60).fold(String::new(), |all, local| all + &format!("(local.get {local})"))
    );
    let begin = format!("(drop (call $down {})) (i32.const 1024)", "(i64.const 7)".repeat(60));
    let down = "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))";
    let table = "(table 1 funcref) (elem (i32.const 0) $f) (func $f (param i64) (result i64) (local.get 0))";
    let divide = "(i32.div_u (i32.const 1) (i32.sub (local.get $count) (local.get $count)))";
    vec![
        merge("a panic", "", STOP, PANIC),
        fails("a panic with a client's value for a message", guests::telling(), PANIC),
        merge("a division by zero", "", divide, TRAP),
        merge("a read outside of memory", "", "(i32.load (i32.const -4))", TRAP),
        merge("a call of no function", "(table 1 funcref)", "(call_indirect (result i32) (i32.const 0))", TRAP),
        merge("a call of a function of another type", table, "(call_indirect (result i32) (i32.const 0))", TRAP),
        merge("a function that calls itself", down, "(call $down (i32.const 0))", STACK),
        merge("a function with large frames that calls itself", &frames, &begin, STACK),
    ]
}

/// Single instructions that do much.
fn bulk() -> Vec<Hostile> {
    let for_ever = |step: &str| format!("(loop $again {step} (br $again)) (unreachable)");
    let fill = for_ever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 8388608))");
    let overlap = for_ever("(memory.copy (i32.const 1) (i32.const 0) (i32.const 8000000))");
    let table = for_ever("(table.fill $t (i32.const 0) (ref.null func) (i32.const 19000))");
    let init = for_ever("(memory.init $d (i32.const 4096) (i32.const 0) (i32.const 60))");
    let data = format!(r#"(data $d "{}")"#, "d".repeat(64));
    let targets = "$b ".repeat(8_000);
    let jumps = for_ever(&format!("(block $b (br_table {targets} $b (i32.const 7777)))"));
    let outside: &[&str] = &["trapped", "out_of_fuel"];
    let beyond = "(memory.fill (i32.const 8) (i32.const 1) (i32.const -16)) (i32.const 1024)";
    vec![
        fails("fills of all memory", guests::with_memory("128", &fill), FUEL),
        fails("copies of memory over itself", guests::with_memory("128", &overlap), FUEL),
        merge("fills of a table", "(table $t 19000 funcref)", &table, FUEL),
        merge("copies of a data segment", &data, &init, FUEL),
        merge("a branch table of 8 000, again and again", "", &jumps, FUEL),
        merge("a fill of four gigabytes", "", beyond, outside),
    ]
}

fn growth() -> Vec<Hostile> {
    let table = "(loop $again (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $again)) (unreachable)";
    let curious = "(if (result i32) (i32.eq (memory.grow (i32.const 60000)) (i32.const -1))
        (then (call $answer (i32.const 0) (i32.const 1))) (else (unreachable)))";
    let bounded = "(drop (memory.grow (i32.const 5))) (call $answer (i32.const 0) (i32.const 1))";
    vec![
        merge("memory that grows for ever", "", GROW, MEMORY),
        merge("tables that grow for ever", "(table $t 1 funcref)", table, MEMORY),
        merge("a look at whether memory may grow", "", curious, MEMORY),
        fails("memory that grows beyond its own bound", guests::with_memory("1 2", bounded), MEMORY),
        fails("all memory for an answer", guests::dumping(), LARGE),
    ]
}

/// Answers that are none.
fn lies() -> Vec<Hostile> {
    let wrong_fault = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 9))
        (i32.const 1024)";
    let three = guests::with_memory("64", "(call $answer (i32.const 0) (i32.const 3145728))");
    vec![
        merge(
            "an answer that ends outside of memory",
            "",
            "(call $answer (i32.const 65000) (i32.const 65000))",
            UNREADABLE,
        ),
        merge(
            "an answer that begins outside of memory",
            "",
            "(call $answer (i32.const -8) (i32.const 16))",
            UNREADABLE,
        ),
        merge("an answer of four gigabytes", "", "(call $answer (i32.const 0) (i32.const -1))", UNREADABLE_OR_LARGE),
        merge(
            "an answer that is neither",
            "",
            "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)",
            UNREADABLE,
        ),
        merge("a fault that there is not", "", wrong_fault, UNREADABLE),
        merge("an answer at the end of memory", "", "(i32.const -4)", UNREADABLE),
        merge("an answer at an odd place", "", "(i32.const 1025)", UNREADABLE),
        fails("an answer of three megabytes", three, LARGE),
    ]
}

/// Allocators that give what is not theirs to give.
fn allocators() -> Vec<Hostile> {
    let allocator = |name: &str, body: &str, reasons| fails(name, guests::with_realloc(body), reasons);
    vec![
        allocator("an allocator that gives a place before memory", "(i32.const -64)", UNREADABLE),
        allocator("an allocator that gives the end of memory", "(i32.const 65530)", UNREADABLE),
        allocator("an allocator that gives an odd place", "(i32.const 3)", UNREADABLE),
        allocator("an allocator that never ends", SPIN, FUEL),
        allocator("an allocator that traps", STOP, PANIC),
        allocator("an allocator that takes all memory", GROW, MEMORY),
        answers("an allocator that gives one place to all", guests::with_realloc("(i32.const 4096)")),
    ]
}

/// What runs when the answer is there.
fn around_the_answer() -> Vec<Hostile> {
    let after = |name: &str, body: &str, reasons| {
        let post = format!(r#"(func (export "cabi_post_rejoin:plugin/merger@0.1.0#merge") (param i32) {body})"#);
        merge(name, &post, "(call $answer (i32.const 0) (i32.const 1))", reasons)
    };
    vec![
        after("a loop after the answer", "(loop $again (br $again))", FUEL),
        after("a trap after the answer", STOP, PANIC),
        after("growth after the answer", GROW, MEMORY),
    ]
}

/// The other abilities, which misbehave in the same ways.
fn abilities() -> Vec<Hostile> {
    let sample = r#"(func (export "rejoin:plugin/sampler@0.1.0#sample") (param i64 i32) (result i32) BODY)"#;
    let show = r#"(func (export "rejoin:plugin/presenter@0.1.0#show") (param i32 i32) (result i32) BODY)"#;
    let operate = r#"(func (export "rejoin:plugin/operator@0.1.0#apply")
            (param i32 i32 i32 i32 i32 i32 i32 i64 i64) (result i32) BODY)
        (func (export "rejoin:plugin/operator@0.1.0#query") (param i32 i32 i32 i32) (result i32) BODY)"#;
    let called = [
        ("a sampler", "sampler", sample, Call::Sample),
        ("a presenter", "presenter", show, Call::Show),
        ("an operator", "operator", operate, Call::Apply),
        ("a question", "operator", operate, Call::Query),
    ];
    let ways: [(&str, &str, &'static [&'static str]); 4] = [
        ("that never ends", SPIN, FUEL),
        ("that traps", STOP, PANIC),
        ("that takes all memory", GROW, MEMORY),
        ("that returns a place outside of memory", "(i32.const -4)", UNREADABLE),
    ];
    let mut all: Vec<Hostile> = Vec::new();
    for (what, interface, functions, call) in called {
        for (way, body, reasons) in ways {
            let component = guests::also(interface, &functions.replace("BODY", body));
            all.push(Hostile { name: format!("{what} {way}"), component, outcome: Outcome::Fails(call, reasons) });
        }
    }
    // Sampler and presenter answer with a list, without a result around it.
    for (what, interface, functions, call) in &called[..2] {
        for (way, body, reasons) in
            [("that returns three megabytes", GIANT, LARGE), ("that lies", LIE, UNREADABLE_OR_LARGE)]
        {
            let component = guests::also(interface, &functions.replace("BODY", body));
            all.push(Hostile { name: format!("{what} {way}"), component, outcome: Outcome::Fails(*call, reasons) });
        }
    }
    let no_text = r#"(data (i32.const 3000) "\ff\fe{\00\1b[2J")"#.to_owned()
        + &show.replace(
            "BODY",
            "(i32.store (i32.const 1100) (i32.const 3000)) (i32.store (i32.const 1104) (i32.const 8)) (i32.const 1100)",
        );
    let validate = |name: &str, value, reasons| Hostile {
        name: name.into(),
        component: guests::validating(),
        outcome: Outcome::Fails(Call::Validate(value), reasons),
    };
    all.extend([
        Hostile {
            name: "a presenter that shows no text".into(),
            component: guests::also("presenter", &no_text),
            outcome: Outcome::Answers(Call::Show),
        },
        validate("a validator that traps", b"?", PANIC),
        validate("a validator that never ends", b"~", FUEL),
    ]);
    all
}

/// What is taken and does no harm, at the limits of what may be compiled.
fn harmless() -> Vec<Hostile> {
    let dead = format!("(func (unreachable) {})", "(drop (i32.const 1))".repeat(20_000));
    let steps = oddities::steps("(local.set $v (i8x16.popcnt (i64x2.mul (local.get $v) (local.get $v))))", 9_000);
    vec![
        answers("a count of its own calls", guests::counter()),
        answers("twenty thousand instructions that never run", guests::merging(&dead, "(i32.const 1024)")),
        answers("three thousand locals", bombs::locals(3_000)),
        answers("eight hundred blocks within one another", bombs::deep_blocks(800)),
        answers("nine thousand steps of vectors", oddities::beside(&steps)),
        answers("a megabyte of remarks", oddities::beside_section(0, &[&[1, b'x'][..], &vec![7; 1 << 20]].concat())),
    ]
}
