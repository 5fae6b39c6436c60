//! The limits of a component, of compiling it, and of one call.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of a component, checked before it is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModuleLimits {
    /// Bytes of the component. A Rust guest has tens of kilobytes; a JavaScript guest includes its engine, about 12 MB.
    pub bytes: usize,
    /// Functions in all core modules together.
    pub functions: u32,
    /// Bytes of the body of one function. Large bodies compile slowest.
    pub function_bytes: usize,
    /// Core modules in the component.
    pub modules: u32,
    /// Bytes of initial linear memory, all modules together.
    pub initial_memory_bytes: u64,
    /// Initial elements of all tables together, and elements of all element segments.
    pub table_elements: u64,
    /// Levels of components and modules within one another.
    pub depth: u32,
    /// Instances of modules and components, counted as often as they are created.
    pub instances: u64,
    /// Instances, their arguments, aliases, imports, exports, types and adapters of all components, counted as often as
    /// they are created.
    pub parts: u64,
    /// Components that are imported by components or taken out of instances. Their instances cannot be counted, and no
    /// plugin needs any.
    pub passed_components: u32,
    /// Types, in all modules and components together.
    pub types: u32,
    /// Types of components and instances that are declared within types.
    pub nested_types: u32,
    /// Parameters of one core function or block.
    pub params: u32,
    /// Results of one core function or block.
    pub results: u32,
    /// Locals of one function, its parameters not counted.
    pub locals: u32,
    /// Blocks within one another in one function.
    pub nesting: u32,
    /// Targets of all branch tables of one function.
    pub branch_targets: u32,
    /// Blocks and branches of one function times its locals: about the number of values that the compiler may create
    /// where control flow joins.
    pub flow: u64,
    /// Imports of all core modules together.
    pub imports: u32,
    /// Exports of all modules and components together.
    pub exports: u32,
    /// Globals of all core modules together.
    pub globals: u32,
    /// Tables of all core modules together.
    pub tables: u32,
    /// Memories of all core modules together.
    pub memories: u32,
    /// Data and element segments of all core modules together.
    pub segments: u32,
    /// Custom sections, such as names for a debugger.
    pub customs: u32,
    /// Bytes of one name that is imported, exported, or of a custom section.
    pub name_bytes: usize,
}

/// Bytes of a component that the default limits are for.
const MODULE_BYTES: usize = 2 << 20;

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            bytes: MODULE_BYTES,
            functions: 20_000,
            function_bytes: 128 << 10,
            modules: 8,
            initial_memory_bytes: 16 << 20,
            table_elements: 20_000,
            depth: 8,
            instances: 128,
            parts: 20_000,
            passed_components: 0,
            types: 10_000,
            nested_types: 1_000,
            params: 64,
            results: 16,
            locals: 4_000,
            nesting: 1_000,
            branch_targets: 8_192,
            flow: 4_000_000,
            imports: 1_000,
            exports: 1_000,
            globals: 1_000,
            tables: 8,
            memories: 8,
            segments: 10_000,
            customs: 1_000,
            name_bytes: 512,
        }
    }
}

impl ModuleLimits {
    /// The limits of a node that accepts components of `bytes`. Quantities that grow with a program grow with it;
    /// others, such as the parameters of one function, stay.
    #[must_use]
    pub fn for_bytes(bytes: usize) -> Self {
        let base = Self::default();
        let times = u32::try_from(bytes.div_ceil(MODULE_BYTES).max(1)).unwrap_or(u32::MAX);
        let (small, large) =
            (|limit: u32| limit.saturating_mul(times), |limit: u64| limit.saturating_mul(u64::from(times)));
        Self {
            bytes,
            functions: small(base.functions),
            function_bytes: base.function_bytes.saturating_mul(times as usize),
            table_elements: large(base.table_elements),
            types: small(base.types),
            locals: small(base.locals),
            nesting: small(base.nesting),
            branch_targets: small(base.branch_targets),
            flow: large(base.flow),
            globals: small(base.globals),
            segments: small(base.segments),
            ..base
        }
    }
}

/// The limits of compiling one component. The time depends on the machine, so nodes could disagree on a component near
/// this limit; [`ModuleLimits`] refuse components long before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompileLimits {
    /// Bytes of memory of the compiling process.
    pub memory_bytes: u64,
    /// Processor time, in whole seconds.
    pub cpu_seconds: u64,
    /// The wall-clock limit. Generous, since the machine has other work as well.
    pub wall: Duration,
    /// Bytes of machine code and its metadata.
    pub artefact_bytes: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, cpu_seconds: 20, wall: Duration::from_secs(60), artefact_bytes: 64 << 20 }
    }
}

impl CompileLimits {
    /// The limits of compiling a component of up to `bytes`. They grow with it above 2 MiB: memory by a quarter for
    /// every 2 MiB, times in proportion, machine code to eight times `bytes`. A component of 11 MiB with a JavaScript
    /// engine took 31 s, 430 MiB and 36 MiB of machine code.
    #[must_use]
    pub fn for_bytes(bytes: usize) -> Self {
        let base = Self::default();
        let times = u32::try_from(bytes.div_ceil(MODULE_BYTES).max(1)).unwrap_or(u32::MAX);
        Self {
            memory_bytes: base
                .memory_bytes
                .saturating_add((base.memory_bytes / 4).saturating_mul(u64::from(times - 1))),
            cpu_seconds: base.cpu_seconds.saturating_mul(u64::from(times)),
            wall: base.wall.saturating_mul(times),
            artefact_bytes: base.artefact_bytes.max(bytes.saturating_mul(8)),
        }
    }
}

/// The limits of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallLimits {
    /// Units of fuel: about one per WebAssembly instruction and per byte copied, more for slow instructions. This limit
    /// decides. Merging JSON uses up to 2000 units a byte.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes of the result.
    pub result_bytes: usize,
    /// The most siblings of one merge.
    pub max_siblings: usize,
    /// The wall-clock limit: a safety net for time that fuel does not count. It must be generous, since it depends on
    /// the machine.
    pub wall: Duration,
}

impl CallLimits {
    /// The limits of loading a plugin and reading its metadata.
    pub(crate) fn for_loading() -> Self {
        Self { fuel: 200_000_000, result_bytes: 1 << 10, ..Self::default() }
    }
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            fuel: 5_000_000_000,
            memory_bytes: 64 << 20,
            result_bytes: 1 << 20,
            max_siblings: 64,
            wall: Duration::from_secs(10),
        }
    }
}
