//! Deletions of tenants, buckets and plugins.
//!
//! A tenant, bucket or plugin is deleted in two steps. It is *disabled* at once: nobody uses it, and it can be
//! restored. At the time that its record names it is *reaped*: every node makes the same next version of the record by
//! itself, and removes the objects that it holds. Then its name can be used again. What is made under it has another
//! id, and a bucket also names the ids that were reaped before, so a node that was away long cannot bring anything
//! back.
//!
//! A restoration is two versions ahead, so that it wins over a reaping that did not know of it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use rejoin_proto::catalog::{BucketPast, BucketProps, Deleted, MAX_PAST, Record, RecordBody, RecordKey};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, PluginDigest, TenantId};

use super::decide::absent;
use super::{CatalogEffect, Control, PendingSave};

/// How long the clock is trusted at most: then it is looked at again whether something is to be reaped.
const LOOK_AGAIN_US: u64 = 60_000_000;

impl Control {
    /// The last tenant that had a name, and how many had it before.
    fn last_tenant(&self, name: &Name) -> Option<(u8, &Record)> {
        let of = |incarnation: u8| {
            let key = RecordKey::Tenant(TenantId::of_incarnation(name, incarnation));
            self.records.get(&key).map(|record| (incarnation, record))
        };
        (0..=MAX_PAST as u8).rev().find_map(of)
    }

    /// The id of a new tenant of that name.
    pub(super) fn free_tenant(&self, name: &Name) -> Result<TenantId, ErrorReply> {
        let incarnation = match self.last_tenant(name) {
            None => 0,
            Some((last, Record { body: RecordBody::DeletedTenant { deleted, .. }, .. })) => {
                next_of(usize::from(last), deleted, "tenant", name)?;
                last + 1
            }
            Some(_) => return Err(exists("tenant", name)),
        };
        Ok(TenantId::of_incarnation(name, incarnation))
    }

    /// The version of a new bucket's record, with the ids that had its name before.
    pub(super) fn free_bucket(&self, key: &RecordKey, name: &Name) -> Result<(u64, BucketPast), ErrorReply> {
        match self.records.get(key) {
            None => Ok((1, BucketPast::default())),
            Some(Record { version, body: RecordBody::DeletedBucket { id, past, deleted, .. }, .. }) => {
                next_of(past.buckets.len(), deleted, "bucket", name)?;
                let buckets = past.buckets.iter().chain([id]).copied().collect();
                // Past that of a restoration, which may have been made where the reaping was not known.
                Ok((version + 2, BucketPast { buckets, ..BucketPast::default() }))
            }
            Some(_) => Err(exists("bucket", name)),
        }
    }

    /// The record of a tenant that is deleted from now on, and reaped after so many milliseconds.
    pub(super) fn tenant_deleted(&self, stamp: Hlc, name: Name, after_ms: u64) -> Result<Record, ErrorReply> {
        match self.last_tenant(&name) {
            Some((_, Record { key, version, body: RecordBody::Tenant { .. }, .. })) => {
                let body = RecordBody::DeletedTenant { name, deleted: deleted(stamp, after_ms) };
                Ok(Record { key: key.clone(), version: version + 1, stamp, body })
            }
            Some((_, known)) if open_deletion(&known.body).is_some() => Ok(known.clone()),
            _ => Err(absent("tenant", &name)),
        }
    }

    /// The record of a tenant that is not deleted any more.
    pub(super) fn tenant_restored(&self, stamp: Hlc, name: Name) -> Result<Record, ErrorReply> {
        match self.last_tenant(&name) {
            Some((_, Record { key, version, body: RecordBody::DeletedTenant { deleted, .. }, .. })) => {
                restorable(deleted, stamp, "tenant", &name)?;
                Ok(Record { key: key.clone(), version: version + 2, stamp, body: RecordBody::Tenant { name } })
            }
            Some((_, known)) => Ok(known.clone()),
            None => Err(absent("tenant", &name)),
        }
    }

    /// As [`Control::tenant_deleted`], of a bucket.
    pub(super) fn bucket_deleted(
        &self,
        stamp: Hlc,
        (tenant, name): (TenantId, Name),
        after_ms: u64,
    ) -> Result<Record, ErrorReply> {
        let key = RecordKey::Bucket(tenant, name.clone());
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::Bucket { id, props, past }, .. }) => {
                let deleted = deleted(stamp, after_ms);
                let body = RecordBody::DeletedBucket { id: *id, props: props.clone(), past: past.clone(), deleted };
                Ok(Record { key, version: version + 1, stamp, body })
            }
            Some(known) if open_deletion(&known.body).is_some() => Ok(known.clone()),
            _ => Err(absent("bucket", &name)),
        }
    }

    /// As [`Control::tenant_restored`], of a bucket.
    pub(super) fn bucket_restored(&self, stamp: Hlc, (tenant, name): (TenantId, Name)) -> Result<Record, ErrorReply> {
        let key = RecordKey::Bucket(tenant, name.clone());
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::DeletedBucket { id, props, past, deleted }, .. }) => {
                restorable(deleted, stamp, "bucket", &name)?;
                let body = RecordBody::Bucket { id: *id, props: props.clone(), past: past.clone() };
                // Rule: restorations win over reapings. One that did not know of it is one version ahead.
                Ok(Record { key, version: version + 2, stamp, body })
            }
            Some(known) if matches!(known.body, RecordBody::Bucket { .. }) => Ok(known.clone()),
            _ => Err(absent("bucket", &name)),
        }
    }

    /// The record of a plugin that is deleted. No bucket of the tenant may use it, a deleted one neither while it can
    /// be restored.
    pub(super) fn plugin_deleted(
        &self,
        stamp: Hlc,
        (tenant, digest): (TenantId, PluginDigest),
        after_ms: u64,
    ) -> Result<Record, ErrorReply> {
        let key = RecordKey::Plugin(tenant, digest);
        let (version, plugin) = match self.records.get(&key) {
            Some(Record { version, body: RecordBody::Plugin(plugin), .. }) => (version, plugin),
            Some(known) if open_deletion(&known.body).is_some() => return Ok(known.clone()),
            _ => return Err(no_plugin(&digest)),
        };
        let user = self.records.values().find_map(|record| {
            match (&record.key, &record.body) {
                (RecordKey::Bucket(of, name), RecordBody::Bucket { props, .. }) if *of == tenant => Some((name, props)),
                (RecordKey::Bucket(of, name), RecordBody::DeletedBucket { props, deleted, .. })
                    if *of == tenant && !deleted.reaped =>
                {
                    Some((name, props))
                }
                _ => None,
            }
            // Rule: used plugins are not deleted.
            .filter(|(_, props)| props.plugins().any(|used| used == digest))
        });
        if let Some((bucket, props)) = user {
            return Err(ErrorReply::new(ErrorCode::BadRequest, in_use(bucket, props, &digest)));
        }
        let body = RecordBody::DeletedPlugin { plugin: plugin.clone(), deleted: deleted(stamp, after_ms) };
        Ok(Record { key, version: version + 1, stamp, body })
    }

    /// As [`Control::tenant_restored`], of a plugin.
    pub(super) fn plugin_restored(
        &self,
        stamp: Hlc,
        (tenant, digest): (TenantId, PluginDigest),
    ) -> Result<Record, ErrorReply> {
        let key = RecordKey::Plugin(tenant, digest);
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::DeletedPlugin { plugin, deleted }, .. }) => {
                restorable(deleted, stamp, "plugin", &digest)?;
                self.check_plugins(tenant, plugin)?;
                Ok(Record { key, version: version + 2, stamp, body: RecordBody::Plugin(plugin.clone()) })
            }
            Some(known) => Ok(known.clone()),
            None => Err(no_plugin(&digest)),
        }
    }

    /// When to look whether something is to be reaped; `None` while nothing is deleted.
    pub(super) fn next_reap_us(&self, now_us: u64, wall_ms: u64) -> Option<u64> {
        let open = self.records.values().filter_map(|record| open_deletion(&record.body));
        let reap_ms = open.map(|open| open.reap_ms).min()?;
        let wait_us = reap_ms.saturating_sub(wall_ms).saturating_mul(1_000);
        Some(now_us.saturating_add(wait_us.min(LOOK_AGAIN_US)))
    }

    /// Reaps what is due, and sees when to look again.
    pub(super) fn reap(&mut self, now_us: u64, wall_ms: u64, effects: &mut Vec<CatalogEffect>) {
        let due: Vec<Record> = self.records.values().filter_map(|record| reaped(record, wall_ms)).collect();
        for record in &due {
            self.records.insert(record.key.clone(), record.clone());
        }
        self.reap_at_us = self.next_reap_us(now_us, wall_ms);
        if due.is_empty() {
            return;
        }
        // The other nodes do the same by themselves. Those whose clocks are behind learn it from here.
        let mut behind = alloc::vec![CatalogEffect::Changed];
        let records = |_| PeerBody::CatalogRecords { number: 0, records: due.clone() };
        behind.extend(self.up.iter().map(|&peer| CatalogEffect::Send(peer, records(peer))));
        self.save(PendingSave::Learnt { effects: behind, taken: None }, effects);
    }
}

fn deleted(stamp: Hlc, after_ms: u64) -> Deleted {
    Deleted { reap_ms: stamp.ms().saturating_add(after_ms), reaped: false }
}

/// The deletion of a record that is to be reaped.
pub(super) fn open_deletion(body: &RecordBody) -> Option<&Deleted> {
    match body {
        RecordBody::DeletedBucket { deleted, .. }
        | RecordBody::DeletedTenant { deleted, .. }
        | RecordBody::DeletedPlugin { deleted, .. } => Some(deleted).filter(|deleted| !deleted.reaped),
        _ => None,
    }
}

/// The next version of a record that is due to be reaped, the same on every node.
fn reaped(record: &Record, wall_ms: u64) -> Option<Record> {
    // Rule: reaping waits for its time.
    let reap_ms = open_deletion(&record.body).filter(|open| open.reap_ms <= wall_ms)?.reap_ms;
    let mut next = record.clone();
    if let RecordBody::DeletedBucket { deleted, .. }
    | RecordBody::DeletedTenant { deleted, .. }
    | RecordBody::DeletedPlugin { deleted, .. } = &mut next.body
    {
        deleted.reaped = true;
    }
    (next.version, next.stamp) = (record.version + 1, Hlc::from_ms(reap_ms));
    Some(next)
}

/// Whether the name of something deleted can be used again.
fn next_of(past: usize, deleted: &Deleted, kind: &str, name: &Name) -> Result<(), ErrorReply> {
    let message = match deleted.reaped {
        false => alloc::format!(
            "{kind} {name} was deleted and is not reaped yet: `rejoin {kind} restore {name}` brings it back; \
             `rejoin {kind} list` shows when its name is free"
        ),
        true if past >= MAX_PAST => {
            alloc::format!("{kind} {name} was deleted {} times, which is the most: use another name", past + 1)
        }
        true => return Ok(()),
    };
    Err(ErrorReply::new(ErrorCode::Exists, message))
}

/// For what a bucket uses a plugin, and how that ends.
fn in_use(bucket: &Name, props: &BucketProps, digest: &PluginDigest) -> String {
    let is_it = |plugin: PluginDigest| plugin == *digest;
    if props.plugin.is_some_and(|active| is_it(active.plugin)) {
        return alloc::format!(
            "bucket {bucket} merges with plugin {digest}: give it another one with `rejoin bucket set {bucket} \
             --plugin SHA256`, or delete it and wait until it is reaped"
        );
    }
    if props.canary.is_some_and(|canary| is_it(canary.plugin.plugin)) {
        return alloc::format!(
            "plugin {digest} is the canary of bucket {bucket}: `rejoin plugin activate {bucket} --partitions 0` ends \
             that"
        );
    }
    alloc::format!("plugin {digest} is the shadow of bucket {bucket}: `rejoin plugin shadow {bucket} none` ends that")
}

fn exists(kind: &str, name: &Name) -> ErrorReply {
    ErrorReply::new(ErrorCode::Exists, alloc::format!("there is a {kind} {name} already"))
}

pub(super) fn no_plugin(digest: &PluginDigest) -> ErrorReply {
    ErrorReply::new(ErrorCode::NotFound, alloc::format!("there is no plugin {digest}"))
}

fn restorable(deleted: &Deleted, stamp: Hlc, kind: &str, name: &impl Display) -> Result<(), ErrorReply> {
    if deleted.reaped || deleted.reap_ms <= stamp.ms() {
        let message = alloc::format!("{kind} {name} is reaped: what it had is gone");
        return Err(ErrorReply::new(ErrorCode::NotFound, message));
    }
    Ok(())
}
