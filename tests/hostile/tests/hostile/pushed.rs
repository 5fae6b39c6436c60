//! Strange components on the path of a push: the scan, a real compiling process under a fraction of a node's limits,
//! and the trial runs. Each is refused with a message that names the fault, or merges like any other plugin.

use std::cell::RefCell;
use std::sync::mpsc::channel;
use std::time::Duration;

use rejoin_merge::{
    CallLimits, ChildCompiler, CompileLimits, CompileQueue, Compiler, LawInputs, LawLimits, LawProcess, LawQueue,
    LawRunner, MergeFault, ModuleLimits, Plugin, Rejection, TenantShare, TrapKind,
};
use rejoin_test_hostile::{Bench, bombs, guests, oddities, siblings};

/// A quarter of what a node allows: a component that is near a limit of the scan must not be near these.
const LIMITS: CompileLimits = CompileLimits {
    memory_bytes: 256 << 20,
    cpu_seconds: 10,
    wall: Duration::from_secs(120),
    artefact_bytes: 16 << 20,
};

/// The way of a push, without the node around it.
struct Door {
    bench: Bench,
    queue: CompileQueue,
    /// What went otherwise than it should, so that one run shows all of it.
    wrong: RefCell<Vec<String>>,
}

impl Door {
    fn new() -> Self {
        let bench = Bench::default();
        let child = ChildCompiler { program: env!("CARGO_BIN_EXE_rejoin-test-compiler").into(), limits: LIMITS };
        let queue = CompileQueue::inline(bench.host.clone(), Compiler::Child(child), None);
        Self { bench, queue, wrong: RefCell::default() }
    }

    fn push(&self, component: Vec<u8>) -> Result<Plugin, Rejection> {
        let (send, outcome) = channel();
        let done = move |result| send.send(result).expect("the test waits");
        let _pending = self
            .queue
            .compile(TenantShare::default(), component.into(), ModuleLimits::default(), done)
            .expect("nothing else waits");
        let outcome = outcome.recv().expect("it is answered");
        self.bench.assert_unharmed();
        outcome
    }

    /// It must be refused in these words, and for good.
    fn refuses(&self, what: &str, component: Vec<u8>, words: &str) {
        match self.push(component) {
            Ok(_) => self.wrong.borrow_mut().push(format!("{what}: it was taken")),
            Err(rejection) => {
                let said = rejection.to_string();
                if !rejection.is_final() || !said.contains(words) || said.len() > 1_000 {
                    self.wrong.borrow_mut().push(format!("{what}: {said}"));
                }
            }
        }
    }

    /// It must be taken, and merge.
    fn takes(&self, what: &str, component: Vec<u8>) {
        let merge = |plugin: Plugin| self.bench.host.merge(&plugin, b"k", &siblings(), &CallLimits::default());
        let merged = self.push(component).map_err(|rejection| rejection.to_string());
        let merged = merged.and_then(|plugin| merge(plugin).map_err(|fault| fault.to_string()));
        if merged.as_ref().map(|merged| &merged.value[..]) != Ok(b"one") {
            self.wrong.borrow_mut().push(format!("{what}: {merged:?}"));
        }
    }

    fn close(self) {
        let wrong = self.wrong.into_inner();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn what_would_be_made_too_often_is_counted_through_aliases() {
    let door = Door::new();
    door.refuses("modules of the outer component", oddities::alone(&oddities::outer_modules(10, 20)), "instances");
    let few = "(core module $m (func))".to_owned() + &"(core instance (instantiate $m))".repeat(20);
    // Only what is instantiated is made: beside a plugin it stays a plan.
    door.takes("a plan of twenty instances", oddities::beside(&few));
    door.refuses("components one after the other", oddities::beside(&"(component)".repeat(30_000)), "component");
    door.refuses("exports", oddities::beside(&many_exports(5_000)), "exports");
    door.refuses(
        "a long name",
        oddities::beside(&format!(r#"(type u8) (export "{}" (type 0))"#, "n".repeat(20_000))),
        "bytes in one name",
    );
    door.close();
}

fn many_exports(count: usize) -> String {
    (0..count).fold("(type u8)".to_owned(), |text, number| text + &format!(r#"(export "e{number}" (type 0))"#))
}

#[test]
fn bodies_at_the_limits_of_the_scan_are_compiled_in_a_fraction_of_the_limits() {
    let door = Door::new();
    for (what, field) in [
        ("vectors", oddities::steps("(local.set $v (i8x16.popcnt (i64x2.mul (local.get $v) (local.get $v))))", 9_000)),
        (
            "shuffles",
            oddities::steps(
                &format!("(local.set $v (i8x16.shuffle {} (local.get $v) (local.get $v)))", "3 ".repeat(16)),
                5_000,
            ),
        ),
        ("selects", oddities::steps("(local.set $i (select (local.get $i) (i32.const 7) (local.get $i)))", 12_000)),
        ("divisions", oddities::steps("(local.set $i (i32.div_s (local.get $i) (local.get $i)))", 14_000)),
        (
            "calls",
            format!(
                "(core module (func $f (param i32)) (func (param $i i32) {}))",
                "(call $f (local.get $i))".repeat(30_000)
            ),
        ),
    ] {
        door.takes(what, oddities::beside(&field));
    }
    door.refuses("joins of many locals", bombs::joins(1_500, 2_500), "times its locals");
    door.takes("joins of some locals", joined(400, 800));
    door.close();
}

/// [`bombs::joins`] beside the plugin that merges.
fn joined(locals: usize, loops: usize) -> Vec<u8> {
    let change = "(local.set 1 (i32.add (local.get 1) (local.get 0)))";
    let body = "(loop (br_if 0 (local.get 0)))".repeat(loops);
    let locals = "i32 ".repeat(locals);
    oddities::beside(&format!("(core module (func (param i32) (local {locals}) {change} {body} {change} {body}))"))
}

#[test]
fn branches_blocks_and_segments_beyond_the_limits_are_named() {
    let door = Door::new();
    for (what, component, words) in [
        ("a million targets", bombs::branch_table(1_000_000), "bytes in one function"),
        ("blocks of many results", block_results(1_000), "results"),
        ("data that is larger than a component may be", bombs::customs(1, 3 << 20), "bytes, and 2097152 are allowed"),
        (
            "data outside of memory",
            guests::merging(r#"(data (i32.const 65530) "0123456789")"#, "(i32.const 1024)"),
            "outside its memory",
        ),
        (
            "elements outside of a table",
            guests::merging("(table 1 funcref) (func $f) (elem (i32.const 1) $f)", "(i32.const 1024)"),
            "outside its memory",
        ),
        (
            "a table of the most elements",
            guests::merging("(table 90000 funcref)", "(i32.const 1024)"),
            "table elements",
        ),
        ("an interface without its function", oddities::hollow(), "is not what this host expects"),
    ] {
        door.refuses(what, component, words);
    }
    door.close();
}

fn block_results(count: usize) -> Vec<u8> {
    let (types, values) = ("i64 ".repeat(count), "(i64.const 1)".repeat(count));
    oddities::beside(&format!("(core module (func (block (result {types}) {values}) {}))", "(drop)".repeat(count)))
}

#[test]
fn custom_sections_and_names_may_say_anything() {
    let door = Door::new();
    let custom = |name: &str, content: &[u8]| {
        let length = u8::try_from(name.len()).expect("a short name");
        oddities::beside_section(0, &[&[length][..], name.as_bytes(), content].concat())
    };
    door.takes("a megabyte", custom("x", &vec![7; 1 << 20]));
    door.takes("names that are none", custom("name", &[0xff; 4_096]));
    door.takes(
        "names of four thousand million functions",
        custom("component-name", &[1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    );
    let names = r#"(core module (func $f) (@custom "name" "\01\ff\ff\ff\ff\0f"))"#;
    door.takes("a module's names that are cut", oddities::beside(names));
    door.close();
}

#[test]
fn numbers_in_more_bytes_than_they_need_and_cuts_at_every_byte() {
    let door = Door::new();
    door.takes("five bytes for a length", oddities::overlong_length(5));
    door.refuses("six bytes for a length", oddities::overlong_length(6), "no WebAssembly component");
    let good = guests::first();
    for cut in 0..good.len() {
        match door.bench.host.compile(&good[..cut], &ModuleLimits::default()) {
            Err(Rejection::NotAComponent { .. } | Rejection::NoMerger { .. } | Rejection::Uncompilable { .. }) => {}
            // Behind its last export a component has only remarks.
            Ok(plugin) => {
                let merged = door.bench.host.merge(&plugin, b"k", &siblings(), &CallLimits::default());
                assert_eq!(merged.map(|merged| merged.value), Ok("one".into()), "{cut} of {}", good.len());
            }
            Err(rejection) => panic!("{cut} of {}: {rejection}", good.len()),
        }
    }
    door.bench.assert_unharmed();
    door.close();
}

#[test]
fn what_a_plugin_does_around_its_answer_is_bounded_as_the_answer_is() {
    let bench = Bench::default();
    let limits = CallLimits { fuel: 20_000_000, memory_bytes: 4 << 20, ..CallLimits::default() };
    let after = |body: &str| {
        let post = format!(r#"(func (export "cabi_post_rejoin:plugin/merger@0.1.0#merge") (param i32) {body})"#);
        guests::merging(&post, "(call $answer (i32.const 0) (i32.const 1))")
    };
    let out_of_fuel = MergeFault::OutOfFuel { limit: limits.fuel };
    let grows = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
    for (what, component, fault) in [
        ("a loop after the answer", after("(loop $again (br $again))"), out_of_fuel.clone()),
        ("a trap after the answer", after("(unreachable)"), MergeFault::Trapped(TrapKind::Unreachable)),
        ("growth after the answer", after(grows), MergeFault::TooMuchMemory { limit: limits.memory_bytes }),
        ("a trap in the allocator", guests::with_realloc("(unreachable)"), MergeFault::Trapped(TrapKind::Unreachable)),
        (
            "growth in the allocator",
            guests::with_realloc(grows),
            MergeFault::TooMuchMemory { limit: limits.memory_bytes },
        ),
        ("a loop in the allocator", guests::with_realloc("(loop $again (br $again)) (unreachable)"), out_of_fuel),
    ] {
        assert_eq!(bench.fault(&component, &limits), fault, "{what}");
    }
}

#[test]
fn a_stack_is_as_deep_on_every_thread_as_on_every_other() {
    let bench = Bench::default();
    let down = "(func $down (param i32) (result i32) (if (result i32) (local.get 0)
        (then (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 0))))";
    let fits = |host: &rejoin_merge::Host, depth: u32| {
        let body = format!("(drop (call $down (i32.const {depth}))) (call $answer (i32.const 0) (i32.const 1))");
        let plugin = host.compile(&guests::merging(down, &body), &ModuleLimits::default()).expect("a plugin");
        match host.merge(&plugin, b"k", &siblings(), &CallLimits::default()) {
            Ok(_) => true,
            Err(MergeFault::Trapped(TrapKind::StackOverflow)) => false,
            Err(fault) => panic!("{depth}: {fault}"),
        }
    };
    let (mut least, mut most) = (100, 100_000);
    while most - least > 1 {
        let middle = (least + most) / 2;
        if fits(&bench.host, middle) { least = middle } else { most = middle }
    }
    for stack in [2 << 20, 64 << 20] {
        let host = Bench::default().host;
        let thread = std::thread::Builder::new().stack_size(stack);
        let outcome = thread.spawn(move || (fits(&host, least), fits(&host, least + 1))).expect("a thread").join();
        assert_eq!(outcome.expect("it only merges"), (true, false), "{least} calls deep, on a stack of {stack} bytes");
    }
}

#[test]
fn numbers_that_are_none_have_one_form_in_vectors_and_conversions_as_well() {
    let merged = Bench::default().outcome(
        &guests::merging(
            "",
            "(f64.store (i32.const 2000) (f64.promote_f32 (f32.reinterpret_i32 (i32.const 0x7fa12345))))
             (f32.store (i32.const 2008) (f32.demote_f64 (f64.reinterpret_i64 (i64.const 0xfff4123412341234))))
             (f32.store (i32.const 2012) (f32.min (f32.reinterpret_i32 (i32.const 0xffa12345)) (f32.const 1)))
             (v128.store (i32.const 2016) (f32x4.div (f32x4.splat (f32.const 0)) (f32x4.splat (f32.const 0))))
             (v128.store (i32.const 2032) (f64x2.sqrt (f64x2.splat (f64.const -1))))
             (call $answer (i32.const 2000) (i32.const 48))",
        ),
        &CallLimits::default(),
    );
    let (single, double) = (0x7fc0_0000_u32.to_le_bytes(), 0x7ff8_0000_0000_0000_u64.to_le_bytes());
    let expected = [&double[..], &single.repeat(2), &single.repeat(4), &double.repeat(2)].concat();
    assert_eq!(merged.expect("it behaves well").value, expected);
}

/// As guests that are compiled from Rust or C have. The engine keeps such memory in a file without a name.
#[test]
fn the_laws_of_a_guest_with_initial_memory_are_checked_in_a_process() {
    let process =
        LawProcess { program: env!("CARGO_BIN_EXE_rejoin-test-compiler").into(), limits: LawLimits::default() };
    let queue = LawQueue::inline(LawRunner::Child(process));
    let (send, checked) = channel();
    let done = move |result| send.send(result).expect("the test waits");
    let component = guests::picking(1, 0).into();
    let _pending = queue
        .check(TenantShare::default(), (component, LawInputs::default()), ModuleLimits::default(), |_| (), done)
        .expect("nothing else waits");
    let checked = checked.recv().expect("it is answered").expect("a report");
    assert!(checked.broken().is_some(), "the first sibling is no merge");
}
