//! The counted quantities and their limits.

use crate::fault::Rejection;
use crate::limits::ModuleLimits;

/// A counted quantity, in the order of [`QUANTITIES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quantity {
    Functions,
    FunctionBytes,
    Modules,
    MemoryBytes,
    TableElements,
    Depth,
    Instances,
    Parts,
    PassedComponents,
    Types,
    NestedTypes,
    Params,
    Results,
    Locals,
    Nesting,
    BranchTargets,
    Flow,
    Imports,
    Exports,
    Globals,
    Tables,
    Memories,
    Segments,
    Customs,
    NameBytes,
}

type Limit = fn(&ModuleLimits) -> u64;

/// The names for people and the limits.
pub(crate) const QUANTITIES: [(&str, Limit); 25] = [
    ("functions", |limits| u64::from(limits.functions)),
    ("bytes in one function", |limits| limits.function_bytes as u64),
    ("core modules", |limits| u64::from(limits.modules)),
    ("bytes of initial memory", |limits| limits.initial_memory_bytes),
    ("table elements", |limits| limits.table_elements),
    ("levels of nested components", |limits| u64::from(limits.depth)),
    ("instances, counted as often as they are made", |limits| limits.instances),
    ("parts of components, counted as often as they are made", |limits| limits.parts),
    ("components that are passed to components", |limits| u64::from(limits.passed_components)),
    ("types", |limits| u64::from(limits.types)),
    ("types of components within types", |limits| u64::from(limits.nested_types)),
    ("parameters of one function", |limits| u64::from(limits.params)),
    ("results of one function", |limits| u64::from(limits.results)),
    ("locals of one function", |limits| u64::from(limits.locals)),
    ("blocks within one another", |limits| u64::from(limits.nesting)),
    ("branch table targets in one function", |limits| u64::from(limits.branch_targets)),
    ("blocks of one function times its locals", |limits| limits.flow),
    ("imports between modules", |limits| u64::from(limits.imports)),
    ("exports", |limits| u64::from(limits.exports)),
    ("globals", |limits| u64::from(limits.globals)),
    ("tables", |limits| u64::from(limits.tables)),
    ("memories", |limits| u64::from(limits.memories)),
    ("data and element segments", |limits| u64::from(limits.segments)),
    ("custom sections", |limits| u64::from(limits.customs)),
    ("bytes in one name", |limits| limits.name_bytes as u64),
];

/// The counts of one component.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts([u64; QUANTITIES.len()]);

impl Counts {
    pub(crate) fn add(&mut self, quantity: Quantity, count: u64) {
        self.0[quantity as usize] = self.0[quantity as usize].saturating_add(count);
    }

    /// Keeps the maximum: for quantities that are limited for each part, such as one function.
    pub(crate) fn raise(&mut self, quantity: Quantity, count: u64) {
        self.0[quantity as usize] = self.0[quantity as usize].max(count);
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.raise(Quantity::NameBytes, name.len() as u64);
    }

    pub(crate) fn within(&self, limits: &ModuleLimits) -> Result<(), Rejection> {
        let counted = self.0.iter().zip(QUANTITIES).map(|(count, (what, limit))| (what, *count, limit(limits)));
        let over = counted.into_iter().find(|(_, count, limit)| count > limit);
        over.map_or(Ok(()), |(what, count, limit)| Err(Rejection::StructureLimit { what, count, limit }))
    }
}
