//! Counts instances through nested components. A component that is instantiated twice creates its own instances twice,
//! so a few nested components can create any number.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, Instance,
    Payload,
};

/// What one instance of a component creates.
#[derive(Clone, Copy, Default, Debug)]
struct Cost {
    /// Instances of modules and components.
    instances: u64,
    /// These, and all other parts listed in the component.
    parts: u64,
}

/// A component or module that is being read.
#[derive(Default, Debug)]
struct Scope {
    is_component: bool,
    cost: Cost,
    /// The components of this scope, by index.
    components: Vec<Cost>,
}

/// The nested scopes at the present place of the scan, the outermost first.
#[derive(Default, Debug)]
pub(super) struct Graph {
    scopes: Vec<Scope>,
    whole: Cost,
}

/// Whether an alias takes a component out of an instance. The cost of such a component is unknown.
pub(super) fn takes_component(alias: &ComponentAlias<'_>) -> bool {
    matches!(alias, ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. })
}

impl Graph {
    pub(super) fn begin(&mut self, is_component: bool) {
        self.scopes.push(Scope { is_component, ..Scope::default() });
    }

    pub(super) fn end(&mut self) {
        let Some(done) = self.scopes.pop() else { return };
        match self.scopes.last_mut() {
            Some(outer) if done.is_component => outer.components.push(done.cost),
            Some(outer) => outer.cost.parts = outer.cost.parts.saturating_add(1),
            None => self.whole = done.cost,
        }
    }

    pub(super) fn depth(&self) -> u64 {
        self.scopes.len() as u64
    }

    pub(super) fn instances(&self) -> u64 {
        self.whole.instances
    }

    pub(super) fn parts(&self) -> u64 {
        self.whole.parts
    }

    pub(super) fn note(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    match instance? {
                        Instance::Instantiate { args, .. } => self.made(Cost::default(), args.len()),
                        Instance::FromExports(exports) => self.listed(exports.len()),
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    match instance? {
                        ComponentInstance::Instantiate { component_index, args } => {
                            self.made(self.component(0, component_index), args.len());
                        }
                        ComponentInstance::FromExports(exports) => self.listed(exports.len()),
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    let alias = alias?;
                    self.listed(1);
                    match alias {
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            self.name(self.component(count as usize, index));
                        }
                        alias if takes_component(&alias) => self.name(Cost::default()),
                        _ => {}
                    }
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    self.listed(1);
                    if import?.ty.kind() == ComponentExternalKind::Component {
                        self.name(Cost::default());
                    }
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    self.listed(1);
                    if export.kind == ComponentExternalKind::Component {
                        self.name(self.component(0, export.index));
                    }
                }
            }
            Payload::ComponentCanonicalSection(functions) => self.listed(functions.count() as usize),
            Payload::ComponentTypeSection(types) => self.listed(types.count() as usize),
            Payload::CoreTypeSection(types) => self.listed(types.count() as usize),
            _ => {}
        }
        Ok(())
    }

    /// The cost of a component by its index, `outward` scopes out. A missing one costs nothing: the engine refuses it.
    fn component(&self, outward: usize, index: u32) -> Cost {
        let level = self.scopes.len().checked_sub(outward.saturating_add(1)).and_then(|at| self.scopes.get(at));
        level.and_then(|level| level.components.get(index as usize)).copied().unwrap_or_default()
    }

    /// Gives a component the next index.
    fn name(&mut self, cost: Cost) {
        if let Some(level) = self.scopes.last_mut() {
            level.components.push(cost);
        }
    }

    fn made(&mut self, inside: Cost, args: usize) {
        let Some(Scope { cost, .. }) = self.scopes.last_mut() else { return };
        cost.instances = cost.instances.saturating_add(1).saturating_add(inside.instances);
        cost.parts = cost.parts.saturating_add(1 + args as u64).saturating_add(inside.parts);
    }

    fn listed(&mut self, parts: usize) {
        let Some(Scope { cost, .. }) = self.scopes.last_mut() else { return };
        cost.parts = cost.parts.saturating_add(parts as u64);
    }
}
