//! `conflict list|show|resolve`: keys whose merge fails, and the way out of it. [`violations`] has
//! `conflict violations`, [`export`] has `conflict export`.

use serde::Serialize;

use rejoin_client::admin::Conflict;
use rejoin_client::{Bucket, Bytes, Object};
use rejoin_wire::utc_text_ms;

use crate::args::KeyArgs;
use crate::commands::export;
use crate::commands::json::{GetOutput, KeyJson};
use crate::commands::nodes::{all_answered, tell_silent};
use crate::commands::object::{finish, siblings, value};
use crate::commands::violations;
use crate::conflict_args::ConflictCommand;
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// A key of `conflict list`.
#[derive(Serialize, Debug)]
struct ConflictJson {
    #[serde(flatten)]
    key: KeyJson,
    /// How many siblings it has now.
    siblings: usize,
    plugin: String,
    /// Why the merge failed at last: a word, and a sentence.
    reason: String,
    why: String,
    first_ms: u64,
    last_ms: u64,
    /// How often it failed, at all nodes since their start.
    times: u64,
}

impl ConflictJson {
    fn new(conflict: &Conflict, siblings: usize) -> Self {
        Self {
            key: KeyJson::new(&conflict.key),
            siblings,
            plugin: conflict.plugin.to_string(),
            reason: conflict.reason.clone(),
            why: conflict.why.clone(),
            first_ms: conflict.first_ms,
            last_ms: conflict.last_ms,
            times: conflict.times,
        }
    }

    fn row(self) -> Vec<String> {
        vec![
            self.key.shown(),
            self.siblings.to_string(),
            self.reason,
            self.times.to_string(),
            utc_text_ms(self.last_ms),
            self.why,
        ]
    }
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: ConflictCommand) -> Result<(), Failure> {
    match command {
        ConflictCommand::List { bucket } => list(global, out, &bucket).await,
        ConflictCommand::Show { bucket, key } => show(global, out, &bucket, &key).await,
        ConflictCommand::Violations { bucket, output } => {
            violations::run(global, out, &bucket, output.as_deref()).await
        }
        ConflictCommand::Export { bucket, key, output } => export::run(global, out, (&bucket, &key), output).await,
        ConflictCommand::Resolve { bucket, key, keep, value, context } => {
            let wish = Wish { keep, value, context };
            resolve(global, out, (&bucket, &key), wish).await
        }
    }
}

/// Lists what the nodes have noted and what still has siblings. What cannot be read now may still have some.
async fn list(global: &GlobalArgs, out: Output, bucket: &str) -> Result<(), Failure> {
    let client = connect(global).await?;
    let noted = client.admin().conflicts(bucket).await?;
    tell_silent(&noted.silent);
    let keys = client.bucket::<Bytes>(bucket)?;
    let mut open = Vec::new();
    for conflict in &noted.answers {
        match read(&keys, &conflict.key, global).await {
            Ok(object) if object.value.is_some() || !object.is_found() => {}
            Ok(object) => open.push(ConflictJson::new(conflict, object.siblings.len())),
            Err(_) => open.push(ConflictJson::new(conflict, conflict.siblings as usize)),
        }
    }
    if out.json {
        out.json(&open)?;
    }
    if open.is_empty() {
        all_answered(&noted.silent)?;
    }
    if out.json {
        return Ok(());
    }
    if open.is_empty() {
        note(format!("no merge of bucket {bucket} has failed that a later one, or a client, has not made good"));
        return Ok(());
    }
    note(format!("`rejoin conflict show {bucket} KEY` shows the siblings"));
    let rows = open.into_iter().map(ConflictJson::row).collect();
    out.table(&["key", "siblings", "reason", "times", "last", "why"], rows)
}

async fn show(global: &GlobalArgs, out: Output, bucket: &str, key: &KeyArgs) -> Result<(), Failure> {
    let keys = connect(global).await?.bucket::<Bytes>(bucket)?;
    let object = read(&keys, key.bytes(), global).await?;
    if out.json {
        return out.json(&GetOutput::new(bucket, key.bytes(), &object));
    }
    if !is_open(&object) {
        return Err(no_conflict(bucket, key, &object));
    }
    siblings(Some(out), &object)?;
    note(format!("not merged: {}", object.merge_fault.as_deref().unwrap_or("the bucket has no plugin")));
    note(format!("context: {}", object.context));
    let typed = key.typed();
    note(format!(
        "next: `rejoin conflict resolve {bucket} {typed} --keep NUMBER`, or `--value VALUE` with what they come to"
    ));
    Ok(())
}

/// How a conflict is resolved.
struct Wish {
    keep: Option<usize>,
    value: Option<String>,
    context: Option<String>,
}

/// Writes with the context of the siblings that were read: one that is written meanwhile stays beside the result.
async fn resolve(global: &GlobalArgs, out: Output, (bucket, key): (&str, &KeyArgs), wish: Wish) -> Result<(), Failure> {
    let keys = connect(global).await?.bucket::<Bytes>(bucket)?;
    let object = read(&keys, key.bytes(), global).await?;
    if !is_open(&object) {
        return Err(no_conflict(bucket, key, &object));
    }
    let again = format!("`rejoin conflict show {bucket} {}` shows the siblings that there are", key.typed());
    if wish.context.is_some_and(|context| context != object.context.to_string()) {
        let what = format!("{bucket}/{} has other siblings than those of the context", key.shown());
        return Err(Failure::new(Exit::Stale, what).next(again));
    }
    let value = match (wish.keep, wish.value) {
        (Some(number), _) => {
            let kept = number.checked_sub(1).and_then(|place| object.siblings.get(place));
            let count = object.siblings.len();
            let missing = || Failure::usage(format!("--keep {number}: there are siblings 1 to {count}")).next(again);
            kept.ok_or_else(missing)?.value.clone()
        }
        (None, given) => value(given.as_deref().unwrap_or_default())?,
    };
    let put = keys.put(key.bytes(), value).timeout(global.timeout).context(&object.context);
    finish(out, put.await, "look at the conflict again")
}

async fn read(keys: &Bucket<Bytes>, key: &[u8], global: &GlobalArgs) -> rejoin_client::Result<Object<Vec<u8>>> {
    keys.get(key).timeout(global.timeout).await
}

/// Whether there are siblings that are not merged.
fn is_open(object: &Object<Vec<u8>>) -> bool {
    object.value.is_none() && object.is_found()
}

fn no_conflict(bucket: &str, key: &KeyArgs, object: &Object<Vec<u8>>) -> Failure {
    let what = if object.is_found() { "has one value" } else { "has no value" };
    Failure::new(Exit::Negative, format!("{bucket}/{} {what}: there is no conflict", key.shown()))
        .next(format!("`rejoin conflict list {bucket}` lists those there are"))
}
