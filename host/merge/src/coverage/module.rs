//! Adds counters to a core module: a bit for each edge, in globals that are added, and a function that reads them.
//!
//! An edge is the beginning of a function, or one of the ways that a conditional branch or a branch table can take. An
//! instruction is only ever inserted: all indices and all other bytes stay as they are, so nothing can be broken that
//! this file does not know.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{
    BinaryReaderError, CompositeInnerType, ElementItems, ExternalKind, FunctionBody, Imports, KnownCustom, Name,
    Operator, Parser, Payload, TypeRef,
};

use super::bytes::{HEADER, appended, section, sections, signed, sized, unsigned};

/// The name under which the module exports the function that reads the counters.
pub(super) const READER: &str = "rejoin-coverage";
/// Edges of one branch table that are told apart. The others count as the last one.
const MAX_TARGETS: u32 = 64;
/// The most globals that are added, of 64 edges each.
const MAX_WORDS: u32 = 960;

/// A function of the module that the merge can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FunctionEdges {
    /// Its name, if the module has names.
    pub(super) name: Option<String>,
    /// Its place in the module.
    pub(super) index: u32,
    /// Its edges, the beginning first.
    pub(super) edges: Vec<u32>,
}

/// A module with counters.
#[derive(Debug)]
pub(super) struct CountedModule {
    pub(super) bytes: Vec<u8>,
    pub(super) functions: Vec<FunctionEdges>,
    /// How many globals there are to read.
    pub(super) words: u32,
}

/// What the module has.
#[derive(Default)]
struct Shape<'a> {
    /// Parameters of each type, if it is a function.
    params: Vec<Option<u32>>,
    types: u32,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    imported: u32,
    globals: u32,
    exports: Vec<(&'a str, u32)>,
    /// Functions in element segments: a call by table may reach all of them.
    in_tables: BTreeSet<u32>,
    bodies: Vec<FunctionBody<'a>>,
    names: BTreeMap<u32, &'a str>,
}

/// Adds counters to the functions that the merge can reach.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn counted(module: &[u8]) -> Result<CountedModule, String> {
    let shape = Shape::of(module).map_err(|error| error.to_string())?;
    let reached = shape.reachable().map_err(|error| error.to_string())?;
    let mut counters = Counters { next: 0, first_global: shape.globals };
    let (mut functions, mut bodies) = (Vec::new(), Vec::new());
    for (at, body) in (0_u32..).zip(&shape.bodies) {
        let index = shape.imported + at;
        if !reached.contains(&index) {
            bodies.push(body.as_bytes().to_vec());
            continue;
        }
        let params = shape.params_of(index).ok_or("a function has a type that is no function's")?;
        let (bytes, edges) = counters.instrument(module, body, params).map_err(|error| error.to_string())?;
        bodies.push(bytes);
        functions.push(FunctionEdges { name: shape.names.get(&index).map(|name| (*name).to_owned()), index, edges });
    }
    let words = counters.next.div_ceil(64).max(1);
    if words > MAX_WORDS {
        return Err(format!("it has {} branches, and {} can be counted", counters.next, MAX_WORDS * 64));
    }
    bodies.push(reader(shape.globals, words));
    let bytes = rewritten(module, &shape, words, &bodies).ok_or("its sections cannot be read")?;
    Ok(CountedModule { bytes, functions, words })
}

impl<'a> Shape<'a> {
    fn of(module: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut shape = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(groups) => {
                    for group in groups {
                        for of_type in group?.types() {
                            let params = match &of_type.composite_type.inner {
                                CompositeInnerType::Func(signature) => Some(signature.params().len() as u32),
                                _ => None,
                            };
                            shape.params.push(params);
                            shape.types += 1;
                        }
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports {
                        shape.note_import(import?)?;
                    }
                }
                Payload::FunctionSection(functions) => {
                    for of_type in functions {
                        shape.functions.push(of_type?);
                    }
                }
                Payload::GlobalSection(globals) => shape.globals += globals.count(),
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            shape.exports.push((export.name, export.index));
                        }
                    }
                }
                Payload::ElementSection(segments) => {
                    for segment in segments {
                        shape.note_segment(segment?.items)?;
                    }
                }
                Payload::CodeSectionEntry(body) => shape.bodies.push(body),
                Payload::CustomSection(custom) => {
                    if let KnownCustom::Name(names) = custom.as_known() {
                        shape.note_names(names);
                    }
                }
                _ => {}
            }
        }
        Ok(shape)
    }

    fn note_import(&mut self, import: Imports<'_>) -> Result<(), BinaryReaderError> {
        let mut note = |of_type: TypeRef| match of_type {
            TypeRef::Func(index) => {
                self.functions.push(index);
                self.imported += 1;
            }
            TypeRef::Global(_) => self.globals += 1,
            _ => {}
        };
        match import {
            Imports::Single(_, import) => note(import.ty),
            Imports::Compact1 { items, .. } => {
                for item in items {
                    note(item?.ty);
                }
            }
            Imports::Compact2 { ty, names, .. } => (0..names.count()).for_each(|_| note(ty)),
        }
        Ok(())
    }

    fn note_segment(&mut self, items: ElementItems<'_>) -> Result<(), BinaryReaderError> {
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.in_tables.insert(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    for operator in expression?.get_operators_reader() {
                        if let Operator::RefFunc { function_index } = operator? {
                            self.in_tables.insert(function_index);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Names are for people only: those that cannot be read are left out.
    fn note_names(&mut self, names: wasmparser::NameSectionReader<'a>) {
        for part in names.into_iter().flatten() {
            if let Name::Function(functions) = part {
                self.names.extend(functions.into_iter().flatten().map(|naming| (naming.index, naming.name)));
            }
        }
    }

    fn params_of(&self, function: u32) -> Option<u32> {
        let of_type = *self.functions.get(function as usize)?;
        self.params.get(of_type as usize).copied().flatten()
    }

    /// The functions that a call of the merger can reach: all that it calls, and, if one of them calls by table, all
    /// functions of tables.
    fn reachable(&self) -> Result<BTreeSet<u32>, BinaryReaderError> {
        let is_root = |name: &str| name.contains("rejoin:plugin/merger") || name == "cabi_realloc";
        let mut open: Vec<u32> =
            self.exports.iter().filter(|(name, _)| is_root(name)).map(|(_, index)| *index).collect();
        let (mut reached, mut by_table) = (BTreeSet::new(), false);
        while let Some(function) = open.pop() {
            if !reached.insert(function) {
                continue;
            }
            let Some(body) = function.checked_sub(self.imported).and_then(|at| self.bodies.get(at as usize)) else {
                continue;
            };
            for operator in body.get_operators_reader()? {
                match operator? {
                    Operator::Call { function_index } | Operator::RefFunc { function_index } => {
                        open.push(function_index);
                    }
                    Operator::CallIndirect { .. } if !by_table => {
                        by_table = true;
                        open.extend(&self.in_tables);
                    }
                    _ => {}
                }
            }
        }
        Ok(reached)
    }
}

/// Gives out bits.
struct Counters {
    next: u32,
    /// The first of the globals that are added.
    first_global: u32,
}

impl Counters {
    /// So many edges in a row, all in one global.
    fn take(&mut self, count: u32) -> u32 {
        let in_word = self.next % 64;
        if in_word + count > 64 {
            self.next += 64 - in_word;
        }
        let first = self.next;
        self.next += count;
        first
    }

    /// A function that notes its edges, and these.
    fn instrument(
        &mut self,
        module: &[u8],
        body: &FunctionBody<'_>,
        params: u32,
    ) -> Result<(Vec<u8>, Vec<u32>), BinaryReaderError> {
        let range = body.range();
        let locals = body.get_locals_reader()?;
        let (groups, groups_at) = (locals.get_count(), locals.original_position());
        let mut scratch = params;
        for local in locals {
            scratch += local?.0;
        }
        let operators = body.get_operators_reader()?;
        let first = operators.original_position();
        let mut out = Vec::with_capacity(range.len() * 2);
        // One more local: the condition of a branch, while its way is noted.
        unsigned(u64::from(groups) + 1, &mut out);
        out.extend_from_slice(&module[groups_at..first]);
        out.extend_from_slice(&[1, I32]);
        let entry = self.take(1);
        let mut edges = vec![entry];
        self.note(entry, &mut out);
        let (mut copied, mut flow) = (first, Flow::default());
        for operator in operators.into_iter_with_offsets() {
            let (operator, at) = operator?;
            let ways = if flow.is_dead() { 0 } else { ways(&operator) };
            if ways > 0 {
                out.extend_from_slice(&module[copied..at]);
                copied = at;
                let first = self.take(ways);
                edges.extend(first..first + ways);
                let is_table = matches!(operator, Operator::BrTable { .. });
                self.note_way((first, ways, is_table), scratch, &mut out);
            }
            flow.step(&operator);
        }
        out.extend_from_slice(&module[copied..range.end]);
        Ok((out, edges))
    }

    fn global(&self, edge: u32) -> u64 {
        u64::from(self.first_global + edge / 64)
    }

    /// Notes an edge.
    fn note(&self, edge: u32, out: &mut Vec<u8>) {
        out.push(GLOBAL_GET);
        unsigned(self.global(edge), out);
        out.push(I64_CONST);
        signed(bit(edge), out);
        out.extend_from_slice(&[I64_OR, GLOBAL_SET]);
        unsigned(self.global(edge), out);
    }

    /// Notes which way the condition on the stack takes, and leaves it there. The first edge is that of a condition
    /// that holds; of a table it is that of the first target.
    fn note_way(&self, (first, ways, is_table): (u32, u32, bool), scratch: u32, out: &mut Vec<u8>) {
        let local = |what: u8, out: &mut Vec<u8>| {
            out.push(what);
            unsigned(u64::from(scratch), out);
        };
        local(LOCAL_SET, out);
        out.push(I64_CONST);
        signed(bit(first), out);
        local(LOCAL_GET, out);
        if is_table {
            let last = |out: &mut Vec<u8>| {
                out.push(I32_CONST);
                signed(i64::from(ways) - 1, out);
            };
            last(out);
            local(LOCAL_GET, out);
            last(out);
            out.extend_from_slice(&[I32_LT_U, SELECT]);
        } else {
            out.push(I32_EQZ);
        }
        out.extend_from_slice(&[I64_EXTEND_I32_U, I64_SHL, GLOBAL_GET]);
        unsigned(self.global(first), out);
        out.extend_from_slice(&[I64_OR, GLOBAL_SET]);
        unsigned(self.global(first), out);
        local(LOCAL_GET, out);
    }
}

/// The bit of an edge in its word.
fn bit(edge: u32) -> i64 {
    (1_u64 << (edge % 64)) as i64
}

/// How many ways a branch can take.
fn ways(operator: &Operator<'_>) -> u32 {
    match operator {
        Operator::If { .. } | Operator::BrIf { .. } => 2,
        Operator::BrTable { targets } => targets.len().saturating_add(1).min(MAX_TARGETS),
        _ => 0,
    }
}

/// Whether an instruction can be reached: not behind a jump, up to the end of its block.
#[derive(Default)]
struct Flow {
    depth: u32,
    dead_in: Option<u32>,
}

impl Flow {
    fn is_dead(&self) -> bool {
        self.dead_in.is_some()
    }

    fn step(&mut self, operator: &Operator<'_>) {
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => self.depth += 1,
            Operator::Else if self.dead_in == Some(self.depth) => self.dead_in = None,
            Operator::End => {
                if self.dead_in == Some(self.depth) {
                    self.dead_in = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            Operator::Unreachable | Operator::Br { .. } | Operator::BrTable { .. } | Operator::Return => {
                self.dead_in.get_or_insert(self.depth);
            }
            _ => {}
        }
    }
}

/// The body of the function that returns one of the added globals: a branch table into blocks within each other.
fn reader(first_global: u32, words: u32) -> Vec<u8> {
    let mut out = vec![0];
    (0..words).for_each(|_| out.extend_from_slice(&[BLOCK, EMPTY]));
    out.push(LOCAL_GET);
    unsigned(0, &mut out);
    out.push(BR_TABLE);
    unsigned(u64::from(words) - 1, &mut out);
    (0..words).for_each(|word| unsigned(u64::from(word), &mut out));
    for word in 0..words {
        out.extend_from_slice(&[END, GLOBAL_GET]);
        unsigned(u64::from(first_global + word), &mut out);
        out.push(RETURN);
    }
    out.extend_from_slice(&[UNREACHABLE, END]);
    out
}

/// The module with the added type, function, globals and export, and with other bodies.
fn rewritten(module: &[u8], shape: &Shape<'_>, words: u32, bodies: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut out = module.get(..HEADER)?.to_vec();
    let global: &[u8] = &[I64, MUTABLE, I64_CONST, 0, END];
    let globals = global.repeat(words as usize);
    let mut have_globals = false;
    for (id, range) in sections(module)? {
        let content = module.get(range)?;
        match id {
            TYPES => section(id, &appended(content, 1, &[FUNCTION_TYPE, 1, I32, 1, I64])?, &mut out),
            FUNCTIONS => {
                let mut of_type = Vec::new();
                unsigned(u64::from(shape.types), &mut of_type);
                section(id, &appended(content, 1, &of_type)?, &mut out);
            }
            GLOBALS => {
                have_globals = true;
                section(id, &appended(content, u64::from(words), &globals)?, &mut out);
            }
            EXPORTS => {
                if !have_globals {
                    section(GLOBALS, &appended(&[0], u64::from(words), &globals)?, &mut out);
                }
                let mut export = Vec::new();
                sized(READER.as_bytes(), &mut export);
                export.push(0);
                unsigned(shape.functions.len() as u64, &mut export);
                section(id, &appended(content, 1, &export)?, &mut out);
            }
            CODE => {
                let mut code = Vec::new();
                unsigned(bodies.len() as u64, &mut code);
                bodies.iter().for_each(|body| sized(body, &mut code));
                section(id, &code, &mut out);
            }
            _ => section(id, content, &mut out),
        }
    }
    Some(out)
}

// Ids of sections.
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const GLOBALS: u8 = 6;
const EXPORTS: u8 = 7;
const CODE: u8 = 10;
// Types.
const I32: u8 = 0x7f;
const I64: u8 = 0x7e;
const FUNCTION_TYPE: u8 = 0x60;
const EMPTY: u8 = 0x40;
const MUTABLE: u8 = 1;
// Instructions.
const UNREACHABLE: u8 = 0x00;
const BLOCK: u8 = 0x02;
const END: u8 = 0x0b;
const BR_TABLE: u8 = 0x0e;
const RETURN: u8 = 0x0f;
const SELECT: u8 = 0x1b;
const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const GLOBAL_GET: u8 = 0x23;
const GLOBAL_SET: u8 = 0x24;
const I32_CONST: u8 = 0x41;
const I64_CONST: u8 = 0x42;
const I32_EQZ: u8 = 0x45;
const I32_LT_U: u8 = 0x49;
const I64_OR: u8 = 0x84;
const I64_SHL: u8 = 0x86;
const I64_EXTEND_I32_U: u8 = 0xad;
