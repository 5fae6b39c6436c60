//! Races: two changes of one record that did not know of each other. The record with the higher rank wins on every
//! node. Here is what becomes of the loser, and what its operator is told.
//!
//! A bucket that loses its name has an id of its own, so its objects are not read as the winner's, under another n. It
//! is kept under a name made of its id, so that no acknowledged write is lost.

use rejoin_proto::catalog::{PluginRecord, Record, RecordBody, RecordKey};
use rejoin_proto::{ErrorCode, ErrorReply, Name};

/// How many bytes of its old name a bucket keeps when it has lost it: with the id behind it, it is still a name.
const KEPT_NAME: usize = 40;

/// Whether these are two buckets or two tokens of one name, and not two versions of one.
pub(super) fn are_rivals(one: &Record, other: &Record) -> bool {
    match (&one.body, &other.body) {
        (
            RecordBody::Bucket { id, past, .. } | RecordBody::DeletedBucket { id, past, .. },
            RecordBody::Bucket { id: other, past: before, .. }
            | RecordBody::DeletedBucket { id: other, past: before, .. },
        ) => {
            // Rule: past buckets are no rivals. One that is reaped, and the one that has its name now, did not race.
            id != other && !before.buckets.contains(id) && !past.buckets.contains(other)
        }
        // A token that was withdrawn and is made again has another secret, and a later version.
        (RecordBody::Token { secret_hash, .. }, RecordBody::Token { secret_hash: rival, .. }) => {
            one.version == other.version && secret_hash != rival
        }
        _ => false,
    }
}

/// Whether taking this record for that one would change the copies that a bucket was made with. No node makes such a
/// record.
pub(super) fn renumbers(known: &Record, record: &Record) -> bool {
    match (&known.body, &record.body) {
        (RecordBody::Bucket { id, props, .. }, RecordBody::Bucket { id: other, props: new, .. }) => {
            id == other && (props.n, props.sloppy) != (new.n, new.sloppy)
        }
        _ => false,
    }
}

/// The record that keeps a bucket which has lost its name, and its name now: the same on every node that makes it.
pub(super) fn kept(loser: &Record) -> Option<(Name, Record)> {
    let RecordKey::Bucket(tenant, name) = &loser.key else { return None };
    let (RecordBody::Bucket { id, .. } | RecordBody::DeletedBucket { id, .. }) = &loser.body else { return None };
    let short = name.as_str().get(..KEPT_NAME).unwrap_or(name.as_str());
    let name = Name::new(alloc::format!("{short}.lost-{id}")).ok()?;
    let key = RecordKey::Bucket(*tenant, name.clone());
    Some((name, Record { key, ..loser.clone() }))
}

/// Whether a change has lost: what is known under its key now is neither what it made nor what was made of that later.
pub(super) fn has_lost(made: &Record, now: &Record) -> bool {
    let tie = now.version == made.version;
    match (&made.body, &now.body) {
        (RecordBody::Bucket { id, props, .. }, RecordBody::Bucket { id: other, props: new, .. }) => {
            id != other || (tie && props.incarnation() != new.incarnation())
        }
        (RecordBody::Token { secret_hash, revoked: false, .. }, RecordBody::Token { secret_hash: other, .. }) => {
            secret_hash != other
        }
        (RecordBody::Token { revoked: true, barred, .. }, RecordBody::Token { revoked, barred: now, .. }) => {
            tie && (!revoked || (*barred && !now))
        }
        // Who has pushed it first does not matter to whoever pushes it too.
        (RecordBody::Plugin(made), RecordBody::Plugin(now)) => {
            let content = |plugin: &PluginRecord| PluginRecord { provenance: None, ..plugin.clone() };
            tie && content(made) != content(now)
        }
        (made, now) => tie && made != now,
    }
}

/// The refusal of a change that has lost.
pub(super) fn refusal(made: &Record, now: &Record) -> ErrorReply {
    let message = match (&made.key, &now.body) {
        (RecordKey::Bucket(_, name), RecordBody::Bucket { props, .. }) if are_rivals(made, now) => {
            let kept = kept(made).map_or_else(|| name.clone(), |(kept, _)| kept);
            alloc::format!(
                "lost the race: another node has made a bucket {name} with other properties, and that one has the name \
                    now (n = {}). Yours holds what \
                 was written to it, and is kept as {}; `rejoin bucket show {name}` shows what the name means",
                props.n,
                kept
            )
        }
        (RecordKey::Bucket(_, name), _) => {
            alloc::format!(
                "lost the race: bucket {name} was changed at another node at the same time; look at it again, then set \
                    it"
            )
        }
        (RecordKey::Token(_, name), _) => alloc::format!(
            "lost the race: another node has made or changed token {name} at the same time, and this one is not taken \
                anywhere; use another name"
        ),
        (RecordKey::Plugin(..), RecordBody::Plugin(_)) if made.version > 1 => {
            "lost the race: the plugin's record was changed at another node at the same time; look at it again".into()
        }
        (RecordKey::Plugin(..), RecordBody::Plugin(plugin)) => {
            let name = &plugin.name;
            alloc::format!(
                "lost the race: the component is stored, but another node has pushed it under the name {name}, which \
                    it has now"
            )
        }
        _ => "lost the race: another node has changed this record at the same time; look at it again".into(),
    };
    ErrorReply::new(ErrorCode::VersionConflict, message)
}
