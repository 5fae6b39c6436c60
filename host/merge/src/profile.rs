//! The engine profile: everything that could change a result or its fuel, under one id.

use std::num::NonZero;

use sha2::{Digest, Sha256};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, Strategy, VariableOperatorCost,
    WasmBacktraceDetails, WasmFeatures,
};

use rejoin_proto::ProfileId;

use crate::fault::HostError;
use crate::host::HostConfig;

/// Raised whenever a change in this file could change a result or its fuel.
const PROFILE_VERSION: u32 = 3;
/// The engine's version in `Cargo.lock` (a test compares them). Its compiler decides how much stack a call uses.
const WASMTIME: &str = "48.0.8";
/// Bytes of stack for WebAssembly. Part of the profile: it decides which recursion overflows.
pub(crate) const WASM_STACK_BYTES: usize = 512 << 10;
/// Elements of one table, grown or not.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Core instances and tables of one component: one module and two small ones that some tool chains add, with room to
/// spare.
const PARTS: u32 = 8;

/// Stack frames that are recorded after a trap.
const FRAMES: usize = 32;

/// One unit per instruction and per byte copied, and more for slow instructions, so that a unit takes about the same
/// time whatever it is spent on (`rejoin-fuel` in tests/hostile measures it). Growing memory costs as much as zeroing
/// pages. Reads that miss every cache are too cheap: they take a hundred times as long as others, and no program could
/// run if every read cost as much.
fn fuel_table() -> OperatorCost {
    macro_rules! costing {
        ($table:ident, $($cost:literal: $($operator:ident)*;)*) => {
            $($($table.$operator = $cost;)*)*
        };
    }
    let mut table = OperatorCost::new();
    costing! { table,
        // Control flow: the engine checks the fuel there, and branch predictions fail.
        4: Br BrTable;
        2: BrIf If;
        6: Call;
        24: CallIndirect;
        // Division, on processors that are ten years old.
        6: I32DivS I32DivU I32RemS I32RemU;
        12: I64DivS I64DivU I64RemS I64RemU;
        // Floating point: subnormal numbers take a hundred cycles on some processors.
        8: F32Add F32Sub F32Mul F32Min F32Max F64Add F64Sub F64Mul F64Min F64Max F32DemoteF64 F64PromoteF32;
        8: F32Ceil F32Floor F32Trunc F32Nearest F64Ceil F64Floor F64Trunc F64Nearest;
        20: F32Div F32Sqrt F64Div F64Sqrt;
        16: F32x4Add F32x4Sub F32x4Mul F32x4Min F32x4Max F64x2Add F64x2Sub F64x2Mul F64x2Min F64x2Max;
        16: F32x4DemoteF64x2Zero F64x2PromoteLowF32x4 F32x4Ceil F32x4Floor F32x4Trunc F32x4Nearest;
        16: F64x2Ceil F64x2Floor F64x2Trunc F64x2Nearest;
        40: F32x4Div F32x4Sqrt F64x2Div F64x2Sqrt;
        // Vector instructions that compile to several machine instructions.
        8: I64x2Mul I8x16Popcnt I8x16Shl I8x16ShrS I8x16ShrU I64x2ShrS I8x16Swizzle;
        // Instructions that call into the host.
        20: MemoryCopy MemoryFill MemoryInit TableCopy TableFill TableInit TableGet TableSet DataDrop ElemDrop;
        60: MemoryGrow TableGrow;
    }
    let mut variable = VariableOperatorCost::new();
    variable.memory_grow_per_page = 255;
    variable.table_copy_per_element = 4;
    variable.table_fill_per_element = 4;
    variable.table_init_per_element = 8;
    variable.table_grow_per_element = 4;
    table.variable = variable;
    table
}

/// The configuration that a plugin can observe. The pool of instances is not part of it: it bounds how many run, and
/// not their results.
fn semantics() -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift).consume_fuel(true).operator_cost(fuel_table()).epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK_BYTES).cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false).wasm_memory64(false).wasm_multi_memory(false).wasm_tail_call(false);
    config.wasm_custom_page_sizes(false).wasm_wide_arithmetic(false).wasm_shared_everything_threads(false);
    config.wasm_gc(false).shared_memory(false).concurrency_support(false).wasm_stack_switching(false);
    // The engine has methods for these only if it is built with garbage collection, but accepts function references
    // without.
    config.wasm_features(WasmFeatures::FUNCTION_REFERENCES | WasmFeatures::EXCEPTIONS, false);
    // Traps report the names of a few functions, and no line numbers.
    config
        .wasm_backtrace_max_frames(NonZero::new(FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false);
    config
}

/// The engine of a compiling process. It runs nothing, so it reserves nothing. It compiles on one thread, so that its
/// memory does not depend on the number of processors, and the node keeps the others.
pub(crate) fn compiling_engine() -> Result<Engine, HostError> {
    let mut config = semantics();
    config.parallel_compilation(false);
    Engine::new(&config).map_err(|error| HostError::Engine(format!("{error:#}")))
}

/// The id of this build's profile: engine version, configuration, fuel table, and the processor's architecture, which
/// decides how much stack a call takes.
pub(crate) fn profile_id() -> ProfileId {
    let fuel = fuel_table();
    let text = format!(
        "rejoin engine profile {PROFILE_VERSION}; wasmtime {WASMTIME}; {}; stack {WASM_STACK_BYTES}; table \
            {TABLE_ELEMENTS}; fuel {fuel:?}",
        std::env::consts::ARCH
    );
    let hash = Sha256::digest(text.as_bytes());
    ProfileId(hash.iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte)))
}

/// The engine, with room for a bounded number of instances.
pub(crate) fn engine(host: &HostConfig) -> Result<Engine, HostError> {
    pooled(semantics(), host)
}

/// The engine without fuel and epochs, for measuring what these cost. Nothing ends a call on it.
pub(crate) fn unmetered_engine(host: &HostConfig) -> Result<Engine, HostError> {
    let mut config = semantics();
    config.consume_fuel(false).epoch_interruption(false);
    pooled(config, host)
}

fn pooled(mut config: Config, host: &HostConfig) -> Result<Engine, HostError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(host.instances).total_core_instances(host.instances * PARTS);
    pool.total_memories(host.instances).total_tables(host.instances * PARTS);
    pool.max_core_instances_per_component(PARTS).max_memories_per_component(1).max_tables_per_component(PARTS);
    pool.max_tables_per_module(PARTS).table_elements(TABLE_ELEMENTS).max_memory_size(host.max_memory_bytes);
    pool.linear_memory_keep_resident(64 << 10).max_unused_warm_slots(host.instances);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // For reading the memory of an instance that has trapped, see `panic_record`.
    config.coredump_on_trap(true);
    Engine::new(&config).map_err(|error| HostError::Engine(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_the_one_the_profile_names() {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"");
        assert!(lock.contains(&entry), "wasmtime has changed: set WASMTIME, which changes the profile");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_profile_is_a_constant() {
        assert_eq!(profile_id(), profile_id());
        assert_eq!(
            profile_id().to_string(),
            "88eb322ea2968ef9",
            "the profile has changed: every node must run the same one"
        );
    }
}
