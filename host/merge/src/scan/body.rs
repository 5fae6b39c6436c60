//! Counts the parts of core functions and their types.

use wasmparser::{BinaryReaderError, CompositeInnerType, FunctionBody, Operator, RecGroup};

use super::quantities::{Counts, Quantity};

/// Counts the types of a group, and the longest signature.
pub(super) fn note_types(group: &RecGroup, counts: &mut Counts) {
    for of_type in group.types() {
        counts.add(Quantity::Types, 1);
        if let CompositeInnerType::Func(signature) = &of_type.composite_type.inner {
            counts.raise(Quantity::Params, signature.params().len() as u64);
            counts.raise(Quantity::Results, signature.results().len() as u64);
        }
    }
}

/// Counts the parts of a function. Where control flow joins, the compiler may create a value for every local, so the
/// product of blocks and locals is limited.
pub(super) fn note(function: &FunctionBody<'_>, counts: &mut Counts) -> Result<(), BinaryReaderError> {
    counts.add(Quantity::Functions, 1);
    counts.raise(Quantity::FunctionBytes, function.range().len() as u64);
    let mut locals = 0_u64;
    for local in function.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(local?.0));
    }
    counts.raise(Quantity::Locals, locals);
    let (mut depth, mut blocks, mut targets) = (0_u64, 1_u64, 0_u64);
    for operator in function.get_operators_reader()? {
        match operator? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                (depth, blocks) = (depth + 1, blocks + 1);
                counts.raise(Quantity::Nesting, depth);
            }
            Operator::Else | Operator::Br { .. } | Operator::BrIf { .. } => blocks += 1,
            Operator::End => depth = depth.saturating_sub(1),
            Operator::BrTable { targets: table } => targets = targets.saturating_add(u64::from(table.len())),
            _ => {}
        }
    }
    counts.raise(Quantity::BranchTargets, targets);
    counts.raise(Quantity::Flow, blocks.saturating_add(targets).saturating_mul(locals));
    Ok(())
}
