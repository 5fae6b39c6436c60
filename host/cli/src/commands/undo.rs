//! `plugin undo`: puts the inputs of a plugin's folds in the place of what it made of them.

use serde::Serialize;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{KeptReceipt, ReceiptFilter, Undo, UndoPlan, undo_plan};

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
        // Other plugins may have folded on what this one has made.
        plugin: None,
        since_ms: ago_ms.map_or(0, |ago_ms| now_ms().saturating_sub(ago_ms)),
        undo: true,
    };
    let found = admin.receipts(bucket, filter).await?;
    tell_silent(&found.silent);
    for node in &found.lost {
        note(format!("{node} has lost a part of its disk: receipts of other folds may be gone with it"));
    }
    let UndoPlan { undos, skipped } = undo_plan(found.answers.iter().map(|(_, kept)| kept), plugin);
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
