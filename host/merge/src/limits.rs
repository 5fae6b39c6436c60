//! What a plugin may be, and what one call of it may use.

use std::time::Duration;

/// What a module may be. Checked once, before it is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModuleLimits {
    /// Bytes of the component. A Rust guest has tens of kilobytes; a JavaScript guest brings its engine, about 12 MB.
    pub bytes: usize,
    /// Functions in all core modules together.
    pub functions: u32,
    /// Bytes of the largest function's body: what compiles slowest.
    pub function_bytes: usize,
    /// Core modules in the component.
    pub modules: u32,
    /// Bytes of linear memory that a module wants from the start.
    pub initial_memory_bytes: u64,
    /// Elements of all tables together that the modules want from the start.
    pub table_elements: u64,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            bytes: 2 << 20,
            functions: 20_000,
            function_bytes: 128 << 10,
            modules: 8,
            initial_memory_bytes: 16 << 20,
            table_elements: 20_000,
        }
    }
}

/// What one call may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallLimits {
    /// Units of fuel, about one per WebAssembly instruction and one per byte copied. The limit that decides. A core of 2025 burns some ten
    /// thousand million a second, and merging JSON takes about a thousand a byte.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes of the result.
    pub result_bytes: usize,
    /// Siblings that are given to one merge.
    pub max_siblings: usize,
    /// How long the call may take by the wall clock: a safety net for what fuel does not see. To be generous, since it depends on the machine.
    pub wall: Duration,
}

impl CallLimits {
    /// What loading a plugin and asking for its card may use: little.
    pub(crate) fn to_introduce() -> Self {
        Self { fuel: 200_000_000, result_bytes: 1 << 10, ..Self::default() }
    }
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { fuel: 5_000_000_000, memory_bytes: 64 << 20, result_bytes: 1 << 20, max_siblings: 64, wall: Duration::from_secs(10) }
    }
}
