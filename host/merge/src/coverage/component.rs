//! Adds counters to a component: to the largest core module that it instantiates, and an export that reads them.
//!
//! The module's bytes are replaced, and sections are appended that alias, lift and export the reading function. Nothing
//! else changes, and indices count from the front, so everything that was there keeps its index.

use wasmparser::{
    BinaryReaderError, CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, Encoding,
    ExternalKind, Instance, Parser, Payload,
};

use super::bytes::{HEADER, section, sections, sized, unsigned};
use super::module::{self, CountedModule, FunctionEdges, READER};

/// A component with counters.
#[derive(Debug)]
pub(super) struct CountedComponent {
    pub(super) bytes: Vec<u8>,
    pub(super) functions: Vec<FunctionEdges>,
    pub(super) words: u32,
}

/// How many there are of what the outermost component has.
#[derive(Default)]
struct Counts {
    core_functions: u32,
    types: u32,
    functions: u32,
    instances: u32,
    /// Modules that come from elsewhere, which this file does not follow.
    foreign_modules: bool,
    /// The first instance of each module, with the module's index.
    instantiated: Vec<(u32, u32)>,
}

/// Adds counters to a component.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn counted(component: &[u8]) -> Result<CountedComponent, String> {
    let counts = Counts::of(component).map_err(|error| error.to_string())?;
    if counts.foreign_modules {
        return Err("it takes a module from within another component".into());
    }
    let parts = sections(component).ok_or("its sections cannot be read")?;
    let modules: Vec<_> = parts.iter().filter(|(id, _)| *id == MODULE).collect();
    let size = |module: u32| modules.get(module as usize).map_or(0, |(_, range)| range.len());
    let largest = counts.instantiated.iter().max_by_key(|(_, module)| size(*module));
    let (instance, module) = *largest.ok_or("it instantiates no module")?;
    let (_, place) = modules.get(module as usize).ok_or("it instantiates a module that it does not have")?;
    let original = component.get(place.clone()).ok_or("its sections cannot be read")?;
    let CountedModule { bytes: replaced, functions, words } = module::counted(original)?;
    let mut out = component.get(..HEADER).ok_or("it has no header")?.to_vec();
    for (id, range) in &parts {
        let content = if range == place { replaced.as_slice() } else { &component[range.clone()] };
        section(*id, content, &mut out);
    }
    append_reader(&counts, instance, &mut out);
    Ok(CountedComponent { bytes: out, functions, words })
}

/// Appends the export of the reading function.
fn append_reader(counts: &Counts, instance: u32, out: &mut Vec<u8>) {
    // (alias core export INSTANCE "rejoin-coverage" (core func))
    let mut alias = vec![1, CORE_SORT, CORE_FUNCTION, CORE_EXPORT];
    unsigned(u64::from(instance), &mut alias);
    sized(READER.as_bytes(), &mut alias);
    section(ALIASES, &alias, out);
    // (type (func (param "word" u32) (result u64)))
    let mut of_type = vec![1, FUNCTION_TYPE, 1];
    sized(b"word", &mut of_type);
    of_type.extend_from_slice(&[U32, 0, U64]);
    section(TYPES, &of_type, out);
    // (canon lift (core func ..) (type ..))
    let mut lift = vec![1, 0, 0];
    unsigned(u64::from(counts.core_functions), &mut lift);
    lift.push(0);
    unsigned(u64::from(counts.types), &mut lift);
    section(CANONICAL, &lift, out);
    // (export "rejoin-coverage" (func ..))
    let mut export = vec![1, 0];
    sized(READER.as_bytes(), &mut export);
    export.push(FUNCTION_SORT);
    unsigned(u64::from(counts.functions), &mut export);
    export.push(0);
    section(EXPORTS, &export, out);
}

impl Counts {
    fn of(component: &[u8]) -> Result<Self, BinaryReaderError> {
        let (mut counts, mut depth) = (Self::default(), 0_u32);
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload if depth == 1 => counts.note(&payload)?,
                _ => {}
            }
        }
        Ok(counts)
    }

    fn note(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance?
                        && !self.instantiated.iter().any(|(_, module)| *module == module_index)
                    {
                        self.instantiated.push((self.instances, module_index));
                    }
                    self.instances += 1;
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    self.note_alias(&alias?);
                }
            }
            Payload::ComponentTypeSection(types) => self.types += types.count(),
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    match function? {
                        CanonicalFunction::Lift { .. } => self.functions += 1,
                        _ => self.core_functions += 1,
                    }
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    self.note_kind(export?.kind);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_alias(&mut self, alias: &ComponentAlias<'_>) {
        match alias {
            ComponentAlias::CoreInstanceExport { kind: ExternalKind::Func, .. } => self.core_functions += 1,
            ComponentAlias::InstanceExport { kind, .. } => self.note_kind(*kind),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, .. } => self.types += 1,
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => self.foreign_modules = true,
            _ => {}
        }
    }

    fn note_kind(&mut self, kind: ComponentExternalKind) {
        match kind {
            ComponentExternalKind::Func => self.functions += 1,
            ComponentExternalKind::Type => self.types += 1,
            ComponentExternalKind::Module => self.foreign_modules = true,
            _ => {}
        }
    }
}

// Ids of sections.
const MODULE: u8 = 1;
const ALIASES: u8 = 6;
const TYPES: u8 = 7;
const CANONICAL: u8 = 8;
const EXPORTS: u8 = 11;
// Sorts, targets of aliases and types.
const CORE_SORT: u8 = 0;
const CORE_FUNCTION: u8 = 0;
const CORE_EXPORT: u8 = 1;
const FUNCTION_SORT: u8 = 1;
const FUNCTION_TYPE: u8 = 0x40;
const U32: u8 = 0x79;
const U64: u8 = 0x77;
