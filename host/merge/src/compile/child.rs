//! The compiling process: it limits its own resources, reads a component from stdin, and writes the machine code to
//! stdout. The process that checks laws limits itself in the same way; `law_process` has what it does then.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use wire::ChildVerdict;

use super::{Compiled, wire};
use crate::escape::escape_untrusted;
use crate::json_line;
use crate::law_process;
use crate::profile;
use crate::workers::panic_message;

/// The first argument of a compiling process.
pub const CHILD_VERB: &str = "compile-plugin";
/// The first argument of a process that checks laws.
pub(crate) const LAW_VERB: &str = "check-plugin";
/// The running program, even if its file has been replaced.
#[cfg(target_os = "linux")]
pub(crate) const SELF: &str = "/proc/self/exe";
#[cfg(not(target_os = "linux"))]
pub(crate) const SELF: &str = "rejoin";

/// Stack of the compiling thread: reading nested types recurses.
pub(crate) const STACK_BYTES: usize = 32 << 20;
/// Address space besides the counted memory: the program itself, and what the engine reserves without using it.
const ADDRESSES: u64 = 8 << 30;
/// The same of a process that checks laws: its two hosts reserve some GiB for each instance.
const LAW_ADDRESSES: u64 = 64 << 30;
/// How much a process that checks laws gives way to the node, which serves meanwhile.
const LAW_NICE: i32 = 10;

/// Descriptors: three pipes, and those needed to restart the program.
const DESCRIPTORS: u64 = 64;

/// The arguments of a child process.
pub(crate) fn arguments(verb: &str, memory_bytes: u64, cpu_seconds: u64) -> [String; 3] {
    [verb.into(), memory_bytes.to_string(), cpu_seconds.to_string()]
}

/// What this process was started for, if it is a child.
fn verb() -> Option<&'static str> {
    let given = std::env::args_os().nth(1)?;
    [CHILD_VERB, LAW_VERB].into_iter().find(|verb| given == *verb)
}

/// Whether this process was started to compile a component or to check its laws. Its `main` must then only call
/// [`child_main`].
#[must_use]
pub fn is_child() -> bool {
    verb().is_some()
}

/// The `main` of a child process. Call it before anything else is set up, if [`is_child`].
#[must_use]
pub fn child_main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().skip(2).collect();
    let failed = |why: &dyn std::fmt::Display| {
        let _ = writeln!(std::io::stderr(), "{why}");
        ExitCode::from(2)
    };
    let verb = verb().unwrap_or(CHILD_VERB);
    match given.as_slice() {
        [] => match if verb == LAW_VERB { law_process::work() } else { work() } {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => failed(&why),
        },
        [memory, cpu] => match (number(memory), number(cpu)) {
            // The program restarts itself, so that its allocator is under the limits from the first byte on.
            (Some(memory), Some(cpu)) => match limit(verb, memory, cpu) {
                Ok(()) => failed(&Command::new(SELF).arg0("rejoin").arg(verb).exec()),
                Err(why) => failed(&why),
            },
            _ => failed(&"the limits are no numbers"),
        },
        _ => failed(&"a node starts this, with two limits"),
    }
}

fn number(text: &OsString) -> Option<u64> {
    text.to_str()?.parse().ok()
}

/// Limits writable memory, and the address space as well, for systems that do not count the former.
fn limit(verb: &str, memory_bytes: u64, cpu_seconds: u64) -> std::io::Result<()> {
    let addresses = if verb == LAW_VERB { LAW_ADDRESSES } else { ADDRESSES };
    if verb == LAW_VERB {
        nice(LAW_NICE)?;
    }
    let most = |resource, limit: u64| setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    most(Resource::Data, memory_bytes)?;
    most(Resource::As, memory_bytes.saturating_add(addresses))?;
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) })?;
    most(Resource::Core, 0)?;
    most(Resource::Nofile, DESCRIPTORS)?;
    // The engine keeps the initial memory of a guest that it runs in a file without a name, which counts like memory.
    most(Resource::Fsize, if verb == LAW_VERB { memory_bytes } else { 0 })?;
    Ok(())
}

/// Reads the request of a child process.
pub(crate) fn read_request() -> Result<Vec<u8>, String> {
    // It must not outlive the node. Where the system cannot ensure that, its limits end it.
    #[cfg(target_os = "linux")]
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let mut request = Vec::new();
    std::io::stdin().lock().read_to_end(&mut request).map_err(|why| format!("the component cannot be read: {why}"))?;
    Ok(request)
}

fn work() -> Result<(), String> {
    let request = read_request()?;
    let thread =
        std::thread::Builder::new().name("compile".into()).stack_size(STACK_BYTES).spawn(move || compile(&request));
    let worked = thread.map_err(|why| why.to_string())?.join();
    let (verdict, artefact) = worked.unwrap_or_else(|panic| {
        Ok((ChildVerdict::Panicked { reason: escape_untrusted(&panic_message(&*panic)) }, Vec::new()))
    })?;
    let line = wire::answer(&verdict).map_err(|why| why.to_string())?;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&line).and_then(|()| stdout.write_all(&artefact)).and_then(|()| stdout.flush());
    written.map_err(|why| format!("the answer cannot be written: {why}"))
}

fn compile(request: &[u8]) -> Result<(ChildVerdict, Vec<u8>), String> {
    let (limits, component) = json_line::split(request).ok_or("the request is not one of a node of this release")?;
    let engine = profile::compiling_engine().map_err(|why| why.to_string())?;
    match Compiled::new(&engine, component, &limits) {
        Ok(compiled) => Ok((ChildVerdict::Compiled { exports: compiled.exports }, compiled.artefact)),
        Err(rejection) => {
            let words = rejection.to_string();
            ChildVerdict::of(rejection).map(|verdict| (verdict, Vec::new())).ok_or(words)
        }
    }
}
