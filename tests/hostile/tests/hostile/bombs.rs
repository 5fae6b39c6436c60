//! Small components that are expensive to compile, in a real compiling process: without the scan, which refuses them
//! (`corpus.rs`), the limits of the process hold.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use rejoin_merge::{
    ArtefactCache, CancelToken, ChildCompiler, CompileLimits, CompileQueue, Compiler, ModuleLimits, Plugin,
    QueueConfig, Rejection, TenantShare,
};
use rejoin_test_hostile::{Bench, bombs, guests, lawless};

fn child(limits: CompileLimits) -> ChildCompiler {
    ChildCompiler { program: env!("CARGO_BIN_EXE_rejoin-test-compiler").into(), limits }
}

fn compile(bytes: &[u8], limits: &ModuleLimits) -> Result<(), Rejection> {
    child(CompileLimits::default()).compile(bytes, limits, &CancelToken::default()).map(drop)
}

/// Limits that let every bomb through to the compiler.
fn no_scan() -> ModuleLimits {
    let most = ModuleLimits::for_bytes(4 << 30);
    ModuleLimits {
        bytes: 64 << 20,
        function_bytes: usize::MAX,
        modules: u32::MAX,
        initial_memory_bytes: u64::MAX,
        table_elements: u64::MAX,
        depth: u32::MAX,
        instances: u64::MAX,
        parts: u64::MAX,
        passed_components: u32::MAX,
        nested_types: u32::MAX,
        params: u32::MAX,
        results: u32::MAX,
        flow: u64::MAX,
        imports: u32::MAX,
        exports: u32::MAX,
        tables: u32::MAX,
        memories: u32::MAX,
        customs: u32::MAX,
        name_bytes: usize::MAX,
        ..most
    }
}

#[test]
fn good_components_are_compiled_by_the_process_and_run() {
    let bench = Bench::default();
    let here = bench.plugin(&lawless::largest());
    let compiler = Compiler::Child(child(CompileLimits::default()));
    let compiled =
        compiler.compile(&bench.host, &lawless::largest(), &ModuleLimits::default(), &CancelToken::default());
    let plugin = bench.host.load(&compiled.expect("a good plugin")).expect("a good plugin");
    assert_eq!((plugin.digest(), plugin.exports()), (here.digest(), here.exports()));
    let siblings =
        [("3", 1), ("5", 2)].map(|(value, writer)| rejoin_merge::Sibling { value: value.into(), stamp_ms: 1, writer });
    let limits = rejoin_merge::CallLimits::default();
    let merged = [&plugin, &here].map(|plugin| bench.host.merge(plugin, b"k", &siblings, &limits));
    assert!(merged[0].is_ok() && merged[0] == merged[1], "the same value for the same fuel: {merged:?}");
}

#[test]
fn what_cannot_be_read_is_said_to_be_unreadable() {
    let good = guests::first();
    let mut broken: Vec<Vec<u8>> = (0..12).map(bombs::empty_promise).collect();
    broken.extend([8, 9, 20, good.len() / 3, good.len() - 1].map(|cut| good[..cut].to_vec()));
    broken.push([&b"\0asm\x0d\0\x01\0"[..], &[0xff; 100]].concat());
    for bytes in broken {
        let rejection = compile(&bytes, &ModuleLimits::default()).expect_err("it is broken");
        assert!(
            matches!(
                rejection,
                Rejection::NotAComponent { .. } | Rejection::NoMerger { .. } | Rejection::StructureLimit { .. }
            ),
            "{bytes:?}: {rejection}"
        );
    }
}

#[test]
fn without_a_scan_the_limits_of_the_process_hold() {
    let tight = CompileLimits {
        memory_bytes: 128 << 20,
        cpu_seconds: 2,
        wall: Duration::from_secs(60),
        ..CompileLimits::default()
    };
    for (name, bomb) in [
        ("instances", bombs::nested_instances(30)),
        ("passed instances", bombs::passed_instances(30)),
        ("joins", bombs::joins(3_000, 20_000)),
        ("blocks", bombs::deep_blocks(200_000)),
        ("types", bombs::deep_types(600_000)),
    ] {
        // A merger is only asked for once everything else is in order.
        let outcome = child(tight).compile(&bomb, &no_scan(), &CancelToken::default()).map(drop);
        assert!(
            matches!(
                outcome,
                Err(Rejection::TooCostly { .. } | Rejection::Uncompilable { .. } | Rejection::NoMerger { .. })
            ),
            "{name}: {outcome:?}"
        );
    }
}

#[test]
fn memory_time_and_machine_code_are_bounded() {
    let bomb = bombs::joins(2_000, 20_000);
    let costs = |limits| match child(limits).compile(&bomb, &no_scan(), &CancelToken::default()) {
        Err(Rejection::TooCostly { limit }) => limit,
        other => panic!("{other:?}"),
    };
    let plenty = CompileLimits {
        memory_bytes: 16 << 30,
        cpu_seconds: 600,
        wall: Duration::from_secs(600),
        artefact_bytes: 1 << 30,
    };
    assert_eq!(costs(CompileLimits { memory_bytes: 96 << 20, ..plenty }), "96 MiB of memory");
    assert_eq!(costs(CompileLimits { memory_bytes: 700 << 20, cpu_seconds: 1, ..plenty }), "1 s of a processor");
    assert_eq!(costs(CompileLimits { wall: Duration::from_millis(200), ..plenty }), "200ms");
    let small = CompileLimits { artefact_bytes: 1, ..CompileLimits::default() };
    let code = child(small).compile(&bombs::busy_body(100 << 10), &no_scan(), &CancelToken::default());
    assert!(matches!(code, Err(Rejection::TooCostly { limit }) if limit == "1 bytes of machine code"));
}

#[test]
fn a_program_that_does_not_compile_is_named() {
    for program in ["/bin/true", "/bin/false", "/no/such/program"] {
        let compiler = ChildCompiler { program: program.into(), limits: CompileLimits::default() };
        let rejection = compiler.compile(&guests::first(), &ModuleLimits::default(), &CancelToken::default()).map(drop);
        assert!(matches!(&rejection, Err(Rejection::NotTried { reason }) if reason.contains(program)), "{rejection:?}");
    }
}

/// A script in place of the compiler, and what the node says of it.
fn scripted(script: &str, limits: CompileLimits) -> String {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("compiler");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("it is ours");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    let rejection =
        ChildCompiler { program, limits }.compile(&guests::first(), &ModuleLimits::default(), &CancelToken::default());
    rejection.map(drop).expect_err("a script compiles nothing").to_string()
}

#[test]
fn the_process_has_none_of_the_nodes_environment_and_may_say_much() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo has set it, and the process must not see it");
    let said = scripted("export -p >&2; exit 3", CompileLimits::default());
    assert!(said.contains("RUST_BACKTRACE") && !said.contains("CARGO") && !said.contains("HOME"), "{said}");
    // A pipe holds 64 KiB. Were it not read, the process would wait for ever, and be too costly.
    let said = scripted("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3", CompileLimits::default());
    assert!(said.contains("xxx") && said.contains("exit status: 3") && said.len() < 2_000, "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_limits_its_memory_time_and_descriptors_itself() {
    use std::process::{Command, Stdio};
    let arguments = [rejoin_merge::CHILD_VERB, "134217728", "7"];
    let mut process = Command::new(env!("CARGO_BIN_EXE_rejoin-test-compiler"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let of =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.id())).expect("it waits for its input");
    // It restarts itself once it has set its limits, without these arguments. While a program starts it has none at
    // all.
    let has_restarted = |line: String| line.contains(rejoin_merge::CHILD_VERB) && !line.contains(arguments[1]);
    while !has_restarted(of("cmdline")) {
        std::thread::yield_now();
    }
    let limits = of("limits");
    for (name, most) in
        [("Max open files", "64"), ("Max data size", "134217728"), ("Max cpu time", "7"), ("Max file size", "0")]
    {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(most), "{limits}");
    }
    drop(process.stdin.take());
    process.wait().expect("it ends with its input");
}

#[test]
fn when_nobody_waits_any_more_the_process_ends() {
    let bench = Bench::default();
    let forever = CompileLimits {
        memory_bytes: 700 << 20,
        cpu_seconds: 600,
        wall: Duration::from_secs(600),
        ..CompileLimits::default()
    };
    let queue = CompileQueue::new(
        bench.host.clone(),
        Compiler::Child(child(forever)),
        None,
        QueueConfig { threads: 1, queue: 4, tenant_queue: 4 },
    );
    let queue = queue.expect("one thread");
    let (send, outcomes) = channel();
    let ask = |bytes: Vec<u8>| {
        let send = send.clone();
        let done = move |outcome: Result<Plugin, Rejection>| send.send(outcome.map(drop)).expect("the test waits");
        queue.compile(TenantShare::default(), bytes.into(), no_scan(), done).expect("there is room")
    };
    let bomb = ask(bombs::joins(2_000, 20_000));
    let next = ask(guests::first());
    drop(bomb);
    // `done` is called when the process has ended: were it not killed, this would wait for minutes and be too costly.
    assert!(matches!(outcomes.recv(), Ok(Err(Rejection::NotTried { .. }))));
    assert_eq!(outcomes.recv(), Ok(Ok(())), "the next is not kept waiting");
    drop(next);
}

#[test]
fn what_is_kept_is_loaded_without_compiling() {
    let (bench, dir) = (Bench::default(), tempfile::tempdir().expect("a directory"));
    let queue = |program: &str| {
        let cache = ArtefactCache::open(dir.path(), 64 << 20, &bench.host).expect("a directory of ours");
        let compiler = ChildCompiler { program: Path::new(program).into(), limits: CompileLimits::default() };
        CompileQueue::inline(bench.host.clone(), Compiler::Child(compiler), Some(cache))
    };
    let compile = |queue: &CompileQueue| {
        let (send, outcome) = channel();
        let done = move |outcome: Result<Plugin, Rejection>| {
            send.send(outcome.map(|plugin| plugin.digest())).expect("it waits")
        };
        let (tenant, component) = (TenantShare::default(), lawless::largest().into());
        let _pending = queue.compile(tenant, component, ModuleLimits::default(), done).expect("there is room");
        outcome.recv().expect("it is answered")
    };
    let broken = queue("/bin/false");
    assert!(matches!(compile(&broken), Err(Rejection::NotTried { .. })));
    let first = compile(&queue(env!("CARGO_BIN_EXE_rejoin-test-compiler"))).expect("a good plugin");
    assert_eq!(compile(&broken), Ok(first), "a restart loads what was kept");
    let kept = dir.path().join(first.to_string());
    let mut bytes = std::fs::read(&kept).expect("it is there");
    *bytes.last_mut().expect("it has some") ^= 1;
    std::fs::write(&kept, bytes).expect("it is ours");
    assert!(compile(&broken).is_err(), "what was changed is not run");
    assert!(!kept.exists());
    compile(&queue(env!("CARGO_BIN_EXE_rejoin-test-compiler"))).expect("it is compiled again");
    assert_eq!(compile(&broken), Ok(first), "and kept again");
}

#[test]
fn names_of_strangers_are_shown_escaped_and_short() {
    let long = format!("x\u{1b}[2J\u{202e}{}", "y".repeat(100_000));
    for bomb in [bombs::export_name(&long), bombs::import_name("a\u{202e}\u{1b}[31mb")] {
        let words = compile(&bomb, &no_scan()).expect_err("it is no plugin").to_string();
        assert!(words.chars().all(rejoin_merge::is_printable) && words.len() < 2_000, "{words:?}");
    }
}
