//! Deletions of tenants, buckets and plugins.
//!
//! A tenant or bucket is deleted in two steps. It is *disabled* at once: nobody reads or writes it, and it can be
//! restored. At the time that its record names it is *reaped*: every node makes the same next version of the record by
//! itself, and removes the objects that it holds. Its name is not used again, so an id is never used twice, and a
//! record of a node that was away long cannot bring anything back.
//!
//! A restoration is two versions ahead, so that it wins over a reaping that did not know of it.

use alloc::vec::Vec;

use rejoin_proto::catalog::{Deleted, Record, RecordBody, RecordKey};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, PluginDigest, TenantId};

use super::decide::absent;
use super::{CatalogEffect, Control, PendingSave};

/// How long the clock is trusted at most: then it is looked at again whether something is to be reaped.
const LOOK_AGAIN_US: u64 = 60_000_000;

impl Control {
    /// The record of a tenant that is deleted from now on, and reaped after so many milliseconds.
    pub(super) fn tenant_deleted(&self, stamp: Hlc, name: Name, after_ms: u64) -> Result<Record, ErrorReply> {
        let key = RecordKey::Tenant(TenantId::from_name(&name));
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::Tenant { .. }, .. }) => {
                let body = RecordBody::DeletedTenant { name, deleted: deleted(stamp, after_ms) };
                Ok(Record { key, version: version + 1, stamp, body })
            }
            Some(known) if matches!(known.body, RecordBody::DeletedTenant { .. }) => Ok(known.clone()),
            _ => Err(absent("tenant", &name)),
        }
    }

    /// The record of a tenant that is not deleted any more.
    pub(super) fn tenant_restored(&self, stamp: Hlc, name: Name) -> Result<Record, ErrorReply> {
        let key = RecordKey::Tenant(TenantId::from_name(&name));
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::DeletedTenant { deleted, .. }, .. }) => {
                restorable(deleted, stamp, "tenant", &name)?;
                Ok(Record { key, version: version + 2, stamp, body: RecordBody::Tenant { name } })
            }
            Some(known) if matches!(known.body, RecordBody::Tenant { .. }) => Ok(known.clone()),
            _ => Err(absent("tenant", &name)),
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
            Some(Record { version, body: RecordBody::Bucket { id, props }, .. }) => {
                let (id, props, deleted) = (*id, props.clone(), deleted(stamp, after_ms));
                let body = RecordBody::DeletedBucket { id, props, deleted };
                Ok(Record { key, version: version + 1, stamp, body })
            }
            Some(known) if matches!(known.body, RecordBody::DeletedBucket { .. }) => Ok(known.clone()),
            _ => Err(absent("bucket", &name)),
        }
    }

    /// As [`Control::tenant_restored`], of a bucket.
    pub(super) fn bucket_restored(&self, stamp: Hlc, (tenant, name): (TenantId, Name)) -> Result<Record, ErrorReply> {
        let key = RecordKey::Bucket(tenant, name.clone());
        match self.records.get(&key) {
            Some(Record { version, body: RecordBody::DeletedBucket { id, props, deleted }, .. }) => {
                restorable(deleted, stamp, "bucket", &name)?;
                let body = RecordBody::Bucket { id: *id, props: props.clone() };
                Ok(Record { key, version: version + 2, stamp, body })
            }
            Some(known) if matches!(known.body, RecordBody::Bucket { .. }) => Ok(known.clone()),
            _ => Err(absent("bucket", &name)),
        }
    }

    /// The record of a plugin that is deleted. No bucket of the tenant may use it, a deleted one neither while it can be
    /// restored.
    pub(super) fn plugin_deleted(
        &self,
        stamp: Hlc,
        (tenant, digest): (TenantId, PluginDigest),
    ) -> Result<Record, ErrorReply> {
        let key = RecordKey::Plugin(tenant, digest);
        let Some(Record { version, body: RecordBody::Plugin { .. }, .. }) = self.records.get(&key) else {
            return Err(ErrorReply::new(ErrorCode::NotFound, alloc::format!("there is no plugin {digest}")));
        };
        let user = self.records.values().find_map(|record| match (&record.key, &record.body) {
            (RecordKey::Bucket(of, name), RecordBody::Bucket { props, .. }) if *of == tenant => {
                props.plugin.filter(|active| active.plugin == digest).map(|_| name)
            }
            (RecordKey::Bucket(of, name), RecordBody::DeletedBucket { props, deleted, .. })
                if *of == tenant && !deleted.reaped =>
            {
                props.plugin.filter(|active| active.plugin == digest).map(|_| name)
            }
            _ => None,
        });
        if let Some(bucket) = user {
            let message = alloc::format!(
                "bucket {bucket} merges with plugin {digest}: give it another one with `rejoin bucket set {bucket} \
                 --plugin SHA256`, or delete it and wait until it is reaped"
            );
            return Err(ErrorReply::new(ErrorCode::BadRequest, message));
        }
        Ok(Record { key, version: version + 1, stamp, body: RecordBody::DeletedPlugin })
    }

    /// Reaps what is due, and sees when to look again.
    pub(super) fn reap(&mut self, now_us: u64, wall_ms: u64, effects: &mut Vec<CatalogEffect>) {
        let due: Vec<Record> = self.records.values().filter_map(|record| reaped(record, wall_ms)).collect();
        for record in &due {
            self.records.insert(record.key.clone(), record.clone());
        }
        let left =
            self.records.values().filter_map(|record| open_deletion(&record.body)).map(|open| open.reap_ms).min();
        self.reap_at_us = left.map(|reap_ms| {
            let wait_us = reap_ms.saturating_sub(wall_ms).saturating_mul(1_000);
            now_us.saturating_add(wait_us.clamp(1_000, LOOK_AGAIN_US))
        });
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
fn open_deletion(body: &RecordBody) -> Option<&Deleted> {
    match body {
        RecordBody::DeletedBucket { deleted, .. } | RecordBody::DeletedTenant { deleted, .. } => {
            Some(deleted).filter(|deleted| !deleted.reaped)
        }
        _ => None,
    }
}

/// The next version of a record that is due to be reaped, the same on every node.
fn reaped(record: &Record, wall_ms: u64) -> Option<Record> {
    // Rule: reaping waits for its time.
    let reap_ms = open_deletion(&record.body).filter(|open| open.reap_ms <= wall_ms)?.reap_ms;
    let mut next = record.clone();
    if let RecordBody::DeletedBucket { deleted, .. } | RecordBody::DeletedTenant { deleted, .. } = &mut next.body {
        deleted.reaped = true;
    }
    (next.version, next.stamp) = (record.version + 1, Hlc::from_ms(reap_ms));
    Some(next)
}

fn restorable(deleted: &Deleted, stamp: Hlc, kind: &str, name: &Name) -> Result<(), ErrorReply> {
    if deleted.reaped || deleted.reap_ms <= stamp.ms() {
        let message = alloc::format!("{kind} {name} is reaped: what it had is gone");
        return Err(ErrorReply::new(ErrorCode::NotFound, message));
    }
    Ok(())
}
