//! What an undo puts in the place of a plugin's folds, as far as the receipts of all nodes tell.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::PluginDigest;
use crate::object::Entry;
use crate::receipt::KeptReceipt;

/// A fold to be undone, with what takes its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undo<'a> {
    /// Its receipt.
    pub kept: &'a KeptReceipt,
    /// What takes its place: the inputs, of which those are put that stand for something live.
    pub inputs: Vec<Entry>,
}

/// The folds of a plugin that can be undone, and the others.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UndoPlan<'a> {
    /// To be undone.
    pub undos: Vec<Undo<'a>>,
    /// Receipts of folds that are not there any more.
    pub skipped: Vec<&'a KeptReceipt>,
}

/// The folds by a plugin that are live at some node, and the live folds by others that such a fold went into: a node
/// that had not heard of the plugin yet, or one whose fold delay was over, has folded those on. An input that is itself
/// such a fold is replaced by its own inputs. `receipts` are those of one bucket, of folds by whatever plugin.
#[must_use]
pub fn plan<'a>(receipts: impl IntoIterator<Item = &'a KeptReceipt>, plugin: PluginDigest) -> UndoPlan<'a> {
    let mut of_keys: BTreeMap<&[u8], Vec<&KeptReceipt>> = BTreeMap::new();
    for kept in receipts {
        let of_key = of_keys.entry(&kept.receipt.object.key).or_default();
        let same = |other: &&mut &KeptReceipt| {
            let (a, b) = (&other.receipt, &kept.receipt);
            (&a.dots, &a.covers, a.by) == (&b.dots, &b.covers, b.by)
        };
        // Two nodes may have folded the same.
        match of_key.iter_mut().find(same) {
            Some(other) if !other.live => *other = kept,
            Some(_) => {}
            None => of_key.push(kept),
        }
    }
    let mut plan = UndoPlan::default();
    for of_key in of_keys.into_values() {
        let has = with_folds_of(&of_key, plugin);
        let mut used = BTreeSet::new();
        for at in has.iter().copied().filter(|at| of_key[*at].live) {
            let mut inputs = Vec::new();
            expand((&of_key, &has), at, &mut Vec::new(), &mut used, &mut inputs);
            plan.undos.push(Undo { kept: of_key[at], inputs });
        }
        let is_gone = |at: &usize| !of_key[*at].live && !used.contains(at) && of_key[*at].receipt.by.plugin == plugin;
        plan.skipped.extend(has.iter().copied().filter(is_gone).map(|at| of_key[at]));
    }
    plan
}

/// The places of the receipts of folds by a plugin, and of those that such a fold went into.
fn with_folds_of(of_key: &[&KeptReceipt], plugin: PluginDigest) -> BTreeSet<usize> {
    let by = |at: &usize| of_key[*at].receipt.by.plugin == plugin;
    let mut has: BTreeSet<usize> = (0..of_key.len()).filter(by).collect();
    loop {
        let known = has.len();
        let went_into = |at: &usize| {
            let mut inputs = of_key[*at].receipt.inputs.iter();
            inputs.any(|input| has.iter().any(|made| is_made(input, of_key[*made])))
        };
        let more: Vec<usize> = (0..of_key.len()).filter(|at| !has.contains(at)).filter(went_into).collect();
        has.extend(more);
        if has.len() == known {
            return has;
        }
    }
}

/// Whether an input of a fold is what a receipt tells of, or what later writes had left of that.
fn is_made(input: &Entry, kept: &KeptReceipt) -> bool {
    let receipt = &kept.receipt;
    input.folded_by == Some(receipt.by) && input.covers == receipt.covers && input.dots.is_subset(&receipt.dots)
}

/// Adds the inputs of a fold, or their own inputs if they are folds to be undone. `path` are the folds on the way here.
fn expand(
    (of_key, has): (&[&KeptReceipt], &BTreeSet<usize>),
    at: usize,
    path: &mut Vec<usize>,
    used: &mut BTreeSet<usize>,
    all: &mut Vec<Entry>,
) {
    path.push(at);
    for input in &of_key[at].receipt.inputs {
        let made = |made: &usize| !path.contains(made) && is_made(input, of_key[*made]);
        match has.iter().copied().find(made) {
            Some(made) => {
                used.insert(made);
                expand((of_key, has), made, path, used, all);
            }
            // Two folds may have had an input in common.
            None if all.contains(input) => {}
            None => all.push(input.clone()),
        }
    }
    path.pop();
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::receipt::{FoldReceipt, MergeLimits};
    use crate::{ActorId, BucketId, Content, DotSet, DotSpan, FoldedBy, Hlc, NodeId, ObjectId, ProfileId, TenantId};

    const BY: FoldedBy = FoldedBy { plugin: PluginDigest([1; 32]), profile: ProfileId(1) };
    const OTHER: FoldedBy = FoldedBy { plugin: PluginDigest([2; 32]), profile: ProfileId(1) };

    fn dots(actors: &[u64]) -> DotSet {
        actors.iter().map(|actor| DotSpan { actor: ActorId(*actor), lo: 0, hi: 1 }).collect()
    }

    fn entry(actors: &[u64], folded_by: Option<FoldedBy>) -> Entry {
        let content = Content::Value(alloc::format!("{actors:?}").into());
        Entry { dots: dots(actors), covers: dots(actors), content, stamp: Hlc(1), expires: None, folded_by }
    }

    fn kept(key: &'static str, by: FoldedBy, inputs: Vec<Entry>, live: bool) -> KeptReceipt {
        let spans: Vec<DotSpan> = inputs.iter().flat_map(|input| input.covers.spans().to_vec()).collect();
        let dots: DotSet = spans.into_iter().collect();
        let receipt = FoldReceipt {
            object: ObjectId { tenant: TenantId(1), bucket: BucketId(1), key: key.into() },
            by,
            inputs,
            covers: dots.clone(),
            dots,
            output: [0; 32],
            output_bytes: 0,
            limits: MergeLimits { fuel: 1, memory_bytes: 1, result_bytes: 1 },
            fuel_used: 1,
            node: NodeId(1),
            at_ms: 1,
            until_ms: 2,
        };
        KeptReceipt { receipt, live, context: None }
    }

    #[test]
    fn a_fold_of_folds_is_undone_to_what_was_written() {
        let first = kept("k", BY, vec![entry(&[1], None), entry(&[2], None)], false);
        let second = kept("k", BY, vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], true);
        let gone = kept("other", BY, vec![entry(&[4], None), entry(&[5], None)], false);
        // The same fold, by a node that does not have it any more.
        let again = kept("k", BY, vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], false);
        let receipts = [again, first, second, gone];
        let UndoPlan { undos, skipped } = plan(&receipts, BY.plugin);
        assert_eq!(undos.len(), 1);
        assert_eq!(undos[0].inputs, [entry(&[1], None), entry(&[2], None), entry(&[3], None)]);
        assert_eq!(skipped.iter().map(|kept| &kept.receipt.object.key[..]).collect::<Vec<_>>(), [b"other"]);
    }

    #[test]
    fn an_input_whose_fold_has_no_receipt_is_brought_back_as_it_is() {
        let receipts = [kept("k", BY, vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], true)];
        let UndoPlan { undos, skipped } = plan(&receipts, BY.plugin);
        assert_eq!(undos[0].inputs, [entry(&[1, 2], Some(BY)), entry(&[3], None)]);
        assert!(skipped.is_empty());
    }

    #[test]
    fn a_fold_that_another_plugin_has_folded_on_is_undone_with_that() {
        let bad = kept("k", BY, vec![entry(&[1], None), entry(&[2], None)], false);
        // What a write had left of it went into the fold of a node that had not heard of the plugin.
        let left = Entry { dots: dots(&[2]), ..entry(&[1, 2], Some(BY)) };
        let on = kept("k", OTHER, vec![left, entry(&[3], None)], true);
        let sound = kept("other", OTHER, vec![entry(&[4], None), entry(&[5], None)], true);
        let receipts = [bad, on, sound];
        let UndoPlan { undos, skipped } = plan(&receipts, BY.plugin);
        assert_eq!(undos.len(), 1, "a sound fold stays");
        assert_eq!((undos[0].kept.receipt.by, skipped.len()), (OTHER, 0));
        assert_eq!(undos[0].inputs, [entry(&[1], None), entry(&[2], None), entry(&[3], None)]);
    }

    #[test]
    fn what_two_folds_had_in_common_is_brought_back_once() {
        let inputs = |other| vec![entry(&[1], None), entry(&[other], None)];
        let (one, two) = (kept("k", BY, inputs(2), false), kept("k", BY, inputs(3), false));
        let of_both = kept("k", BY, vec![entry(&[1, 2], Some(BY)), entry(&[1, 3], Some(BY))], true);
        let receipts = [one, two, of_both];
        let undos = plan(&receipts, BY.plugin).undos;
        assert_eq!(undos[0].inputs, [entry(&[1], None), entry(&[2], None), entry(&[3], None)]);
    }
}
