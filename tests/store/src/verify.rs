//! Opens what a crash or damage has left, compares it with the model, and goes on working with it.

use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::Keys;

use crate::node::{Node, SHARD, keys_of};
use crate::{Image, MemoryDisk, Model, Random, Rows, Survival, Tree};

/// Whether a start may, must or cannot report a loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing is lost, and no loss may be reported.
    None,
    /// Nothing is lost, and a loss may be reported.
    Allowed,
    /// Missing rows must be reported.
    Required,
    /// The disk has lost writes so consistently that nothing shows it. All that holds is that every row was once
    /// written.
    Undetectable,
}

/// What a start found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything that was promised, and no loss was reported.
    Sound,
    /// A loss was reported.
    Lost,
    /// A read reported a damaged row.
    Damaged,
}

/// What a start must find.
pub struct Expected<'a> {
    /// What the store has promised.
    pub model: &'a Model,
    /// The changes at which the store may end.
    pub end: RangeInclusive<u64>,
    /// Whether a loss is to be reported.
    pub loss: Loss,
    /// The machine never stopped, so there is no reason for new actors.
    pub same_boot: bool,
}

/// Starts on the files and compares; then writes on, loses the power once more, and must find everything again.
///
/// # Errors
/// What is wrong, for people.
pub fn verify(root: &Path, image: &Image, tree: &Tree, expected: &Expected<'_>) -> Result<Outcome, String> {
    tree.write(&root.join(SHARD).join("tree"));
    let disk = MemoryDisk::new(root, image);
    // Of a recording with keys: a start with another one, that has all the others.
    let has_keys =
        [format!("{SHARD}/keys"), format!("{SHARD}/keys.copy")].iter().any(|name| image.files.contains_key(name));
    let keys = || has_keys.then(|| keys_of(u8::MAX));
    let mut node = match Node::open_with(root, &disk, keys()) {
        Ok(node) => node,
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    let end = node.store.commit().map_err(|fault| fault.to_string())?.0;
    let lost = !node.recovery.lost.is_empty();
    if lost && expected.loss == Loss::None {
        return Err(format!("a loss is said that there was not: {:?}", node.recovery.lost));
    }
    let rows = match node.rows() {
        Ok(rows) => rows,
        Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) if expected.loss == Loss::Required => {
            return row_by_row(&node, expected, lost);
        }
        Err(fault) => return Err(format!("reading: {fault}")),
    };
    compare(expected, &rows, end, lost)?;
    if expected.same_boot && expected.loss == Loss::None && node.needs_new_actors() {
        return Err("new actors are called for, and the machine has never stopped".to_owned());
    }
    if expected.model.owes_actors(end) && !node.needs_new_actors() {
        return Err(format!(
            "changes up to {} were heard of, {end} is the last there, and nobody is told",
            expected.model.heard()
        ));
    }
    go_on((root, keys()), node, &disk, rows)?;
    Ok(if lost { Outcome::Lost } else { Outcome::Sound })
}

/// Rows against the model.
fn compare(expected: &Expected<'_>, rows: &Rows, end: u64, lost: bool) -> Result<(), String> {
    let Expected { model, end: allowed, loss, .. } = expected;
    if let Some(wrong) = model.never_written(rows) {
        return Err(wrong);
    }
    if *loss == Loss::Undetectable {
        return Ok(());
    }
    if !lost {
        if !allowed.contains(&end) {
            return Err(format!("it has come to change {end}, and {allowed:?} was to be found"));
        }
        return model.difference(rows, end).map_or(Ok(()), Err);
    }
    // With a loss said too much, everything promised must still be there; with one said rightly, what is there was once
    // written.
    let older = if *loss == Loss::Required { None } else { model.older(rows, *allowed.start()) };
    older.map_or(Ok(()), Err)
}

/// Of a tree with a damaged table every row is read that can be: it is right, or it is an error.
fn row_by_row(node: &Node, expected: &Expected<'_>, lost: bool) -> Result<Outcome, String> {
    let right = expected.model.rows_after(*expected.end.end());
    for (space, key) in expected.model.keys() {
        let row = (*space, key.clone());
        match node.store.get(*space, key) {
            Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => {}
            Err(fault) => return Err(fault.to_string()),
            Ok(value) if !lost && value.as_ref() != right.get(&row) => {
                return Err(format!("{space:?} {key:?} is {value:?} and nothing was said"));
            }
            Ok(None) => {}
            Ok(Some(value)) => match expected.model.never_written(&Rows::from([(row, value)])) {
                Some(wrong) => return Err(wrong),
                None => continue,
            },
        }
    }
    Ok(Outcome::Damaged)
}

/// Writes on, loses the power, and starts again: the store must be sound.
fn go_on((root, keys): (&Path, Option<Keys>), mut node: Node, disk: &MemoryDisk, mut rows: Rows) -> Result<(), String> {
    let failed = |fault: StoreFault| format!("going on: {fault}");
    node.renew_actors();
    node.data.settle().map_err(|error| format!("going on: {error}"))?;
    for number in 0..3 {
        let (key, value) =
            (Bytes::from(format!("object {number:02}")), Bytes::from(format!("after the crash {number}")));
        let mut change = Change::default();
        for space in [Space::Objects, Space::Pinned] {
            change.put(space, key.clone(), value.clone());
            rows.insert((space, key.clone()), value.clone());
        }
        node.store.write(change).map_err(failed)?;
        node.store.commit().map_err(failed)?;
    }
    node.store.syncer().sync().map_err(failed)?;
    drop(node);
    let mut image = disk.machine().crash(Survival::Nothing, &mut Random::new(0, 0)).image;
    image.reboot();
    let opened = Node::open_with(root, &MemoryDisk::new(root, &image), keys);
    let node = opened.map_err(|error| format!("it does not open again: {error}"))?;
    if !node.recovery.lost.is_empty() {
        return Err(format!("after it went on, this is lost: {:?}", node.recovery.lost));
    }
    let again = node.rows().map_err(failed)?;
    if again != rows {
        let wrong = rows
            .iter()
            .find(|(key, value)| again.get(*key) != Some(value))
            .or_else(|| again.iter().find(|(key, _)| !rows.contains_key(*key)));
        return Err(format!("after it went on, rows have changed: {wrong:?}"));
    }
    Ok(())
}
