//! Scans a component before it is compiled, in one pass, with the engine's parser, in memory bounded by the component's
//! size.
//!
//! Counts the parts that make compiling expensive, so that a component over a limit is refused early and with a clear
//! message. The guarantee are the limits of the compiling process ([`crate::compile`]).
//!
//! Reading order: `quantities` has the counts and limits, `graph` counts instances through nested components, `body`
//! reads functions.

mod body;
mod graph;
mod quantities;

use graph::Graph;
use quantities::Counts;
use wasmparser::{BinaryReaderError, ComponentExternalKind, ElementItems, Encoding, Imports, Parser, Payload};

use crate::escape::escape_untrusted;
use crate::fault::Rejection;
use crate::limits::ModuleLimits;

pub(crate) use quantities::{QUANTITIES, Quantity};

/// Raised whenever the scan refuses a component that it accepted before: cached machine code is then scanned again.
pub(crate) const SCAN_VERSION: u32 = 1;

/// The size of a WebAssembly page in bytes.
const PAGE: u64 = 64 << 10;
/// The most export names that an error shows.
const SHOWN_EXPORTS: usize = 8;

/// The result of a scan.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The names of the component's own exports.
    pub(crate) exports: Vec<String>,
    counts: Counts,
    graph: Graph,
}

/// Why a scan ends early.
pub(crate) enum ScanError {
    Rejected(Rejection),
    Unreadable(BinaryReaderError),
}

impl From<BinaryReaderError> for ScanError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<ScanError> for Rejection {
    fn from(stop: ScanError) -> Self {
        match stop {
            ScanError::Rejected(rejection) => rejection,
            ScanError::Unreadable(error) => Self::NotAComponent { reason: escape_untrusted(&error.to_string()) },
        }
    }
}

/// Checks the length and the first bytes: the only check outside of the compiling process.
pub(crate) fn check_header(bytes: &[u8], limits: &ModuleLimits) -> Result<(), Rejection> {
    if bytes.len() > limits.bytes {
        return Err(Rejection::TooLarge { bytes: bytes.len(), limit: limits.bytes });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Rejection::CoreModule);
    }
    if !Parser::is_component(bytes) {
        return Err(Rejection::NotAComponent { reason: "it does not begin as WebAssembly components do".into() });
    }
    Ok(())
}

/// Scans the whole component.
pub(crate) fn scan(bytes: &[u8], limits: &ModuleLimits) -> Result<Scan, Rejection> {
    check_header(bytes, limits)?;
    let mut scan = Scan::default();
    for payload in Parser::new(0).parse_all(bytes) {
        scan.note(&payload.map_err(ScanError::from)?, bytes)?;
        scan.counts.within(limits)?;
    }
    scan.counts.raise(Quantity::Instances, scan.graph.instances());
    scan.counts.raise(Quantity::Parts, scan.graph.parts());
    scan.counts.within(limits)?;
    if scan.exports.iter().any(|name| is_interface(name, "merger")) { Ok(scan) } else { Err(no_merger(&scan.exports)) }
}

/// Whether an export is the plugin interface of that name, in any version.
pub(crate) fn is_interface(export: &str, interface: &str) -> bool {
    let rest = export.strip_prefix("rejoin:plugin/").and_then(|rest| rest.strip_prefix(interface));
    rest.is_some_and(|version| version.is_empty() || version.starts_with('@'))
}

/// The rejection of a component without a merger, with the names of some exports.
pub(crate) fn no_merger(exports: &[String]) -> Rejection {
    let mut shown: Vec<String> = exports.iter().take(SHOWN_EXPORTS).map(|name| escape_untrusted(name)).collect();
    if exports.is_empty() {
        shown.push("nothing".into());
    }
    if let Some(more) = exports.len().checked_sub(SHOWN_EXPORTS).filter(|more| *more > 0) {
        shown.push(format!("and {more} more"));
    }
    Rejection::NoMerger { exports: shown.join(", ") }
}

impl Scan {
    /// Counts one part of the binary. Only the outermost component's imports and exports are those of the plugin:
    /// nested components and modules may import from each other.
    fn note(&mut self, payload: &Payload<'_>, bytes: &[u8]) -> Result<(), ScanError> {
        match payload {
            Payload::Version { encoding, .. } => {
                self.counts.add(Quantity::Modules, u64::from(*encoding == Encoding::Module));
                self.graph.begin(*encoding == Encoding::Component);
                self.counts.raise(Quantity::Depth, self.graph.depth());
            }
            Payload::End(_) => self.graph.end(),
            Payload::CustomSection(section) => {
                self.counts.add(Quantity::Customs, 1);
                self.counts.name(section.name());
            }
            Payload::CodeSectionEntry(function) => body::note(function, &mut self.counts)?,
            Payload::UnknownSection { .. } => {}
            _ if self.module_section(payload)? => {}
            _ => self.component_section(payload, bytes)?,
        }
        Ok(())
    }

    /// Counts a section of a core module. `false`: it is no such section.
    fn module_section(&mut self, payload: &Payload<'_>) -> Result<bool, ScanError> {
        let counts = &mut self.counts;
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups.clone() {
                    body::note_types(&group?, counts);
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.clone() {
                    note_imports(&import?, counts)?;
                }
            }
            Payload::FunctionSection(functions) => counts.raise(Quantity::Functions, u64::from(functions.count())),
            Payload::GlobalSection(globals) => counts.add(Quantity::Globals, u64::from(globals.count())),
            Payload::TagSection(tags) => counts.add(Quantity::Globals, u64::from(tags.count())),
            Payload::DataSection(segments) => counts.add(Quantity::Segments, u64::from(segments.count())),
            Payload::ExportSection(exports) => {
                counts.add(Quantity::Exports, u64::from(exports.count()));
                for export in exports.clone() {
                    counts.name(export?.name);
                }
            }
            Payload::MemorySection(memories) => {
                counts.add(Quantity::Memories, u64::from(memories.count()));
                for memory in memories.clone() {
                    counts.add(Quantity::MemoryBytes, memory?.initial.saturating_mul(PAGE));
                }
            }
            Payload::TableSection(tables) => {
                counts.add(Quantity::Tables, u64::from(tables.count()));
                for table in tables.clone() {
                    counts.add(Quantity::TableElements, table?.ty.initial);
                }
            }
            Payload::ElementSection(segments) => {
                counts.add(Quantity::Segments, u64::from(segments.count()));
                for segment in segments.clone() {
                    counts.add(
                        Quantity::TableElements,
                        match segment?.items {
                            ElementItems::Functions(items) => u64::from(items.count()),
                            ElementItems::Expressions(_, items) => u64::from(items.count()),
                        },
                    );
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn component_section(&mut self, payload: &Payload<'_>, bytes: &[u8]) -> Result<(), ScanError> {
        let outermost = self.graph.depth() == 1;
        self.graph.note(payload)?;
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    let import = import?;
                    self.counts.name(import.name.name);
                    if outermost {
                        return Err(ScanError::Rejected(Rejection::Imports {
                            name: escape_untrusted(import.name.name),
                        }));
                    }
                    let component = import.ty.kind() == ComponentExternalKind::Component;
                    self.counts.add(Quantity::PassedComponents, u64::from(component));
                }
            }
            Payload::ComponentExportSection(exports) => {
                self.counts.add(Quantity::Exports, u64::from(exports.count()));
                for export in exports.clone() {
                    let name = export?.name.name;
                    self.counts.name(name);
                    if outermost {
                        self.exports.push(name.to_owned());
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                let passed =
                    aliases.clone().into_iter().filter(|alias| alias.as_ref().is_ok_and(graph::takes_component));
                self.counts.add(Quantity::PassedComponents, passed.count() as u64);
            }
            Payload::CoreTypeSection(types) => self.counts.add(Quantity::Types, u64::from(types.count())),
            Payload::ComponentTypeSection(types) => {
                self.counts.add(Quantity::Types, u64::from(types.count()));
                let section = bytes.get(types.range()).unwrap_or_default();
                self.counts.add(Quantity::NestedTypes, nested_types(section));
            }
            _ => {}
        }
        Ok(())
    }
}

fn note_imports(imports: &Imports<'_>, counts: &mut Counts) -> Result<(), BinaryReaderError> {
    match imports {
        Imports::Single(_, import) => {
            counts.add(Quantity::Imports, 1);
            counts.name(import.module);
            counts.name(import.name);
        }
        Imports::Compact1 { module, items } => {
            counts.add(Quantity::Imports, u64::from(items.count()));
            counts.name(module);
            for item in items.clone() {
                counts.name(item?.name);
            }
        }
        Imports::Compact2 { module, names, .. } => {
            counts.add(Quantity::Imports, u64::from(names.count()));
            counts.name(module);
            for name in names.clone() {
                counts.name(name?);
            }
        }
    }
    Ok(())
}

/// An upper bound of the nesting of component and instance types. The parser reads such types recursively, so they are
/// counted before by the two bytes with which each nested type begins; other content may have these bytes as well.
fn nested_types(section: &[u8]) -> u64 {
    section.windows(2).filter(|pair| matches!(pair, [0x01, 0x41 | 0x42])).count() as u64
}
