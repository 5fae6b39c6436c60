//! `encryption add|list|remove`: the file of the keys that a node encrypts values with.

use std::path::Path;

use serde::Serialize;

use rejoin_node::{BadKeys, EncryptionKeys};

use crate::encryption_args::EncryptionCommand;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, note};

/// How often a key is drawn whose id is taken. One in four billions is.
const DRAWS: usize = 4;

/// A key in the output of `--json`.
#[derive(Serialize, Debug)]
struct ListedKey {
    key: String,
    /// Whether it encrypts; otherwise what it has encrypted is read.
    encrypts: bool,
}

pub(crate) fn run(out: Output, command: &EncryptionCommand) -> Result<(), Failure> {
    match command {
        EncryptionCommand::Add { file } => {
            let keys = add(file)?;
            let (mode, used) = (Mode::Private, keys.ids().next());
            files::replace(file, keys.to_file().as_bytes(), mode)?;
            let id = used.map(|(id, _)| id.to_string()).unwrap_or_default();
            note(format!("key {id} encrypts once a node is started with this file"));
            note("keep a copy in a safe place: without the key nobody can read the values");
            if out.json { out.json(&ListedKey { key: id, encrypts: true }) } else { out.line(id) }
        }
        EncryptionCommand::List { file } => {
            let listed: Vec<ListedKey> =
                read(file)?.ids().map(|(id, encrypts)| ListedKey { key: id.to_string(), encrypts }).collect();
            if out.json {
                return out.json(&listed);
            }
            let use_of = |key: &ListedKey| if key.encrypts { "encrypts" } else { "reads" }.to_owned();
            out.table(&["key", "use"], listed.iter().map(|key| vec![key.key.clone(), use_of(key)]).collect())
        }
        EncryptionCommand::Remove { file, key } => {
            let id = key.parse().map_err(Failure::usage)?;
            let keys = read(file)?.without(id).map_err(|why| unfit(file, &why))?;
            files::replace(file, keys.to_file().as_bytes(), Mode::Private)?;
            note(format!("key {id} is removed: a node that still needs it refuses to start without it"));
            if out.json { out.json(&serde_json::json!({ "removed": id.to_string() })) } else { Ok(()) }
        }
    }
}

/// The keys of a file with a new one, which encrypts.
fn add(file: &Path) -> Result<EncryptionKeys, Failure> {
    let exists = file.try_exists().map_err(|why| Failure::file(file, "looked for", &why))?;
    if !exists {
        return Ok(EncryptionKeys::new(rand::random()));
    }
    let keys = read(file)?;
    let mut added = keys.adding(rand::random());
    for _ in 1..DRAWS {
        if !matches!(added, Err(BadKeys::Twice(_))) {
            break;
        }
        added = keys.adding(rand::random());
    }
    added.map_err(|why| unfit(file, &why))
}

fn read(file: &Path) -> Result<EncryptionKeys, Failure> {
    EncryptionKeys::from_file(&files::read(file)?).map_err(|why| unfit(file, &why))
}

fn unfit(file: &Path, why: &BadKeys) -> Failure {
    Failure::usage(format!("{}: {why}", file.display()))
}
