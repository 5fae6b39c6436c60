//! One call of a plugin, in a fresh instance with limits on fuel, memory, time and result.

use bytes::Bytes;
use wasmtime::{Engine, PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

use crate::bindings::merge::exports::rejoin::plugin::merger;
use crate::bindings::validate::exports::rejoin::plugin::validator;
use crate::epoch;
use crate::escape::escape_untrusted;
use crate::fault::{MergeFault, Refusal, TrapKind};
use crate::host::Host;
use crate::job_fuel;
use crate::limits::CallLimits;
use crate::panic_record;
use crate::plugin::Plugin;
use crate::profile::TABLE_ELEMENTS;
use crate::resources::is_out_of_resources;

/// One of the concurrent values of a key, as a plugin gets it. Equal on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The bytes that a client wrote or an earlier merge returned.
    pub value: Bytes,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// The actor that took the write.
    pub writer: u64,
}

impl From<&rejoin_proto::client::Sibling> for Sibling {
    fn from(one: &rejoin_proto::client::Sibling) -> Self {
        Self { value: one.value.clone(), stamp_ms: one.stamp_ms, writer: one.writer }
    }
}

impl Sibling {
    fn lend(&self) -> merger::Sibling<'_> {
        merger::Sibling { value: &self.value, stamp_ms: self.stamp_ms, writer: self.writer }
    }
}

/// The result of a merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// The merged value.
    pub value: Bytes,
    /// The fuel used; equal on all nodes with the same profile.
    pub fuel_used: u64,
}

/// What a call has used, whether it has answered or not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of linear memory, the most at one time.
    pub memory_bytes: usize,
}

impl Host {
    /// Merges siblings, which must be in canonical order.
    ///
    /// # Errors
    /// A [`MergeFault`]; the plugin stays usable.
    pub fn merge(
        &self,
        plugin: &Plugin,
        key: &[u8],
        siblings: &[Sibling],
        limits: &CallLimits,
    ) -> Result<Merged, MergeFault> {
        let (result, used) = self.merge_measured(plugin, key, siblings, limits);
        result.map(|value| Merged { value, fuel_used: used.fuel })
    }

    /// As [`Host::merge`], and also says what a merge has used that failed.
    pub(crate) fn merge_measured(
        &self,
        plugin: &Plugin,
        key: &[u8],
        siblings: &[Sibling],
        limits: &CallLimits,
    ) -> (Result<Bytes, MergeFault>, Usage) {
        if siblings.len() > limits.max_siblings {
            let fault = MergeFault::TooManySiblings { count: siblings.len(), limit: limits.max_siblings };
            return (Err(fault), Usage::default());
        }
        let lent = lend_all(siblings);
        let merge = &plugin.0.merge;
        let call = |store: &mut Store<CallState>| {
            merge.instantiate(&mut *store)?.rejoin_plugin_merger().call_merge(store, key, &lent)
        };
        let (answer, used) = measured(merge.engine(), limits, call);
        (answer.and_then(|answer| value_of(answer, limits)), used)
    }

    /// Asks the plugin whether a value may be stored under a key.
    ///
    /// # Errors
    /// [`MergeFault::Refused`] if it may not; [`MergeFault::NotExported`] if the plugin has no validator; otherwise
    /// as for a merge.
    pub fn validate(&self, plugin: &Plugin, key: &[u8], value: &[u8], limits: &CallLimits) -> Result<(), MergeFault> {
        let validate = plugin.0.validate.as_ref().ok_or(MergeFault::NotExported { interface: "validator" })?;
        let call = |store: &mut Store<CallState>| {
            validate.instantiate(&mut *store)?.rejoin_plugin_validator().call_validate(store, key, value)
        };
        let (answer, _) = run(validate.engine(), limits, call)?;
        answer.map_err(|fault| MergeFault::Refused(fault.into()))
    }

    /// The value as the plugin shows it to people. It should be UTF-8 JSON, which is not checked here.
    ///
    /// # Errors
    /// [`MergeFault::NotExported`] if the plugin has no presenter; otherwise as for a merge.
    pub fn show(&self, plugin: &Plugin, value: &[u8], limits: &CallLimits) -> Result<Vec<u8>, MergeFault> {
        let present = plugin.0.present.as_ref().ok_or(MergeFault::NotExported { interface: "presenter" })?;
        let call = |store: &mut Store<CallState>| {
            present.instantiate(&mut *store)?.rejoin_plugin_presenter().call_show(store, value)
        };
        fits(run(present.engine(), limits, call)?.0, limits)
    }

    /// A value of the plugin's sampler, always the same for the same arguments.
    ///
    /// # Errors
    /// [`MergeFault::NotExported`] if the plugin has no sampler; otherwise as for a merge.
    pub fn sample(&self, plugin: &Plugin, seed: u64, size: u32, limits: &CallLimits) -> Result<Vec<u8>, MergeFault> {
        let sample = plugin.0.sample.as_ref().ok_or(MergeFault::NotExported { interface: "sampler" })?;
        let call = |store: &mut Store<CallState>| {
            sample.instantiate(&mut *store)?.rejoin_plugin_sampler().call_sample(store, seed, size)
        };
        fits(run(sample.engine(), limits, call)?.0, limits)
    }
}

/// Siblings as the engine takes them.
pub(crate) fn lend_all(siblings: &[Sibling]) -> Vec<merger::Sibling<'_>> {
    siblings.iter().map(Sibling::lend).collect()
}

/// The value of a merge's answer, if it fits.
pub(crate) fn value_of(answer: Result<Vec<u8>, merger::Fault>, limits: &CallLimits) -> Result<Bytes, MergeFault> {
    Ok(fits(answer.map_err(|fault| MergeFault::Refused(fault.into()))?, limits)?.into())
}

/// The limits of one call. Exceeding one traps, because a guest that saw a refused growth could return another result.
pub(crate) struct CallState {
    memory_bytes: usize,
    /// Bytes of all linear memories of the instance.
    memory_used: usize,
}

/// Raised by the limiter. It passes through the guest.
#[derive(Debug, thiserror::Error)]
#[error("over the memory limit")]
struct OverMemory;

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes {
            return Err(OverMemory.into());
        }
        // A memory of an instance never shrinks.
        self.memory_used += desired.saturating_sub(current);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(if is_out_of_resources(&error) { error } else { OverMemory.into() })
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(OverMemory.into()) } else { Ok(true) }
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(if is_out_of_resources(&error) { error } else { OverMemory.into() })
    }
}

/// Makes an instance and calls it. Returns the result and the fuel that both used.
pub(crate) fn run<T>(
    engine: &Engine,
    limits: &CallLimits,
    call: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<T>,
) -> Result<(T, u64), MergeFault> {
    let (answer, used) = measured(engine, limits, call);
    answer.map(|answer| (answer, used.fuel))
}

/// As [`run`], with what was used also if there is no answer.
pub(crate) fn measured<T>(
    engine: &Engine,
    limits: &CallLimits,
    call: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<T>,
) -> (Result<T, MergeFault>, Usage) {
    let host = |error: wasmtime::Error| MergeFault::Host { reason: format!("{error:#}") };
    let mut store = Store::new(engine, CallState { memory_bytes: limits.memory_bytes, memory_used: 0 });
    store.limiter(|call| call);
    if let Err(error) = store.set_fuel(limits.fuel) {
        return (Err(host(error)), Usage::default());
    }
    store.set_epoch_deadline(epoch::ticks(limits.wall));
    // Bounds the bytes copied out of the guest. The headers of the result count as well, hence 1 KiB more.
    store.set_hostcall_fuel(limits.result_bytes.saturating_add(1 << 10));
    let answer = call(&mut store).map_err(|error| fault_of(&error, limits, &store));
    let memory_bytes = store.data().memory_used;
    match store.get_fuel() {
        Ok(left) => {
            let fuel = limits.fuel.saturating_sub(left);
            job_fuel::add(fuel);
            (answer, Usage { fuel, memory_bytes })
        }
        Err(error) => (Err(host(error)), Usage { fuel: 0, memory_bytes }),
    }
}

/// Makes an instance and calls it on an engine without fuel and epochs: whoever calls this knows that it ends.
pub(crate) fn unmetered<T>(
    engine: &Engine,
    limits: &CallLimits,
    call: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<T>,
) -> Result<T, MergeFault> {
    let mut store = Store::new(engine, CallState { memory_bytes: limits.memory_bytes, memory_used: 0 });
    store.limiter(|call| call);
    store.set_hostcall_fuel(limits.result_bytes.saturating_add(1 << 10));
    call(&mut store).map_err(|error| fault_of(&error, limits, &store))
}

pub(crate) fn fits(value: Vec<u8>, limits: &CallLimits) -> Result<Vec<u8>, MergeFault> {
    if value.len() > limits.result_bytes {
        Err(MergeFault::ResultTooLarge { limit: limits.result_bytes })
    } else {
        Ok(value)
    }
}

/// The fault that an error of the engine stands for.
fn fault_of(error: &wasmtime::Error, limits: &CallLimits, store: &Store<CallState>) -> MergeFault {
    if error.downcast_ref::<OverMemory>().is_some() {
        return MergeFault::TooMuchMemory { limit: limits.memory_bytes };
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return MergeFault::Busy;
    }
    if is_out_of_resources(error) {
        return MergeFault::Host { reason: escape_untrusted(&format!("{error:#}")) };
    }
    // The error carries a core dump and a backtrace, which are no part of the reason.
    let parts = error
        .chain()
        .map(ToString::to_string)
        .filter(|part| !part.starts_with(REMAINS) && !part.starts_with(BACKTRACE));
    let reason = parts.collect::<Vec<_>>().join(": ");
    match error.downcast_ref::<Trap>() {
        Some(trap) => with_panic_message(fault_of_trap(*trap, limits), error, store),
        // The engine has no public type for this error. tests/hostile fails if its text changes.
        None if reason.contains("fuel allocated for hostcalls") => {
            MergeFault::ResultTooLarge { limit: limits.result_bytes }
        }
        None => MergeFault::BadResult { reason: escape_untrusted(&reason) },
    }
}

/// The beginnings of the engine's texts of a core dump and of a backtrace.
const REMAINS: &str = "wasm coredump";
const BACKTRACE: &str = "error while executing at wasm backtrace";

/// Adds the message of a panic, or else the functions on the stack. An overflowing stack has one function many times.
fn with_panic_message(fault: MergeFault, error: &wasmtime::Error, store: &Store<CallState>) -> MergeFault {
    let MergeFault::Trapped(kind) = fault else { return fault };
    let panic = if kind == TrapKind::Unreachable { panic_record::message(error, store) } else { None };
    match (kind, panic) {
        (TrapKind::StackOverflow, _) => fault,
        (_, Some(message)) => MergeFault::Panicked { message },
        (kind, None) => {
            panic_record::function_names(error).map_or(fault, |functions| MergeFault::TrappedIn { kind, functions })
        }
    }
}

fn fault_of_trap(trap: Trap, limits: &CallLimits) -> MergeFault {
    MergeFault::Trapped(match trap {
        Trap::OutOfFuel => return MergeFault::OutOfFuel { limit: limits.fuel },
        Trap::Interrupt => return MergeFault::OutOfTime { limit: limits.wall },
        Trap::AllocationTooLarge => return MergeFault::TooMuchMemory { limit: limits.memory_bytes },
        Trap::StackOverflow => TrapKind::StackOverflow,
        Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::ArrayOutOfBounds => TrapKind::OutOfBounds,
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => TrapKind::Arithmetic,
        Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference | Trap::CastFailure => TrapKind::BadCall,
        _ => TrapKind::CallingConvention,
    })
}

/// Every interface has a `fault` enum of its own.
macro_rules! from_fault {
    ($module:ident) => {
        impl From<$module::Fault> for Refusal {
            fn from(fault: $module::Fault) -> Self {
                match fault {
                    $module::Fault::Malformed => Self::Malformed,
                    $module::Fault::Unsupported => Self::Unsupported,
                    $module::Fault::TooLarge => Self::TooLarge,
                }
            }
        }
    };
}

from_fault!(merger);
from_fault!(validator);
