//! Keys whose merge has failed, and merges that break a law.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_proto::PluginDigest;
use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::conflict::{ConflictNote, LawViolation};

use super::{Admin, FromNodes, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

/// A key whose merge has failed at some node. All of its siblings are kept, and a read returns them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Conflict {
    /// The key.
    pub key: Bytes,
    /// The plugin that gave no result.
    pub plugin: PluginDigest,
    /// Why it failed at last, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub why: String,
    /// How many siblings it was given then.
    pub siblings: u32,
    /// When it failed first, in milliseconds since 1970.
    pub first_ms: u64,
    /// When it failed last.
    pub last_ms: u64,
    /// How often it failed, at all nodes.
    pub times: u64,
}

impl Conflict {
    fn add(&mut self, note: ConflictNote) {
        self.times += note.times;
        self.first_ms = self.first_ms.min(note.first_ms);
        if note.last_ms > self.last_ms {
            let (key, first_ms, times) = (note.key, self.first_ms, self.times);
            let ConflictNote { plugin, reason, why, siblings, last_ms, .. } = note;
            *self = Self { key, plugin, reason, why, siblings, first_ms, last_ms, times };
        }
    }
}

impl From<ConflictNote> for Conflict {
    fn from(note: ConflictNote) -> Self {
        let ConflictNote { key, plugin, reason, why, siblings, first_ms, last_ms, times } = note;
        Self { key, plugin, reason, why, siblings, first_ms, last_ms, times }
    }
}

impl Admin {
    /// The keys of a bucket whose merge has failed at a node that has answered, in their order. Each node remembers
    /// the last 256, since its start, until a merge of the key succeeds there. A key that a client has resolved since
    /// may still be among them: read it.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for conflict in client.admin().conflicts("cart").await?.answers {
    ///     println!("{:?}: {}", conflict.key, conflict.why);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without such a bucket, [`ErrorKind::Config`] for a malformed name; else as
    /// [`Admin::status`].
    pub async fn conflicts(&self, bucket: &str) -> Result<FromNodes<Vec<Conflict>>> {
        let request = RequestBody::Admin(AdminRequest::Conflicts { bucket: admin_name(bucket)? });
        self.engine.every(&request, self.timeout).await?.try_with(|replies| {
            let mut conflicts: BTreeMap<Bytes, Conflict> = BTreeMap::new();
            for (node, reply) in replies {
                let Reply::Conflicts(notes) = reply else { return Err(unexpected(node.as_str())) };
                for note in notes {
                    match conflicts.get_mut(&note.key) {
                        Some(known) => known.add(note),
                        None => drop(conflicts.insert(note.key.clone(), note.into())),
                    }
                }
            }
            Ok(conflicts.into_values().collect())
        })
    }

    /// The merges of a bucket that were found to break a law, the earliest first. Each node that has answered tells the
    /// last few that it has found since its start.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for violation in client.admin().law_violations("cart").await?.answers {
    ///     println!("{:?}: {} does not hold", violation.key, violation.equation);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::conflicts`].
    pub async fn law_violations(&self, bucket: &str) -> Result<FromNodes<Vec<LawViolation>>> {
        let request = RequestBody::Admin(AdminRequest::LawViolations { bucket: admin_name(bucket)? });
        self.engine.every(&request, self.timeout).await?.try_with(|replies| {
            let mut violations = Vec::new();
            for (node, reply) in replies {
                let Reply::Violations(found) = reply else { return Err(unexpected(node.as_str())) };
                violations.extend(found);
            }
            violations.sort_by_key(|violation| violation.at_ms);
            Ok(violations)
        })
    }
}
