//! `plugin undo`: puts the inputs of a plugin's folds in the place of what it made of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{Entry, KeptReceipt, Name, ReceiptFilter};

use crate::commands::json::KeyJson;
use crate::commands::nodes::{all_answered, tell_silent};
use crate::commands::show::digest;
use crate::commands::token::now_ms;
use crate::connect::connect;
use crate::failure::Failure;
use crate::fold_args::UndoArgs;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// One fold, and what became of it.
#[derive(Serialize, Debug)]
struct UndoneJson {
    #[serde(flatten)]
    key: KeyJson,
    /// When it was folded, in milliseconds since 1970.
    at_ms: u64,
    /// How many values take the place of the folded one.
    inputs: usize,
    /// `undone`, `would be undone`, `skipped` or `failed`.
    outcome: &'static str,
    why: Option<String>,
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &UndoArgs) -> Result<(), Failure> {
    let (bucket, admin) = (&args.bucket, connect(global).await?.admin());
    let plugin = digest(&admin, &args.plugin).await?;
    let active = admin.bucket(bucket).await?.props.plugin;
    if active.is_some_and(|active| active.plugin == plugin) && !args.dry_run {
        let what = format!("plugin {} merges bucket {bucket}: it would make the same of the inputs again", args.plugin);
        return Err(Failure::usage(what).next(format!("`rejoin plugin rollback {bucket}` first")));
    }
    let ago_ms = args.since.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    let filter = ReceiptFilter {
        key: args.key().map(<[u8]>::to_vec),
        plugin: Some(plugin),
        since_ms: ago_ms.map_or(0, |ago_ms| now_ms().saturating_sub(ago_ms)),
        undo: true,
    };
    let found = admin.receipts(bucket, filter).await?;
    tell_silent(&found.silent);
    for node in &found.lost {
        note(format!("{node} has lost a part of its disk: receipts of other folds may be gone with it"));
    }
    let Plan { undos, skipped } = plan(&found.answers);
    let mut done: Vec<UndoneJson> =
        skipped.iter().map(|kept| undone(kept, 0, ("skipped", Some(SKIPPED.into())))).collect();
    let mut failed = None;
    for Undo { kept, inputs } in &undos {
        let Some(context) = kept.context.as_ref().filter(|_| !args.dry_run) else {
            done.push(undone(kept, inputs.len(), ("would be undone", None)));
            continue;
        };
        let outcome = match admin.undo_fold(bucket, &kept.receipt, inputs, context).await {
            Ok(_) => ("undone", None),
            Err(error) if error.kind() == ErrorKind::VersionConflict => ("skipped", Some(SKIPPED.into())),
            Err(error) => {
                let why = error.to_string();
                failed = Some(Failure::from(error));
                ("failed", Some(why))
            }
        };
        done.push(undone(kept, inputs.len(), outcome));
    }
    print(out, &done)?;
    let count = |outcome| done.iter().filter(|of| of.outcome == outcome).count();
    note(match args.dry_run {
        true => format!("{} folds would be undone, {} skipped", count("would be undone"), count("skipped")),
        false => format!("{} folds undone, {} skipped, {} failed", count("undone"), count("skipped"), count("failed")),
    });
    match failed {
        Some(failure) => Err(failure.next("run it again: what is undone already is skipped")),
        None => all_answered(&found.silent),
    }
}

/// Why a fold is not undone.
const SKIPPED: &str = "the key was written or folded again since, or the fold is undone";

/// A fold to be undone, with what takes its place.
struct Undo<'a> {
    kept: &'a KeptReceipt,
    inputs: Vec<Entry>,
}

struct Plan<'a> {
    undos: Vec<Undo<'a>>,
    /// Receipts of folds that are not there any more.
    skipped: Vec<&'a KeptReceipt>,
}

/// The folds that are live at some node. An input that is itself one of these folds is replaced by its own inputs.
fn plan(answers: &[(Name, KeptReceipt)]) -> Plan<'_> {
    let mut of_keys: BTreeMap<&[u8], Vec<&KeptReceipt>> = BTreeMap::new();
    for (_, kept) in answers {
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
    let (mut undos, mut skipped) = (Vec::new(), Vec::new());
    for of_key in of_keys.into_values() {
        let mut used = BTreeSet::new();
        for kept in of_key.iter().filter(|kept| kept.live) {
            let mut inputs = Vec::new();
            expand(&of_key, &kept.receipt.inputs, &mut used, &mut inputs);
            undos.push(Undo { kept, inputs });
        }
        let is_gone = |(at, kept): &(usize, &KeptReceipt)| !kept.live && !used.contains(at);
        skipped.extend(of_key.iter().copied().enumerate().filter(is_gone).map(|(_, kept)| kept));
    }
    Plan { undos, skipped }
}

/// Adds inputs, or their own inputs if they are folds. A fold has more dots than each of its inputs, so this ends.
fn expand(of_key: &[&KeptReceipt], inputs: &[Entry], used: &mut BTreeSet<usize>, all: &mut Vec<Entry>) {
    for input in inputs {
        let made = |kept: &&KeptReceipt| input.folded_by == Some(kept.receipt.by) && input.dots == kept.receipt.dots;
        match of_key.iter().position(made) {
            Some(at) if of_key[at].receipt.inputs.iter().all(|earlier| earlier.dots != input.dots) => {
                used.insert(at);
                expand(of_key, &of_key[at].receipt.inputs, used, all);
            }
            _ => all.push(input.clone()),
        }
    }
}

fn undone(kept: &KeptReceipt, inputs: usize, (outcome, why): (&'static str, Option<String>)) -> UndoneJson {
    UndoneJson { key: KeyJson::new(&kept.receipt.object.key), at_ms: kept.receipt.at_ms, inputs, outcome, why }
}

fn print(out: Output, done: &[UndoneJson]) -> Result<(), Failure> {
    if out.json {
        return out.json(&done);
    }
    let row = |of: &UndoneJson| {
        let why = of.why.clone().unwrap_or_default();
        vec![of.key.shown(), of.inputs.to_string(), rejoin_wire::utc_text_ms(of.at_ms), of.outcome.to_owned(), why]
    };
    if done.is_empty() {
        Ok(())
    } else {
        out.table(&["key", "inputs", "folded", "outcome", "why"], done.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::{Content, DotSet, FoldedBy, MergeLimits, PluginDigest, ProfileId};
    use rejoin_proto::receipt::FoldReceipt;
    use rejoin_proto::{ActorId, BucketId, DotSpan, Hlc, NodeId, ObjectId, TenantId};

    const BY: FoldedBy = FoldedBy { plugin: PluginDigest([1; 32]), profile: ProfileId(1) };

    fn dots(actors: &[u64]) -> DotSet {
        actors.iter().map(|actor| DotSpan { actor: ActorId(*actor), lo: 0, hi: 1 }).collect()
    }

    fn entry(actors: &[u64], folded_by: Option<FoldedBy>) -> Entry {
        let content = Content::Value(format!("{actors:?}").into());
        Entry { dots: dots(actors), covers: dots(actors), content, stamp: Hlc(1), expires: None, folded_by }
    }

    fn kept(key: &'static str, inputs: Vec<Entry>, live: bool) -> (Name, KeptReceipt) {
        let spans: Vec<DotSpan> = inputs.iter().flat_map(|input| input.dots.spans().to_vec()).collect();
        let dots: DotSet = spans.into_iter().collect();
        let receipt = FoldReceipt {
            object: ObjectId { tenant: TenantId(1), bucket: BucketId(1), key: key.into() },
            by: BY,
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
        (Name::new("n1").expect("a name"), KeptReceipt { receipt, live, context: None })
    }

    #[test]
    fn a_fold_of_folds_is_undone_to_what_was_written() {
        let first = kept("k", vec![entry(&[1], None), entry(&[2], None)], false);
        let second = kept("k", vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], true);
        let gone = kept("other", vec![entry(&[4], None), entry(&[5], None)], false);
        // The same fold, by a node that does not have it any more.
        let again = kept("k", vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], false);
        let answers = [again, first, second, gone];
        let Plan { undos, skipped } = plan(&answers);
        assert_eq!(undos.len(), 1);
        assert_eq!(undos[0].inputs, [entry(&[1], None), entry(&[2], None), entry(&[3], None)]);
        assert_eq!(skipped.iter().map(|kept| &kept.receipt.object.key[..]).collect::<Vec<_>>(), [b"other"]);
    }

    #[test]
    fn an_input_whose_fold_has_no_receipt_is_brought_back_as_it_is() {
        let answers = [kept("k", vec![entry(&[1, 2], Some(BY)), entry(&[3], None)], true)];
        let Plan { undos, skipped } = plan(&answers);
        assert_eq!(undos[0].inputs, [entry(&[1, 2], Some(BY)), entry(&[3], None)]);
        assert!(skipped.is_empty());
    }
}
