//! Looks at a component before anything is compiled: cheap, and in the same parser as the engine's.

use crate::fault::Rejection;
use crate::limits::ModuleLimits;
use wasmparser::{Encoding, Parser, Payload};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The names of the component's own exports.
    pub(crate) exports: Vec<String>,
    functions: u64,
    largest_function: u64,
    modules: u64,
    memory_bytes: u64,
    table_elements: u64,
}

/// The size of a WebAssembly page in bytes.
const PAGE: u64 = 64 << 10;

/// Reads the whole component once.
pub(crate) fn scan(bytes: &[u8], limits: &ModuleLimits) -> Result<Scan, Rejection> {
    if bytes.len() > limits.bytes {
        return Err(Rejection::TooLarge { bytes: bytes.len(), limit: limits.bytes });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Rejection::CoreModule);
    }
    if !Parser::is_component(bytes) {
        return Err(Rejection::NotAComponent { reason: "it does not begin as WebAssembly components do".into() });
    }
    let mut scan = Scan::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(unreadable)?;
        match &payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                scan.modules += u64::from(*encoding == Encoding::Module);
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => scan.note(&payload, depth).map_err(|rejection| rejection.unwrap_or_else(unreadable))?,
        }
        scan.within(limits)?;
    }
    if scan.exports.iter().any(|name| is_interface(name, "merger")) { Ok(scan) } else { Err(scan.no_merger()) }
}

fn unreadable(error: wasmparser::BinaryReaderError) -> Rejection {
    Rejection::NotAComponent { reason: error.to_string() }
}

/// Whether an export is the interface of that name, in whichever version.
pub(crate) fn is_interface(export: &str, interface: &str) -> bool {
    let rest = export.strip_prefix("rejoin:plugin/").and_then(|rest| rest.strip_prefix(interface));
    rest.is_some_and(|version| version.is_empty() || version.starts_with('@'))
}

impl Scan {
    /// Takes one part of the binary into account. Imports and exports count for the component itself only: what nested
    /// components and modules ask of one another stays inside.
    fn note(&mut self, payload: &Payload<'_>, depth: u32) -> Result<(), Result<Rejection, wasmparser::BinaryReaderError>> {
        match payload {
            Payload::ComponentImportSection(imports) if depth == 1 => {
                if let Some(import) = imports.clone().into_iter().next() {
                    return Err(Ok(Rejection::Imports { name: import.map_err(Err)?.name.name.to_owned() }));
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports.clone() {
                    self.exports.push(export.map_err(Err)?.name.name.to_owned());
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    self.memory_bytes = self.memory_bytes.saturating_add(memory.map_err(Err)?.initial.saturating_mul(PAGE));
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    self.table_elements = self.table_elements.saturating_add(table.map_err(Err)?.ty.initial);
                }
            }
            Payload::CodeSectionEntry(body) => {
                self.functions += 1;
                self.largest_function = self.largest_function.max(body.range().len() as u64);
            }
            _ => {}
        }
        Ok(())
    }

    fn within(&self, limits: &ModuleLimits) -> Result<(), Rejection> {
        let shapes = [
            ("functions", self.functions, u64::from(limits.functions)),
            ("bytes in one function", self.largest_function, limits.function_bytes as u64),
            ("core modules", self.modules, u64::from(limits.modules)),
            ("bytes of initial memory", self.memory_bytes, limits.initial_memory_bytes),
            ("table elements", self.table_elements, limits.table_elements),
        ];
        let over = shapes.into_iter().find(|(_, count, limit)| count > limit);
        over.map_or(Ok(()), |(what, count, limit)| Err(Rejection::Shape { what, count, limit }))
    }

    fn no_merger(&self) -> Rejection {
        let exports = if self.exports.is_empty() { "nothing".into() } else { self.exports.join(", ") };
        Rejection::NoMerger { exports }
    }
}
